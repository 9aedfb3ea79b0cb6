//! The stores that a relay may have: none, one Redis, Sentinel, Cluster. All are local processes.

use std::fmt;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::support::eventually;

/// How long a Redis, or a whole cluster of it, may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The embedded store: one node.
    Embedded,
    /// One server.
    Single,
    /// A primary, two replicas and three sentinels.
    Sentinel,
    /// Three primaries with a replica each.
    Cluster,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Single => "Redis",
            Self::Sentinel => "Sentinel",
            Self::Cluster => "Cluster",
        })
    }
}

/// The servers of one world. Killed when dropped.
pub struct Store {
    /// Its kind.
    pub kind: Kind,
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    _folder: TempDir,
}

impl Store {
    /// Servers that are up.
    pub async fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = Self { kind, servers: Vec::new(), sentinels: Vec::new(), _folder: folder };
        match kind {
            Kind::Embedded => {}
            Kind::Single => {
                store.add(&["--appendonly", "yes", "--appendfsync", "everysec"]).await;
            }
            Kind::Sentinel => store.start_sentinel().await,
            Kind::Cluster => store.start_cluster().await,
        }
        store
    }

    async fn add(&mut self, args: &[&str]) -> u16 {
        let folder = self._folder.path().join(format!("{}", self.servers.len()));
        let server = Server::start(folder, args).await;
        self.servers.push(server);
        self.servers[self.servers.len() - 1].port
    }

    async fn start_sentinel(&mut self) {
        let primary = self.add(&[]).await.to_string();
        for _ in 0..2 {
            self.add(&["--replicaof", &format!("127.0.0.1 {primary}")]).await;
        }
        let linked =
            || (1..3).all(|replica| self.servers[replica].says(&["INFO", "replication"], "master_link_status:up"));
        eventually(PATIENCE, async || linked().then_some(())).await;
        let config = format!(
            "sentinel monitor main 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds main 2000\n\
             sentinel failover-timeout main 10000\n"
        );
        for index in 0..3 {
            let folder = self._folder.path().join(format!("sentinel{index}"));
            std::fs::create_dir_all(&folder).expect("a folder");
            let file = folder.join("sentinel.conf");
            std::fs::write(&file, &config).expect("written");
            let file = file.to_str().expect("a path").to_owned();
            self.sentinels.push(Server::start_with(folder, &[&file], &["--sentinel"]).await);
        }
        let agreed = || {
            let knows = |sentinel: &Server| {
                let answer = sentinel.ask(&["SENTINEL", "MASTER", "main"]);
                let value = |name: &str| answer.lines().skip_while(|line| *line != name).nth(1).map(str::to_owned);
                value("num-slaves").as_deref() == Some("2") && value("num-other-sentinels").as_deref() == Some("2")
            };
            self.sentinels.iter().all(knows)
        };
        eventually(PATIENCE, async || agreed().then_some(())).await;
    }

    async fn start_cluster(&mut self) {
        let files = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"];
        let args = [&files[..], &["--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"]].concat();
        for _ in 0..6 {
            self.add(&args).await;
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]).stdout(Stdio::null());
        assert!(create.status().expect("redis-cli is there").success(), "the cluster is created");
        let whole = || {
            let ok = |server: &Server| server.says(&["CLUSTER", "INFO"], "cluster_state:ok");
            let replicas = self.servers.iter().filter(|server| {
                server.says(&["INFO", "replication"], "role:slave")
                    && server.says(&["INFO", "replication"], "master_link_status:up")
            });
            self.servers.iter().all(ok) && replicas.count() == 3
        };
        eventually(PATIENCE, async || whole().then_some(())).await;
    }

    /// The setting by which a node finds it; with one server, `port` replaces the server's own.
    pub fn url(&self, port: Option<u16>) -> Option<String> {
        let list = |servers: &[Server], name: &str| {
            let others = servers[1..].iter().map(|server| format!("{name}=127.0.0.1:{}", server.port));
            others.collect::<Vec<_>>().join("&")
        };
        Some(match self.kind {
            Kind::Embedded => return None,
            Kind::Single => format!("redis://127.0.0.1:{}", port.unwrap_or(self.servers[0].port)),
            Kind::Sentinel => {
                let others = list(&self.sentinels, "node");
                format!("redis-sentinel://127.0.0.1:{}?{others}&sentinelServiceName=main", self.sentinels[0].port)
            }
            Kind::Cluster => {
                format!("redis-cluster://127.0.0.1:{}?{}", self.servers[0].port, list(&self.servers, "node"))
            }
        })
    }

    /// The port of the one server.
    pub fn port(&self) -> Option<u16> {
        (self.kind == Kind::Single).then(|| self.servers[0].port)
    }

    /// The one server, or the first primary.
    pub fn primary(&mut self) -> &mut Server {
        let index = self.servers.iter().position(|server| server.says(&["INFO", "replication"], "role:master"));
        &mut self.servers[index.expect("there is a primary")]
    }

    /// The one server, whether it runs or not.
    pub fn only(&mut self) -> &mut Server {
        &mut self.servers[0]
    }

    /// A primary and its replica.
    pub fn shard(&self) -> [usize; 2] {
        let is_primary = |server: &Server| server.says(&["INFO", "replication"], "role:master");
        let primary = self.servers.iter().position(is_primary).expect("there is a primary");
        let follows = format!("master_port:{}", self.servers[primary].port);
        let replica = self.servers.iter().position(|server| server.says(&["INFO", "replication"], &follows));
        [primary, replica.expect("it has a replica")]
    }

    /// One server, whether it runs or not.
    pub fn server(&mut self, index: usize) -> &mut Server {
        &mut self.servers[index]
    }

    /// The names of all keys that a server has.
    pub fn keys(&self, index: usize) -> String {
        self.servers[index].ask(&["KEYS", "*"])
    }

    /// The fields of a session's document, as a primary has them.
    pub fn read(&self, session: &str) -> String {
        let primaries = self.servers.iter().filter(|server| server.says(&["INFO", "replication"], "role:master"));
        let key = |server: &&Server| Some(server.ask(&["KEYS", &format!("*{session}*")]).lines().next()?.to_owned());
        primaries.filter_map(|server| Some(server.ask(&["HGETALL", &key(&server)?]))).collect()
    }

    /// Moves some slots of one primary to another and back, while they are in use. Runs `redis-cli` to its end.
    pub async fn reshard(&self, slots: usize) {
        let primaries: Vec<String> = self
            .servers
            .iter()
            .filter(|s| s.says(&["INFO", "replication"], "role:master"))
            .map(|s| s.ask(&["CLUSTER", "MYID"]).trim().to_owned())
            .collect();
        for (from, to) in [(0, 1), (1, 2)] {
            // The servers have to agree on the slots before they are changed again.
            eventually(PATIENCE, async || {
                let mut reshard = tokio::process::Command::new("redis-cli");
                reshard.args(["--cluster", "reshard", &format!("127.0.0.1:{}", self.servers[0].port)]);
                reshard.args(["--cluster-from", &primaries[from], "--cluster-to", &primaries[to]]);
                reshard.args(["--cluster-slots", &slots.to_string(), "--cluster-yes"]).stdout(Stdio::null());
                reshard.status().await.expect("redis-cli is there").success().then_some(())
            })
            .await;
        }
    }
}

