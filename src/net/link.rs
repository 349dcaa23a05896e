//! A client's connection to a switch: the handshake, frames read off the socket, frames written to it.

use crate::net::address::{Fingerprint, SwitchAddress};
use crate::net::codec::{CONTROL_MAX, HELLO_MAX};
use crate::net::frame::{BODY_MAX, Frame, FrameError, PREAMBLE, kind};
use crate::net::half::{self, HandshakeError, ReadHalf, WriteHalf};
use crate::net::message::{Control, End, Hello, MessageError, Refused, Span, Welcome};
use crate::net::reassembly::ReassemblyError;
use crate::net::socket;
use crate::net::tls::{Session, TlsError};
use crate::random;
use bytes::{Buf, BytesMut};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

/// Frames that one write gathers at most.
const BATCH_MAX: usize = 256;

/// How long a name may fail to resolve before that is taken for an answer.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// The longest body that a client takes from its switch: the start of a job may be longer than a chunk.
const TRUSTED_MAX: usize = if CONTROL_MAX > BODY_MAX {
    CONTROL_MAX
} else {
    BODY_MAX
};

/// Bytes that one read asks for.
const READ_LEN: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The peer's address cannot be reached.
    #[error(
        "cannot reach the switch at {address} after {seconds} s: {source}; is \"lswitch serve\" running there?"
    )]
    Unreachable {
        /// The address.
        address: String,
        /// For how long it was tried, in seconds.
        seconds: u64,
        /// The last attempt's error.
        source: io::Error,
    },
    /// Whoever listens there is no switch.
    #[error("what listens at {0} is no lswitch switch; check the address")]
    NotASwitch(String),
    /// The switch has another certificate than its address names.
    #[error(
        "the switch at {address} has another certificate than its address names: SHA-256 {found}, and not {named}. If it was set up \
         anew, take the address that \"lswitch serve\" prints now; if not, somebody else answers there"
    )]
    OtherCertificate {
        /// Where it is.
        address: String,
        /// The fingerprint in its address.
        named: Fingerprint,
        /// The one that it has.
        found: Fingerprint,
    },
    /// The address names a certificate, and the switch has none.
    #[error(
        "the switch at {0} speaks plain TCP, and its address names a certificate: run \"lswitch serve\" with --tls, or give the \
         address without what follows #"
    )]
    Plain(String),
    /// No handshake with who listens there.
    #[error(
        "no TLS with what listens at {address}: {reason}; is it the switch, and of this release?"
    )]
    Handshake {
        /// Where it is.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// It speaks the protocol and does not know the job's secret.
    #[error(
        "what answers at {0} does not know the job's secret, so it is not the job's switch: another process listens there now; \
         is the job's driver still running?"
    )]
    NotProved(String),
    /// The switch turned the hello down.
    #[error("the switch refused the connection: {}", .0.reason)]
    Refused(Refused),
    /// The switch ended the job.
    #[error("the job was ended: {}", .0.reason)]
    Ended(End),
    /// The switch at this address closed the connection without a word.
    #[error("the connection to the switch at {0} was closed")]
    Closed(Arc<str>),
    /// The switch was silent, or took no bytes, for too long.
    #[error("the switch at {address} was silent for {seconds} s")]
    Silent {
        /// Where it is.
        address: Arc<str>,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// Not all ranks of the job came.
    #[error("the job did not start within {seconds} s: not all of its ranks have joined")]
    NotStarted {
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The socket failed.
    #[error("the connection to the switch at {address} failed: {source}")]
    Io {
        /// Where the switch is.
        address: Arc<str>,
        /// What the system says.
        source: io::Error,
    },
    /// Messages arrived out of order or damaged.
    #[error(transparent)]
    Damaged(#[from] ReassemblyError),
    /// A message arrived for a rank that is not here.
    #[error("a message for rank {destination} arrived at the pack of {span}")]
    Misrouted {
        /// To whom it was addressed.
        destination: u32,
        /// Who is here.
        span: Span,
    },
    /// A rank gave back more credit than it was owed.
    #[error("rank {0} gave back more credit than was used; the peer may be another lswitch")]
    Credit(u32),
    /// An announcement that is none.
    #[error(
        "an announcement of rank {0} names no length, one over the limit, or a rank that there is not"
    )]
    Announced(u32),
    /// An answer to a contribution that is none, or that nobody asked for.
    #[error("the switch answered a contribution that was not made, or with too few bytes")]
    Answer,
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame whose body is not what it says.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// The reading side: frames off a socket.
pub struct FrameReader {
    socket: ReadHalf,
    buffer: BytesMut,
    limit: usize,
    address: Arc<str>,
}

impl FrameReader {
    /// Reads from `socket`, on whose other side is the switch at `address`. Bodies are limited to a hello's size until
    /// [`FrameReader::trust`].
    pub fn new(socket: ReadHalf, address: Arc<str>) -> FrameReader {
        FrameReader {
            socket,
            buffer: BytesMut::new(),
            limit: HELLO_MAX,
            address,
        }
    }

    /// The peer has proved itself: from here on bodies may have any allowed size.
    pub fn trust(&mut self) {
        self.limit = TRUSTED_MAX;
    }

    /// Reads the preamble. False if the peer sent something else.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn preamble(&mut self) -> Result<bool, LinkError> {
        while self.buffer.len() < PREAMBLE.len() {
            if !PREAMBLE.starts_with(&self.buffer) {
                return Ok(false);
            }
            self.fill(PREAMBLE.len()).await?;
        }
        let genuine = self.buffer.starts_with(PREAMBLE);
        self.buffer.advance(PREAMBLE.len());
        Ok(genuine)
    }

    /// The next frame that is in the buffer already, if one is.
    ///
    /// # Errors
    /// When the bytes are no frame.
    pub fn buffered(&mut self) -> Result<Option<Frame>, FrameError> {
        Frame::decode(&mut self.buffer, self.limit)
    }

    /// Waits for more bytes. Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn more(&mut self) -> Result<(), LinkError> {
        self.fill(if self.limit == TRUSTED_MAX {
            READ_LEN
        } else {
            HELLO_MAX
        })
        .await
    }

    /// The next frame. Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends or the bytes are no frame.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.more().await?;
        }
    }

    /// The socket whole again, the session over it if it has one, and what has been read and not looked at.
    ///
    /// # Panics
    /// When the halves are not of one socket.
    pub fn into_stream(self, write: WriteHalf) -> (TcpStream, Option<Session>, BytesMut) {
        let (socket, session) = self.socket.reunite(write);
        (socket, session, self.buffer)
    }

    async fn fill(&mut self, length: usize) -> Result<(), LinkError> {
        match self.socket.read(&mut self.buffer, length).await {
            Ok(0) => Err(LinkError::Closed(self.address.clone())),
            Ok(_) => Ok(()),
            Err(source) => Err(LinkError::Io {
                address: self.address.clone(),
                source,
            }),
        }
    }
}

