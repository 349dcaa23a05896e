//! One TCP socket of this machine, found in `/proc/net/tcp` and `/proc/net/tcp6`: for kernels and sandboxes without `sock_diag`.
//!
//! Reading them walks the kernel's whole hash table (29 ms on the machine where it was measured, with few sockets, where `sock_diag` takes
//! 0.02 ms), so this is the second choice.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::peer::PeerSocket;

/// A row has 150 bytes in IPv4 and 200 in IPv6.
const LINE_BYTES_MAX: usize = 1024;

/// The socket whose own address is `local` and whose peer is `remote`; `None` if there is none.
///
/// # Errors
/// The table of the connection's family cannot be read.
pub(super) fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<PeerSocket>> {
    if local.is_ipv4()
        && let Some(socket) = search("/proc/net/tcp", local, remote)?
    {
        return Ok(Some(socket));
    }
    // A socket of the newer family may have connections of the older one.
    match search("/proc/net/tcp6", local, remote) {
        // A machine without IPv6 has no such table.
        Err(error) if error.kind() == io::ErrorKind::NotFound && local.is_ipv4() => Ok(None),
        searched => searched,
    }
}

fn search(table: &str, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<PeerSocket>> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(table)?);
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let row = std::str::from_utf8(&line).ok().and_then(parse);
        if let Some((at, peer, socket)) = row
            && same(at, local)
            && same(peer, remote)
        {
            return Ok(Some(socket));
        }
    }
}

fn same(found: SocketAddr, asked: SocketAddr) -> bool {
    found.port() == asked.port() && found.ip() == asked.ip().to_canonical()
}

/// A row: its own address, its peer's, and the socket. The heading is none.
fn parse(row: &str) -> Option<(SocketAddr, SocketAddr, PeerSocket)> {
    let mut fields = row.split_ascii_whitespace();
    let local = address(fields.nth(1)?)?;
    let remote = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some((local, remote, PeerSocket { state, uid, inode }))
}

/// `0100007F:2329`: the words of an address as the machine holds them, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let ip = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[cfg(target_endian = "little")]
    #[test]
    fn rows_are_read_as_the_kernel_writes_them() {
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(parse(heading), None);
        let row = "   6: 0100007F:C350 0100007F:2329 01 00000000:00000000 00:00000000 00000000  1000        0 345678 1 0000000000000000 20 4 30 10 -1\n";
        let socket = PeerSocket {
            state: 1,
            uid: 1000,
            inode: 345_678,
        };
        let at = |text: &str| text.parse().expect("an address");
        assert_eq!(
            parse(row),
            Some((at("127.0.0.1:50000"), at("127.0.0.1:9001"), socket))
        );
        let row = row
            .replace("0100007F:C350", "00000000000000000000000001000000:C350")
            .replace("0100007F:2329", "0000000000000000FFFF00000100007F:2329");
        assert_eq!(
            parse(&row),
            Some((at("[::1]:50000"), at("127.0.0.1:9001"), socket))
        );
    }

    #[test]
    fn the_table_has_the_other_end_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound"))
            .expect("the listener takes connections");
        let (server, peer) = listener.accept().expect("the client has connected");
        let ours = server.local_addr().expect("connected");
        let Ok(found) = find(peer, ours) else {
            return; // A system without /proc.
        };
        let found = found.expect("the client is open");
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        assert!(found.is_open(), "{found:?}");
        drop(client);
        let closed = find(peer, ours).expect("it was read before");
        assert!(closed.is_none_or(|found| !found.is_open()), "{closed:?}");
    }
}
