//! A world: nodes, their store, sessions with clients in them, and the history.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use super::history::{History, Quiet, Who};
use super::judge::{Verdict, judge_quiet};
use super::member::{Addresses, Member, Surroundings};
use super::net::Network;
use super::stores::{Kind, Store};
use super::support::cluster::{Node, Options};
use super::support::old_script::Generation;

/// The deadline for convergence after a fault is healed.
pub const CONVERGED: Duration = Duration::from_secs(60);

/// The size of a world, and the pace of its leases.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Sessions.
    pub sessions: usize,
    /// The node lease; heartbeat and margin follow.
    pub lease: Duration,
}

impl Size {
    /// The default intervals, for which the promises are made.
    pub const FULL: Self = Self { nodes: 3, sessions: 50, lease: Duration::from_secs(5) };
    /// Short leases, for the everyday tests.
    pub const QUICK: Self = Self { nodes: 3, sessions: 20, lease: Duration::from_secs(2) };

    /// A node that has gone is declared dead after this.
    pub fn lapse(self) -> Duration {
        self.lease + self.margin()
    }

    fn margin(self) -> Duration {
        self.lease / 5
    }

    fn options(self) -> Options {
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        Options::default()
            .flag("--lease-ttl", &millis(self.lease))
            .flag("--lease-margin", &millis(self.margin()))
            .flag("--heartbeat-interval", &millis(self.lease / 5))
            .flag("--redis-command-timeout", &millis((self.lease / 3).min(Duration::from_secs(2))))
            // By default 30 s: a silent socket is noticed after two of these.
            .flag("--ping-interval", "5s")
    }
}

/// One node and its way to Redis.
struct Place {
    node: Node,
    network: Option<Network>,
}

/// The world.
pub struct World {
    /// Its store.
    pub store: Store,
    /// Its clients.
    pub members: Vec<Member>,
    /// The history of the clients.
    pub history: Arc<History>,
    /// The source of a fault's random choices.
    pub rng: StdRng,
    /// Its measures.
    pub size: Size,
    places: Vec<Option<Place>>,
    addresses: Addresses,
    sessions: Vec<String>,
    /// Whether the users act: those of the sessions with an even number, and those of the others.
    driving: [watch::Sender<bool>; 2],
    extra: Options,
    struck: Option<(Instant, SystemTime)>,
    healed: Option<Instant>,
    http: reqwest::Client,
}

impl World {
    /// A world at work. `clocks`: the nodes' clocks are minutes apart.
    pub async fn start(kind: Kind, size: Size, seed: u64, clocks: bool) -> Self {
        let store = Store::start(kind).await;
        let mut extra = size.options();
        if kind == Kind::Sentinel {
            extra = extra.flag("--redis-wait-replicas", "1");
        }
        let mut world = Self {
            store,
            members: Vec::new(),
            history: Arc::new(History::new()),
            rng: StdRng::seed_from_u64(seed),
            size,
            places: Vec::new(),
            addresses: Addresses::default(),
            sessions: Vec::new(),
            driving: [watch::Sender::new(true), watch::Sender::new(true)],
            extra,
            struck: None,
            healed: None,
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build().expect("a client"),
        };
        let nodes = if kind == Kind::Embedded { 1 } else { size.nodes };
        for index in 0..nodes {
            let skew = if clocks { [0, 5, -3][index % 3] } else { 0 };
            world.add_node(skew).await;
        }
        world.fill().await;
        world
    }

    /// Starts a node whose clock is `skew` minutes off, and waits until it serves. Returns its index.
    pub async fn add_node(&mut self, skew: i32) -> usize {
        let network = match self.store.port() {
            Some(port) => Some(Network::to(port).await),
            None => None,
        };
        let mut options = self.extra.clone();
        if let Some(url) = self.store.url(network.as_ref().map(Network::port)) {
            options = options.flag("--redis-url", &url);
        }
        if skew != 0 {
            options = options
                .env("LD_PRELOAD", "libfaketime.so.1")
                .env("LD_LIBRARY_PATH", &format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH))
                .env("FAKETIME", &format!("{skew:+}m"))
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        let node = Node::spawn(&options).await;
        node.ready().await;
        self.addresses.write().push(node.address().to_owned());
        self.places.push(Some(Place { node, network }));
        self.places.len() - 1
    }

    async fn fill(&mut self) {
        for session in 0..self.size.sessions {
            let node = self.living()[0];
            let id = self.node(node).create_session(serde_json::json!({})).await;
            self.sessions.push(id.clone());
            for client in 0..self.rng.random_range(2..=5) {
                // The first always does the handshake, so that one client sees the epochs.
                let generation = match (client, self.rng.random_range(0..4)) {
                    (1.., 0) => Some(Generation::First),
                    (1.., 1) => Some(Generation::Second),
                    _ => None,
                };
                let around = Surroundings {
                    addresses: self.addresses.clone(),
                    session: id.clone(),
                    driving: self.driving[session % 2].subscribe(),
                    history: Arc::clone(&self.history),
                };
                let seed = self.rng.random();
                self.members.push(Member::start(Who { session, client }, generation, around, seed));
            }
        }
    }

