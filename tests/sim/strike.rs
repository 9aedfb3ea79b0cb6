//! The faults of a simulated world begin and end.

use gitorial_relay::ids::Millis;
use rand::Rng;

use super::client::Down;
use super::faults::Fault;
use super::node::{SocketNumber, Up};
use super::relay::AtNode;
use super::world::{Event, World};

/// How long a node takes to close all its sockets.
const DRAIN: Millis = 400;

/// After so long a session that the store has lost is restored.
const RESTORED: Millis = 8_000;

impl World {
    pub fn strike(&mut self, fault: Fault) {
        if self.loses_the_session(fault) {
            return;
        }
        self.note(|| format!("FAULT begins: {fault:?}"));
        match fault {
            Fault::Kill(node) => self.crash(node),
            Fault::Pause(node) => self.nodes[node].paused = true,
            Fault::Cut(node) => self.nodes[node].cut = true,
            Fault::Deafen(node) => self.nodes[node].deaf = true,
            Fault::Drain(node) => self.drain(node),
            Fault::StoreAway => self.store_away = true,
            Fault::LostAnswers => self.answers_lost = true,
            Fault::Flush => self.store.flush(self.now),
            Fault::RestartEmpty => {
                self.store_away = true;
                self.store.restart_empty(self.now);
            }
            Fault::FailOver(behind) => {
                self.store_away = true;
                self.store.fail_over(behind, self.now);
            }
            Fault::Delay => self.network.slow = true,
            Fault::Loss => self.network.lossy = true,
            Fault::CutClient(client) => self.cut_client(client),
            Fault::Gone(client) => {
                self.clients[client].gone = true;
                self.cut_client(client);
            }
            Fault::Ghost(client) => {
                let Some(number) = self.clients[client].socket.as_ref().map(|socket| socket.number) else { return };
                self.receive(client, number, Down::Lost);
            }
            Fault::Stall(client) => self.clients[client].stalled = true,
        }
    }

    /// Whether nobody could restore the session after this fault: the store loses it while no running node has it, or
    /// the node that has it ends before it has restored it.
    fn loses_the_session(&mut self, fault: Fault) -> bool {
        let has = |node: &super::node::Node| {
            let clients = node.room.as_ref().is_some_and(|room| room.view().is_some() && !room.members().is_empty());
            node.alive && !node.draining && clients
        };
        match fault {
            Fault::Flush | Fault::RestartEmpty | Fault::FailOver(_) => {
                self.lost_data_at = Some(self.now);
                !self.nodes.iter().any(has)
            }
            Fault::Kill(_) | Fault::Drain(_) => {
                self.store_away || self.lost_data_at.is_some_and(|at| self.now < at + RESTORED)
            }
            _ => false,
        }
    }

    pub fn heal(&mut self, fault: Fault) {
        self.note(|| format!("FAULT ends: {fault:?}"));
        match fault {
            Fault::Kill(node) | Fault::Drain(node) => self.after(2 * DRAIN + 1, Event::Restart(node)),
            Fault::Pause(node) => self.resume(node),
            Fault::Cut(node) => self.nodes[node].cut = false,
            Fault::Deafen(node) => self.nodes[node].deaf = false,
            Fault::StoreAway | Fault::RestartEmpty | Fault::FailOver(_) => self.store_away = false,
            Fault::LostAnswers => self.answers_lost = false,
            Fault::Flush | Fault::CutClient(_) | Fault::Ghost(_) | Fault::Gone(_) => {}
            Fault::Delay => self.network.slow = false,
            Fault::Loss => self.network.lossy = false,
            Fault::Stall(client) => self.go_on(client),
        }
    }

    /// A client reads on.
    fn go_on(&mut self, client: usize) {
        let here = &mut self.clients[client];
        here.stalled = false;
        let waiting = std::mem::take(&mut here.waiting);
        let Some(socket) = &mut here.socket else { return };
        (socket.heard, socket.down_at) = (self.now, socket.down_at.max(self.now));
        let number = socket.number;
        for down in waiting {
            self.receive(client, number, down);
        }
    }

    /// A client's socket breaks, and both ends notice.
    fn cut_client(&mut self, client: usize) {
        let Some(number) = self.clients[client].socket.as_ref().map(|socket| socket.number) else { return };
        self.send_up(client, Up::Lost);
        self.receive(client, number, Down::Lost);
    }

    /// A node is gone at once, with everything that it knew.
    pub fn crash(&mut self, node: usize) {
        let here = &mut self.nodes[node];
        if !here.alive {
            return;
        }
        here.alive = false;
        here.room = None;
        let sockets: Vec<(SocketNumber, usize)> =
            std::mem::take(&mut here.sockets).iter().map(|(number, socket)| (*number, socket.client)).collect();
        for (number, client) in sockets {
            self.send_down(client, number, Down::Lost);
        }
    }

    pub fn restart(&mut self, node: usize) {
        if self.nodes[node].alive {
            // It has not ended yet, because it stands still.
            if self.nodes[node].draining {
                self.after(DRAIN, Event::Restart(node));
            }
            return;
        }
        let (cut, deaf) = (self.nodes[node].cut, self.nodes[node].deaf);
        let mut again = self.nodes[node].restarted(node);
        (again.cut, again.deaf) = (cut, deaf);
        self.nodes[node] = again;
        self.network.lost.retain(|(from, to)| *from != node && *to != node);
        self.at_node(node, 1, AtNode::Heartbeat);
    }

    fn resume(&mut self, node: usize) {
        self.nodes[node].paused = false;
        // What has happened meanwhile happens now, in the order in which it came.
        for what in std::mem::take(&mut self.nodes[node].waiting) {
            if self.nodes[node].alive {
                self.happen_at_node(node, what);
            }
        }
    }

    /// A node closes its sockets in order, the controller's last, and ends.
    fn drain(&mut self, node: usize) {
        let here = &mut self.nodes[node];
        if !here.alive {
            return;
        }
        here.draining = true;
        let controller = here.room.as_ref().and_then(|room| room.local_controller());
        let controller = controller.map(|controller| controller.connection);
        let mut sockets: Vec<(bool, SocketNumber)> =
            here.sockets.iter().map(|(number, socket)| (Some(socket.connection) == controller, *number)).collect();
        sockets.sort_unstable();
        for (controls, number) in sockets {
            let after = self.rng.random_range(0..DRAIN / 2) + if controls { DRAIN / 2 } else { 0 };
            self.at_node(node, after, AtNode::DrainSocket(number));
        }
        self.at_node(node, 2 * DRAIN, AtNode::Drained);
    }
}
