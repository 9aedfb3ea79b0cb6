//! High load and slow readers: other clients are not delayed, queues are bounded, and every drop is counted.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::support::client::{RawClient, unread_socket};
use super::support::cluster::{Kind, Options, PATIENCE};
use super::support::eventually;
use super::support::stage::{Stage, meet};

const FOLLOWERS: usize = 2_000;

/// How many states are sent to measure how long one takes.
const STATES: u64 = 50;

/// Clients expect a forwarded frame within this.
const SOON: Duration = Duration::from_millis(50);

/// How long states take from one client to the other, sorted.
async fn latencies(from: &RawClient, to: &RawClient) -> Vec<Duration> {
    let mut took = Vec::new();
    for step in 0..STATES {
        let sent = Instant::now();
        from.say("state_update", json!({ "step": step })).await;
        took.push(to.expect_raw("state_update").await.at - sent);
    }
    took.sort_unstable();
    took
}

fn median(took: &[Duration]) -> Duration {
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_very_slow_follower_is_conflated_then_closed() {
    let stage = Stage::set(Kind::Embedded).await;
    let (a, b) = stage.driven().await;
    let before = latencies(&a, &b).await;
    let mut slow = unread_socket(stage.cluster.near(), &stage.session, 4096).await;
    a.expect("client_connected").await;
    let reading = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let mut byte = [0];
        loop {
            ticks.tick().await;
            if !matches!(slow.read(&mut byte).await, Ok(1)) {
                return;
            }
        }
    });
    let metric = async |name: &str, labels: &[(&str, &str)]| stage.cluster.near().metric(name, labels).await;
    let padding = "x".repeat(16 * 1024);
    eventually(PATIENCE, async || {
        for step in 0..16 {
            a.say("state_update", json!({ "step": step, "padding": padding })).await;
        }
        a.barrier(&b).await;
        (metric("conflated_states_total", &[]).await > 0.0).then_some(())
    })
    .await;
    let queued = b.frames_of("state_update").len();
    while b.frames_of("state_update").len() < queued {
        b.expect("state_update").await;
    }
    // A queue full of frames that cannot be dropped closes the socket.
    eventually(PATIENCE, async || {
        for _ in 0..64 {
            a.say("cursor_moved", json!({ "padding": padding })).await;
        }
        a.barrier(&b).await;
        (metric("closes_total", &[("reason", "slow_reader")]).await > 0.0).then_some(())
    })
    .await;
    reading.abort();
    let fresh = stage.another_session(json!({})).await;
    let (c, d) = (
        stage.seat(stage.cluster.near(), &fresh, "client_c").await,
        stage.seat(stage.cluster.near(), &fresh, "client_d").await,
    );
    meet(&[&c], &d).await;
    let after = latencies(&c, &d).await;
    eprintln!("a state takes {:?} before and {:?} after the slow reader", median(&before), median(&after));
    assert!(median(&after) < SOON, "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_two_thousand_does_not_slow_another() {
    let options = Options::default().flag("--max-clients-per-session", "2500");
    let stage = Stage::with(Kind::Embedded, options, json!({})).await;
    let driver = RawClient::join_modern(stage.cluster.near(), &stage.session, "client_a").await.0;
    driver.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
    driver.expect("assign_sync_direction").await;
    let url = format!("{}/ws?session={}", stage.cluster.near().ws(), stage.session);
    let sockets: Vec<_> = stream::iter(0..FOLLOWERS)
        .map(|_| tokio_tungstenite::connect_async(&url))
        .buffer_unordered(50)
        .map(|socket| socket.expect("it opens").0)
        .collect()
        .await;
    let readers: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} }))
        .collect();
    let joined = async || stage.cluster.near().get_session(&stage.session).await.1["clientCount"] == FOLLOWERS + 1;
    eventually(PATIENCE * 6, async || joined().await.then_some(())).await;
    let other = stage.another_session(json!({})).await;
    let (c, d) = (
        stage.seat(stage.cluster.near(), &other, "client_c").await,
        stage.seat(stage.cluster.near(), &other, "client_d").await,
    );
    meet(&[&c], &d).await;
    let alone = latencies(&c, &d).await;
    // Ten states a second to two thousand followers, as a presenter would make them at most.
    let presenting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for step in 0_u64.. {
            ticks.tick().await;
            driver.say("state_update", json!({ "step": step })).await;
        }
    };
    let beside = tokio::select! {
        () = presenting => unreachable!("it goes on forever"),
        beside = latencies(&c, &d) => beside,
    };
    eprintln!("a state takes {:?} alone and {:?} beside a session of {FOLLOWERS}", median(&alone), median(&beside));
    assert!(median(&beside) < SOON, "{beside:?}");
    readers.into_iter().for_each(|reader| reader.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_to_redis_delays_no_local_client_and_recovers() {
    let options = Options::default().flag("--lease-ttl", "30s").flag("--redis-command-timeout", "20s");
    let mut stage = Stage::with(Kind::Redis(2), options, json!({})).await;
    let (a, b) = stage.driven().await;
    let c = stage.modern_near("client_c").await;
    c.barrier(&a).await;
    stage.cluster.redis.as_mut().unwrap().pause();
    // 40 MiB: more than the queue takes, 16,384 messages or 32 MiB.
    let padding = "x".repeat(16 * 1024);
    for step in 0..2_560 {
        a.say("state_update", json!({ "step": step, "padding": padding })).await;
        if step % 8 == 7 {
            a.barrier(&c).await;
        }
    }
    assert_eq!(c.frames_of("state_update").len(), 2_560, "the follower on the same node got them all");
    let resident = stage.cluster.near().resident_kib() / 1024;
    assert!(resident < 256, "queues are bounded: {resident} MiB");
    let asked = a.frames_of("request_sync").len();
    stage.cluster.redis.as_mut().unwrap().resume();
    // The other node notices the gap, and the controller is asked for its state.
    eventually(PATIENCE, async || (a.frames_of("request_sync").len() > asked).then_some(())).await;
    a.say("state_update", json!({ "step": "at last" })).await;
    let last = async || b.frames_of("state_update").last().is_some_and(|frame| frame["data"]["step"] == "at last");
    eventually(PATIENCE, async || last().await.then_some(())).await;
    assert!(
        stage.cluster.far().metric("link_gaps_total", &[]).await
            + stage.cluster.near().metric("link_gaps_total", &[]).await
            > 0.0
    );
}
