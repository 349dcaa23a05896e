//! Sealed objects: what a job writes to its store and reads again, in blocks with a checksum each. `docs/FORMAT.md`
//! specifies the bytes.
//!
//! A writer draws a random nonce for each object. Every checksum covers the nonce and the block's number, and the reader
//! has the nonce from the writer, in a [`Seal`] that travels beside the store. So a reader notices changed bytes, blocks
//! that changed places, and another object under the same key, even an older one of the same job.

use super::{Store, StoreError, Writer};
use crate::random;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The first bytes of a sealed object.
pub const SEALED_MAGIC: [u8; 8] = *b"LSWSEAL\0";

/// The version of the format that is written and read.
pub const SEALED_VERSION: u32 = 1;

/// Payload bytes of each block but the last. A reader of many spilled runs holds two blocks of each run, so a block is
/// short; its head is 0.012 % of it.
pub const SEALED_BLOCK_LEN: u64 = 64 << 10;

/// Bytes of the header.
pub const SEALED_HEADER_LEN: u64 = 32;

/// Bytes ahead of each block's payload: its length and its checksum.
const HEAD_LEN: u64 = 8;

/// Bytes of the end mark: the head of an empty block, and the length of the whole payload.
const END_LEN: u64 = HEAD_LEN + 8;

/// Nonces are below this: a seal travels in the event of a job, and some readers of JSON have no longer integers.
const NONCE_LIMIT: u64 = 1 << 53;

/// Bytes that are written or read at once, about.
const PIECE_LEN: usize = 1 << 20;

/// What the reader of a sealed object must know from its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seal {
    /// A random number, drawn for this object alone.
    pub nonce: u64,
    /// Bytes of the payload.
    pub bytes: u64,
}

/// A sealed object as its writer names it to its reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The object's key.
    pub key: String,
    /// The object's seal.
    pub seal: Seal,
}

impl Seal {
    /// The number of blocks.
    fn blocks(&self) -> u64 {
        self.bytes.div_ceil(SEALED_BLOCK_LEN)
    }

    /// Bytes of the object, with its header, the blocks' heads and the end mark.
    pub fn object_bytes(&self) -> u64 {
        SEALED_HEADER_LEN + self.bytes + self.blocks() * HEAD_LEN + END_LEN
    }

    /// The bytes of the object that hold these blocks. The first block comes with the header, the last one with the end
    /// mark.
    fn extent(&self, blocks: &Range<u64>) -> Range<u64> {
        let place = |block: u64| SEALED_HEADER_LEN + block * (HEAD_LEN + SEALED_BLOCK_LEN);
        let from = match blocks.start {
            0 => 0,
            block => place(block),
        };
        let to = match blocks.end == self.blocks() {
            true => self.object_bytes(),
            false => place(blocks.end),
        };
        from..to
    }

    /// Appends the payload of these blocks to `payload`, once their checksums are right. `bytes` are those of
    /// [`extent`](Self::extent).
    ///
    /// # Errors
    ///
    /// What is wrong with the first bytes that are not the writer's. `payload` ends before them.
    fn open(&self, blocks: &Range<u64>, bytes: &[u8], payload: &mut Vec<u8>) -> Result<(), String> {
        let mut rest = bytes;
        let mut take = |length: u64, what: &str| {
            let taken = rest.split_at_checked(length as usize);
            let (taken, left) = taken.ok_or_else(|| format!("it ends within {what}"))?;
            rest = left;
            Ok::<&[u8], String>(taken)
        };
        if blocks.start == 0 {
            check_header(take(SEALED_HEADER_LEN, "its header")?, self.nonce)?;
        }
        for number in blocks.clone() {
            let from = number * SEALED_BLOCK_LEN;
            let length = SEALED_BLOCK_LEN.min(self.bytes - from);
            let name = format!("block {number} (bytes {from}..{})", from + length);
            let head = take(HEAD_LEN, &name)?;
            let block = take(length, &name)?;
            if head != block_head(self.nonce, number, block) {
                return Err(format!("{name} does not fit its checksum"));
            }
            payload.extend_from_slice(block);
        }
        if blocks.end == self.blocks() {
            let end = take(END_LEN, "its end mark")?;
            if end != end_mark(self.nonce, blocks.end, self.bytes) {
                return Err("its end mark is not where the writer put it".into());
            }
        }
        match rest.is_empty() {
            true => Ok(()),
            false => Err(format!("{} bytes follow its end mark", rest.len())),
        }
    }
}

