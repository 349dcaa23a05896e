//! One end of a TLS connection without its socket: what came is opened, what is to go is sealed. It never waits.
//!
//! What is opened is taken at once, as far as there is room: a socket that shows nothing has nothing, unless the room was
//! filled to its end. A part of a record that has come stays here (at most [`RECORD_MAX`] bytes), and so does what is sealed
//! until the socket takes it (at most about [`SEALED_MAX`]).

use super::{TlsError, told};
use rustls::Connection;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};

/// The bytes of one record at most, rounded up.
pub const RECORD_MAX: usize = 17 * 1024;

/// Bytes that are sealed before the socket must take them: what one call carries.
pub const SEALED_MAX: usize = 128 * 1024;

/// Records begin so in a handshake: its messages, and an alert that ends it.
const FIRST_BYTES: [u8; 2] = [0x16, 0x15];

/// Room for what is opened, or read: first here, then there.
pub struct Room<'a> {
    parts: [&'a mut [u8]; 2],
    filled: usize,
}

impl<'a> Room<'a> {
    /// Both are empty.
    pub fn new(first: &'a mut [u8], second: &'a mut [u8]) -> Room<'a> {
        Room {
            parts: [first, second],
            filled: 0,
        }
    }

    /// Bytes that are there.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// True if no more has room.
    pub fn is_full(&self) -> bool {
        self.filled == self.size()
    }

    /// Bytes that have room in all.
    pub fn size(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }

    /// Reads once into all of it.
    ///
    /// # Errors
    /// When the reader fails.
    pub fn read_from(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        let [first, second] = &mut self.parts;
        let count = reader.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])?;
        self.filled = count;
        Ok(count)
    }

    fn spare(&mut self) -> &mut [u8] {
        let [first, second] = &mut self.parts;
        match self.filled.checked_sub(first.len()) {
            Some(filled) => &mut second[filled..],
            None => &mut first[self.filled..],
        }
    }
}

/// See the module.
pub struct Session {
    connection: Connection,
    /// Something has come.
    begun: bool,
    /// The peer has said that nothing more comes.
    is_over: bool,
}

impl Session {
    pub(super) fn new(mut connection: Connection) -> Session {
        connection.set_buffer_limit(Some(SEALED_MAX));
        Session {
            connection,
            begun: false,
            is_over: false,
        }
    }

    /// True until both sides know each other: nothing may be sealed before.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// True if the peer has said that nothing more comes.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Opens what came: at most as many bytes as there is room for, or a few KiB. For what there was no room is taken with the
    /// next call.
    ///
    /// # Errors
    /// When the peer does not speak TLS, is another, or a record is broken. An answer that says so may lie sealed.
    pub fn open(&mut self, mut sealed: &[u8], room: &mut Room<'_>) -> Result<(), TlsError> {
        if let (false, Some(&first)) = (self.begun, sealed.first()) {
            self.begun = true;
            if !FIRST_BYTES.contains(&first) {
                return Err(TlsError::NotTls { first });
            }
        }
        self.take(room);
        while !sealed.is_empty() && !self.is_over {
            // It takes a few KiB at a time, and nothing while more than a record is left; that cannot be, since there was room.
            self.connection
                .read_tls(&mut sealed)
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            let state = self.connection.process_new_packets().map_err(told)?;
            self.is_over = state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 {
                self.take(room);
            }
        }
        Ok(())
    }

    fn take(&mut self, room: &mut Room<'_>) {
        let mut reader = self.connection.reader();
        loop {
            let spare = room.spare();
            // An error says that nothing is left for now.
            match reader.read(spare) {
                Ok(count @ 1..) => room.filled += count,
                _ => return,
            }
        }
    }

