//! Binding sockets: TCP with one socket a worker, unix sockets with one shared by all.

use crate::config::{Bind, Listener};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// How many connections may wait to be accepted, as much as Linux allows by default.
const BACKLOG: i32 = 4096;

/// How long a client may take nothing of what is sent to it: its window stays shut, or nothing is acknowledged. The kernel counts it
/// (`TCP_USER_TIMEOUT`), connections inherit it from the listener, and a call costs nothing. One that is slow but takes something is never cut, and
/// neither is one that is sent nothing.
const STILL_MAX: Duration = Duration::from_secs(120);

/// A socket that listens, not yet given to a runtime.
#[derive(Debug)]
pub enum Bound {
    Tcp { listener: std::net::TcpListener, address: SocketAddr },
    Unix { listener: std::os::unix::net::UnixListener },
}

impl Bound {
    /// The address that peers reach, which tells the port where 0 was asked for.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Bound::Tcp { address, .. } => Some(*address),
            Bound::Unix { .. } => None,
        }
    }

    pub fn ip(&self) -> Option<IpAddr> {
        self.tcp().map(|address| address.ip())
    }
}

/// A listener's address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({what}): {source}{}", hint(source))]
pub struct BindError {
    address: String,
    what: &'static str,
    #[source]
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has it: stop that, or choose another address under `listen:`",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege, and a socket's folder must be writable",
        _ => "",
    }
}

/// Binds every address of a listener `copies` times: each worker accepts on a socket of its own, and the kernel spreads connections over
/// them (SO_REUSEPORT). An IPv6 loopback that the machine lacks is left out where IPv4's is there.
///
/// # Errors
/// When an address is taken or not this machine's.
pub fn bind(listener: &Listener, what: &'static str, copies: usize) -> Result<Vec<Vec<Bound>>, BindError> {
    let mut sets: Vec<Vec<Bound>> = (0..copies).map(|_| Vec::new()).collect();
    for bind in &listener.binds {
        match bind {
            Bind::Tcp(address) => {
                let outcome = bind_tcp(*address, &mut sets);
                match outcome {
                    Err(error)
                        if address.ip() == IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
                            && listener.binds.len() > 1
                            && no_such_address(&error) =>
                    {
                        tracing::debug!(%address, "no IPv6 loopback on this machine");
                    }
                    outcome => outcome.map_err(|source| BindError { address: address.to_string(), what, source })?,
                }
            }
            Bind::Unix(path) => {
                let error = |source| BindError { address: format!("unix:{}", path.display()), what, source };
                let first = bind_unix(path).map_err(error)?;
                for set in &mut sets {
                    set.push(Bound::Unix { listener: first.try_clone().map_err(error)? });
                }
            }
        }
    }
    Ok(sets)
}

fn no_such_address(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported) || error.raw_os_error() == Some(97)
}

fn bind_tcp(address: SocketAddr, sets: &mut [Vec<Bound>]) -> io::Result<()> {
    // SO_REUSEPORT would let a second Attaché of the same user share the port in silence: a probe without it finds that out first.
    if address.port() != 0 {
        drop(socket(address, false)?);
    }
    let mut address = address;
    for set in sets {
        let listener = socket(address, true)?;
        address = listener.local_addr()?;
        set.push(Bound::Tcp { listener, address });
    }
    Ok(())
}

fn socket(address: SocketAddr, share: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if share {
        // Set where it can be; elsewhere the kernel's own patience holds.
        #[cfg(target_os = "linux")]
        rustix::net::sockopt::set_tcp_user_timeout(&socket, STILL_MAX.as_millis() as u32)?;
        // A peer that is gone without a word, as behind a NAT that forgot it, is noticed where nothing is ever sent, as in a tunnel.
        socket.set_tcp_keepalive(&crate::upstream::keepalive())?;
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// Binds a unix socket, taking the place of one that a killed process left. The folder's permissions say who may connect.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path)
        && metadata.file_type().is_socket()
    {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Listener {
        Listener { binds: vec![Bind::Tcp(address.parse().expect("valid"))], ..Listener::default() }
    }

    #[test]
    fn workers_share_a_port_and_a_second_server_is_told_that_it_is_taken() {
        let sets = bind(&tcp("127.0.0.1:0"), "proxy", 2).expect("bound");
        let addresses: Vec<_> = sets.iter().map(|set| set[0].tcp().expect("tcp")).collect();
        assert_eq!(addresses[0], addresses[1]);
        let error = bind(&tcp(&addresses[0].to_string()), "proxy", 1).expect_err("taken");
        assert!(error.to_string().contains("another program has it"), "{error}");
    }

    /// Fails without `TCP_USER_TIMEOUT` on the listening socket.
    #[cfg(target_os = "linux")]
    #[test]
    fn threat_17_a_client_that_takes_nothing_is_cut_by_the_kernel() {
        let sets = bind(&tcp("127.0.0.1:0"), "proxy", 1).expect("bound");
        let Bound::Tcp { listener, address } = &sets[0][0] else { panic!("TCP was asked for") };
        let _client = std::net::TcpStream::connect(address).expect("connected");
        listener.set_nonblocking(false).expect("set");
        let (accepted, _) = listener.accept().expect("accepted");
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&accepted).expect("known"), 120_000);
    }

    #[test]
    fn a_left_socket_file_is_replaced_and_a_live_one_respected() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("a.sock");
        let listener = Listener { binds: vec![Bind::Unix(path.clone())], ..Listener::default() };
        let live = bind(&listener, "proxy", 1).expect("bound");
        assert!(bind(&listener, "proxy", 1).is_err());
        drop(live);
        assert!(path.exists(), "the file outlives its process");
        assert!(bind(&listener, "proxy", 1).is_ok());
    }
}