fn header(nonce: u64) -> [u8; SEALED_HEADER_LEN as usize] {
    let mut header = [0; SEALED_HEADER_LEN as usize];
    header[..8].copy_from_slice(&SEALED_MAGIC);
    header[8..12].copy_from_slice(&SEALED_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(SEALED_BLOCK_LEN as u32).to_le_bytes());
    header[16..24].copy_from_slice(&nonce.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn check_header(found: &[u8], nonce: u64) -> Result<(), String> {
    if found == header(nonce) {
        return Ok(());
    }
    let is_whole = crc32c::crc32c(&found[..28]).to_le_bytes() == found[28..];
    Err(match (found[..8] == SEALED_MAGIC, is_whole) {
        (true, true) if found[16..24] != nonce.to_le_bytes() => {
            "it is another object than the one that the job wrote under this key".into()
        }
        (true, true) => "its version is not the one that this release writes".into(),
        _ => "its header does not fit its checksum".into(),
    })
}

/// A block's length and checksum. The checksum begins with what the block is, so that it fits in no other place.
fn block_head(nonce: u64, number: u64, payload: &[u8]) -> [u8; HEAD_LEN as usize] {
    let length = (payload.len() as u32).to_le_bytes();
    let mut place = [0; 20];
    place[..8].copy_from_slice(&nonce.to_le_bytes());
    place[8..16].copy_from_slice(&number.to_le_bytes());
    place[16..].copy_from_slice(&length);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), payload);
    let mut head = [0; HEAD_LEN as usize];
    head[..4].copy_from_slice(&length);
    head[4..].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// What follows the last of so many blocks. Its head has the length 0, which no block has, over the payload's length.
fn end_mark(nonce: u64, blocks: u64, bytes: u64) -> [u8; END_LEN as usize] {
    let total = bytes.to_le_bytes();
    let mut mark = [0; END_LEN as usize];
    mark[..HEAD_LEN as usize].copy_from_slice(&block_head(nonce, blocks, &total));
    mark[..4].fill(0);
    mark[HEAD_LEN as usize..].copy_from_slice(&total);
    mark
}

/// Turns a payload into the bytes of a sealed object, piece by piece.
pub struct Sealer {
    nonce: u64,
    /// Blocks that are complete.
    blocks: u64,
    bytes: u64,
    sealed: Vec<u8>,
    /// Where the head of the block that is not complete lies in `sealed`, if there is such a block.
    open: Option<usize>,
}

impl Default for Sealer {
    fn default() -> Sealer {
        Sealer::new()
    }
}

impl Sealer {
    /// Begins an object.
    pub fn new() -> Sealer {
        Sealer::with_nonce(u64::from_le_bytes(random::bytes()) % NONCE_LIMIT)
    }

    fn with_nonce(nonce: u64) -> Sealer {
        Sealer {
            nonce,
            blocks: 0,
            bytes: 0,
            sealed: header(nonce).to_vec(),
            open: None,
        }
    }

    /// Adds bytes to the payload.
    pub fn push(&mut self, mut payload: &[u8]) {
        self.bytes += payload.len() as u64;
        while !payload.is_empty() {
            let open = *self.open.get_or_insert_with(|| {
                let at = self.sealed.len();
                self.sealed.extend_from_slice(&[0; HEAD_LEN as usize]);
                at
            });
            let end = open + (HEAD_LEN + SEALED_BLOCK_LEN) as usize;
            let (now, later) = payload.split_at(payload.len().min(end - self.sealed.len()));
            self.sealed.extend_from_slice(now);
            payload = later;
            if self.sealed.len() == end {
                self.close();
            }
        }
    }

    /// Completes the open block.
    fn close(&mut self) {
        if let Some(at) = self.open.take() {
            let payload = at + HEAD_LEN as usize;
            let head = block_head(self.nonce, self.blocks, &self.sealed[payload..]);
            self.sealed[at..payload].copy_from_slice(&head);
            self.blocks += 1;
        }
    }

    /// The object's bytes that are complete and were not given, once they are worth a write.
    pub fn piece(&mut self) -> Option<Bytes> {
        let complete = self.open.unwrap_or(self.sealed.len());
        if complete < PIECE_LEN {
            return None;
        }
        let mut later = Vec::with_capacity(PIECE_LEN + 2 * SEALED_BLOCK_LEN as usize);
        later.extend_from_slice(&self.sealed[complete..]);
        self.open = self.open.map(|_| 0);
        self.sealed.truncate(complete);
        Some(std::mem::replace(&mut self.sealed, later).into())
    }

    /// The last bytes of the object, and its seal.
    pub fn finish(mut self) -> (Bytes, Seal) {
        self.close();
        let mark = end_mark(self.nonce, self.blocks, self.bytes);
        self.sealed.extend_from_slice(&mark);
        let seal = Seal {
            nonce: self.nonce,
            bytes: self.bytes,
        };
        (self.sealed.into(), seal)
    }
}

/// A sealed object that is being written; see [`Writer`].
pub struct SealedWriter {
    /// None after an error.
    writer: Option<Writer>,
    sealer: Sealer,
}

impl SealedWriter {
    /// Adds bytes to the payload.
    ///
    /// # Errors
    ///
    /// Those of the backend; what was written is given up, and the writer must not be used again.
    pub async fn push(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        // Short pieces of a long payload, so that little more than one piece is held.
        for part in payload.chunks(PIECE_LEN) {
            if let Some(piece) = self.add(part) {
                self.write(piece).await?;
            }
        }
        Ok(())
    }

    /// Adds bytes to the payload; gives what must be [written](Self::write) before more is added. Most calls only copy.
    pub(crate) fn add(&mut self, payload: &[u8]) -> Option<Bytes> {
        self.sealer.push(payload);
        self.sealer.piece()
    }

    /// Writes what [`add`](Self::add) gave.
    pub(crate) async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        let writer = self.writer.take().expect("no write has failed before");
        self.writer = Some(writer.write(piece).await?);
        Ok(())
    }

    /// Gives up what was written.
    pub async fn abort(self) {
        if let Some(writer) = self.writer {
            writer.abort().await;
        }
    }

    /// Gives the object its name.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn finish(self) -> Result<Seal, StoreError> {
        let (last, seal) = self.sealer.finish();
        let writer = self.writer.expect("no write has failed before");
        writer.write(last).await?.finish().await?;
        Ok(seal)
    }
}

