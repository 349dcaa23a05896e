//! A stream of bytes that may be packed with gzip or zstd, unpacked while it is read.
//!
//! The packing shows in the first bytes, not in a name. A packed stream may consist of several members (frames, for zstd),
//! which are one text. Zero bytes between members and behind the last one are padding, as tapes, block devices and some servers
//! add it. Other bytes behind the last gzip member are ignored and counted, as gunzip ignores them with a warning; behind a zstd
//! frame they are an error, as for the zstd tool.
//!
//! The module belongs to no layer: it knows neither graphs nor stores.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Bytes that are asked of the stream below at once.
const READ_LEN: usize = 64 << 10;

/// The longest beginning of a stream that is looked at, in bytes: xz and zstd need the most.
pub const MAGIC_LEN: usize = 6;

/// The first bytes of a gzip member: the magic number, and deflate, the only method that there is.
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];

/// What a stream is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// Nothing.
    #[default]
    Plain,
    /// gzip, of one member or several.
    Gzip,
    /// Zstandard, of one frame or several.
    Zstd,
}

impl Packing {
    /// Its name, as users know it.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Plain => "plain",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }

    /// The packing that the first bytes of a stream show; [`MAGIC_LEN`] of them are enough.
    pub fn of(head: &[u8]) -> Packing {
        match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            // A frame, or one that is to be skipped, with which pzstd begins.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// The name of an archive or packing that is recognised and cannot be unpacked here.
pub fn foreign_packing(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 3] = [
        (b"PK\x03\x04", "zip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
    ];
    let found = known.iter().find(|(magic, _)| head.starts_with(magic));
    found.map(|&(_, name)| name)
}

/// A stream that unpacks what it reads.
///
/// `read` fails with [`io::ErrorKind::UnexpectedEof`] when packed data end early, and with `InvalidData`, `InvalidInput` or
/// `Other` when they are damaged ([`is_damage`]); other kinds come from the stream below.
pub struct Unpacker<R: Read> {
    packing: Packing,
    head: Vec<u8>,
    stage: Stage<R>,
    ignored_bytes: u64,
}

enum Stage<R: Read> {
    Plain(Source<R>),
    Gzip(Box<GzDecoder<Source<R>>>),
    Zstd(Box<zstd::Decoder<'static, Source<R>>>),
    /// Behind the last member, or behind an error.
    Over,
}

impl<R: Read> Unpacker<R> {
    /// Looks at the first bytes of a stream.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn new(reader: R) -> io::Result<Unpacker<R>> {
        let mut source = Source::new(reader);
        let head = source.peek(MAGIC_LEN)?.to_vec();
        let packing = Packing::of(&head);
        let stage = match packing {
            Packing::Plain => Stage::Plain(source),
            Packing::Gzip => Stage::gzip(source),
            Packing::Zstd => Stage::zstd(source)?,
        };
        Ok(Unpacker {
            packing,
            head,
            stage,
            ignored_bytes: 0,
        })
    }

    /// What the stream is packed with.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The first bytes of the stream as it came, at most [`MAGIC_LEN`]; for [`foreign_packing`].
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Bytes behind the last member that were ignored, zero padding apart. Known once the stream has ended.
    pub fn ignored_bytes(&self) -> u64 {
        self.ignored_bytes
    }

    /// Goes from the end of a member to the next one, or to the end of the stream.
    fn next_member(&mut self) -> io::Result<()> {
        let mut source = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Gzip(decoder) => decoder.into_inner(),
            Stage::Zstd(decoder) => decoder.finish(),
            plain => {
                self.stage = plain;
                return Ok(());
            }
        };
        source.skip_zeros()?;
        let next = source.peek(MAGIC_LEN)?;
        if next.is_empty() {
            return Ok(());
        }
        self.stage = match (self.packing, Packing::of(next)) {
            (Packing::Zstd, Packing::Zstd) => Stage::zstd(source)?,
            (Packing::Zstd, _) => return Err(damage("bytes behind a frame are no frame")),
            (_, Packing::Gzip) => Stage::gzip(source),
            // The rest of a text would go with such a member, and gunzip's warning would be the only trace.
            _ if is_almost_gzip(next) => return Err(damage("the header of a member is damaged")),
            _ => {
                self.ignored_bytes = source.count_rest()?;
                Stage::Over
            }
        };
        Ok(())
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match &mut self.stage {
                Stage::Plain(source) => return source.read(into),
                Stage::Gzip(decoder) => decoder.read(into)?,
                Stage::Zstd(decoder) => decoder.read(into)?,
                Stage::Over => return Ok(0),
            };
            match read {
                0 => self.next_member()?,
                _ => return Ok(read),
            }
        }
    }
}

