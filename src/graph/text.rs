//! A text file as blocks of whole lines, plain, gzip or zstd, for several threads at once.
//!
//! Who wants work takes the next [`Block`]: reading and decompressing happen one at a time, in the order of the file, and
//! what is done with the lines happens side by side. What a file is packed with shows in its first bytes, not in its name.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::GraphError;
use crate::unpack::{self, Unpacker};

pub use crate::unpack::Packing;

/// The longest line that is read, in bytes. Edges take some dozens; the row of a hub in a METIS file may take megabytes.
/// Without a bound a file that has no line ends would fill memory.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Bytes that a block asks for: few calls, and still in a processor's cache when it is parsed.
const BLOCK_BYTES: usize = 512 << 10;

/// Bytes behind a block's text that are line ends, so that who parses may look at some bytes at a time.
pub const PADDING: usize = 16;

/// A text that was opened.
pub struct Text {
    name: String,
    packing: Packing,
    file_bytes: Arc<AtomicU64>,
    reader: Mutex<Reader>,
}

struct Reader {
    inner: Unpacker<Counted>,
    /// The beginning of a line whose end has not been read.
    carry: Vec<u8>,
    /// The number of the next block.
    next: usize,
    over: bool,
    /// Why nothing more can be read, once the lines before that are taken.
    failed: Option<io::Error>,
}

/// Some whole lines of a text. The last line of all may lack its end.
#[derive(Debug, Default)]
pub struct Block {
    /// Its place in the text, from 0.
    pub number: usize,
    bytes: Vec<u8>,
    length: usize,
}

