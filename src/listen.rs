//! The ports of a node and its shutdown request. Both come from outside, so that a test can bring its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// How many connections the kernel keeps until they are accepted. After a restart all clients connect at once.
const BACKLOG: u32 = 4096;

/// A port that the node cannot bind.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (--{setting}): {error}; choose another address or free this one")]
pub(crate) struct BindError {
    address: SocketAddr,
    setting: &'static str,
    error: io::Error,
}

/// The bound ports of one node.
pub(crate) struct Listeners {
    /// The listener for clients.
    pub(crate) main: TcpListener,
    /// The listener for /healthz, /readyz and /metrics, if they have a port of their own.
    pub(crate) ops: Option<TcpListener>,
    /// Called once, when the node serves, with the address of `main`.
    pub(crate) on_ready: Box<dyn FnOnce(SocketAddr) + Send>,
}

impl Listeners {
    /// Binds the configured ports. The caller must be inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`] if one of the ports cannot be bound.
    pub(crate) fn bind(config: &Config, on_ready: impl FnOnce(SocketAddr) + Send + 'static) -> Result<Self, BindError> {
        let main = listen(config.listen, "listen")?;
        let ops = config.ops_listen.map(|address| listen(address, "ops-listen")).transpose()?;
        Ok(Self { main, ops, on_ready: Box::new(on_ready) })
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("main", &self.main).field("ops", &self.ops).finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted node can bind its port again while old connections linger on it.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error| BindError { address, setting, error })
}

/// A request that a node drains and ends. All clones share one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown(CancellationToken);

impl Shutdown {
    /// Returns a handle on which nothing has been requested yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Requests the shutdown. Further calls have no effect.
    pub(crate) fn request(&self) {
        self.0.cancel();
    }

    /// Waits until the shutdown is requested.
    pub(crate) async fn requested(&self) {
        self.0.cancelled().await;
    }
}
