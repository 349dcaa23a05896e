//! Files and objects, divided for those who read them. What is packed is one piece: only from its beginning can it be unpacked.

use super::find::ItemsError;
use super::folder::read_error;
use super::read::packing_of;
use super::{Extent, Item};
use crate::store::Store;
use crate::store::sealed::SealedKey;
use crate::unpack::{MAGIC_LEN, Packing};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use tokio::task::JoinSet;

/// Objects up to this length are not looked at before they are read: whoever reads one reads all of it, and finds out then
/// whether it is packed. Small objects are many, and a request for each would cost as much as reading it.
const SMALL_OBJECT_LEN: u64 = 4 << 20;

/// First bytes that are looked at: enough for all that is known, bzip2 included.
const HEAD_LEN: u64 = 16;

const _: () = assert!(MAGIC_LEN as u64 <= HEAD_LEN);

/// Bytes that are read at once where the end of a line is looked for.
const LOOK_LEN: u64 = 64 << 10;
const LOOK_MAX: u64 = 8 << 20;

/// Objects, or places in them, that are looked at at the same time.
const LOOKS_AT_ONCE: usize = 32;

/// How files and objects are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cutting {
    /// Not at all; their bytes are given as they lie.
    Whole,
    /// Into pieces of about so many bytes that end with a line, each with a line at least.
    Lines(u64),
    /// Into pieces of about so many bytes that end with a line; in some no line may begin.
    Pieces(u64),
    /// By those who read them, who share the lines.
    Shares,
    /// By those who read them, who share the records, which are so many bytes long.
    Records(u32),
}

/// Divides whole files, or whole objects of `store`.
///
/// # Errors
/// When they cannot be looked at, or are in a form that is not read.
pub(super) async fn cut(
    items: Vec<Item>,
    cutting: Cutting,
    store: Option<&Store>,
) -> Result<Vec<Item>, ItemsError> {
    if cutting == Cutting::Whole {
        return Ok(items);
    }
    let mut cut: Vec<Vec<Item>> = vec![Vec::new(); items.len()];
    let mut looking = JoinSet::new();
    let mut items = items.into_iter().enumerate();
    loop {
        while looking.len() < LOOKS_AT_ONCE
            && let Some((place, item)) = items.next()
        {
            let store = store.cloned();
            looking.spawn(async move {
                let place_of = |parts: Vec<Option<Extent>>| {
                    let parts = parts.into_iter();
                    let items = parts.map(|part| item.clone().with_part(part));
                    (place, items.collect::<Vec<_>>())
                };
                parts_of(&item, cutting, store.as_ref()).await.map(place_of)
            });
        }
        let Some(found) = looking.join_next().await else {
            return Ok(cut.into_iter().flatten().collect());
        };
        let (place, items) = found.expect("looking does not panic")?;
        cut[place] = items;
    }
}

