//! How a document becomes notices for the clients of a node, and how the world comes to rest.

use gitorial_relay::control::Effect;
use gitorial_relay::ids::ConnectionId;
use gitorial_relay::reconcile::{self, Notice, Phase, is_superseded};
use gitorial_relay::session::Session;

use super::client::{Down, Up};
use super::node::LocalController;
use super::world::World;

/// More rounds than any world needs to come to rest.
const ROUNDS: usize = 400;

impl World {
    pub fn socket_is_open(&self, connection: ConnectionId) -> bool {
        self.clients.iter().filter_map(|client| client.socket.as_ref()).any(|socket| socket.connection == connection)
    }

    fn deliver(&mut self, connection: ConnectionId, frame: Down) {
        let mut sockets = self.clients.iter_mut().filter_map(|client| client.socket.as_mut());
        if let Some(socket) = sockets.find(|socket| socket.connection == connection) {
            socket.down.push_back(frame);
        }
    }

    /// A node accepts a document as the current one.
    pub fn observe(&mut self, index: usize, session: &Session, version: u64, term: u64) {
        let node = &mut self.nodes[index];
        if node.view.as_ref().is_some_and(|(_, known)| *known > version) {
            return;
        }
        let before = node.view.replace((session.clone(), version)).map(|(before, _)| before);
        // A client with the handshake that is losing control continues until it has read that.
        let leaving = session.core.transfer.as_ref().and(session.core.controller.as_ref()).filter(|controller| {
            let client = session.client(controller.place.connection);
            client.is_some_and(|(_, client)| client.modern && client.cut_off_at.is_none())
        });
        let controller = session
            .sending_controller()
            .or(leaving)
            .filter(|controller| node.members.contains_key(&controller.place.connection));
        node.driver = controller.map(|controller| LocalController {
            connection: controller.place.connection,
            epoch: session.core.epoch,
            term,
            provisional: controller.provisional,
            suspended: false,
        });
        let diff = reconcile::diff(before.as_ref(), session);
        let mut news = Vec::new();
        for (connection, member) in &mut node.members {
            member.superseded |= is_superseded(session, *connection);
            let rosters = session.rosters.values().flat_map(|roster| &roster.clients);
            let Some(me) =
                rosters.clone().find(|client| client.connection == *connection).filter(|_| !member.superseded)
            else {
                if member.client_view.modern && member.superseded {
                    news.push((*connection, Down::Closed));
                }
                continue;
            };
            for tell in reconcile::notices(&mut member.client_view, me, &diff, session) {
                member.open_sync |= tell == Notice::RequestSync;
                news.push((*connection, Down::Notice(tell, session.core.epoch)));
            }
            member.client = Some(me.clone());
            member.initial_push &= !session.controls(*connection);
        }
        for (connection, frame) in news {
            self.deliver(connection, frame);
        }
        self.pass_held(index, session);
        let ours = |place: &gitorial_relay::session::Place| place.node == self.nodes[index].id;
        if session.core.transfer.is_some()
            && session.core.controller.as_ref().is_some_and(|controller| ours(&controller.place))
        {
            self.tick(index);
        }
    }

    fn pass_held(&mut self, index: usize, session: &Session) {
        let node = &mut self.nodes[index];
        let driver = node.driver;
        let mut passed = None;
        for (connection, member) in node.members.iter_mut().filter(|(_, member)| member.held) {
            let drives = driver.filter(|driver| driver.connection == *connection);
            member.held = session.core.transfer.is_some() && drives.is_none();
            passed = drives.or(passed);
        }
        if let Some(driver) = passed.filter(|driver| node.leased && driver.term == node.term) {
            self.pass(index, driver.connection, driver.epoch);
        }
    }