    /// Seals these bytes; gives how many, none while enough is sealed.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn seal(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        debug_assert!(!self.is_handshaking(), "nobody is there yet");
        self.connection.writer().write_vectored(pieces)
    }

    /// True if something is sealed that has not gone.
    pub fn is_waiting(&self) -> bool {
        self.connection.wants_write()
    }

    /// Gives what is sealed to a socket, as far as it takes it. True if nothing is left.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn send(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Seals the word that nothing more comes.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::Fingerprint;
    use crate::net::tls::{Identity, client};

    fn identity() -> Identity {
        let (certificate, key) = Identity::make_pem().expect("it can be made");
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("they go together")
    }

    /// Carries what is sealed from one end to the other, at most so many bytes at a time; gives what was opened.
    fn carry(from: &mut Session, to: &mut Session, most: usize) -> Result<Vec<u8>, TlsError> {
        let mut sealed = Vec::new();
        assert!(from.send(&mut sealed).expect("a vector takes all"));
        let (mut found, mut room) = (Vec::new(), vec![0; most]);
        for piece in sealed.chunks(most) {
            let mut piece = piece;
            // What had no room comes with the next calls.
            loop {
                let (first, second) = room.split_at_mut(most / 3);
                let mut parts = Room::new(first, second);
                to.open(piece, &mut parts)?;
                let (filled, full) = (parts.filled(), parts.is_full());
                found.extend_from_slice(&room[..filled]);
                piece = &[];
                if !full {
                    break;
                }
            }
        }
        Ok(found)
    }

    fn shake_hands(near: &mut Session, far: &mut Session) -> Result<(), TlsError> {
        while near.is_handshaking() || far.is_handshaking() {
            assert!(carry(near, far, 100)?.is_empty());
            assert!(carry(far, near, 100)?.is_empty());
        }
        Ok(())
    }

    #[test]
    fn what_is_sealed_is_opened_in_whatever_pieces_it_comes() {
        let identity = identity();
        let mut near = client(identity.fingerprint()).expect("a client");
        let mut far = identity.session().expect("a switch");
        shake_hands(&mut near, &mut far).expect("they know each other");
        let (mut given, mut found, mut back) = (Vec::new(), Vec::new(), Vec::new());
        for step in 0..200_usize {
            let length = [0, 1, 17, 5_000, 16_384, 16_385, 100_000, 400_000][step % 8];
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + step) as u8).collect();
            let (head, tail) = bytes.split_at(length / 3);
            let mut rest = [head, tail].concat();
            let most = [1, 29, 1_000, 4_096, 20_000, 70_000][step % 6];
            while !rest.is_empty() {
                let count = far.seal(&[IoSlice::new(&rest)]).expect("it goes on");
                assert!(count > 0 && count <= SEALED_MAX, "{count}");
                if count < rest.len() {
                    assert_eq!(far.seal(&[IoSlice::new(&rest)]).expect("it goes on"), 0);
                }
                given.extend(rest.drain(..count));
                found.extend(carry(&mut far, &mut near, most).expect("it is whole"));
            }
            if step % 50 == 20 {
                // Keys are renewed now and then, and by the library itself after millions of records.
                far.connection.refresh_traffic_keys().expect("it goes on");
                near.connection.refresh_traffic_keys().expect("it goes on");
            }
            near.seal(&[IoSlice::new(b"back"), IoSlice::new(b" again")])
                .expect("it goes on");
            back.extend(carry(&mut near, &mut far, most).expect("it is whole"));
        }
        assert!(given == found, "the bytes differ");
        assert_eq!(back, b"back again".repeat(200));
        assert!(!near.is_over());
        far.close();
        assert!(carry(&mut far, &mut near, 7).expect("a word").is_empty());
        assert!(near.is_over() && !far.is_over());
    }

    #[test]
    fn another_certificate_a_stranger_and_broken_bytes_are_told_apart() {
        let (ours, theirs) = (identity(), identity());
        let mut near = client(ours.fingerprint()).expect("a client");
        let mut far = theirs.session().expect("a switch");
        let error = shake_hands(&mut near, &mut far).expect_err("it is another");
        let fingerprint = theirs.fingerprint();
        assert!(matches!(error, TlsError::OtherCertificate { found } if found == fingerprint));
        assert_ne!(fingerprint, Fingerprint::of(b""));
        // The switch hears of it.
        assert!(near.is_waiting());
        let told = carry(&mut near, &mut far, 100).expect_err("an alert");
        assert!(matches!(told, TlsError::Broken(_)), "{told}");

        let mut far = ours.session().expect("a switch");
        let mut room = [0; 64];
        let plain = far.open(b"LSWITCH\n", &mut Room::new(&mut room, &mut []));
        assert!(matches!(plain, Err(TlsError::NotTls { first: b'L' })));

        let mut near = client(ours.fingerprint()).expect("a client");
        let mut far = ours.session().expect("a switch");
        shake_hands(&mut near, &mut far).expect("they know each other");
        near.seal(&[IoSlice::new(b"hello")]).expect("it goes on");
        let mut sealed = Vec::new();
        near.send(&mut sealed).expect("a vector takes all");
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        let damaged = far.open(&sealed, &mut Room::new(&mut room, &mut []));
        assert!(matches!(damaged, Err(TlsError::Broken(_))));
    }
}
