//! A process from start to end, with Redis and without.

use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::{Cluster, Kind, Node, Options, PATIENCE};
use super::support::eventually;
use super::support::redis::RedisFixture;
use super::support::stage::Stage;

async fn readiness(node: &Node) -> (u16, Value) {
    node.answer(Method::GET, "/readyz").await
}

async fn becomes(node: &Node, status: u16) {
    eventually(PATIENCE, async || (readiness(node).await.0 == status).then_some(())).await;
}

/// Runs the relay until it exits by itself.
fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitorial-relay"));
    command.args(["--listen", "127.0.0.1:0", "--log-level", "off"]).args(args).output().expect("it starts")
}

fn one_sentence(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty(), "nothing was bound");
    text
}

#[tokio::test]
async fn a_terminated_node_sends_clients_elsewhere_and_exits_with_0() {
    let stage = Stage::set(Kind::Redis(2)).await;
    let (a, b) = stage.driven().await;
    stage.cluster.near().terminate();
    assert_eq!(a.expect_close().await, (1012, "Service restart: reconnect now".to_owned()));
    assert!(stage.cluster.near().wait().await.success());
    b.expect("client_disconnected").await;
    b.expect("release_control").await;
    assert_eq!(stage.active().await, Value::Null);
}

#[tokio::test]
async fn a_wrong_setting_is_one_sentence_and_exit_code_2() {
    for args in [
        &["--session-ttl", "soon"][..],
        &["--session-listing", "admin"],
        &["--redis-url", "http://127.0.0.1"],
        &["--lease-ttl", "1s"],
        &["--no-such-setting"],
        &["--config", "no-such-file.toml"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = one_sentence(&output);
        assert!(text.contains(args[0].trim_start_matches('-')) || text.contains("admin-token"), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn a_node_that_may_not_wait_for_redis_exits_with_1() {
    let args = ["--redis-url", "redis://127.0.0.1:1", "--redis-fail-fast", "--redis-connect-timeout", "300ms"];
    let output = tokio::task::spawn_blocking(move || run(&args)).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(one_sentence(&output).contains("Redis"), "{output:?}");
}

#[tokio::test]
async fn a_redis_that_may_evict_sessions_is_refused() {
    let mut redis = RedisFixture::local().await;
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let url = redis.url().to_owned();
    let output = tokio::task::spawn_blocking(move || run(&["--redis-url", &url])).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(one_sentence(&output).contains("noeviction"), "{output:?}");
}

#[tokio::test]
async fn sockets_and_their_session_outlive_a_redis_that_loses_all() {
    let mut stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let (a, b) = stage.driven().await;
    let c = stage.near("client_c").await;
    c.expect("accept_control").await;
    c.say("confirm_transfer", json!({ "toClientId": "client_a", "timestamp": 1 })).await;
    c.barrier(&a).await;
    stage.cluster.redis.as_mut().unwrap().stop().await;

    // At first the node still serves the sessions that it knows.
    a.say("state_update", json!({ "step": 1 })).await;
    assert_eq!(c.expect("state_update").await["data"]["step"], 1);
    becomes(stage.cluster.near(), 503).await;
    let (_, body) = readiness(stage.cluster.near()).await;
    assert!(body["reason"].as_str().is_some_and(|reason| reason.contains("store")), "{body}");
    let alive = stage.cluster.near().request(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(alive.status(), 200);

    // Then there is no controller, and every client is told so.
    a.say("state_update", json!({ "step": 2 })).await;
    assert_eq!(a.expect_rejected("state_update").await, "store_unavailable");
    let (status, body) = stage.cluster.near().answer(Method::GET, &format!("/api/sessions/{}", stage.session)).await;
    assert_eq!(status, 503, "{body}");
    let late = RawClient::join(stage.cluster.near(), &stage.session, "client_late").await;
    assert_eq!(late.expect_close().await.0, 1013);
    assert!(a.is_open() && b.is_open() && c.is_open());

    stage.cluster.redis.as_mut().unwrap().restart().await;
    becomes(stage.cluster.near(), 200).await;
    becomes(stage.cluster.far(), 200).await;
    let restored = async || {
        let (status, session) = stage.cluster.far().get_session(&stage.session).await;
        (status == 200 && session["clientCount"] == 3 && session["activeClientId"] == "client_a").then_some(())
    };
    eventually(PATIENCE, restored).await;
    // The controller keeps control, for both nodes. Its frames are refused until its node has claimed it again.
    let moved = |client: &RawClient| client.frames_of("state_update").iter().any(|frame| frame["data"]["step"] == 3);
    eventually(PATIENCE, async || {
        a.say("state_update", json!({ "step": 3 })).await;
        (moved(&b) && moved(&c)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_waits_for_redis_is_not_ready() {
    let mut redis = RedisFixture::local().await;
    redis.stop().await;
    let url = redis.url().to_owned();
    let options = Options::short_leases().flag("--redis-connect-timeout", "500ms").flag("--redis-url", &url);
    let node = Node::spawn(&options).await;
    let (status, body) = readiness(&node).await;
    assert_eq!((status, body["reason"].as_str().is_some()), (503, true), "{body}");
    assert_eq!(node.request(Method::GET, "/healthz").send().await.unwrap().status(), 200);
    redis.restart().await;
    becomes(&node, 200).await;
    assert!(!node.create_session(json!({})).await.is_empty());
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let cluster = Cluster::start(Kind::Embedded, Options::default().flag("--drain-timeout", "60s")).await;
    let session = cluster.near().create_session(json!({})).await;
    // A client that reads nothing delays the end of the drain.
    let url = format!(
        "GET /ws?session={session} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let mut socket = tokio::net::TcpStream::connect(cluster.near().address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, url.as_bytes()).await.unwrap();
    eventually(PATIENCE, async || (cluster.near().metric("connections", &[]).await >= 1.0).then_some(())).await;
    cluster.near().terminate();
    becomes(cluster.near(), 503).await;
    cluster.near().terminate();
    assert_eq!(cluster.near().wait().await.code(), Some(143));
}
