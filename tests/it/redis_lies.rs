//! A Redis, or whoever answers in its place, that sends what no Redis sends: the node lives, its memory stays small, and
//! `/readyz` says what is wrong (docs/decisions/0023-a-patched-redis-protocol.md).

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::support::cluster::{Node, Options, PATIENCE};
use super::support::eventually;
use super::support::redis::RedisFixture;

/// What is sent in between: these bytes, then the others without end.
#[derive(Clone)]
struct Lie {
    begin: Vec<u8>,
    forever: Vec<u8>,
    /// The lie takes the place of the answer to the first command of a connection, in which the version of the protocol
    /// is agreed on.
    at_once: bool,
}

/// A path to a Redis on which it can be made to lie.
struct Liar {
    url: String,
    lie: watch::Sender<Option<Arc<Lie>>>,
}

impl Liar {
    async fn before(redis: &RedisFixture) -> Self {
        let target = redis.url().trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (lie, told) = watch::channel(None);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, told) = (target.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let ((mut from_client, to_client), (from_server, mut to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                        () = answers(from_server, to_client, told) => {}
                    }
                });
            }
        });
        Self { url, lie }
    }
}

/// Carries the answers of one connection, and the lie after each while there is one.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, told: watch::Receiver<Option<Arc<Lie>>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let lie = told.borrow().clone();
        if !lie.as_ref().is_some_and(|lie| lie.at_once) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        let Some(lie) = lie else { continue };
        let mut sent = to.write_all(&lie.begin).await;
        while sent.is_ok() && !lie.forever.is_empty() {
            sent = to.write_all(&lie.forever).await;
        }
        if sent.is_err() {
            return;
        }
    }
}

/// The node goes on as a process, says what is wrong, and serves again when it is over.
async fn survives(begin: Vec<u8>, forever: &[u8], words: &str) {
    let redis = RedisFixture::local().await;
    let liar = Liar::before(&redis).await;
    let node = Node::spawn(&Options::short_leases().flag("--redis-url", &liar.url)).await;
    node.ready().await;
    let forever = forever.repeat(64 * 1024 / forever.len().max(1));
    for at_once in [false, true] {
        let lie = Lie { begin: begin.clone(), forever: forever.clone(), at_once };
        liar.lie.send_replace(Some(Arc::new(lie)));
        eventually(PATIENCE, async || {
            let (status, body) = node.answer(Method::GET, "/readyz").await;
            (status == 503 && body["reason"].as_str().is_some_and(|reason| reason.contains(words))).then_some(())
        })
        .await;
        assert_eq!(node.answer(Method::GET, "/healthz").await.0, 200);
        let resident = node.resident_kib() / 1024;
        assert!(resident < 200, "{resident} MiB");
        let (status, body) = node.answer(Method::POST, "/api/sessions").await;
        assert_eq!((status, &body["code"]), (503, &json!("store_unavailable")), "{body}");
        liar.lie.send_replace(None);
        node.ready().await;
    }
    let log = node.log();
    let told = log.lines().filter(|line| line.contains(words)).count();
    // Of each lie the three connections and the lease say it once in each of their ways, not for each of many attempts.
    assert!((1..=12).contains(&told), "it is not said for each attempt: {told} in\n{log}");
    node.create_session(json!({})).await;
}

#[tokio::test]
async fn deep_nesting_ends_the_connection_and_not_the_process() {
    survives(b"*1\r\n".repeat(200_000), b"", "more than 32 levels of nested frames").await;
}

#[tokio::test]
async fn an_announcement_of_two_gigabytes_is_not_believed() {
    survives(b"$2147483647\r\n".to_vec(), b"x", "more than 67108864 bytes in a frame").await;
}

#[tokio::test]
async fn an_announcement_of_two_billion_answers_is_not_believed() {
    for kind in ["*", "%", "~", ">"] {
        survives(format!("{kind}2147483647\r\n").into(), b":1\r\n", "more than 65536 frames in a frame").await;
    }
}

#[tokio::test]
async fn a_line_without_an_end_is_given_up() {
    survives(b"+".to_vec(), b"x", "more than 65536 bytes in a line").await;
}

#[tokio::test]
async fn a_stream_is_refused() {
    let words = "a streamed frame, which no server sends";
    survives(b"*?\r\n".to_vec(), b":1\r\n", words).await;
    survives(b"$?\r\n".to_vec(), b";4\r\nabcd\r\n", words).await;
}