/// The parts of one file or object that are items.
async fn parts_of(
    item: &Item,
    cutting: Cutting,
    store: Option<&Store>,
) -> Result<Vec<Option<Extent>>, ItemsError> {
    let length = item.length().unwrap_or(0);
    let piece = match cutting {
        Cutting::Whole => return Ok(vec![None]),
        Cutting::Records(_) => {
            refuse_packed_records(item, store).await?;
            return Ok(vec![None]);
        }
        Cutting::Lines(piece) | Cutting::Pieces(piece) => Some(piece.max(1)),
        Cutting::Shares => None,
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let is_object = matches!(item, Item::Object { .. } | Item::Sealed { .. });
    if is_object && length <= piece.unwrap_or(SMALL_OBJECT_LEN) {
        return Ok(vec![Some(Extent::ALL_LINES)]);
    }
    let head = look(item, store, 0..HEAD_LEN.min(length)).await?;
    if packing_of(&head, &item.to_string()).map_err(ItemsError::Text)? != Packing::Plain {
        return Ok(vec![Some(Extent::ALL_LINES)]);
    }
    let Some(piece) = piece else {
        return Ok(vec![None]);
    };
    let parts: Vec<Option<Extent>> = pieces(length, Some(piece)).collect();
    match cutting {
        Cutting::Lines(_) => with_lines(item, parts, store).await,
        _ => Ok(parts),
    }
}

/// Those pieces in which a line begins.
async fn with_lines(
    item: &Item,
    parts: Vec<Option<Extent>>,
    store: Option<&Store>,
) -> Result<Vec<Option<Extent>>, ItemsError> {
    let mut keep = vec![false; parts.len()];
    let mut looking = JoinSet::new();
    let mut next = 0;
    loop {
        while looking.len() < LOOKS_AT_ONCE
            && let Some(part) = parts.get(next)
        {
            let (place, part, item, store) = (next, *part, item.clone(), store.cloned());
            looking.spawn(async move {
                let begins = match part {
                    // The first byte begins a line.
                    None | Some(Extent { from: 0, .. }) => true,
                    Some(part) => line_begins(&item, part, store.as_ref()).await?,
                };
                Ok::<_, ItemsError>((place, begins))
            });
            next += 1;
        }
        let Some(found) = looking.join_next().await else {
            let kept = parts.into_iter().zip(keep);
            return Ok(kept
                .filter(|(_, keep)| *keep)
                .map(|(part, _)| part)
                .collect());
        };
        let (place, begins) = found.expect("looking does not panic")?;
        keep[place] = begins;
    }
}

/// True if a line begins in a range of bytes: if one ends ahead of one of them.
async fn line_begins(item: &Item, part: Extent, store: Option<&Store>) -> Result<bool, ItemsError> {
    let (mut at, end) = (part.from - 1, part.to - 1);
    let mut step = LOOK_LEN;
    while at < end {
        let to = end.min(at + step);
        let bytes = look(item, store, at..to).await?;
        if memchr::memchr(b'\n', &bytes).is_some() {
            return Ok(true);
        }
        if bytes.is_empty() {
            // It was cut short; whoever reads it says so.
            return Ok(true);
        }
        at += bytes.len() as u64;
        step = (step * 2).min(LOOK_MAX);
    }
    Ok(false)
}

/// Bytes of a file or an object.
async fn look(
    item: &Item,
    store: Option<&Store>,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, ItemsError> {
    match (item, store) {
        (Item::File { path, .. }, _) => {
            let read = |path: &Path| -> io::Result<Vec<u8>> {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(range.start))?;
                let mut bytes = Vec::new();
                file.take(range.end - range.start).read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            let path = Path::new(path);
            read(path).map_err(|error| read_error(path, error))
        }
        (Item::Object { key, etag, .. }, Some(store)) => {
            let version = store.get_version(key, range, etag.as_deref()).await?;
            Ok(version.bytes.into())
        }
        (Item::Sealed { object, .. }, Some(store)) => {
            let SealedKey { key, seal } = object;
            let mut bytes = Vec::new();
            store.get_sealed_range(key, seal, range, &mut bytes).await?;
            Ok(bytes)
        }
        _ => Ok(Vec::new()),
    }
}

/// Records may begin with any bytes, so that a packed file shows in its name and its first bytes together.
async fn refuse_packed_records(item: &Item, store: Option<&Store>) -> Result<(), ItemsError> {
    let name = item.to_string();
    let lower = name.to_lowercase();
    let ends = [".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".zip"];
    if !ends.iter().any(|end| lower.ends_with(end)) {
        return Ok(());
    }
    let length = item.length().unwrap_or(0);
    let head = look(item, store, 0..HEAD_LEN.min(length)).await?;
    match packing_of(&head, &name).map_err(ItemsError::Text)? {
        Packing::Plain => Ok(()),
        packing => Err(ItemsError::Text(format!(
            "{name} is packed with {}; records are read as they lie: unpack it first",
            packing.name()
        ))),
    }
}

/// The ranges that cut so many bytes, or none if they are not cut.
pub fn pieces(length: u64, split: Option<u64>) -> impl Iterator<Item = Option<Extent>> {
    let split = split
        .filter(|split| length > *split)
        .unwrap_or(u64::MAX)
        .max(1);
    let whole = split == u64::MAX;
    let count = if whole { 1 } else { length.div_ceil(split) };
    (0..count).map(move |number| {
        (!whole).then(|| Extent {
            from: number * split,
            to: ((number + 1) * split).min(length),
            lines: true,
            unpack: false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::find::file_items;
    use super::super::read::Input;
    use super::*;

    #[tokio::test]
    async fn each_piece_of_lines_has_one_and_together_they_are_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        for text in [
            &b"x"[..],
            b"\n",
            b"a\nb\nc",
            b"\n\n\n\n\n\n\n",
            b"a line that is longer than some pieces are\nend\n",
            b"\na line that is longer than some pieces are and has no end",
        ] {
            std::fs::write(&path, text).unwrap();
            for split in 1..text.len() as u64 + 2 {
                let items = file_items(&path, Cutting::Lines(split)).await.unwrap();
                let mut all = Vec::new();
                for item in &items {
                    let mut piece = Vec::new();
                    let input = Input::of_file(item).unwrap();
                    input.write_to(&mut piece).unwrap().unwrap();
                    assert!(!piece.is_empty(), "{text:?} by {split}: {item}");
                    all.extend_from_slice(&piece);
                }
                assert_eq!(all, text, "split {split}");
            }
        }
        std::fs::write(&path, b"").unwrap();
        assert!(
            file_items(&path, Cutting::Lines(5))
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_packed_text_is_one_piece_and_comes_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let text = b"some line\n".repeat(1000);
        std::fs::write(&path, zstd::encode_all(&text[..], 1).unwrap()).unwrap();
        for cutting in [Cutting::Lines(10), Cutting::Pieces(10), Cutting::Shares] {
            let items = file_items(&path, cutting).await.unwrap();
            assert_eq!(items.len(), 1);
            assert_eq!(items[0].part(), Some(Extent::ALL_LINES));
            let mut piece = Vec::new();
            let input = Input::of_file(&items[0]).unwrap();
            input.write_to(&mut piece).unwrap().unwrap();
            assert_eq!(piece, text);
        }
        let whole = file_items(&path, Cutting::Whole).await.unwrap();
        let mut piece = Vec::new();
        let input = Input::of_file(&whole[0]).unwrap();
        input.write_to(&mut piece).unwrap().unwrap();
        assert_eq!(piece, std::fs::read(&path).unwrap());
        let packed = folder.path().join("records.gz");
        std::fs::write(&packed, b"\x1f\x8b\x08rest").unwrap();
        let what = file_items(&packed, Cutting::Records(100))
            .await
            .unwrap_err();
        assert!(what.to_string().contains("unpack it first"), "{what}");
    }
}