/// One server process.
pub struct Server {
    /// Its address.
    pub port: u16,
    folder: PathBuf,
    first: Vec<String>,
    args: Vec<String>,
    process: Option<Child>,
}

impl Server {
    async fn start(folder: PathBuf, args: &[&str]) -> Self {
        Self::start_with(folder, &[], args).await
    }

    async fn start_with(folder: PathBuf, first: &[&str], args: &[&str]) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder");
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let mut server = Self { port: 0, folder, first: own(first), args: own(args), process: None };
        eventually(PATIENCE, async || {
            // Below 55535, so that a cluster's bus, 10000 above, has a port too.
            let free = std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()));
            server.port = free.flatten().map(|address| address.port()).find(|port| *port < 55_535).expect("a port");
            server.up().await.then_some(())
        })
        .await;
        server
    }

    /// Starts the process at its port, with the data in its folder.
    pub async fn up(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(&self.first).args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(&self.folder).args(["--save", ""]).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("redis-server is installed");
        let mine = format!("process_id:{}", process.id());
        self.process = Some(process);
        eventually(PATIENCE, async || {
            let ended = self.process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|s| s.is_some()));
            let up = self.says(&["INFO", "server"], &mine) && !self.ask(&["PING"]).contains("LOADING");
            (up || ended).then_some(up)
        })
        .await
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Deletes all its data while it is down.
    pub fn forget(&self) {
        std::fs::remove_dir_all(&self.folder).and_then(|()| std::fs::create_dir_all(&self.folder)).expect("removed");
    }

    /// Stops it from running while its connections stay open.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs");
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(sent.expect("kill is there").success(), "the signal was sent");
    }

    /// One command's answer as `redis-cli` prints it; empty if there is none.
    pub fn ask(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let answer = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(words).output();
        String::from_utf8_lossy(&answer.expect("redis-cli is there").stdout).into_owned()
    }

    fn says(&self, words: &[&str], what: &str) -> bool {
        self.ask(words).contains(what)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
