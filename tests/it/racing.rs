//! Sixteen clients race for control from three nodes: there are never two controllers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::client::RawClient;
use super::support::cluster::{Cluster, Node, PATIENCE};
use super::support::eventually;

const CLIENTS: usize = 16;

/// How long they race; a minute with RELAY_TEST_RACE_SECONDS=60.
fn duration() -> Duration {
    let seconds = std::env::var("RELAY_TEST_RACE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

/// A client's belief about its role, from the frames that it got.
#[derive(Default)]
struct Belief {
    read: usize,
    active: bool,
    epoch: Value,
    driver: Option<String>,
    sent: u64,
}

struct Racer {
    client: RawClient,
    modern: bool,
    belief: Mutex<Belief>,
}

impl Racer {
    async fn join(node: &Node, session: &str, index: usize) -> Self {
        let (id, modern) = (format!("client_{index}"), index.is_multiple_of(2));
        let client = if modern {
            RawClient::join_modern(node, session, &id).await.0
        } else {
            RawClient::join(node, session, &id).await
        };
        Self { client, modern, belief: Mutex::default() }
    }

    /// Handles new frames. Returns how often an old client has to acknowledge that it lost control.
    fn read(&self) -> usize {
        let mut belief = self.belief.lock();
        let frames = self.client.all();
        let mut losses = 0;
        for frame in &frames[belief.read..] {
            match frame["type"].as_str().unwrap_or_default() {
                "assign_sync_direction" => {
                    belief.active = frame["data"]["assignedDirection"] == "ACTIVE";
                    belief.epoch = frame["epoch"].clone();
                }
                "confirm_transfer" => belief.active = true,
                "accept_control" => {
                    belief.active &= self.modern;
                    losses += usize::from(!self.modern);
                }
                "role_changed" if frame["data"]["role"] == "active" => {
                    belief.driver = frame["clientId"].as_str().map(str::to_owned);
                    if !frame["epoch"].is_null() {
                        belief.epoch = frame["epoch"].clone();
                    }
                }
                _ => {}
            }
        }
        belief.read = frames.len();
        losses
    }

    async fn say(&self, kind: &str, data: Value) {
        let mut frame = self.client.frame(kind, data);
        if self.modern {
            frame["epoch"] = self.belief.lock().epoch.clone();
        }
        self.client.send(frame).await;
    }

    /// Acknowledges, then sends a state if it believes that it has control, and claims it if not.
    async fn act(&self, turn: usize, may_claim: bool) {
        for _ in 0..self.read() {
            self.say("confirm_transfer", json!({ "toClientId": "x", "timestamp": 1 })).await;
        }
        let (active, driver) = {
            let belief = self.belief.lock();
            (belief.active, belief.driver.clone())
        };
        if active {
            let number = {
                let mut belief = self.belief.lock();
                belief.sent += 1;
                belief.sent
            };
            self.say("state_update", json!({ "by": self.client.id, "number": number })).await;
            if may_claim && turn.is_multiple_of(37) {
                self.say("release_control", json!({ "timestamp": 1 })).await;
                self.belief.lock().active = false;
            }
        } else if may_claim && turn.is_multiple_of(5) {
            match driver {
                Some(driver) => {
                    self.say("accept_control", json!({ "fromClientId": driver, "timestamp": 1 })).await;
                    // An old client takes control first and hears of it afterwards.
                    self.belief.lock().active |= !self.modern;
                }
                None => self.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE" })).await,
            }
        }
    }
}

/// The states that one receiver saw: one sender per epoch; epochs and each sender's numbers only rise.
fn check(receiver: &RawClient, senders: &mut HashMap<u64, String>) -> usize {
    let (mut last_epoch, mut last_number) = (0, HashMap::<String, u64>::new());
    let states = receiver.frames_of("state_update");
    for state in &states {
        let by = state["data"]["by"].as_str().unwrap().to_owned();
        let number = state["data"]["number"].as_u64().unwrap();
        let last = last_number.insert(by.clone(), number).unwrap_or(0);
        assert!(number > last, "{} saw {number} of {by} after {last}", receiver.id);
        // Only clients that have done the handshake see epochs.
        let Some(epoch) = state["epoch"].as_u64() else { continue };
        assert!(epoch >= last_epoch, "{} saw epoch {epoch} after {last_epoch}", receiver.id);
        last_epoch = epoch;
        let first = senders.entry(epoch).or_insert_with(|| by.clone());
        assert_eq!(*first, by, "two controllers in epoch {epoch}, seen by {}", receiver.id);
    }
    states.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_racing_clients_never_give_two_controllers() {
    let cluster = Cluster::over_redis(3).await;
    let session = cluster.near().create_session(json!({})).await;
    let mut racers = Vec::new();
    for index in 0..CLIENTS {
        racers.push(Arc::new(Racer::join(&cluster.nodes()[index % 3], &session, index).await));
    }
    let racing = Arc::new(AtomicBool::new(true));
    let tasks = racers.iter().enumerate().map(|(index, racer)| {
        let (racer, racing) = (Arc::clone(racer), Arc::clone(&racing));
        tokio::spawn(async move {
            let mut turn = index;
            while racing.load(Ordering::Relaxed) {
                turn += 1;
                racer.act(turn, true).await;
                // The pace of an eager user; the race is in the relay, not in the sockets.
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let end = Instant::now() + duration();
    tokio::time::sleep_until(end).await;
    racing.store(false, Ordering::Relaxed);
    join_all(tasks).await;

    // Quiet: the client that was told so has control, and no other client believes that it has.
    let agreed = eventually(PATIENCE, async || {
        for racer in &racers {
            for _ in 0..racer.read() {
                racer.say("confirm_transfer", json!({ "toClientId": "x", "timestamp": 1 })).await;
            }
        }
        let controller = cluster.far().get_session(&session).await.1["activeClientId"].clone();
        let believers = racers.iter().filter(|racer| racer.belief.lock().active);
        let believers: Vec<Value> = believers.map(|racer| json!(racer.client.id)).collect();
        let expected: Vec<Value> = if controller.is_null() { Vec::new() } else { vec![controller] };
        (believers == expected).then_some(believers.len())
    });
    agreed.await;

    let mut senders = HashMap::new();
    let seen: usize = racers.iter().map(|racer| check(&racer.client, &mut senders)).sum();
    assert!(senders.len() > 50, "control changed hands: {} epochs", senders.len());
    assert!(seen > 1000, "states passed: {seen}");
}
