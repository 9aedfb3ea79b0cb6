//! Serves a router on a listener.

use axum::Router;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Serves `app` until `serving` is cancelled.
pub async fn serve(listener: TcpListener, app: Router, serving: CancellationToken) {
    let end = async move { serving.cancelled().await };
    if let Err(error) = axum::serve(NoDelay(listener), app).with_graceful_shutdown(end).await {
        tracing::error!(%error, "a listener failed");
    }
}

/// Sets TCP_NODELAY, so that the second of two small frames need not wait for an acknowledgement.
struct NoDelay(TcpListener);

impl Listener for NoDelay {
    type Io = TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // A socket that is already gone reports that when it is read.
        let _ = stream.set_nodelay(true);
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
