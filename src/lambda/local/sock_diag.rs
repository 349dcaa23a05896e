//! One TCP socket of this machine, as the kernel's `sock_diag` describes it: a netlink request with the four numbers of a connection,
//! answered from the kernel's hash table however many sockets there are (`man 7 sock_diag`).
//!
//! Request and answer are plain bytes here, so that both can be tested without a kernel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::peer::PeerSocket;

/// `SOCK_DIAG_BY_FAMILY`, the type of the request and of its answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;
const TCP: u8 = 6;
/// `struct nlmsghdr` and `struct inet_diag_req_v2`, in bytes.
const HEADER_LEN: usize = 16;
const REQUEST_LEN: usize = HEADER_LEN + 56;
/// `struct inet_diag_msg`, in bytes; attributes may follow.
const ANSWER_LEN: usize = 72;
/// Where a header has the number of the request.
const NUMBER_AT: usize = 8;
/// No attribute is asked for, so an answer is one header and one message.
const BUFFER_LEN: usize = 4096;
/// `ENOENT`: there is no such socket, or this kernel has no `sock_diag` for TCP.
const NOT_FOUND: i32 = 2;

/// Asks the kernel for sockets. It stays open, so that a process without a descriptor to spare still knows its clients.
#[derive(Debug)]
pub(super) struct SockDiag {
    /// With the number of the last request.
    socket: Mutex<(OwnedFd, u32)>,
}

