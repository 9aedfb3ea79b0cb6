//! Measures two paths of the relay:
//!
//! - the hot path: a state comes in, the relay checks its sender's role, wraps the state once and queues it for every
//!   receiver;
//! - the slow path: control moves from one client to the other.
//!
//! `make bench`, or `cargo bench --bench hot_path`. The bench uses no sockets and no Redis, so it measures only the
//! relay.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gitorial_relay::hub::{Next, Socket};
use gitorial_relay::relay::{JoinRequest, NewSession, Relay};
use gitorial_relay::{Node, NodeSettings};
use tokio::runtime::Runtime;

/// A `state_update` with a tutorial state of some 400 bytes, as clients send it.
fn state(client: &str) -> Bytes {
    let data = serde_json::json!({
        "tutorialId": "react-basics", "tutorialTitle": "React Fundamentals", "totalSteps": 10,
        "isShowingSolution": false, "repoUrl": "https://github.com/example/react-basics-tutorial",
        "stepContent": { "id": "step-5", "title": "useState Hook", "commitHash":
            "0123456789abcdef0123456789abcdef01234567", "type": "action", "index": 4 },
    });
    frame(client, "state_update", &data)
}

fn frame(client: &str, kind: &str, data: &serde_json::Value) -> Bytes {
    let frame = serde_json::json!({
        "type": kind, "clientId": client, "data": data, "timestamp": 1_760_000_000_000_u64, "protocol_version": 1,
    });
    frame.to_string().into()
}

async fn send(relay: &Relay, socket: &Arc<Socket>, text: Bytes) {
    relay.on_frame(socket, text);
    relay.decided(socket).await;
}

fn drain(socket: &Socket) -> usize {
    // By then the held frames are due.
    let now = u64::MAX;
    std::iter::from_fn(|| match socket.outbound.next(now, true) {
        Next::Write(item) => Some(item.text.len()),
        Next::Probe(_) | Next::ReadFirst | Next::Wait(_) | Next::Close(_) => None,
    })
    .count()
}

/// The members of a session with one controller and this number of followers. No frames are queued for the followers.
async fn session(relay: &Relay, followers: usize) -> Vec<Arc<Socket>> {
    let session = relay.create_session(NewSession::default()).await.expect("embedded store").id();
    let mut members = Vec::new();
    for _ in 0..=followers {
        let join_request = JoinRequest { session, client: None, resume: None };
        members.push(relay.join(join_request).await.expect("a seat"));
    }
    let ask = serde_json::json!({ "preferredDirection": "ACTIVE", "reason": "bench" });
    send(relay, &members[0], frame("client_0", "coordinate_sync_direction", &ask)).await;
    for (index, member) in members.iter().enumerate().skip(1) {
        let name = format!("client_{index}");
        send(relay, member, frame(&name, "confirm_transfer", &serde_json::json!({}))).await;
        drain(member);
    }
    members
}

fn start() -> (Runtime, Node) {
    let runtime = Runtime::new().expect("a runtime");
    let node = runtime.block_on(async {
        let node = Node::start(NodeSettings::default()).await.expect("an embedded node");
        assert!(node.ready(Duration::from_secs(5)).await);
        node
    });
    (runtime, node)
}

fn fan_out(c: &mut Criterion) {
    let (runtime, node) = start();
    let _guard = runtime.enter();
    let mut group = c.benchmark_group("state_update");
    for receivers in [1, 4, 64] {
        let members = runtime.block_on(session(node.relay(), receivers));
        let text = state("client_0");
        group.throughput(Throughput::Elements(receivers as u64));
        group.bench_function(BenchmarkId::new("receivers", receivers), |bench| {
            bench.iter(|| {
                node.relay().on_frame(&members[0], text.clone());
                let delivered: usize = members[1..].iter().map(|member| drain(member)).sum();
                assert_eq!(black_box(delivered), receivers);
            });
        });
    }
    group.finish();
}

/// As a socket's own task takes control: in a task of the runtime.
fn control(c: &mut Criterion) {
    let (runtime, node) = start();
    let members = runtime.block_on(session(node.relay(), 1));
    // Which of the two has control.
    let controller = Arc::new(AtomicUsize::new(0));
    c.bench_function("control/take_over", |bench| {
        bench.iter_custom(|turns| {
            let (relay, members, controller) = (node.relay().clone(), members.clone(), controller.clone());
            let task = runtime.spawn(async move {
                let began = Instant::now();
                for _ in 0..turns {
                    let old = controller.fetch_xor(1, Ordering::Relaxed);
                    take_over(&relay, &members, old).await;
                }
                began.elapsed()
            });
            runtime.block_on(task).expect("the task ends")
        });
    });
}

/// The other of the two clients takes control from the client `old`, which confirms its loss.
async fn take_over(relay: &Relay, members: &[Arc<Socket>], old: usize) {
    let (names, new) = (["client_0", "client_1"], 1 - old);
    let take = serde_json::json!({ "fromClientId": names[old], "timestamp": 1 });
    send(relay, &members[new], frame(names[new], "accept_control", &take)).await;
    send(relay, &members[old], frame(names[old], "confirm_transfer", &serde_json::json!({}))).await;
    assert!(drain(&members[0]) > 0 && drain(&members[1]) > 0);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = fan_out, control
}
criterion_main!(benches);
