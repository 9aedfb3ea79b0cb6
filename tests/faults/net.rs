//! A network between a node and its Redis that can be cut in one direction or both, or slowed down.
//!
//! During a cut nothing arrives and neither side is told. Bytes sent meanwhile arrive when it heals, as over TCP.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The effect on the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// They do not arrive.
    pub cut: bool,
    /// They arrive later by this time.
    pub delay: Duration,
}

/// One node's way to Redis.
pub struct Network {
    port: u16,
    to_redis: watch::Sender<Flow>,
    to_node: watch::Sender<Flow>,
    task: JoinHandle<()>,
}

impl Network {
    /// A way to the server on this port of this machine.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (to_redis, to_node) = (watch::Sender::new(Flow::default()), watch::Sender::new(Flow::default()));
        let (up, down) = (to_redis.clone(), to_node.clone());
        let task = tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                let (up, down) = (up.subscribe(), down.subscribe());
                tokio::spawn(async move {
                    let Ok(redis) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    // No delay but the requested one.
                    let _ = (node.set_nodelay(true), redis.set_nodelay(true));
                    let ((node_in, node_out), (redis_in, redis_out)) = (node.into_split(), redis.into_split());
                    tokio::join!(carry(node_in, redis_out, up), carry(redis_in, node_out, down));
                });
            }
        });
        Self { port, to_redis, to_node, task }
    }

    /// The address at which the node finds Redis.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the effect on the node's commands and on Redis's answers from now on.
    pub fn set(&self, to_redis: Flow, to_node: Flow) {
        self.to_redis.send_replace(to_redis);
        self.to_node.send_replace(to_node);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one direction of one connection to its end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if flow.wait_for(|flow| !flow.cut).await.is_err() {
            break;
        }
        let delay = flow.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    // The end of the stream is forwarded too, when the network works.
    let _ = flow.wait_for(|flow| !flow.cut).await;
    let _ = to.shutdown().await;
}