    /// Carries out an effect.
    pub fn perform(&mut self, node: usize, after: &Session, frame: Option<&(ConnectionId, Up)>, effect: &Effect) {
        match (effect, frame) {
            (Effect::Close(connection, _), _) => {
                self.nodes[node].members.remove(connection);
                self.deliver(*connection, Down::Closed);
            }
            (Effect::AskController { controller, claimant }, _) => {
                self.deliver(controller.connection, Down::Heard(claimant.as_str().to_owned()));
            }
            (Effect::PassState, Some((from, _)))
                if after.controls(*from)
                    && self.nodes[node].passing().is_some_and(|driver| driver.connection == *from) =>
            {
                self.pass(node, *from, after.core.epoch);
            }
            (Effect::HoldFrame, Some((from, Up::State { .. }))) => {
                if let Some(member) = self.nodes[node].members.get_mut(from) {
                    member.held = true;
                }
            }
            (Effect::ForwardToOthers, Some((from, Up::Offer))) => {
                let name = after.client(*from).map_or("nobody", |(_, client)| client.name().as_str()).to_owned();
                let others = after.clients().map(|(_, client)| client.connection).filter(|other| other != from);
                for other in others {
                    self.deliver(other, Down::Heard(name.clone()));
                }
            }
            _ => {}
        }
    }

    pub fn acknowledge(&mut self, node: usize, connection: ConnectionId, token: String, after: &Session) {
        let Some(member) = self.nodes[node].members.get_mut(&connection) else { return };
        (member.client_view.modern, member.client_view.acks) = (true, 0);
        let Some((_, client)) = after.client(connection) else { return };
        let (id, epoch) = (client.id.as_str().to_owned(), member.client_view.epoch);
        self.deliver(connection, Down::Acknowledged { token, id, epoch });
    }

    /// A client takes the next frame that waits for it.
    pub fn receive(&mut self, client: usize) {
        let closes = |frame: &Down| matches!(frame, Down::Closed);
        let next = self.clients[client].socket.as_ref().and_then(|socket| socket.down.front());
        if next.is_some_and(closes) {
            self.disconnect(client, false);
        } else {
            self.clients[client].receive();
        }
    }

    /// Everything in flight arrives, and everything that has arrived is handled.
    pub fn drain(&mut self) {
        for _ in 0..ROUNDS {
            if self.is_at_rest() {
                return;
            }
            for client in 0..self.clients.len() {
                self.read(client);
                self.receive(client);
            }
            for node in 0..self.nodes.len() {
                self.hear(node);
                self.work(node);
                self.work(node);
            }
        }
        panic!("the world does not come to rest: {self:#?}");
    }

    fn is_at_rest(&self) -> bool {
        let node_rests = |node: &super::node::Node| {
            let version = node.view.as_ref().map_or(0, |(_, version)| *version);
            let knows = node.members.is_empty() || node.notified <= version;
            !node.alive || !node.leased || (node.jobs.is_empty() && node.decision.is_none() && knows)
        };
        let sockets = self.clients.iter().filter_map(|client| client.socket.as_ref());
        let mut sockets = sockets.filter(|socket| self.nodes[socket.node].leased);
        self.nodes.iter().all(node_rests) && sockets.all(|socket| socket.up.is_empty() && socket.down.is_empty())
    }

    /// All nodes read the document again, and hear of everything.
    pub fn read_all_again(&mut self) {
        for node in 0..self.nodes.len() {
            self.tick(node);
        }
        self.drain();
    }

    /// All faults end: dead nodes are found, grace periods end, and every client that believes it has control says so.
    pub fn heal(&mut self) {
        for node in 0..self.nodes.len() {
            self.renew(node);
        }
        for node in 0..self.nodes.len() {
            self.notice_the_dead(node);
        }
        self.drain();
        self.now += 31_000;
        self.read_all_again();
        for client in &mut self.clients {
            if client.phase == Phase::Active {
                client.send(Up::State { answer: false });
            }
        }
        self.drain();
        // Clients that lost or gained control by that have time for one more vain claim.
        self.now += 31_000;
        self.read_all_again();
    }
}
