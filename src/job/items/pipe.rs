//! Input that can be read once: standard input, a FIFO, a shell's `<(...)`. Jobs that read a text in pieces have it copied into
//! their store first.

use super::Item;
use super::find::ItemsError;
use crate::store::Store;
use crate::store::sealed::SealedKey;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Bytes that are read, and written to the store, at once.
const PIECE_LEN: usize = 1 << 20;

/// Pieces that wait for the store.
const PIECES_AHEAD: usize = 4;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipe {
    /// Where it is; standard input if that is none.
    pub path: Option<PathBuf>,
}

/// True for names of descriptors that this process has and another has not: `-`, `/dev/stdin`, `/dev/fd/63`.
pub fn is_own_descriptor(what: &str) -> bool {
    let folders = ["/dev/fd", "/proc/self/fd"];
    what == "-"
        || what == "/dev/stdin"
        || folders
            .iter()
            .any(|folder| Path::new(what).starts_with(folder))
}

impl Pipe {
    /// Its name in messages.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "standard input".into(),
        }
    }

    /// Opens it; waits for a writer where there is none.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match &self.path {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(io::stdin()),
        })
    }

    /// Copies all of it into a sealed object, which is the item then. When this is dropped before its end, the thread that reads may
    /// stay until the pipe gives something, and writes nothing more.
    ///
    /// # Errors
    /// When it cannot be read, or the store does not take it.
    pub async fn store(self, store: &Store, key: &str) -> Result<Item, ItemsError> {
        let (sender, mut pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
        let name = self.name();
        tokio::task::spawn_blocking(move || {
            let mut reader = match self.open() {
                Ok(reader) => reader,
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            loop {
                let mut piece = Vec::new();
                let read = reader
                    .by_ref()
                    .take(PIECE_LEN as u64)
                    .read_to_end(&mut piece);
                let is_over = !matches!(read, Ok(1..));
                let next = read.map(|_| piece.into());
                if matches!(next, Ok(ref piece) if Bytes::is_empty(piece))
                    || sender.blocking_send(next).is_err()
                    || is_over
                {
                    return;
                }
            }
        });
        // The pieces are read one by one, maybe long after: each is checked then.
        let mut writer = store.sealed_writer(key)?;
        while let Some(piece) = pieces.recv().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(source) => {
                    writer.abort().await;
                    return Err(ItemsError::Read { path: name, source });
                }
            };
            writer.push(&piece).await?;
        }
        Ok(Item::Sealed {
            store: store.url().into(),
            object: SealedKey {
                key: key.into(),
                seal: writer.finish().await?,
            },
            part: None,
        })
    }
}
