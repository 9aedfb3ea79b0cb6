//! The world at the start: all clients have joined, and the first one has control.

use std::sync::Arc;

use gitorial_relay::control::Join;
use gitorial_relay::ids::Epoch;
use gitorial_relay::room::Input;
use gitorial_relay::session::{Info, Session};
use gitorial_relay::stored::{Base, Stored, WriteId};
use gitorial_relay::trust::{Observer, StoreLineage};
use serde_json::json;

use super::check::Check;
use super::names::{frame, local, name, socket};
use super::node::{NOBODY, Stage};
use super::scene::{Budget, Scene};
use super::world::{Faults, Machine, Node, Part, Pending, Store, World};

impl Check {
    /// The session without clients.
    pub fn empty_session(scene: &Scene) -> Session {
        let strategy = scene.strategy;
        Session::new(Arc::new(Info { created_at: 0, ttl: 1 << 40, ends_at: 1 << 41, strategy, metadata: None }))
    }

    pub fn first_world(&self) -> World {
        let mut stage = self.stage(self.first.clone());
        for (client, (node, modern)) in (0..).zip(&self.scene.clients) {
            stage.enter(client, *node, *modern);
        }
        for node in (0..self.scene.nodes).filter(|node| self.scene.clients.iter().any(|(of, _)| of == node)) {
            stage.give(node, Input::Reload);
            stage.settle(node);
            stage.watch(node);
        }
        let mut world = stage.world;
        let first = world.store.found.as_ref().map_or(Epoch(0), |stored| stored.session.core.epoch);
        world.granted = vec![(first, socket(0, 0))];
        world.left = self.scene.budget;
        world
    }

    /// The world before any client has joined.
    pub fn empty_world(scene: &Scene) -> World {
        let mut store = Store::new(scene.nodes);
        let base = Base { write: WriteId::from_bits(0), server: store.server_name() };
        store.found = Some(Part::of(Stored { session: Self::empty_session(scene), version: 1, base }));
        store.beats.fill(Some(1));
        let node = |_| {
            let mut observer = Observer::new(scene.timing(), None);
            observer.read_lineage(StoreLineage::clone(&store.lineage), local(0));
            observer.renewed(local(0), local(0));
            Node::new(observer)
        };
        World {
            now: 0,
            nodes: (0..scene.nodes).map(node).collect(),
            store,
            routed: Vec::new(),
            late: None,
            away: Vec::new(),
            left: Budget::default(),
            deleted: false,
            granted: Vec::new(),
            faults: Faults::default(),
        }
    }
}

impl Node {
    fn new(observer: Observer) -> Self {
        Self {
            alive: true,
            observer: Part::of(observer),
            renewing: None,
            beats: 1,
            room: Part::of(Machine::default()),
            pending: Pending::Nothing,
            closed: Vec::new(),
            probes: Vec::new(),
            shown: Epoch::default(),
            unsuspended: None,
        }
    }

    /// The node is gone, with all that it knew.
    pub fn end(&mut self) {
        *self = Self { alive: false, ..Self::new(Observer::new(self.observer.timing(), None)) };
    }
}

impl Stage<'_> {
    /// A client joins and says what it is; the first one takes control.
    fn enter(&mut self, client: u8, node: usize, modern: bool) {
        let connection = socket(client, 0);
        let join = Join { connection, wants: Some(name(client)), otherwise: name(client), asked_at: 0, resume: None };
        self.give(node, Input::Join { join, socket: connection, ticket: NOBODY });
        self.settle(node);
        if modern {
            self.say(node, client, "protocol_handshake", &json!({}));
        }
        if client == 0 {
            self.say(node, client, "coordinate_sync_direction", &json!({ "preferredDirection": "ACTIVE" }));
        } else {
            self.say(node, client, "hello", &json!({}));
        }
        assert!(self.world.nodes[node].room.members().iter().any(|member| member.connection == connection));
    }

    fn say(&mut self, node: usize, client: u8, kind: &str, data: &serde_json::Value) {
        self.give(node, Input::Frame { connection: socket(client, 0), frame: frame(kind, data) });
        self.settle(node);
    }

    /// The driver works until the room waits for nothing.
    pub fn settle(&mut self, node: usize) {
        while self.world.nodes[node].pending != Pending::Nothing {
            self.work(node);
        }
    }
}
