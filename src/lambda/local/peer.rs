//! Which user holds the other end of a loopback connection. Only connections of this process's own user are served.
//!
//! The peer's socket is looked up in the kernel's tables by the connection's addresses, seen from the other side. Clients need no
//! change for it and nothing is kept secret. What cannot be found is refused: a peer that has closed already, one of another network
//! namespace behind a redirection, one that is not on this machine.
//!
//! Root is no exception in either direction. It can take any user's rights by itself, and a rule of equality has no corners.

use std::io;
use std::net::SocketAddr;

use rustix::process::geteuid;

use super::proc_net;
use super::sock_diag::SockDiag;

/// TCP's states in which a client may be whose request was not answered yet: connected, or done with sending.
const ESTABLISHED: u8 = 1;
const FIN_WAIT_1: u8 = 4;
const FIN_WAIT_2: u8 = 5;

/// A socket as the kernel's tables have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerSocket {
    pub(super) state: u8,
    pub(super) uid: u32,
    pub(super) inode: u64,
}

impl PeerSocket {
    /// Whether a process holds it. A socket that was closed has no inode, and shows user 0 whoever had it.
    pub(super) fn is_open(&self) -> bool {
        self.inode != 0 && matches!(self.state, ESTABLISHED | FIN_WAIT_1 | FIN_WAIT_2)
    }
}

/// Why a connection is not served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    #[error(
        "this local Lambda serves the user that started it, uid {own}, and this connection is of uid {uid}"
    )]
    OtherUser { own: u32, uid: u32 },
    #[error(
        "this local Lambda serves the user that started it, uid {own}, and the process that holds the other end of this connection was not found on this machine"
    )]
    NotFound { own: u32 },
}

#[derive(Debug)]
enum Table {
    SockDiag(SockDiag),
    ProcNet,
}

/// Tells connections of this process's user from those of others.
#[derive(Debug)]
pub(super) struct PeerCheck {
    own: u32,
    table: Table,
}

impl PeerCheck {
    /// Finds out which of the kernel's tables can be asked, by asking for `listener`'s own socket.
    ///
    /// # Errors
    /// None can, or users cannot be told apart here.
    pub(super) fn new(listener: SocketAddr) -> io::Result<PeerCheck> {
        let own = geteuid().as_raw();
        let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        if is_ambiguous(own, &overflow, &map) {
            return Err(io::Error::other(format!(
                "this process is uid {own}, as which its user namespace shows all users that it does not know; map a uid of its own"
            )));
        }
        // No connection has port 0, so neither table has a row; only whether they can be read is of interest. A kernel without
        // TCP's sock_diag says "not found" to all questions, so it is asked for what exists.
        let kernel = SockDiag::open().ok();
        let kernel = kernel.filter(|kernel| kernel.can_find_listener(listener));
        let table = match kernel {
            Some(kernel) => Table::SockDiag(kernel),
            None => {
                proc_net::find(listener, listener)?;
                Table::ProcNet
            }
        };
        Ok(PeerCheck { own, table })
    }

    /// Checks a connection that was just accepted, of which nothing was read and to which nothing was written.
    pub(super) async fn check(&self, stream: &tokio::net::TcpStream) -> Result<(), Stranger> {
        let not_found = Stranger::NotFound { own: self.own };
        let (Ok(ours), Ok(theirs)) = (stream.local_addr(), stream.peer_addr()) else {
            return Err(not_found);
        };
        let found = match &self.table {
            // 20 microseconds, in which nothing is waited for.
            Table::SockDiag(kernel) => kernel.find(theirs, ours),
            Table::ProcNet => {
                let search = move || proc_net::find(theirs, ours);
                let searched = tokio::task::spawn_blocking(search).await;
                searched.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
        };
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look up a peer's socket");
            None
        });
        admit(found, self.own)?;
        // A peer that reset its connection leaves its address to others, whose socket this would then be. Its end here has no
        // peer any more.
        stream.peer_addr().map(drop).map_err(|_| not_found)
    }
}

fn admit(found: Option<PeerSocket>, own: u32) -> Result<(), Stranger> {
    match found.filter(PeerSocket::is_open) {
        None => Err(Stranger::NotFound { own }),
        Some(socket) if socket.uid != own => Err(Stranger::OtherUser {
            own,
            uid: socket.uid,
        }),
        Some(_) => Ok(()),
    }
}

/// Whether others may be shown with this process's uid: in a user namespace that does not map all users, those without a number
/// are shown with the overflow uid.
fn is_ambiguous(own: u32, overflow: &str, map: &str) -> bool {
    let mapped: u64 = map
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok())
        .sum();
    overflow.trim().parse() == Ok(own) && mapped < u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_socket_of_the_same_user_is_admitted() {
        let socket = PeerSocket {
            state: ESTABLISHED,
            uid: 0,
            inode: 9,
        };
        let not_found = Err(Stranger::NotFound { own: 0 });
        assert_eq!(admit(Some(socket), 0), Ok(()));
        assert_eq!(admit(None, 0), not_found);
        // A closed socket shows root and no inode, and one that only listens or connects is not this connection's.
        assert_eq!(admit(Some(PeerSocket { inode: 0, ..socket }), 0), not_found);
        for state in [2, 3, 6, 7, 8, 9, 10, 11, 12] {
            assert_eq!(admit(Some(PeerSocket { state, ..socket }), 0), not_found);
        }
        for (uid, own) in [(65534, 0), (0, 1000), (1001, 1000)] {
            let found = Some(PeerSocket { uid, ..socket });
            assert_eq!(admit(found, own), Err(Stranger::OtherUser { own, uid }));
        }
    }

    #[test]
    fn unmapped_users_are_not_taken_for_this_one() {
        let whole = "         0          0 4294967295\n";
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert!(!is_ambiguous(65534, "65534\n", whole));
        assert!(is_ambiguous(65534, "65534\n", rootless));
        assert!(is_ambiguous(65534, "65534\n", ""));
        assert!(!is_ambiguous(0, "65534\n", rootless));
    }
}