impl Block {
    /// The lines, with their ends.
    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The lines, and [`PADDING`] line ends behind them.
    pub fn padded(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why there is no further block, though the text has not ended.
#[derive(Debug)]
pub enum BlockError {
    /// The file cannot be read, or not be unpacked.
    Read(io::Error),
    /// A line is longer than [`LINE_BYTES_MAX`].
    LongLine,
    /// The text is of two bytes a character.
    Utf16,
}

impl Text {
    /// Opens the file at `path`, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// [`GraphError::Read`], [`GraphError::Directory`], and [`GraphError::Form`] for archives that are not read.
    pub fn open(path: &Path) -> Result<Text, GraphError> {
        if path.as_os_str() == "-" {
            return Text::new("standard input", Box::new(io::stdin()));
        }
        let name = path.display().to_string();
        if path.is_dir() {
            return Err(GraphError::Directory { name });
        }
        match File::open(path) {
            Ok(file) => Text::new(&name, Box::new(file)),
            Err(cause) => Err(GraphError::Read { name, cause }),
        }
    }

    /// The text of a reader, which messages call `name`.
    ///
    /// # Errors
    ///
    /// As for [`Text::open`].
    pub fn new(name: &str, reader: Box<dyn Read + Send>) -> Result<Text, GraphError> {
        let failed = |cause| GraphError::Read {
            name: name.to_owned(),
            cause,
        };
        let file_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            inner: reader,
            bytes: Arc::clone(&file_bytes),
        };
        let inner = Unpacker::new(counted).map_err(failed)?;
        if let Some(form) = unpack::foreign_packing(inner.head()) {
            return Err(GraphError::Form {
                name: name.to_owned(),
                form,
                advice: "unpack it first, or pack it with gzip or zstd",
            });
        }
        let packing = inner.packing();
        Ok(Text {
            name: name.to_owned(),
            packing,
            file_bytes,
            reader: Mutex::new(Reader {
                inner,
                carry: Vec::new(),
                next: 0,
                over: false,
                failed: None,
            }),
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is packed with.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Bytes of the file that were read so far, as it lies there: packed, if it is.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Bytes behind the packed data that were ignored. Known once all blocks were taken.
    pub fn ignored_bytes(&self) -> u64 {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.inner.ignored_bytes()
    }

    /// Puts the next lines into `block`. False when there are none; then, or after an error, there never will be.
    ///
    /// # Errors
    ///
    /// [`BlockError`]; `block` has the number that the next block would have had.
    pub fn next(&self, block: &mut Block) -> Result<bool, BlockError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = reader.fill(block);
        reader.over |= !matches!(outcome, Ok(true));
        outcome
    }

    /// There is nothing more to read, whatever is left.
    pub fn stop(&self) {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.over = true;
        reader.failed = None;
    }

    /// The error that an unpacking failure after line `line` is.
    pub fn failure(&self, error: BlockError, line: u64) -> GraphError {
        let (name, packing) = (self.name.clone(), self.packing.name());
        match error {
            BlockError::Utf16 => GraphError::Form {
                name,
                form: "UTF-16 text",
                advice: "convert it to UTF-8 first, for example by iconv -f UTF-16 -t UTF-8",
            },
            BlockError::LongLine => GraphError::Line {
                name,
                line: line + 1,
                problem: format!(
                    "the line is longer than {LINE_BYTES_MAX} bytes; this is not a graph"
                ),
            },
            BlockError::Read(cause) if self.packing == Packing::Plain => {
                GraphError::Read { name, cause }
            }
            BlockError::Read(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
                GraphError::Truncated {
                    name,
                    packing,
                    line,
                }
            }
            BlockError::Read(cause) if unpack::is_damage(&cause) => GraphError::Damaged {
                name,
                packing,
                line,
                cause,
            },
            BlockError::Read(cause) => GraphError::Read { name, cause },
        }
    }
}

impl Reader {
    fn fill(&mut self, block: &mut Block) -> Result<bool, BlockError> {
        block.number = self.next;
        let bytes = &mut block.bytes;
        bytes.clear();
        if let Some(cause) = self.failed.take() {
            return Err(BlockError::Read(cause));
        }
        if self.over {
            return Ok(false);
        }
        self.next += 1;
        bytes.append(&mut self.carry);
        let end = loop {
            let begun = bytes.len();
            let asked = BLOCK_BYTES.max(begun) as u64;
            let read = self.inner.by_ref().take(asked).read_to_end(bytes);
            match read {
                Ok(count) if (count as u64) < asked => {
                    self.over = true;
                    break bytes.len();
                }
                Ok(_) => {}
                Err(cause) => {
                    // The lines before it are good, and of no use; but they are counted.
                    self.over = true;
                    self.failed = Some(cause);
                    bytes.truncate(
                        bytes
                            .iter()
                            .rposition(|&byte| byte == b'\n')
                            .map_or(0, |at| at + 1),
                    );
                    break bytes.len();
                }
            }
            match bytes[begun..].iter().rposition(|&byte| byte == b'\n') {
                Some(at) => break begun + at + 1,
                None if bytes.len() > LINE_BYTES_MAX => return Err(BlockError::LongLine),
                None => {}
            }
        };
        self.carry.extend_from_slice(&bytes[end..]);
        bytes.truncate(end);
        block.length = end;
        bytes.extend_from_slice(&[b'\n'; PADDING]);
        if block.number == 0 && is_utf16(&bytes[..end]) {
            return Err(BlockError::Utf16);
        }
        if block.number == 0 && bytes[..end].starts_with(b"\xef\xbb\xbf") {
            // A byte order mark.
            bytes.drain(..3);
            block.length -= 3;
        }
        match self.failed.take() {
            Some(cause) if block.length == 0 => Err(BlockError::Read(cause)),
            failed => {
                self.failed = failed;
                Ok(block.length > 0)
            }
        }
    }
}

/// Whether a text begins as UTF-16 does: with its byte order mark, or with two Latin letters or digits.
fn is_utf16(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match text {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] => is_letter(a) && is_letter(b),
        _ => false,
    }
}

/// A reader that says how far it got, below the decompressor.
struct Counted {
    inner: Box<dyn Read + Send>,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Cursor;

    fn blocks(text: Vec<u8>) -> Vec<Vec<u8>> {
        let text = Text::new("t", Box::new(Cursor::new(text))).unwrap();
        let mut blocks = Vec::new();
        let mut block = Block::default();
        while text.next(&mut block).unwrap() {
            assert_eq!(block.number, blocks.len());
            assert!(block.padded().ends_with(&[b'\n'; PADDING]));
            blocks.push(block.text().to_vec());
        }
        assert!(!text.next(&mut block).unwrap());
        blocks
    }

    #[test]
    fn blocks_are_the_text_cut_at_line_ends() {
        let line = b"123456789 123456789\n";
        let mut text = line.repeat(100_000);
        text.extend_from_slice(b"7 8");
        let blocks = blocks(text.clone());
        assert!(blocks.len() > 3);
        let (last, others) = blocks.split_last().unwrap();
        assert!(others.iter().all(|block| block.ends_with(b"\n")));
        assert!(last.ends_with(b"7 8"));
        assert_eq!(blocks.concat(), text);
    }

    #[test]
    fn a_line_longer_than_a_block_is_whole_and_a_byte_order_mark_is_gone() {
        let mut text = b"\xef\xbb\xbfa\n".to_vec();
        text.extend(vec![b'1'; 3 * BLOCK_BYTES]);
        text.extend_from_slice(b"\nb\n");
        let blocks = blocks(text.clone());
        assert_eq!(blocks.concat(), text[3..]);
        assert!(self::blocks(Vec::new()).is_empty());
    }

    #[test]
    fn utf_16_is_refused_with_the_advice_to_convert_it() {
        let little: Vec<u8> = "1 2\n3 4\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let big: Vec<u8> = "1 2\n3 4\n"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let marked = [&[0xff, 0xfe][..], &little].concat();
        for bytes in [little, big, marked] {
            let text = Text::new("t", Box::new(Cursor::new(bytes))).unwrap();
            let error = text.next(&mut Block::default()).unwrap_err();
            let message = text.failure(error, 0).to_string();
            assert!(
                message.contains("UTF-16") && message.contains("iconv"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_text_without_line_ends_is_refused_before_it_fills_memory() {
        let text = Text::new("t", Box::new(io::repeat(b'1'))).unwrap();
        let error = text.next(&mut Block::default()).unwrap_err();
        assert_eq!(
            text.failure(error, 0).to_string(),
            "t:1: the line is longer than 67108864 bytes; this is not a graph"
        );
        assert!(!text.next(&mut Block::default()).unwrap());
    }
}
