//! The two halves of a client's connection on tokio, plain or with TLS over it, and the handshake that comes first.

use crate::net::address::Fingerprint;
use crate::net::stream::broken;
use crate::net::tls::{self, RECORD_MAX, Room, Session, TlsError};
use bytes::BytesMut;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Bytes that a handshake's reads ask for.
const HANDSHAKE_LEN: usize = 8 * 1024;

/// Bytes that reads of what is sealed ask for.
const SEALED_LEN: usize = 64 * 1024;

type Shared = Option<Arc<Mutex<Session>>>;

/// Why there is no handshake.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peer is none that is wanted.
    Tls(TlsError),
    /// The socket failed, or the peer has closed it.
    Io(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        HandshakeError::Io(error)
    }
}

impl From<TlsError> for HandshakeError {
    fn from(error: TlsError) -> HandshakeError {
        HandshakeError::Tls(error)
    }
}

/// Reads.
pub struct ReadHalf {
    socket: OwnedReadHalf,
    session: Shared,
    /// What came and is not opened yet.
    sealed: Vec<u8>,
}

/// Writes. With TLS over it, what was written goes with the next write or flush.
pub struct WriteHalf {
    socket: OwnedWriteHalf,
    session: Shared,
}

/// The halves of a socket that speaks plain TCP.
pub fn plain(socket: TcpStream) -> (ReadHalf, WriteHalf) {
    halves(socket, None)
}

/// The halves of a socket, once the switch there has proved to have this certificate.
///
/// # Errors
/// When it has another, or does not speak TLS.
pub async fn sealed(
    mut socket: TcpStream,
    pin: Fingerprint,
) -> Result<(ReadHalf, WriteHalf), HandshakeError> {
    let mut session = tls::client(pin)?;
    let mut came = vec![0; HANDSHAKE_LEN];
    loop {
        send(&mut session, &mut socket).await?;
        if !session.is_handshaking() {
            let session = Arc::new(Mutex::new(session));
            return Ok(halves(socket, Some(session)));
        }
        let count = socket.read(&mut came).await?;
        if count == 0 {
            return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        // The switch says nothing before it has heard the end of the handshake; what it did say is opened later.
        if let Err(error) = session.open(&came[..count], &mut Room::new(&mut [], &mut [])) {
            // The switch is told why, if it can be.
            let _ = send(&mut session, &mut socket).await;
            return Err(error.into());
        }
    }
}

async fn send(session: &mut Session, socket: &mut TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    session.send(&mut bytes)?;
    socket.write_all(&bytes).await
}

fn halves(socket: TcpStream, session: Shared) -> (ReadHalf, WriteHalf) {
    let (read, write) = socket.into_split();
    let reader = ReadHalf {
        socket: read,
        session: session.clone(),
        sealed: Vec::new(),
    };
    let writer = WriteHalf {
        socket: write,
        session,
    };
    (reader, writer)
}

impl ReadHalf {
    /// Reads once behind what is in `buffer`: at most `length` bytes, unless they are sealed. 0 at the end. Cancel-safe.
    ///
    /// # Errors
    /// When the socket failed, or what came is not what the peer sealed.
    pub async fn read(&mut self, buffer: &mut BytesMut, length: usize) -> io::Result<usize> {
        let Some(session) = &self.session else {
            buffer.reserve(length);
            return self.socket.read_buf(buffer).await;
        };
        if self.sealed.is_empty() {
            self.sealed = vec![0; SEALED_LEN];
            // What may have come with the end of the handshake, of which the socket tells nothing more.
            let early = open(&mut locked(session), &[], buffer)?;
            if early > 0 {
                return Ok(early);
            }
        }
        loop {
            let count = self.socket.read(&mut self.sealed).await?;
            // From here on nothing is waited for, so that nothing is lost.
            let mut session = locked(session);
            let opened = open(&mut session, &self.sealed[..count], buffer)?;
            if opened > 0 || count == 0 || session.is_over() {
                return Ok(opened);
            }
        }
    }

    /// The socket whole again, and the session over it.
    ///
    /// # Panics
    /// When the halves are not of one socket.
    pub fn reunite(self, write: WriteHalf) -> (TcpStream, Option<Session>) {
        drop(self.session);
        let socket = self.socket.reunite(write.socket);
        let socket = socket.expect("both halves are of one socket");
        let session = write.session.map(|session| {
            let session = Arc::into_inner(session).expect("two halves share it");
            session.into_inner().expect("no holder of this lock panics")
        });
        (socket, session)
    }
}

/// Opens what came behind what is in `buffer`; gives how many bytes.
fn open(session: &mut Session, sealed: &[u8], buffer: &mut BytesMut) -> io::Result<usize> {
    let begun = buffer.len();
    // With room for a record that had come in part.
    buffer.resize(begun + sealed.len() + RECORD_MAX, 0);
    let mut room = Room::new(&mut buffer[begun..], &mut []);
    let outcome = session.open(sealed, &mut room);
    let filled = room.filled();
    buffer.truncate(begun + filled);
    outcome.map(|()| filled).map_err(broken)
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(session) = &this.session else {
            return Pin::new(&mut this.socket).poll_write(context, bytes);
        };
        let mut session = locked(session);
        let mut socket = Polled {
            socket: &mut this.socket,
            context,
        };
        if !session.send(&mut socket)? {
            return Poll::Pending;
        }
        let count = session.seal(&[IoSlice::new(bytes)])?;
        session.send(&mut socket)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(session) = &this.session else {
            return Pin::new(&mut this.socket).poll_flush(context);
        };
        let mut socket = Polled {
            socket: &mut this.socket,
            context,
        };
        match locked(session).send(&mut socket)? {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(session) = &this.session {
            let mut session = locked(session);
            session.close();
            let mut socket = Polled {
                socket: &mut this.socket,
                context,
            };
            if !session.send(&mut socket)? {
                return Poll::Pending;
            }
        }
        Pin::new(&mut this.socket).poll_shutdown(context)
    }
}

/// A socket of tokio's for who writes at once or not at all; the task is woken when it takes more.
struct Polled<'a, 'b> {
    socket: &'a mut OwnedWriteHalf,
    context: &'a mut Context<'b>,
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.context, pieces) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn locked(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().expect("no holder of this lock panics")
}
