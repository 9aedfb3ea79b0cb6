//! A Redis Cluster for tests: primaries without replicas, as local processes.

use std::time::Duration;

use super::eventually;
use super::redis::Local;

/// How long the servers may take to agree.
const PATIENCE: Duration = Duration::from_secs(30);

const SLOTS: usize = 16_384;

/// The servers. Killed when dropped.
pub struct RedisCluster {
    servers: Vec<Local>,
}

impl RedisCluster {
    /// This many primaries, which serve their own slots while others are away.
    pub async fn start(primaries: usize) -> Self {
        let args = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"];
        let files = ["--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000"];
        let mut servers = Vec::new();
        for _ in 0..primaries {
            servers.push(Local::with(&[&args[..], &files[..]].concat()).await);
        }
        let cluster = Self { servers };
        for (index, server) in cluster.servers.iter().enumerate() {
            let (first, last) = (index * SLOTS / primaries, (index + 1) * SLOTS / primaries - 1);
            cluster.said(index, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            cluster.said(0, &["CLUSTER", "MEET", "127.0.0.1", &server.port.to_string()]);
        }
        cluster.is_whole().await;
        cluster
    }

    /// Waits until all servers know all others and serve all slots.
    pub async fn is_whole(&self) {
        let known = format!("cluster_known_nodes:{}", self.servers.len());
        eventually(PATIENCE, async || {
            let knows = |server: &Local| {
                let info = server.command(&["CLUSTER", "INFO"]).unwrap_or_default();
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") && info.contains(&known)
            };
            self.servers.iter().all(knows).then_some(())
        })
        .await;
    }

    /// The setting by which a node finds it.
    pub fn url(&self) -> String {
        self.url_for("")
    }

    /// The same with credentials that end with an `@`.
    pub fn url_for(&self, credentials: &str) -> String {
        let others = self.servers[1..].iter().map(|server| format!("node=127.0.0.1:{}", server.port));
        let others: Vec<_> = others.collect();
        format!("redis-cluster://{credentials}127.0.0.1:{}?{}", self.servers[0].port, others.join("&"))
    }

    /// Gives the user `relay` these rights on every server and the password `hunter2`, and no others.
    pub fn allow(&self, rights: &str) {
        let words: Vec<_> = "ACL SETUSER relay reset on >hunter2".split(' ').chain(rights.split_whitespace()).collect();
        (0..self.len()).for_each(|index| self.said(index, &words));
    }

    /// How many servers there are.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Kills a server without warning.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Starts a server again, with its slots and without its data.
    pub async fn restart(&mut self, index: usize) {
        eventually(PATIENCE, async || self.servers[index].start().await.then_some(())).await;
    }

    /// Stops a server from running while its connections stay open.
    pub fn pause(&self, index: usize) {
        self.servers[index].signal("-STOP");
    }

    /// Lets it run on.
    pub fn resume(&self, index: usize) {
        self.servers[index].signal("-CONT");
    }

    /// Sends a server one command, given as words, and returns the start of its raw answer.
    pub fn command(&self, index: usize, words: &[&str]) -> String {
        self.servers[index].command(words).expect("redis answers")
    }

    /// The server that has a session.
    pub fn server_of(&self, session: &str) -> usize {
        let has = |index: &usize| self.command(*index, &["KEYS", &format!("*{session}*")]).contains(session);
        (0..self.servers.len()).find(has).expect("a server has it")
    }

    /// The slot of a session.
    pub fn slot_of(&self, session: &str) -> usize {
        let server = self.server_of(session);
        let found = self.command(server, &["KEYS", &format!("*{session}*")]);
        let key = found.lines().find(|line| line.contains(session)).expect("its key").to_owned();
        let slot = self.command(server, &["CLUSTER", "KEYSLOT", &key]);
        slot.trim_start_matches(':').trim().parse().expect("a number")
    }

    /// Moves a slot with its keys from one server to another, as redis-cli does, while it is in use.
    pub fn move_slot(&self, slot: usize, from: usize, to: usize) {
        let id = |index| self.command(index, &["CLUSTER", "MYID"]).lines().nth(1).expect("its id").to_owned();
        let (source, target, slot, port) = (id(from), id(to), slot.to_string(), self.servers[to].port.to_string());
        self.said(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
        self.said(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
        loop {
            let found = self.command(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            let Some(key) = found.lines().nth(2) else { break };
            let moved = self.command(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
            assert!(moved.starts_with("+OK") || moved.starts_with("+NOKEY"), "{moved}");
        }
        for index in [to, from].into_iter().chain((0..self.len()).filter(|index| ![to, from].contains(index))) {
            self.said(index, &["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
        }
    }

    fn said(&self, index: usize, words: &[&str]) {
        let answer = self.command(index, words);
        assert!(answer.starts_with("+OK"), "{words:?}: {answer}");
    }
}