impl Store {
    /// Begins to write a sealed object piece by piece.
    ///
    /// # Errors
    ///
    /// As [`Store::writer`].
    pub fn sealed_writer(&self, key: &str) -> Result<SealedWriter, StoreError> {
        Ok(SealedWriter {
            writer: Some(self.writer(key)?),
            sealer: Sealer::new(),
        })
    }

    /// Writes a sealed object, replacing the one that may be there.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    pub async fn put_sealed(&self, key: &str, payload: &[u8]) -> Result<SealedKey, StoreError> {
        let mut sealer = Sealer::new();
        sealer.push(payload);
        let (bytes, seal) = sealer.finish();
        self.put(key, bytes).await?;
        Ok(SealedKey {
            key: key.into(),
            seal,
        })
    }

    /// Reads the whole payload of a sealed object.
    ///
    /// # Errors
    ///
    /// As [`Store::get`], and [`StoreError::Damaged`] when it is not what the writer wrote.
    pub async fn get_sealed(&self, sealed: &SealedKey) -> Result<Bytes, StoreError> {
        let SealedKey { key, seal } = sealed;
        let object = self.get_of_length(key, seal.object_bytes()).await;
        let object = object.map_err(|error| damage(error, seal))?;
        let mut payload = Vec::with_capacity((seal.bytes as usize).min(object.len()));
        let opened = seal.open(&(0..seal.blocks()), &object, &mut payload);
        opened.map_err(|problem| self.damaged(key, problem))?;
        Ok(payload.into())
    }

    /// Appends the bytes `range` of a sealed object's payload to `payload`. Whole blocks are read and checked.
    ///
    /// # Errors
    ///
    /// As [`Store::get_range`], and [`StoreError::Damaged`] when a block is not what the writer wrote.
    ///
    /// # Panics
    ///
    /// When the range is not within the payload.
    pub async fn get_sealed_range(
        &self,
        key: &str,
        seal: &Seal,
        range: Range<u64>,
        payload: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        assert!(range.start <= range.end && range.end <= seal.bytes);
        let blocks = range.start / SEALED_BLOCK_LEN..range.end.div_ceil(SEALED_BLOCK_LEN);
        let object = self.get_range(key, seal.extent(&blocks)).await;
        let object = object.map_err(|error| damage(error, seal))?;
        let begin = payload.len();
        let opened = seal.open(&blocks, &object, payload);
        opened.map_err(|problem| self.damaged(key, problem))?;
        let ahead = range.start - blocks.start * SEALED_BLOCK_LEN;
        payload.truncate(begin + (ahead + range.end - range.start) as usize);
        payload.drain(begin..begin + ahead as usize);
        Ok(())
    }

    fn damaged(&self, key: &str, problem: String) -> StoreError {
        StoreError::Damaged {
            url: self.object_url(key),
            problem,
        }
    }
}

