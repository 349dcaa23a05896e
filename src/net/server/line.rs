//! A connection's socket in the switch: plain, or with TLS over it. It never waits.

use crate::net::stream::{Came, broken};
use crate::net::tls::{Room, Session, TlsError};
use mio::net::TcpStream;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

/// Bytes of a handshake and a hello, at most: who has not proved itself gets no more memory than for these.
const UNPROVED_MAX: usize = 8 * 1024;

/// See the module.
pub struct Line {
    socket: TcpStream,
    session: Option<Box<Session>>,
    /// Bytes that came before the peer had proved itself.
    unproved: usize,
}

/// Why a line cannot be read.
#[derive(Debug)]
pub enum LineError {
    /// The peer speaks plain TCP.
    Plain,
    /// The socket failed, or TLS.
    Io(io::Error),
}

impl From<io::Error> for LineError {
    fn from(error: io::Error) -> LineError {
        LineError::Io(error)
    }
}

impl Line {
    /// A socket, and the session over it.
    pub fn new(socket: TcpStream, session: Option<Session>) -> Line {
        Line {
            socket,
            session: session.map(Box::new),
            unproved: 0,
        }
    }

    /// For the poll.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// True until a handshake is over: nothing may be written before.
    pub fn is_handshaking(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.is_handshaking())
    }

    /// True if something was sealed that the socket has not taken.
    pub fn is_waiting(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.is_waiting())
    }

    /// Reads once; `sealed` is room for what is not opened yet. Of who has not proved itself, no more than is needed for that.
    ///
    /// # Errors
    /// When the socket failed, or what came is not what the peer sealed.
    pub fn read(
        &mut self,
        room: &mut Room<'_>,
        sealed: &mut [u8],
        is_proved: impl FnOnce() -> bool,
    ) -> Result<Came, LineError> {
        let Some(session) = &mut self.session else {
            return Ok(match room.read_from(&mut self.socket) {
                Ok(0) => Came::End,
                Ok(count) => {
                    let more = room.is_full();
                    Came::Bytes { count, more }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Came::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => LOOK_AGAIN,
                Err(error) => return Err(error.into()),
            });
        };
        let mut asked = sealed.len().min(room.size());
        let proved = is_proved();
        if !proved {
            asked = asked.min(UNPROVED_MAX - self.unproved);
            if asked == 0 {
                return Err(broken(TlsError::TooMuch).into());
            }
        }
        let came = match self.socket.read(&mut sealed[..asked]) {
            Ok(0) => return Ok(Came::End),
            Ok(count) => count,
            // What had no room may be left to be opened.
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(LOOK_AGAIN),
            Err(error) => return Err(error.into()),
        };
        if !proved {
            self.unproved += came;
        }
        match session.open(&sealed[..came], room) {
            Ok(()) => {}
            Err(TlsError::NotTls { .. }) => return Err(LineError::Plain),
            Err(error) => {
                // The peer is told, if it can be.
                let _ = session.send(&mut self.socket);
                return Err(broken(error).into());
            }
        }
        let more = came == asked || room.is_full() || session.is_over();
        match room.filled() {
            0 if came == 0 => Ok(Came::Nothing),
            count => Ok(Came::Bytes { count, more }),
        }
    }

    /// Reads once what nobody looks at, into `dropped`.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn drain(&mut self, dropped: &mut [u8]) -> io::Result<Came> {
        let size = dropped.len();
        match self.socket.read(dropped) {
            Ok(0) => Ok(Came::End),
            Ok(count) => Ok(Came::Bytes {
                count,
                more: count == size,
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Came::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(LOOK_AGAIN),
            Err(error) => Err(error),
        }
    }

    /// Writes once; gives how many bytes were taken. What was sealed of them may wait, see [`Line::flush`].
    ///
    /// # Errors
    /// When the socket takes nothing for now, or has failed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return self.socket.write(bytes);
        };
        if !session.send(&mut self.socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = session.seal(&[IoSlice::new(bytes)])?;
        session.send(&mut self.socket)?;
        Ok(count)
    }

    /// Writes what was sealed. True if nothing is left.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn flush(&mut self) -> io::Result<bool> {
        match &mut self.session {
            Some(session) => session.send(&mut self.socket),
            None => Ok(true),
        }
    }

    /// Speaks plain TCP from here on: to who cannot do otherwise.
    pub fn unseal(&mut self) {
        self.session = None;
    }

    /// Says that nothing more comes, once what was sealed is written. True if it was said.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn shut(&mut self) -> io::Result<bool> {
        if let Some(session) = &mut self.session
            && !session.is_handshaking()
        {
            session.close();
            if !session.send(&mut self.socket)? {
                return Ok(false);
            }
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        Ok(true)
    }
}

/// An interruption brought nothing, and there may be something.
const LOOK_AGAIN: Came = Came::Bytes {
    count: 0,
    more: true,
};