impl<R: Read> Stage<R> {
    fn gzip(source: Source<R>) -> Stage<R> {
        Stage::Gzip(Box::new(GzDecoder::new(source)))
    }

    fn zstd(source: Source<R>) -> io::Result<Stage<R>> {
        let decoder = zstd::Decoder::with_buffer(source)?.single_frame();
        Ok(Stage::Zstd(Box::new(decoder)))
    }
}

/// Whether an error of [`Unpacker`] means that packed data contradict their own structure or checksum.
pub fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other
    )
}

fn damage(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Whether bytes would begin a gzip member if one byte were another: or if nothing but their first byte were left.
fn is_almost_gzip(bytes: &[u8]) -> bool {
    let pairs = bytes.iter().zip(&GZIP_MAGIC);
    bytes == &GZIP_MAGIC[..1] || pairs.filter(|(byte, magic)| byte == magic).count() == 2
}

/// A buffered reader that can look some bytes ahead, which [`io::BufReader`] cannot when few come at a time.
struct Source<R> {
    inner: R,
    /// [`READ_LEN`] bytes, of which those from `at` to `end` were read and not taken.
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<R: Read> Source<R> {
    fn new(inner: R) -> Source<R> {
        Source {
            inner,
            buffer: vec![0; READ_LEN].into(),
            at: 0,
            end: 0,
        }
    }

    /// The next bytes, without taking them: `length` or fewer at the end of the stream.
    fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        while self.end - self.at < length {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            if self.read_more()? == 0 {
                break;
            }
        }
        Ok(&self.buffer[self.at..self.end.min(self.at + length)])
    }

    /// Reads once, behind what is there.
    fn read_more(&mut self) -> io::Result<usize> {
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
            }
        }
    }

    fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.fill_buf()?;
            let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            let is_end = zeros < bytes.len() || bytes.is_empty();
            self.consume(zeros);
            if is_end {
                return Ok(());
            }
        }
    }

    /// Reads to the end, so that the other side of a pipe can finish.
    fn count_rest(&mut self) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                return Ok(count);
            }
            count += length as u64;
            self.consume(length);
        }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            // Plain text is read straight into the caller's memory.
            return self.inner.read(into);
        }
        let mut left = &self.buffer[self.at..self.end];
        let read = left.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.at = self.end.min(self.at + count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    /// Gives some bytes at a time, as a slow pipe does.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = into.len().min(self.1).min(self.0.len());
            let (now, later) = self.0.split_at(length);
            into[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    /// The text, the packing, and how many bytes were ignored; the same for bytes that come one by one.
    fn unpack(bytes: &[u8]) -> io::Result<(Vec<u8>, Packing, u64)> {
        let read = |step: usize| -> io::Result<(Vec<u8>, Packing, u64)> {
            let mut unpacker = Unpacker::new(Slow(bytes, step))?;
            let mut text = Vec::new();
            unpacker.read_to_end(&mut text)?;
            assert_eq!(unpacker.read(&mut [0; 9])?, 0);
            Ok((text, unpacker.packing(), unpacker.ignored_bytes()))
        };
        let (whole, single) = (read(1 << 20), read(1));
        assert_eq!(whole.as_ref().ok(), single.as_ref().ok());
        whole
    }

    #[test]
    fn every_packing_gives_the_text() {
        let long: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        for text in [&b""[..], b"x", b"1 2\n3 4\n", &long[..]] {
            assert_eq!(unpack(text).unwrap(), (text.into(), Packing::Plain, 0));
            let gzip = gzip(text);
            assert_eq!(unpack(&gzip).unwrap(), (text.into(), Packing::Gzip, 0));
            let zstd = zstd(text);
            assert_eq!(unpack(&zstd).unwrap(), (text.into(), Packing::Zstd, 0));
        }
    }

    #[test]
    fn members_are_one_text_also_with_padding_between_them() {
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstd] {
            for zeros in [0, 1, 2, 511, 200_000] {
                let padding = vec![0; zeros];
                let whole = [
                    pack(b"1 "),
                    padding.clone(),
                    pack(b""),
                    pack(b"2\n"),
                    padding,
                ];
                let (text, _, ignored) = unpack(&whole.concat()).unwrap();
                assert_eq!((&text[..], ignored), (&b"1 2\n"[..], 0), "{zeros}");
            }
        }
        // A frame that is to be skipped, as pzstd and seekable files have them.
        let skipped = [
            &[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..],
            &zstd(b"1 2"),
        ]
        .concat();
        assert_eq!(unpack(&skipped).unwrap().0, b"1 2");
    }

    #[test]
    fn trailing_bytes_are_ignored_and_counted_for_gzip_and_refused_for_zstd() {
        let trailing = |pack: fn(&[u8]) -> Vec<u8>, rest: &[u8]| {
            unpack(&[&pack(b"1 2\n")[..], rest].concat()).map(|(text, _, ignored)| {
                assert_eq!(text, b"1 2\n");
                ignored
            })
        };
        assert_eq!(trailing(gzip, b"garbage").unwrap(), 7);
        assert_eq!(trailing(gzip, b"\0\0\0garbage\0").unwrap(), 8);
        assert_eq!(trailing(gzip, &[b'x'; 300_000]).unwrap(), 300_000);
        assert_eq!(
            trailing(gzip, &zstd(b"3")).unwrap(),
            zstd(b"3").len() as u64
        );
        for rest in [&b"garbage"[..], b"x", &gzip(b"3")[..]] {
            assert!(is_damage(&trailing(zstd, rest).unwrap_err()));
        }
    }

    #[test]
    fn a_member_whose_header_is_damaged_is_no_trailing_garbage() {
        for place in 0..3 {
            let mut second = gzip(b"3 4\n");
            second[place] ^= 0x10;
            let error = unpack(&[gzip(b"1 2\n"), second].concat()).unwrap_err();
            assert!(is_damage(&error), "{place}: {error}");
        }
        assert!(unpack(&[gzip(b"1 2\n"), vec![0x1f]].concat()).is_err());
    }

    #[test]
    fn data_that_end_early_or_are_damaged_are_told_apart() {
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstd] {
            let packed = pack(&b"1 2\n3 4\n".repeat(1000));
            for length in [4, packed.len() / 2, packed.len() - 1] {
                let error = unpack(&packed[..length]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
            }
            let two = [&pack(b"1 2\n")[..], &packed[..packed.len() - 1]].concat();
            let error = unpack(&two).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        let mut sum = gzip(b"1 2\n");
        let trailer = sum.len() - 6;
        sum[trailer] ^= 1;
        assert!(is_damage(&unpack(&sum).unwrap_err()));
    }

    #[test]
    fn foreign_packings_are_named() {
        assert_eq!(foreign_packing(b"PK\x03\x04rest"), Some("zip"));
        assert_eq!(foreign_packing(b"BZh91AY"), Some("bzip2"));
        assert_eq!(foreign_packing(b"\xfd7zXZ\x00"), Some("xz"));
        assert_eq!(foreign_packing(b"1 2\n"), None);
    }
}
