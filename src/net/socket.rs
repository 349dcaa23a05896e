//! How the sockets of switch and clients are set, both sides alike.

use rustix::fd::AsFd;
use std::io;
use std::net::SocketAddr;

/// Sets a connected socket: no delay, and no pacing where there is nothing to pace.
///
/// # Errors
/// When the system refuses to send without delay.
pub fn prepare(socket: impl AsFd, peer: SocketAddr) -> io::Result<()> {
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    #[cfg(target_os = "linux")]
    if peer.ip().to_canonical().is_loopback() {
        // Many systems have BBR as their default, whose timers halve what loopback carries. Reno is always allowed; if
        // even that is not there, it is slower and no worse.
        let _ = rustix::net::sockopt::set_tcp_congestion(&socket, "reno");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = peer;
    Ok(())
}
