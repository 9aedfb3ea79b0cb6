//! Real nodes: processes of the relay's binary, alone or several over one Redis.
#![allow(dead_code, reason = "a toolbox: not every test binary needs every fault")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::eventually;
use super::redis::RedisFixture;

/// How long a node may take for something that it normally does in a moment.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How many lines of a node's log are kept.
const KEPT_LINES: usize = 5_000;

/// The parts of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One node with its own store.
    Embedded,
    /// This many nodes over one Redis.
    Redis(usize),
}

/// The options of the nodes besides their addresses.
#[derive(Clone, Debug, Default)]
pub struct Options {
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Options {
    /// Adds a flag and its value.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Leases that lapse within seconds, so that tests need not wait long; and commands to Redis that time out
    /// even sooner.
    pub fn short_leases() -> Self {
        Self::default()
            .flag("--lease-ttl", "2s")
            .flag("--lease-margin", "300ms")
            .flag("--heartbeat-interval", "300ms")
            .flag("--redis-command-timeout", "500ms")
    }

    /// Adds a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Nodes that serve the same sessions. All are killed when this is dropped, and the Redis after them.
pub struct Cluster {
    nodes: Vec<Node>,
    options: Options,
    /// The Redis between the nodes, which a test can stop or pause.
    pub redis: Option<RedisFixture>,
}

impl Cluster {
    /// One node without Redis.
    pub async fn embedded() -> Self {
        Self::start(Kind::Embedded, Options::default()).await
    }

    /// `nodes` nodes over a Redis of their own.
    pub async fn over_redis(nodes: usize) -> Self {
        Self::start(Kind::Redis(nodes), Options::default()).await
    }

    /// A cluster of this kind whose nodes are all ready.
    pub async fn start(kind: Kind, options: Options) -> Self {
        let (redis, count) = match kind {
            Kind::Embedded => (None, 1),
            Kind::Redis(count) => (Some(RedisFixture::local().await), count),
        };
        let mut cluster = Self { nodes: Vec::new(), options, redis };
        for _ in 0..count {
            cluster.add_node().await;
        }
        cluster
    }

    /// Starts one more node and waits until it is ready. Returns its index.
    pub async fn add_node(&mut self) -> usize {
        let mut options = self.options.clone();
        if let Some(redis) = &self.redis {
            options = options.flag("--redis-url", redis.url());
        }
        let node = Node::spawn(&options).await;
        node.ready().await;
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The node of this index.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// Every node.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The first node.
    pub fn near(&self) -> &Node {
        &self.nodes[0]
    }

    /// The last node: another than [`Cluster::near`] where there are two.
    pub fn far(&self) -> &Node {
        &self.nodes[self.nodes.len() - 1]
    }
}

/// One process of the relay. Killed when dropped; its log is printed if the test fails.
pub struct Node {
    address: String,
    child: Mutex<Child>,
    log: Arc<Mutex<VecDeque<String>>>,
    client: reqwest::Client,
}

impl Node {
    /// The resident memory of the process.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.lock().id())).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Starts a process. It may not be ready yet.
    pub async fn spawn(options: &Options) -> Self {
        let mut command = command(options);
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let kept = Arc::clone(&log);
        drain(stderr, move |line| {
            let mut log = kept.lock();
            log.push_back(line);
            if log.len() > KEPT_LINES {
                log.pop_front();
            }
        });
        let (found, mut addresses) = mpsc::unbounded_channel();
        drain(stdout, move |line| {
            // With JSON logs it is the message of an object.
            let object: Option<Value> = serde_json::from_str(&line).ok();
            let message = object.as_ref().and_then(|line| line["message"].as_str()).unwrap_or(&line);
            if let Some(address) = message.strip_prefix("listening on http://") {
                // A second address is never read.
                let _ = found.send(address.trim().to_owned());
            }
        });
        // Built first, so that the process is killed and its log printed if it never gets to listen.
        let mut node = Self { address: String::new(), child: Mutex::new(child), log, client: client() };
        let address = timeout(PATIENCE, addresses.recv()).await.expect("the node prints its address in time");
        node.address = address.expect("the node lives until it listens");
        node
    }

    /// Starts a process that writes all its output into this pipe. It may not be ready yet.
    pub fn into_pipe(options: &Options, pipe: std::io::PipeWriter) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.expect("a free port").to_string();
        let mut command = command(options);
        command.args(["--listen", &address]).stdout(pipe.try_clone().expect("a second end")).stderr(pipe);
        let child = Mutex::new(command.spawn().expect("the binary starts"));
        Self { address, child, log: Arc::default(), client: client() }
    }

    /// Runs a process until it ends by itself.
    pub fn run(options: &Options) -> Output {
        let mut command = command(options);
        command.args(["--listen", "127.0.0.1:0"]).output().expect("the binary starts")
    }

    /// Waits until it serves.
    pub async fn ready(&self) {
        eventually(PATIENCE, async || {
            let answer = self.request(Method::GET, "/readyz").send().await.ok()?;
            (answer.status() == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// `http://127.0.0.1:…`
    pub fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `ws://127.0.0.1:…`
    pub fn ws(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// `127.0.0.1:…`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A request to this node.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.http()))
    }

    /// Creates a session. Returns its id.
    pub async fn create_session(&self, body: Value) -> String {
        let answer = self.request(Method::POST, "/api/sessions").json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
        let session: Value = answer.json().await.expect("json");
        session["id"].as_str().expect("an id").to_owned()
    }

    /// Status and body of `GET /api/sessions/{id}`.
    pub async fn get_session(&self, id: &str) -> (u16, Value) {
        self.answer(Method::GET, &format!("/api/sessions/{id}")).await
    }

    /// Status and body of `DELETE /api/sessions/{id}`.
    pub async fn delete_session(&self, id: &str) -> (u16, Value) {
        self.answer(Method::DELETE, &format!("/api/sessions/{id}")).await
    }

    /// Status and JSON body of a request without a body.
    pub async fn answer(&self, method: Method, path: &str) -> (u16, Value) {
        let answer = self.request(method, path).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("json"))
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        let answer = self.request(Method::GET, "/metrics").send().await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// The sum of all samples of `gitorial_relay_{name}` that have these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("gitorial_relay_{name}");
        let of_name = |line: &&str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let labelled = |line: &&str| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")));
        let text = self.metrics().await;
        let samples = text.lines().filter(of_name).filter(labelled);
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().iter().fold(String::new(), |log, line| log + line + "\n")
    }

    /// Kills it without warning.
    pub fn kill9(&self) {
        self.signal("-KILL");
    }

    /// Stops it from running; its sockets stay open.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// Resumes it after [`Node::stop`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Stops it for `time`.
    pub async fn stop_continue(&self, time: Duration) {
        self.stop();
        tokio::time::sleep(time).await;
        self.resume();
    }

    /// Sends it SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Waits for its end.
    pub async fn wait(&self) -> ExitStatus {
        eventually(PATIENCE * 2, async || self.child.lock().try_wait().expect("a child can be waited for")).await
    }

    fn signal(&self, signal: &str) {
        let id = self.child.lock().id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill is there");
        assert!(status.success(), "the signal was sent");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // It may have exited by itself.
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.address, self.log());
        }
    }
}

/// The program with these options, and with none of this machine's settings.
fn command(options: &Options) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitorial-relay"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RELAY_")) {
        command.env_remove(name);
    }
    command.args(&options.args).envs(options.env.iter().cloned()).stdin(Stdio::null());
    command
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client")
}

/// Reads a pipe to its end, line by line, in a thread of its own: a full pipe would stop the process.
fn drain(pipe: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            take(line);
        }
    });
}
