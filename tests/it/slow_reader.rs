//! A client that never reads harms no other client, and costs a bounded amount of memory.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use super::support::client::{RawClient, unread_socket};
use super::support::cluster::Kind;
use super::support::cluster::PATIENCE;
use super::support::eventually;
use super::support::stage::Stage;

/// The kernel's buffer for a socket that is not read.
const USUAL_BUFFER: u32 = 128 * 1024;

/// The relay's memory for one slow reader: the queue's soft limit and one frame over it, the writer's buffer, and
/// the same again for the allocator. The rest is the kernel's.
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
    // 32 MiB: far more than the kernel buffers for a socket. At most 256 KiB at once, half of the queue limit: on a
    // busy machine the other reader is slow too, and must not skip states.
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
