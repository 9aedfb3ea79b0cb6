//! A client that never reads harms nobody but itself, and costs a bounded amount of memory.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use super::support::client::{RawClient, unread_socket};
use super::support::cluster::Kind;
use super::support::cluster::PATIENCE;
use super::support::eventually;
use super::support::stage::Stage;

/// What the kernel keeps for a socket that is not read.
const USUAL_BUFFER: u32 = 128 * 1024;

/// What the relay may keep for one slow reader: the queue's soft limit and one frame over it, the writer's buffer and as
/// much again for what the allocator keeps; the rest is the kernel's.
const BOUND_KIB: u64 = 4 * 1024;

async fn with_a_deaf_client(stage: &Stage) -> (RawClient, RawClient, TcpStream) {
    let (a, b) = stage.driven().await;
    let inbox_silent = unread_socket(stage.cluster.near(), &stage.session, USUAL_BUFFER).await;
    a.expect("client_connected").await;
    (a, b, inbox_silent)
}

#[tokio::test]
async fn a_follower_that_never_reads_skips_states_and_delays_no_other() {
    let stage = Stage::set(Kind::Embedded).await;
    let (a, b, _deaf) = with_a_deaf_client(&stage).await;
    let before = stage.cluster.near().resident_kib();
    let padding = "x".repeat(8 * 1024);
    // 32 MiB: far more than the kernel keeps for a socket. No more than 256 KiB at once, half of what may wait for one
    // that reads before it, too, is spared old states: on a busy machine it is as slow as the machine.
    for step in 0..4096 {
        a.say("state_update", json!({ "step": step, "padding": padding })).await;
        if step % 32 == 31 {
            a.barrier(&b).await;
        }
    }
    assert_eq!(b.frames_of("state_update").len(), 4096, "the other follower got them all");
    let grown = stage.cluster.near().resident_kib().saturating_sub(before);
    assert!(grown < BOUND_KIB, "{grown} KiB more for one slow reader");
    assert!(stage.cluster.near().metric("conflated_states_total", &[]).await > 0.0);
}

#[tokio::test]
async fn a_client_that_never_reads_its_control_frames_is_closed() {
    let stage = Stage::set(Kind::Embedded).await;
    let (a, b, _deaf) = with_a_deaf_client(&stage).await;
    let padding = "x".repeat(8 * 1024);
    let closed = async || stage.cluster.near().metric("closes_total", &[("reason", "slow_reader")]).await;
    eventually(PATIENCE, async || {
        for _ in 0..64 {
            a.say("cursor_moved", json!({ "padding": padding })).await;
        }
        a.barrier(&b).await;
        (closed().await > 0.0).then_some(())
    })
    .await;
    a.say("state_update", json!({ "step": 1 })).await;
    assert_eq!(b.expect("state_update").await["data"]["step"], 1);
    eventually(Duration::from_secs(10), async || {
        (stage.cluster.near().metric("connections", &[]).await <= 2.0).then_some(())
    })
    .await;
}