/// Writes frames to a socket as they come, until their senders are gone; then shuts its sending side. Ends early when the
/// socket fails or takes no bytes for `stall`: the reading side tells why.
pub async fn write_frames(
    mut frames: mpsc::Receiver<Frame>,
    mut socket: WriteHalf,
    stall: Duration,
) {
    let mut batch = Vec::new();
    let mut bytes = BytesMut::new();
    while frames.recv_many(&mut batch, BATCH_MAX).await > 0 {
        batch.drain(..).for_each(|frame| frame.put(&mut bytes));
        while bytes.has_remaining() {
            match timeout(stall, socket.write_buf(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => return,
            }
        }
        if !matches!(timeout(stall, socket.flush()).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(stall, socket.shutdown()).await;
}

/// Connects to a switch, says hello and waits to be welcomed, by a switch that knows the hello's token. An address that does not answer is tried again until
/// the deadline, since a switch may start after its clients.
///
/// # Errors
/// When nobody answers in time, what answers is no switch or not the job's, or the switch refuses.
pub async fn dial(
    address: &SwitchAddress,
    hello: &Hello,
    deadline: Instant,
) -> Result<(FrameReader, WriteHalf), LinkError> {
    let (place, pin) = (address.place(), address.pin());
    let begun = Instant::now();
    let mut pause = Duration::from_millis(20);
    let stream = loop {
        let source = match timeout_at(deadline, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => break stream,
            Ok(Err(source)) => source,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        };
        // A name that does not resolve is a typing error more often than a slow start.
        let unresolved = begun.elapsed() > RESOLVED_WITHIN && lookup_host(place).await.is_err();
        let hopeless = unresolved
            || matches!(
                source.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
            );
        if hopeless || Instant::now() + pause >= deadline {
            return Err(LinkError::Unreachable {
                address: place.into(),
                seconds: begun.elapsed().as_secs(),
                source,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    };
    let io = |source| LinkError::Io {
        address: place.into(),
        source,
    };
    let peer = stream.peer_addr().map_err(io)?;
    socket::prepare(&stream, peer).map_err(io)?;
    let handshake = async {
        let (read, mut write) = match pin {
            Some(pin) => half::sealed(stream, pin)
                .await
                .map_err(|error| no_handshake(place, pin, error))?,
            None => half::plain(stream),
        };
        let mut reader = FrameReader::new(read, place.into());
        // What the switch may answer with, reasons included, is longer than what it reads from us.
        reader.trust();
        let mut bytes = BytesMut::from(&PREAMBLE[..]);
        let nonce = random::bytes();
        hello.challenging(nonce).to_frame(false).put(&mut bytes);
        // Who closes before it has read all of this may have answered, or be a stranger: reading tells.
        let _ = write.write_all(&bytes).await;
        let _ = write.flush().await;
        if !matches!(reader.preamble().await, Ok(true)) {
            return Err(LinkError::NotASwitch(place.into()));
        }
        let frame = reader.next().await?;
        match frame.header.kind {
            kind::WELCOME => {
                let proof = Welcome::from_body(&frame.body)?.proof;
                match proof.is_some_and(|proof| hello.token.is_proved_by(&proof, &nonce)) {
                    true => Ok((reader, write)),
                    false => Err(LinkError::NotProved(place.into())),
                }
            }
            _ => Err(ending(&frame)),
        }
    };
    match timeout_at(
        deadline.max(Instant::now() + Duration::from_secs(2)),
        handshake,
    )
    .await
    {
        Ok(outcome) => outcome,
        Err(_) => Err(LinkError::NotASwitch(place.into())),
    }
}

/// Why there is no handshake with who listens there, for people.
fn no_handshake(place: &str, named: Fingerprint, error: HandshakeError) -> LinkError {
    let address = place.into();
    let reason = match error {
        HandshakeError::Tls(TlsError::OtherCertificate { found }) => {
            return LinkError::OtherCertificate {
                address,
                named,
                found,
            };
        }
        HandshakeError::Tls(TlsError::NotTls { first }) if first == PREAMBLE[0] => {
            return LinkError::Plain(address);
        }
        HandshakeError::Tls(TlsError::NotTls { .. }) => return LinkError::NotASwitch(address),
        HandshakeError::Tls(error) => error.to_string(),
        HandshakeError::Io(error) => error.to_string(),
    };
    LinkError::Handshake { address, reason }
}

/// The error that a frame stands for which ends a connection, or which is out of place.
pub fn ending(frame: &Frame) -> LinkError {
    let decoded = match frame.header.kind {
        kind::REFUSED => Refused::from_body(&frame.body).map(LinkError::Refused),
        kind::END => End::from_body(&frame.body).map(LinkError::Ended),
        other => return LinkError::Frame(FrameError::UnknownKind(other)),
    };
    decoded.unwrap_or_else(LinkError::Message)
}
