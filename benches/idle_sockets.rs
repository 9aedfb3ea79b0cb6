//! Measures the memory that an idle socket costs: starts the relay, opens sockets that send nothing, and reads the
//! relay's resident memory.
//!
//! `make bench`, or `cargo bench --bench idle_sockets -- 10000`. The bench runs only on Linux, because it reads /proc.
//! Each of the two processes needs one file descriptor per socket (`ulimit -n`).

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The clients of one session: a website and an editor.
const PER_SESSION: usize = 2;

struct Relay {
    process: Child,
    address: String,
}

impl Relay {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gitorial-relay"))
            .args(["--listen", "127.0.0.1:0", "--log-level", "warn"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on http://").expect("an address").to_owned();
        Self { process, address }
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("/proc");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn open(address: &str, session: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "GET /ws?session={session} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.expect("it answers");
    assert_eq!(&answer, b"HTTP/1.1 101");
    socket
}

async fn connections(http: &reqwest::Client, address: &str) -> usize {
    let text = http.get(format!("http://{address}/metrics")).send().await.expect("metrics");
    let text = text.text().await.expect("text");
    let line = text.lines().find(|line| line.starts_with("gitorial_relay_connections ")).expect("the gauge");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sockets: usize = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(10_000);
    let relay = Relay::start();
    let http = reqwest::Client::new();
    let sessions = format!("http://{}/api/sessions", relay.address);
    let mut open_sockets = Vec::with_capacity(sockets);
    // The memory that the relay allocates once, for its first session, is not counted.
    let mut before = 0;
    for index in 0..=sockets / PER_SESSION {
        let created = http.post(&sessions).body("{}").send().await.expect("a session");
        let created: serde_json::Value = created.json().await.expect("JSON");
        let id = created["id"].as_str().expect("an id");
        for _ in 0..PER_SESSION {
            open_sockets.push(open(&relay.address, id).await);
        }
        if index == 0 {
            before = relay.resident_kib();
        }
    }
    let opened = open_sockets.len();
    while connections(&http, &relay.address).await < opened {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = relay.resident_kib();
    let per_socket = (after - before) as f64 / (opened - PER_SESSION) as f64;
    println!("idle sockets: {opened}; resident: {before} KiB before, {after} KiB after; {per_socket:.2} KiB a socket");
}