impl SockDiag {
    /// # Errors
    /// This process may not open such a socket.
    pub(super) fn open() -> io::Result<SockDiag> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(SockDiag {
            socket: Mutex::new((socket, 0)),
        })
    }

    /// The socket whose own address is `local` and whose peer is `remote`; `None` if there is none.
    ///
    /// # Errors
    /// The kernel does not answer such requests, or refuses this one.
    pub(super) fn find(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<Option<PeerSocket>> {
        let mut guard = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, number) = &mut *guard;
        *number = number.wrapping_add(1);
        let kernel = SocketAddrNetlink::new(0, 0);
        let request = request(*number, local, remote);
        rustix::net::sendto(&*socket, &request, SendFlags::empty(), &kernel)?;
        let mut buffer = [0; BUFFER_LEN];
        loop {
            // The kernel answers within the call that sends, so an answer that is not there will not come.
            let (length, _, _) =
                rustix::net::recvfrom(&*socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            // The answer to an earlier request is still there if reading it has failed.
            if field(&buffer[..length], NUMBER_AT) == Some(number.to_ne_bytes()) {
                return parse(&buffer[..length], local, remote);
            }
        }
    }

    /// Whether this kernel answers such requests, seen by one for a socket that listens at `listener`.
    pub(super) fn can_find_listener(&self, listener: SocketAddr) -> bool {
        let nobody = SocketAddr::new(unspecified(listener.ip()), 0);
        matches!(self.find(listener, nobody), Ok(Some(_)))
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`. Netlink's own numbers have the byte order of the machine, addresses
/// and ports that of the network.
fn request(number: u32, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() {
        FAMILY_V4
    } else {
        FAMILY_V6
    };
    let mut bytes = Vec::with_capacity(REQUEST_LEN);
    bytes.extend((REQUEST_LEN as u32).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0; 4]); // The kernel knows the sender.
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // Any state; what is taken is the caller's decision.
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(address_bytes(local.ip()));
    bytes.extend(address_bytes(remote.ip()));
    bytes.extend([0; 4]); // Any interface.
    bytes.extend([0xff; 8]); // No cookie.
    bytes
}

fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
    }
}

/// The socket in an answer, if it is the one that was asked for: a listener at `local` is an answer too.
fn parse(answer: &[u8], local: SocketAddr, remote: SocketAddr) -> io::Result<Option<PeerSocket>> {
    let malformed = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "sock_diag's answer is too short",
        )
    };
    let kind = u16::from_ne_bytes(field(answer, 4).ok_or_else(malformed)?);
    let body = answer.get(HEADER_LEN..).ok_or_else(malformed)?;
    if kind == ERROR {
        let code = i32::from_ne_bytes(field(body, 0).ok_or_else(malformed)?);
        return match -code {
            NOT_FOUND => Ok(None),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    if kind != BY_FAMILY || body.len() < ANSWER_LEN {
        return Err(malformed());
    }
    let address = |port_at, address_at| -> Option<SocketAddr> {
        let port = u16::from_be_bytes(field(body, port_at)?);
        let octets: [u8; 16] = field(body, address_at)?;
        let [a, b, c, d, ..] = octets;
        let ip = match body[0] {
            FAMILY_V4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            // A socket of the newer family may have connections of the older one.
            _ => Ipv6Addr::from(octets).to_canonical(),
        };
        Some(SocketAddr::new(ip, port))
    };
    let same = |found: Option<SocketAddr>, asked: SocketAddr| {
        found.is_some_and(|found| {
            found.port() == asked.port() && found.ip() == asked.ip().to_canonical()
        })
    };
    if !same(address(4, 8), local) || !same(address(6, 24), remote) {
        return Ok(None);
    }
    Ok(Some(PeerSocket {
        state: body[1],
        uid: u32::from_ne_bytes(field(body, 64).ok_or_else(malformed)?),
        inode: u32::from_ne_bytes(field(body, 68).ok_or_else(malformed)?).into(),
    }))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn answer(family: u8, local: ([u8; 16], u16), remote: ([u8; 16], u16)) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER_LEN + ANSWER_LEN) as u32).to_ne_bytes());
        bytes.extend(BY_FAMILY.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 1, 0, 0]);
        bytes.extend(local.1.to_be_bytes());
        bytes.extend(remote.1.to_be_bytes());
        bytes.extend(local.0);
        bytes.extend(remote.0);
        bytes.extend([0; 12]);
        bytes.extend([0; 12]); // Timer and queues.
        bytes.extend(1000u32.to_ne_bytes());
        bytes.extend(77u32.to_ne_bytes());
        bytes
    }

    fn v4(last: u8) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[127, 0, 0, last]);
        bytes
    }

    #[test]
    fn an_answer_counts_only_for_the_addresses_that_were_asked_for() {
        let (local, remote): (SocketAddr, SocketAddr) = (
            "127.0.0.1:5000".parse().expect("an address"),
            "127.0.0.2:9001".parse().expect("an address"),
        );
        let socket = PeerSocket {
            state: 1,
            uid: 1000,
            inode: 77,
        };
        let good = answer(FAMILY_V4, (v4(1), 5000), (v4(2), 9001));
        assert_eq!(good.len(), HEADER_LEN + ANSWER_LEN);
        assert_eq!(
            parse(&good, local, remote).expect("an answer"),
            Some(socket)
        );
        let mapped = |last| Ipv4Addr::new(127, 0, 0, last).to_ipv6_mapped().octets();
        let newer = answer(FAMILY_V6, (mapped(1), 5000), (mapped(2), 9001));
        assert_eq!(
            parse(&newer, local, remote).expect("an answer"),
            Some(socket)
        );
        for other in [
            answer(FAMILY_V4, (v4(1), 5001), (v4(2), 9001)),
            answer(FAMILY_V4, (v4(3), 5000), (v4(2), 9001)),
            answer(FAMILY_V4, (v4(1), 5000), (v4(2), 9002)),
            answer(FAMILY_V4, (v4(1), 5000), ([0; 16], 0)), // A listener.
        ] {
            assert_eq!(parse(&other, local, remote).expect("an answer"), None);
        }
        for length in 0..good.len() {
            assert!(
                parse(&good[..length], local, remote).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn the_kernel_finds_the_other_end_of_a_connection() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                continue; // This machine has no IPv6.
            };
            let client = TcpStream::connect(listener.local_addr().expect("bound"))
                .expect("the listener takes connections");
            let (server, peer) = listener.accept().expect("the client has connected");
            let ours = server.local_addr().expect("connected");
            let Ok(kernel) = SockDiag::open() else {
                return; // A sandbox without netlink.
            };
            if !kernel.can_find_listener(ours) {
                return; // A kernel without this kind of netlink.
            }
            let found = kernel.find(peer, ours).expect("the kernel answers");
            let found = found.expect("the client is open");
            assert_eq!(found.uid, rustix::process::geteuid().as_raw());
            assert!(found.is_open(), "{found:?}");
            drop(client);
            let closed = kernel.find(peer, ours).expect("it answered before");
            assert!(closed.is_none_or(|found| !found.is_open()), "{closed:?}");
        }
    }
}
