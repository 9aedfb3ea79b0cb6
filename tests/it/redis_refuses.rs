//! A Redis that can be reached and says no: its own words are in the log, in `/readyz` and in the answers of the API
//! (docs/reliability.md, "When Redis is there and says no").

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::support::client::RawClient;
use super::support::cluster::{Kind, Node, Options, PATIENCE};
use super::support::eventually;
use super::support::redis::RedisFixture;
use super::support::stage::Stage;

/// All rights on all keys and channels.
const ALL: &str = "~* &* +@all";

async fn node(url: &str) -> Node {
    let options = Options::short_leases().flag("--redis-url", url).flag("--redis-connect-timeout", "500ms");
    Node::spawn(&options).await
}

/// As [`says`], and the log has these words once.
async fn refuses(node: &Node, words: &str) {
    says(node, words).await;
    let log = node.log();
    assert_eq!(log.lines().filter(|line| line.contains(words)).count(), 1, "it is said once");
}

/// Waits until the probe and a new session are refused with these words, and new sockets are closed.
async fn says(node: &Node, words: &str) {
    eventually(PATIENCE, async || {
        let (status, body) = node.answer(Method::GET, "/readyz").await;
        (status == 503 && body["reason"].as_str().is_some_and(|reason| reason.contains(words))).then_some(())
    })
    .await;
    let (status, body) = node.answer(Method::POST, "/api/sessions").await;
    assert_eq!((status, &body["code"]), (503, &json!("store_unavailable")), "{body}");
    assert!(body["error"].as_str().unwrap().contains(words), "{body}");
    let socket = RawClient::join(node, "0f8fad5b-d9cd-469f-a165-70867728950e", "client_a").await;
    assert_eq!(socket.expect_close().await.0, 1013);
    assert_eq!(node.answer(Method::GET, "/healthz").await.0, 200);
    let log = node.log();
    assert!(!log.contains("hunter2") && !log.contains("0f8fad5b") && !log.contains("cannot be reached"), "{log}");
}

async fn as_user(redis: &RedisFixture) -> Node {
    node(&redis.url_for("relay:hunter2")).await
}

#[tokio::test]
async fn a_user_without_channels_is_refused_until_it_has_them() {
    let mut redis = RedisFixture::local().await;
    redis.allow("~* +@all resetchannels");
    let node = as_user(&redis).await;
    refuses(&node, "NOPERM this user has no permissions to access one of the channels").await;
    redis.allow(ALL);
    node.ready().await;
    node.create_session(json!({})).await;
}

#[tokio::test]
async fn a_user_without_info_is_refused_and_not_asked_again_and_again() {
    let mut redis = RedisFixture::local().await;
    redis.allow("~* &* +@all -@dangerous");
    let node = as_user(&redis).await;
    refuses(&node, "INFO: ERR The user executing the script can't run this command").await;
    let tries = async || node.metric("redis_commands_total", &[("command", "beat"), ("outcome", "error")]).await;
    let more = async |count: f64| eventually(PATIENCE, async || (tries().await >= count).then_some(())).await;
    // The pauses have grown to the interval of heartbeats, 300 ms.
    more(6.0).await;
    let (began, before) = (Instant::now(), tries().await);
    more(before + 4.0).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    redis.allow(ALL);
    node.ready().await;
}

#[tokio::test]
async fn wrong_credentials_are_told_from_an_unreachable_redis() {
    let mut redis = RedisFixture::local().await;
    redis.allow(ALL);
    let wrong = node(&redis.url_for("relay:hunter22")).await;
    refuses(&wrong, "WRONGPASS invalid username-password pair or user is disabled; correct the user").await;
    redis.command(&["CONFIG", "SET", "requirepass", "hunter2"]);
    refuses(&node(redis.url()).await, "NOAUTH HELLO must be called").await;
}

#[tokio::test]
async fn a_refused_node_that_may_not_wait_says_why_it_ends() {
    let mut redis = RedisFixture::local().await;
    redis.allow(ALL);
    let options =
        Options::default().flag("--redis-connect-timeout", "3s").flag("--redis-fail-fast=true", "--log-level=off");
    let url = redis.url_for("relay:wrong");
    let output = tokio::task::spawn_blocking(move || Node::run(&options.flag("--redis-url", &url))).await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("WRONGPASS") && !text.contains("reached"), "{text}");
}

#[tokio::test]
async fn a_server_without_resp3_is_refused_in_one_sentence() {
    let redis = RedisFixture::with(&["--rename-command", "HELLO", ""]).await;
    let node = node(&redis.url_for("relay:hunter2")).await;
    refuses(&node, "ERR unknown command 'HELLO'; the relay needs RESP3").await;
}