    /// The nodes that run.
    pub fn living(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|index| self.places[*index].is_some()).collect()
    }

    /// A node that runs.
    pub fn node(&self, index: usize) -> &Node {
        &self.places[index].as_ref().expect("it runs").node
    }

    /// Its way to Redis.
    pub fn network(&self, index: usize) -> &Network {
        self.places[index].as_ref().and_then(|place| place.network.as_ref()).expect("one Redis, so one network to it")
    }

    /// A random node.
    pub fn some_node(&mut self) -> usize {
        let living = self.living();
        living[self.rng.random_range(0..living.len())]
    }

    /// Kills a node. No client connects to it any more.
    pub fn kill(&mut self, index: usize) {
        let place = self.places[index].take().expect("it runs");
        self.shun(&place.node);
        place.node.kill9();
    }

    /// Asks a node to end, and waits until it has.
    pub async fn terminate(&mut self, index: usize) {
        let place = self.places[index].take().expect("it runs");
        self.shun(&place.node);
        place.node.terminate();
        let status = place.node.wait().await;
        assert!(status.success(), "a drained node exits with success: {status}");
    }

    /// Takes a node out of rotation, as a load balancer does with one that is not ready.
    fn shun(&self, node: &Node) {
        self.addresses.write().retain(|address| address != node.address());
    }

    /// The fault begins.
    pub fn strike(&mut self) {
        self.struck = Some((Instant::now(), SystemTime::now()));
    }

    /// The fault is over: from now on the users of every other session are idle, so that the result of their last acts
    /// can be checked.
    pub fn heal(&mut self) {
        self.healed = Some(Instant::now());
        self.driving[0].send_replace(false);
    }

    /// All users act for this long.
    pub async fn work(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// The time after healing at which every session with idle users had converged; then the verdicts at the end,
    /// when no user does anything.
    pub async fn converge(&mut self) -> (Option<Duration>, Vec<Verdict>) {
        let healed = self.healed.expect("healed");
        let even: Vec<usize> = (0..self.sessions.len()).step_by(2).collect();
        let wrong = self.settle(even, healed + CONVERGED).await;
        let took = wrong.is_empty().then(|| healed.elapsed());
        self.driving[1].send_replace(false);
        let all = (0..self.sessions.len()).collect();
        let wrong = self.settle(all, Instant::now() + CONVERGED).await;
        (took, wrong)
    }

    /// Checks these sessions until they have no verdicts.
    async fn settle(&self, mut sessions: Vec<usize>, deadline: Instant) -> Vec<Verdict> {
        loop {
            let mut wrong = Vec::new();
            let mut open = Vec::new();
            for session in sessions {
                let found = self.look_at(session).await;
                if !found.is_empty() {
                    open.push(session);
                    wrong.extend(found);
                }
            }
            if open.is_empty() || Instant::now() >= deadline {
                return wrong;
            }
            sessions = open;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn look_at(&self, session: usize) -> Vec<Verdict> {
        let here = || self.members.iter().filter(move |member| member.who.session == session);
        let lost = |reason: String| {
            let who = Who { session, client: 0 };
            vec![Verdict::SessionLost { who, reason }]
        };
        let nodes = self.living();
        let address = self.node(nodes[session % nodes.len()]).http();
        let answer = self.http.get(format!("{address}/api/sessions/{}", self.sessions[session])).send().await;
        let document: serde_json::Value = match answer {
            Ok(answer) if answer.status().is_success() => answer.json().await.unwrap_or_default(),
            Ok(answer) => return lost(format!("the API answers {}", answer.status())),
            Err(_) => return lost("the API does not answer".to_owned()),
        };
        let controller = document["activeClientId"].as_str().and_then(Who::parse);
        let clients = document["clientCount"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let standings = here().map(Member::standing).collect();
        judge_quiet(session, &Quiet { controller, clients, standings })
    }

    /// The sessions whose documents this server does not have.
    pub fn sessions_not_on(&self, server: usize) -> Vec<String> {
        let keys = self.store.keys(server);
        self.sessions.iter().filter(|session| !keys.contains(*session)).cloned().collect()
    }

    /// Asserts that every node reads these sessions and creates others.
    pub async fn live_on(&self, sessions: &[String]) {
        for index in self.living() {
            for session in sessions {
                let (status, body) = self.node(index).get_session(session).await;
                assert_eq!(status, 200, "a session of another shard: {body}");
            }
            self.node(index).create_session(serde_json::json!({})).await;
        }
    }

    /// How long it took until a node that still runs wrote one of these words into its log.
    pub fn noticed(&self, signs: &[&str]) -> Option<Duration> {
        let (_, struck) = self.struck?;
        let logs = self.places.iter().flatten().map(|place| place.node.log());
        let first = |log: String| {
            let told = log.lines().filter(|line| signs.iter().any(|sign| line.contains(sign)));
            told.filter_map(written_at).find(|at| *at >= struck)
        };
        let earliest = logs.filter_map(first).min()?;
        earliest.duration_since(struck).ok()
    }

    /// The most memory that a node uses, in MiB.
    pub fn most_memory(&self) -> u64 {
        self.places.iter().flatten().map(|place| place.node.resident_kib() / 1024).max().unwrap_or(0)
    }

    /// A session's document as the store has it, for a failed run.
    pub fn document(&self, session: usize) -> String {
        format!("--- session {session}\n{}\n", self.store.read(&self.sessions[session]))
    }

    /// The nodes' logs, for a failed run.
    pub fn logs(&self) -> String {
        let of = |place: &Place| format!("--- {}\n{}", place.node.address(), place.node.log());
        self.places.iter().flatten().map(of).collect()
    }
}

/// The time of a line of a log: it begins with that, RFC 3339 in UTC with microseconds.
fn written_at(line: &str) -> Option<SystemTime> {
    let text = line.split_whitespace().next()?;
    humantime::parse_rfc3339(text).ok()
}
