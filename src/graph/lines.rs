//! The lines of a text file, plain or gzip, one at a time as bytes, with a bound on their length.
//!
//! [`open`] recognises gzip by its first bytes, not by the file's name. [`Lines`] works over any reader, counts
//! lines for messages, and strips what is no content: a byte order mark, blanks at both ends, the line's end.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use super::GraphError;

/// The longest line that is read, in bytes. An edge takes at most some dozens; more is not an edge list, and
/// without a bound a file that has no line ends would fill memory.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes asked of the operating system, and of the decompressor, at a time: few calls, and still in the cache.
const CHUNK_BYTES: usize = 256 << 10;

/// A text file that was opened and recognised.
pub struct Text {
    /// The plain text.
    pub reader: Box<dyn BufRead>,
    /// Whether the file holds gzip data.
    pub gzip: bool,
    /// Bytes of the file read so far (compressed bytes, if it is gzip).
    pub bytes: Rc<Cell<u64>>,
}

/// Opens a text file, plain or gzip.
///
/// # Errors
///
/// [`GraphError::Read`], [`GraphError::Directory`], and [`GraphError::Form`] for archives that are not read.
pub fn open(path: &Path) -> Result<Text, GraphError> {
    let name = path.display().to_string();
    let failed = |cause| GraphError::Read {
        name: path.display().to_string(),
        cause,
    };
    if path.is_dir() {
        return Err(GraphError::Directory { name });
    }
    let bytes = Rc::new(Cell::new(0));
    let mut file = Counted {
        inner: File::open(path).map_err(failed)?,
        bytes: Rc::clone(&bytes),
    };
    let mut head = Vec::new();
    file.by_ref()
        .take(6)
        .read_to_end(&mut head)
        .map_err(failed)?;
    if let Some(form) = archive(&head) {
        let advice = "unpack it first, or pack it with gzip";
        return Err(GraphError::Form { name, form, advice });
    }
    let gzip = head.starts_with(&[0x1f, 0x8b]);
    let whole = BufReader::with_capacity(CHUNK_BYTES, Cursor::new(head).chain(file));
    let reader: Box<dyn BufRead> = if gzip {
        Box::new(BufReader::with_capacity(
            CHUNK_BYTES,
            MultiGzDecoder::new(whole),
        ))
    } else {
        Box::new(whole)
    };
    Ok(Text {
        reader,
        gzip,
        bytes,
    })
}

/// The lines of a reader.
pub struct Lines<R> {
    reader: R,
    name: String,
    gzip: bool,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `reader`, which messages call `name`. `gzip` says that its errors are those of a decompressor.
    pub fn new(reader: R, name: &str, gzip: bool) -> Lines<R> {
        Lines {
            reader,
            name: name.to_owned(),
            gzip,
            number: 0,
            buffer: Vec::new(),
        }
    }

    /// The number of the line that [`Lines::next_line`] gave last, from 1; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What messages call this file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next line without blanks around it and without its end, or `None` after the last.
    ///
    /// # Errors
    ///
    /// [`GraphError::Read`], [`GraphError::GzipTruncated`], [`GraphError::GzipDamaged`], and [`GraphError::Line`]
    /// for a line above [`LINE_BYTES_MAX`].
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, GraphError> {
        self.buffer.clear();
        let bound = LINE_BYTES_MAX as u64 + 1;
        let read = self
            .reader
            .by_ref()
            .take(bound)
            .read_until(b'\n', &mut self.buffer);
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => self.number += 1,
            Err(cause) => return Err(self.failed(cause)),
        }
        if self.buffer.len() > LINE_BYTES_MAX {
            return Err(GraphError::Line {
                name: self.name.clone(),
                line: self.number,
                problem: format!(
                    "the line is longer than {LINE_BYTES_MAX} bytes; this is not an edge list"
                ),
            });
        }
        let mut line = self.buffer.as_slice();
        if self.number == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        Ok(Some(trimmed(line)))
    }

    fn failed(&self, cause: io::Error) -> GraphError {
        let name = self.name.clone();
        let line = self.number;
        match cause.kind() {
            io::ErrorKind::UnexpectedEof if self.gzip => GraphError::GzipTruncated { name, line },
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput if self.gzip => {
                GraphError::GzipDamaged { name, line, cause }
            }
            _ => GraphError::Read { name, cause },
        }
    }
}

/// Whether a byte may stand between columns any number of times.
pub(crate) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trimmed(mut line: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = line
        && is_blank(*first)
    {
        line = rest;
    }
    while let [rest @ .., last] = line
        && (is_blank(*last) || *last == b'\n' || *last == b'\r')
    {
        line = rest;
    }
    line
}

fn archive(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 4] = [
        (b"PK\x03\x04", "zip"),
        (b"BZh", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\x00", "xz"),
    ];
    known
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|&(_, form)| form)
}

/// A reader that says how far it got, below the decompressor.
struct Counted {
    inner: File,
    bytes: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_blanks_and_byte_order_mark() {
        let mut lines = Lines::new(&b"\xef\xbb\xbf a b\t\r\n\r\n\tc"[..], "t", false);
        assert_eq!(lines.next_line().unwrap(), Some(&b"a b"[..]));
        assert_eq!(lines.next_line().unwrap(), Some(&b""[..]));
        assert_eq!(lines.next_line().unwrap(), Some(&b"c"[..]));
        assert_eq!(lines.number(), 3);
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_memory() {
        let endless = BufReader::new(io::repeat(b'1'));
        let error = Lines::new(endless, "t", false)
            .next_line()
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "t:1: the line is longer than 1048576 bytes; this is not an edge list"
        );
    }
}
