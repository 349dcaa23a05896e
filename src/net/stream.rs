//! A pack's socket, for threads: plain, or with TLS over it.
//!
//! Reading and writing go on side by side, each by one thread at a time. The session is locked only to open and to seal, never
//! while the socket is waited for.

use crate::net::outgoing::Line;
use crate::net::tls::{RECORD_MAX, Room, Session, TlsError};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Bytes that one read from a socket with TLS asks for at most.
const SEALED_LEN: usize = 256 * 1024;

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// What is there.
    AtOnce,
    /// Waits for a short time until something is there.
    Waiting,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// So many bytes; perhaps none yet, of a record that has come in part.
    Bytes {
        /// How many.
        count: usize,
        /// There may be more.
        more: bool,
    },
    /// Nothing is there.
    Nothing,
    /// The peer has closed.
    End,
}

/// See the module.
pub struct Stream {
    socket: TcpStream,
    session: Option<Mutex<Session>>,
}

/// What a reader of a stream with TLS keeps: room for what has not been opened. Empty for a plain one.
#[derive(Default)]
pub struct Sealed(Vec<u8>);

impl Stream {
    /// A connected socket, whose reads wait for `patience` at most; and the session over it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(
        socket: TcpStream,
        session: Option<Session>,
        patience: Duration,
    ) -> io::Result<Stream> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Stream {
            socket,
            session: session.map(Mutex::new),
        })
    }

    /// The socket under another descriptor, to be watched by a runtime. Reads do not wait from then on.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn watched(&self) -> io::Result<TcpStream> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Reads once into `room`, which has place for two records at least.
    ///
    /// # Errors
    /// When the socket failed, or what came is not what the peer sealed.
    pub fn read(&self, room: &mut [u8], sealed: &mut Sealed, how: Reading) -> io::Result<Came> {
        let Some(session) = &self.session else {
            let asked = room.len();
            return came(self.receive(room, how), |count| Ok((count, count == asked)));
        };
        let sealed = &mut sealed.0;
        if sealed.is_empty() {
            // So it takes the pages alone that are read into.
            *sealed = vec![0; SEALED_LEN];
        }
        // A record that has come in part may open with it: all that is opened has room, so that nothing is left which no
        // socket tells of.
        let asked = sealed.len().min(room.len() - RECORD_MAX);
        came(self.receive(&mut sealed[..asked], how), |count| {
            let mut session = locked(session);
            let mut room = Room::new(room, &mut []);
            if let Err(error) = session.open(&sealed[..count], &mut room) {
                // The peer is told, if it can be.
                let _ = session.send(&mut AtOnce(&self.socket));
                return Err(broken(error));
            }
            Ok((room.filled(), count == asked || session.is_over()))
        })
    }

    fn receive(&self, room: &mut [u8], how: Reading) -> io::Result<usize> {
        match how {
            Reading::AtOnce => recv(&self.socket, room, RecvFlags::DONTWAIT)
                .map(|(count, _)| count)
                .map_err(io::Error::from),
            Reading::Waiting => (&self.socket).read(room),
        }
    }

    /// Shuts the socket: whoever reads or writes it ends.
    pub fn shut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Shuts the sending side, after what was sent.
    pub fn shut_sending(&self) {
        if let Some(session) = &self.session {
            let mut session = locked(session);
            session.close();
            // Who has left has nothing more to say: this is a courtesy.
            let _ = session.send(&mut AtOnce(&self.socket));
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Line for Stream {
    fn give(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(session) = &self.session else {
            return give(&self.socket, pieces);
        };
        let mut session = locked(session);
        if !session.send(&mut AtOnce(&self.socket))? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = session.seal(pieces)?;
        session.send(&mut AtOnce(&self.socket))?;
        Ok(count)
    }

    fn is_clear(&self) -> io::Result<bool> {
        match &self.session {
            Some(session) => locked(session).send(&mut AtOnce(&self.socket)),
            None => Ok(true),
        }
    }
}

/// Sends without waiting, although reads wait.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        give(self.0, &[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        give(self.0, pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends as much as a socket takes now.
pub(crate) fn give(socket: impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(
        socket,
        pieces,
        &mut SendAncillaryBuffer::default(),
        flags,
    )?)
}

/// A session's error, where sockets' errors are told.
pub(crate) fn broken(error: TlsError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// What a read of the socket is, once `open` has said how many bytes it stands for and whether there may be more.
fn came(
    read: io::Result<usize>,
    open: impl FnOnce(usize) -> io::Result<(usize, bool)>,
) -> io::Result<Came> {
    match read {
        Ok(0) => Ok(Came::End),
        Ok(count) => open(count).map(|(count, more)| Came::Bytes { count, more }),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
            ) =>
        {
            Ok(Came::Nothing)
        }
        Err(error) => Err(error),
    }
}

fn locked(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().expect("no holder of this lock panics")
}
