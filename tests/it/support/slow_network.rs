//! A network with a fixed delay in both directions, independent of its load.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// A path to one address. Closed when dropped.
pub struct SlowNetwork {
    address: String,
    task: JoinHandle<()>,
}

impl SlowNetwork {
    /// A path to this address with `delay` in each direction.
    pub async fn to(target: &str, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let target = target.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    // No delay but the requested one.
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
                    tokio::join!(carry(client_in, server_out, delay), carry(server_in, client_out, delay));
                });
            }
        });
        Self { address, task }
    }

    /// The address to connect to.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for SlowNetwork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one direction of one connection to its end, its close included.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sent, mut on_its_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if sent.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
        // The other side may be gone already.
        let _ = sent.send((Instant::now() + delay, Vec::new()));
    };
    let write = async move {
        while let Some((due, bytes)) = on_its_way.recv().await {
            sleep_until(due).await;
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