#[tokio::test]
async fn a_missing_command_is_named() {
    let info = "ERR INFO: ERR Unknown Redis command called from script";
    for (command, words) in [("EVAL", "ERR unknown command 'EVAL'"), ("INFO", info)] {
        let redis = RedisFixture::with(&["--rename-command", command, ""]).await;
        refuses(&node(redis.url()).await, words).await;
    }
    let mut redis = RedisFixture::local().await;
    for command in ["publish", "subscribe", "eval", "set"] {
        redis.allow(&format!("{ALL} -{command}"));
        let words = format!("NOPERM this user has no permissions to run the '{command}' command");
        refuses(&as_user(&redis).await, &words).await;
    }
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_quoted() {
    let mut full = RedisFixture::local().await;
    full.command(&["CONFIG", "SET", "maxmemory", "1"]);
    refuses(&node(full.url()).await, "OOM command not allowed").await;

    let mut replica = RedisFixture::local().await;
    replica.command(&["REPLICAOF", "127.0.0.1", "1"]);
    refuses(&node(replica.url()).await, "READONLY You can't write against a read only replica").await;

    let mut unsaved = RedisFixture::with(&["--dbfilename", "dump.rdb"]).await;
    // A folder with the name of the file makes every save fail.
    std::fs::create_dir(unsaved.folder().join("dump.rdb")).unwrap();
    unsaved.command(&["CONFIG", "SET", "save", "3600 1"]);
    unsaved.command(&["BGSAVE"]);
    eventually(PATIENCE, async || unsaved.command(&["SET", "a", "b"]).starts_with("-MISCONF").then_some(())).await;
    refuses(&node(unsaved.url()).await, "MISCONF Redis is configured to save RDB snapshots").await;
}

/// A server that answers each command with this. Returns its address for the user `relay`.
async fn answering(said: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://relay:hunter2@{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 16 * 1024];
                while let Ok(length @ 1..) = socket.read(&mut asked).await {
                    // A command is a list, and the relay writes no other star. Only HELLO is a line.
                    let commands = asked[..length].iter().filter(|byte| **byte == b'*').count().max(1);
                    if socket.write_all(said.repeat(commands).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn whatever_redis_says_no_secret_is_repeated() {
    let said = "-ERR hunter2? gitorial:{0f8fad5b} 0f8fad5b-d9cd-469f-a165-70867728950e\u{1b}[31m\r\n";
    refuses(&node(&answering(said).await).await, "ERR ***? gitorial:").await;
}

#[tokio::test]
async fn a_redis_that_answers_something_else_is_not_used() {
    let node = node(&answering("+OK\r\n").await).await;
    refuses(&node, "something this relay cannot read").await;
    let path = "/api/sessions/0f8fad5b-d9cd-469f-a165-70867728950e";
    for method in [Method::GET, Method::DELETE] {
        let (status, body) = node.answer(method, path).await;
        assert_eq!((status, &body["code"]), (500, &json!("internal")), "{body}");
    }
}

#[tokio::test]
async fn a_slow_redis_gives_no_answer_and_refuses_nothing() {
    let mut redis = RedisFixture::local().await;
    let ready = node(redis.url()).await;
    ready.ready().await;
    redis.pause();
    let starting = node(redis.url()).await;
    for node in [&ready, &starting] {
        says(node, "the store gives no answer").await;
    }
    redis.resume();
    ready.ready().await;
    starting.ready().await;
}

#[tokio::test]
async fn a_redis_that_is_nearly_full_takes_no_new_sessions_and_goes_on_with_the_others() {
    let mut stage = Stage::with(Kind::Redis(1), Options::short_leases(), json!({})).await;
    let (a, b) = stage.driven().await;
    stage.cluster.redis.as_mut().unwrap().command(&["CONFIG", "SET", "maxmemory", "4mb"]);
    let node = stage.cluster.near();
    let metadata = json!({ "metadata": "x".repeat(15_000) });
    let body = eventually(PATIENCE, async || {
        let answer = node.request(Method::POST, "/api/sessions").json(&metadata).send().await.unwrap();
        (answer.status() == 503).then_some(answer)
    })
    .await;
    assert_eq!(body.json::<serde_json::Value>().await.unwrap()["code"], "too_many_sessions");
    assert!(node.metric("refused_sessions_total", &[("reason", "full")]).await >= 1.0);
    // The lease is renewed for longer than it lasts, and control moves.
    let beats = async || node.metric("redis_commands_total", &[("command", "beat"), ("outcome", "ok")]).await;
    let before = beats().await;
    eventually(PATIENCE, async || (beats().await > before + 8.0).then_some(())).await;
    assert_eq!(node.answer(Method::GET, "/readyz").await.0, 200);
    a.say("state_update", json!({ "step": 1 })).await;
    assert_eq!(b.expect("state_update").await["data"]["step"], 1);
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    eventually(PATIENCE, async || (stage.active().await == "client_b").then_some(())).await;
    // Nothing has to be restarted when there is room.
    stage.cluster.redis.as_mut().unwrap().command(&["CONFIG", "SET", "maxmemory", "64mb"]);
    stage.cluster.near().create_session(json!({})).await;
}

#[tokio::test]
async fn a_redis_that_becomes_full_or_read_only_is_quoted_and_sockets_stay() {
    let full: [&[&str]; 2] = [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]];
    let read_only: [&[&str]; 2] = [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]];
    for ([begin, end], words) in [(full, "OOM command not allowed"), (read_only, "READONLY")] {
        let mut stage = Stage::with(Kind::Redis(1), Options::short_leases(), json!({})).await;
        let (a, b) = stage.driven().await;
        stage.cluster.redis.as_mut().unwrap().command(begin);
        let node = stage.cluster.near();
        says(node, words).await;
        // It can still be read. After READONLY the connection is made again each time, to look for the primary.
        let read = async || (node.get_session(&stage.session).await.0 == 200).then_some(());
        eventually(PATIENCE, read).await;
        let (status, body) = node.delete_session(&stage.session).await;
        assert_eq!((status, &body["code"]), (503, &json!("store_unavailable")), "{body}");
        a.say("state_update", json!({ "step": 1 })).await;
        assert_eq!(a.expect_rejected("state_update").await, "store_unavailable");
        b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
        assert_eq!(b.expect_rejected("accept_control").await, "store_unavailable");
        stage.cluster.redis.as_mut().unwrap().command(end);
        stage.cluster.near().ready().await;
        assert!(a.is_open() && b.is_open());
    }
}