/// An object that ends too early is damaged as one with other bytes is.
fn damage(error: StoreError, seal: &Seal) -> StoreError {
    match error {
        StoreError::ShortObject { url, .. } => StoreError::Damaged {
            url,
            problem: format!(
                "it has fewer than the {} bytes that the job wrote",
                seal.object_bytes()
            ),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsSettings;
    use proptest::prelude::*;

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn sealed(nonce: u64, payload: &[u8], step: usize) -> (Vec<u8>, Seal) {
        let mut sealer = Sealer::with_nonce(nonce);
        let mut object = Vec::new();
        for piece in payload.chunks(step) {
            sealer.push(piece);
            object.extend(sealer.piece().into_iter().flatten());
        }
        let (last, seal) = sealer.finish();
        object.extend_from_slice(&last);
        (object, seal)
    }

    fn open(seal: &Seal, object: &[u8]) -> Result<Vec<u8>, String> {
        let mut payload = Vec::new();
        seal.open(&(0..seal.blocks()), object, &mut payload)?;
        Ok(payload)
    }

    const BLOCK: usize = SEALED_BLOCK_LEN as usize;

    #[test]
    fn a_payload_of_any_length_comes_back_however_it_was_pushed() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 40 * BLOCK + 7] {
            let payload = payload(length);
            let (object, seal) = sealed(7, &payload, length.max(1));
            assert_eq!(object.len() as u64, seal.object_bytes());
            assert_eq!(seal.bytes, length as u64);
            assert!(open(&seal, &object).unwrap() == payload);
            for step in [1 + length / 7, BLOCK, 1000] {
                assert!(sealed(7, &payload, step).0 == object, "steps of {step}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed_wherever_it_is(
            length in 0..2 * BLOCK + 100, at: prop::sample::Index, bit in 0..8u32,
        ) {
            let (mut object, seal) = sealed(9, &payload(length), 4096);
            let at = at.index(object.len());
            object[at] ^= 1 << bit;
            prop_assert!(open(&seal, &object).is_err(), "byte {}", at);
        }

        #[test]
        fn a_cut_is_noticed_wherever_it_is(length in 0..2 * BLOCK + 100, at: prop::sample::Index) {
            let (object, seal) = sealed(9, &payload(length), 4096);
            let cut = &object[..at.index(object.len())];
            prop_assert!(open(&seal, cut).is_err(), "cut at {}", cut.len());
        }
    }

    #[test]
    fn every_bit_of_a_short_object_and_every_cut_counts() {
        let (object, seal) = sealed(3, b"short", 5);
        for at in 0..object.len() {
            assert!(open(&seal, &object[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut changed = object.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&seal, &changed).is_err(), "bit {bit} of byte {at}");
            }
        }
        let longer = [&object[..], b"x"].concat();
        assert!(open(&seal, &longer).unwrap_err().contains("1 bytes follow"));
    }

    #[test]
    fn blocks_fit_in_their_own_place_and_in_their_own_object_only() {
        let payload = vec![5; 4 * BLOCK];
        let (object, seal) = sealed(1, &payload, BLOCK);
        let (other, _) = sealed(2, &payload, BLOCK);
        let step = BLOCK + HEAD_LEN as usize;
        let place = |block: usize| {
            let at = SEALED_HEADER_LEN as usize + block * step;
            at..at + step
        };
        let mut swapped = object.clone();
        swapped[place(1)].copy_from_slice(&object[place(2)]);
        swapped[place(2)].copy_from_slice(&object[place(1)]);
        let problem = open(&seal, &swapped).unwrap_err();
        assert!(
            problem.contains("block 1 (bytes 65536..131072)"),
            "{problem}"
        );
        let mut mixed = object.clone();
        mixed[place(3)].copy_from_slice(&other[place(3)]);
        assert!(open(&seal, &mixed).unwrap_err().contains("block 3"));
        assert!(open(&seal, &other).unwrap_err().contains("another object"));
        // One block less, with the end mark of another object of this length.
        let fewer = [&object[..place(3).start], &object[place(3).end..]].concat();
        assert!(open(&seal, &fewer).is_err());
    }

    #[tokio::test]
    async fn a_store_gives_the_payload_or_says_what_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().to_str().unwrap();
        let store = Store::open(location, &AwsSettings::default())
            .await
            .unwrap();
        let payload = payload(5 * BLOCK + 100);
        let mut writer = store.sealed_writer("long").unwrap();
        for piece in payload.chunks(10_000) {
            writer.push(piece).await.unwrap();
        }
        let seal = writer.finish().await.unwrap();
        let key = || SealedKey {
            key: "long".into(),
            seal,
        };
        assert!(store.get_sealed(&key()).await.unwrap() == payload);
        let whole = payload.len() as u64;
        for range in [
            0..0,
            0..1,
            65_535..65_537,
            100..whole,
            whole - 1..whole,
            whole..whole,
        ] {
            let mut read = b"ahead".to_vec();
            let asked = range.start..range.end;
            store
                .get_sealed_range("long", &seal, asked, &mut read)
                .await
                .unwrap();
            assert_eq!(read[..5], *b"ahead");
            assert!(read[5..] == payload[range.start as usize..range.end as usize]);
        }
        let path = folder.path().join("long");
        let object = std::fs::read(&path).unwrap();
        let mut flipped = object.clone();
        flipped[3 * BLOCK] ^= 1;
        let (older, _) = sealed(99, &payload, 1000);
        for (changed, words) in [
            (&flipped[..], "block 2"),
            (&object[..object.len() - 1], "fewer than the"),
            (&b""[..], "fewer than the"),
            (&older[..], "another object"),
        ] {
            std::fs::write(&path, changed).unwrap();
            let mut read = Vec::new();
            let range = store.get_sealed_range("long", &seal, 0..whole, &mut read);
            let range = range.await.unwrap_err().to_string();
            assert!(
                range.contains("long is damaged: ") && range.contains(words),
                "{range}"
            );
            let error = store.get_sealed(&key()).await.unwrap_err().to_string();
            assert!(error.contains("long is damaged: "), "{error}");
        }
        // What is not damaged is read.
        std::fs::write(&path, &flipped).unwrap();
        let mut read = Vec::new();
        let end = 2 * SEALED_BLOCK_LEN;
        let before = store.get_sealed_range("long", &seal, 10..end, &mut read);
        before.await.unwrap();
        assert!(read == payload[10..2 * BLOCK]);
    }
}
