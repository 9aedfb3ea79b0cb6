//! A log that nobody reads: a full pipe stops nothing but the log.

use std::io::{BufRead, BufReader, PipeReader, Write};

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::support::client::RawClient;
use super::support::cluster::{Node, Options, PATIENCE};
use super::support::eventually;

/// As many bytes as a pipe of Linux takes before a write waits.
const PIPE: usize = 64 * 1024;

/// A node whose output goes into a pipe that is full before it starts.
async fn unread() -> (Node, PipeReader) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut full = vec![b'.'; PIPE - 1];
    full.push(b'\n');
    writer.write_all(&full).unwrap();
    let node = Node::into_pipe(&Options::default().flag("--log-level", "trace"), writer);
    node.ready().await;
    (node, reader)
}

/// Creates sessions, each of which logs a line, until lines are dropped.
async fn fill_the_log(node: &Node) {
    eventually(PATIENCE * 3, async || {
        let some = (0..250).map(|_| node.create_session(json!({})));
        futures_util::future::join_all(some).await;
        (node.metric("dropped_log_lines_total", &[]).await > 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_node() {
    let (node, _reader) = unread().await;
    fill_the_log(&node).await;
    let session = node.create_session(json!({})).await;
    let a = RawClient::join(&node, &session, "client_a").await;
    let b = RawClient::join(&node, &session, "client_b").await;
    a.expect("client_connected").await;
    b.say("cursor_moved", json!({})).await;
    a.expect("cursor_moved").await;
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(node.answer(reqwest::Method::GET, probe).await.0, 200);
    }
    node.terminate();
    assert!(node.wait().await.success());
}

#[tokio::test]
async fn a_reader_that_is_back_learns_how_many_lines_were_dropped() {
    let (node, reader) = unread().await;
    fill_the_log(&node).await;
    let (tell, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    let said = line_with(&mut lines, "log lines were dropped").await;
    assert!(said.contains("lines="), "{said}");
    node.terminate();
    line_with(&mut lines, "stopped").await;
    assert!(node.wait().await.success());
}

/// The next line that contains this.
async fn line_with(lines: &mut mpsc::UnboundedReceiver<String>, words: &str) -> String {
    let found = async {
        loop {
            let line = lines.recv().await.expect("it says so before it ends");
            if line.contains(words) {
                return line;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("it says so in time")
}

#[tokio::test]
async fn a_node_that_cannot_start_ends_although_nobody_reads_why() {
    let (_reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'.'; PIPE]).unwrap();
    let options = Options::default().flag("--redis-url", "redis://127.0.0.1:1");
    let options = options.flag("--redis-fail-fast=true", "--redis-connect-timeout=300ms");
    let node = Node::into_pipe(&options, writer);
    assert_eq!(node.wait().await.code(), Some(1));
}
