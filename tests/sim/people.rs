//! The clients of a simulated world: they open sockets, act, and handle what reaches them.

use bytes::Bytes;
use gitorial_relay::ids::Millis;
use rand::Rng;
use serde_json::Value;

use super::client::{ClientSocket, Down};
use super::history::What;
use super::node::{SocketNumber, Up};
use super::relay::AtNode;
use super::world::{Event, World};

/// How long existing clients wait after any close.
const OLD_RECONNECT: Millis = 2_000;

/// How long a client waits for a socket to open.
const OPEN_TIMEOUT: Millis = 3_000;

/// After so long without a word from the relay a client with the handshake takes its socket for dead.
const DEAD: Millis = 6_000;

impl World {
    /// A client opens a socket on any node that is up.
    pub fn open(&mut self, client: usize) {
        if self.clients[client].socket.is_some() || self.clients[client].gone {
            return;
        }
        let up: Vec<usize> =
            (0..self.nodes.len()).filter(|node| self.nodes[*node].alive && !self.nodes[*node].draining).collect();
        if up.is_empty() {
            return self.come_back(client, 1006);
        }
        let node = up[self.rng.random_range(0..up.len())];
        let number = SocketNumber::try_from(self.opened_by.len() + 1).unwrap_or(0);
        self.opened_by.insert(number, client);
        let boot = self.nodes[node].boot;
        let here = &mut self.clients[client];
        here.socket = Some(ClientSocket {
            number,
            node,
            boot,
            open: false,
            closing: false,
            up_at: self.now,
            down_at: self.now,
            heard: self.now,
        });
        let query = here.brain.query();
        let member = |name: &str| {
            let mut members = query.split('&').filter_map(|member| member.split_once('='));
            members.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let (id, token) = (member("client"), member("resume"));
        self.at_node(node, 1, AtNode::Opens(number, client, id, token));
        // A node that stands still lets nobody in.
        self.after(OPEN_TIMEOUT, Event::OpenTimeout(client, number));
    }

    fn come_back(&mut self, client: usize, code: u16) {
        let here = &mut self.clients[client];
        let failures = here.failures;
        here.failures += 1;
        if !here.brain.is_modern() {
            return self.after(OLD_RECONNECT, Event::Open(client));
        }
        let most = match (code, failures) {
            (1012, 0) => 250,
            (1013, _) => 1_000,
            _ => (100_u64 << failures.min(5)).min(2_000),
        };
        let pause = self.rng.random_range(0..=most);
        self.after(pause, Event::Open(client));
    }

    /// A client's user acts, if there is something to do.
    pub fn act(&mut self, client: usize) {
        if !self.is_acting() {
            return;
        }
        let next = if self.eager { self.rng.random_range(20..=80) } else { self.rng.random_range(150..=450) };
        self.after(next, Event::Act(client));
        let here = &mut self.clients[client];
        let open = here.socket.as_ref().is_some_and(|socket| socket.open && !socket.closing);
        if !open || !here.brain.is_ready() || here.stalled {
            return;
        }
        let (notes, frames) = here.brain.act(&mut self.rng);
        self.note_all(client, notes);
        self.send_all(client, &frames);
    }

    /// A client with the handshake asks whether the relay is there.
    pub fn ping(&mut self, client: usize) {
        self.after(DEAD / 3, Event::Ping(client));
        let here = &self.clients[client];
        let Some(socket) = here.socket.as_ref().filter(|socket| socket.open && here.brain.is_modern()) else { return };
        if self.now.saturating_sub(socket.heard) > DEAD && !here.stalled {
            let number = socket.number;
            return self.lose(client, number);
        }
        self.send_up(client, Up::Frame(Bytes::from_static(b"{\"type\":\"protocol_ping\",\"timestamp\":1}")));
    }

    /// A client takes its socket for dead. Its node learns of it.
    fn lose(&mut self, client: usize, number: SocketNumber) {
        self.send_up(client, Up::Lost);
        self.receive(client, number, Down::Lost);
    }

    /// Something reaches a client.
    pub fn receive(&mut self, client: usize, number: SocketNumber, down: Down) {
        let here = &mut self.clients[client];
        let Some(socket) = here.socket.as_mut().filter(|socket| socket.number == number) else { return };
        if here.stalled {
            return here.waiting.push(down);
        }
        match down {
            Down::Opened => {
                (socket.open, socket.heard, here.failures) = (true, self.now, 0);
                let greeting = here.brain.opened();
                self.note_all(client, vec![What::Opened]);
                self.send_all(client, &greeting);
            }
            Down::Text(text) => self.hear(client, &text),
            Down::Probe(of) => {
                socket.heard = self.now;
                self.send_up(client, Up::Pong(of));
            }
            Down::Lost => self.closed(client, 1006, String::new()),
            Down::Close(code, reason) => self.closed(client, code, reason),
        }
    }

    /// A client gives up a socket that has not opened.
    pub fn give_up(&mut self, client: usize, number: SocketNumber) {
        let socket = self.clients[client].socket.as_ref();
        if socket.is_some_and(|socket| socket.number == number && !socket.open) {
            self.closed(client, 1006, String::new());
        }
    }

    fn hear(&mut self, client: usize, text: &str) {
        self.note(|| format!("client {client} reads {text}"));
        let now = self.now;
        let here = &mut self.clients[client];
        let Some(socket) = here.socket.as_mut() else { return };
        socket.heard = now;
        let closing = socket.closing;
        let (mut notes, answers) = here.brain.on_text(text);
        // This frame has crossed the client's goodbye; or its sender has become the controller while it was under way.
        let excused = |how: &str| closing || how.starts_with("an answer to somebody else");
        notes.retain(|what| !matches!(what, What::Hurt(how) if excused(how)));
        self.note_all(client, notes);
        self.send_all(client, &answers);
    }

    fn send_all(&mut self, client: usize, frames: &[Value]) {
        let here = &mut self.clients[client];
        let leaves = here.brain.is_closing();
        let Some(socket) = here.socket.as_mut() else { return };
        let closing = std::mem::replace(&mut socket.closing, leaves);
        if closing {
            return;
        }
        for frame in frames {
            self.note(|| format!("client {client} sends {frame}"));
            self.send_up(client, Up::Frame(frame.to_string().into()));
        }
        if leaves {
            self.send_up(client, Up::Close(1005));
            let Some(number) = self.clients[client].socket.as_ref().map(|socket| socket.number) else { return };
            // The answer to its close comes back after everything that its node has written.
            self.after(30, Event::Down(client, number, Down::Close(1005, String::new())));
        }
    }

    fn closed(&mut self, client: usize, code: u16, reason: String) {
        let here = &mut self.clients[client];
        let Some(socket) = here.socket.take() else { return };
        here.waiting.clear();
        if socket.open {
            here.brain.closed();
            self.note_all(client, vec![What::Closed(code, reason)]);
        } else {
            // Its node may have let it in meanwhile.
            self.after(1, Event::Node(socket.node, socket.boot, AtNode::Up(socket.number, Up::Lost)));
        }
        self.come_back(client, code);
    }

    fn note_all(&mut self, client: usize, notes: Vec<What>) {
        let who = self.clients[client].who;
        for what in notes {
            self.record(who, what);
        }
    }
}
