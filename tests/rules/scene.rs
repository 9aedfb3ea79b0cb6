//! One document and its changes, for examples: no queues, every event is decided at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use gitorial_relay::control::{Context, Direction, Effect, Event, Intent, Join, Rules, Stamp, StateKind, apply};
use gitorial_relay::dialect::ClientView;
use gitorial_relay::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};
use gitorial_relay::protocol::ErrorCode;
use gitorial_relay::reconcile::{self, Diff, Notice};
use gitorial_relay::session::{Client, Info, Role, Session, Strategy};

pub const ASK: Intent = Intent::Coordinate(Direction::Active);
pub const FOLLOW: Intent = Intent::Coordinate(Direction::Passive);
pub const STATE: Intent = Intent::State(StateKind::Drive);

/// A session whose clients are numbers: 1 to 9 live on node A, 11 to 19 on node B.
pub struct Scene {
    pub now: Millis,
    pub session: Session,
    pub lapsed: BTreeSet<NodeId>,
    pub flushed: Option<(ConnectionId, Epoch)>,
    pub rules: Rules,
}

pub fn socket(number: u128) -> ConnectionId {
    ConnectionId::from_number(number << 96)
}

pub fn name(number: u128) -> ClientId {
    ClientId::parse(&format!("client_{number}")).unwrap()
}

pub fn node(number: u128) -> NodeId {
    NodeId::from_text(if number < 10 { "a@0" } else { "b@0" })
}

impl Scene {
    pub fn new(strategy: Strategy) -> Self {
        let info = Info { created_at: 0, ttl: 1_800_000, ends_at: 43_200_000, strategy, metadata: None };
        let session = Session::new(Arc::new(info));
        Self { now: 0, session, lapsed: BTreeSet::new(), flushed: None, rules: Rules::default() }
    }

    /// A session of old clients in which the first is ACTIVE.
    pub fn driven(strategy: Strategy, clients: &[u128]) -> Self {
        let mut scene = Self::new(strategy);
        clients.iter().for_each(|client| drop(scene.join(*client)));
        scene.frame(clients[0], ASK);
        scene
    }

    pub fn apply(&mut self, here: &NodeId, event: &Event) -> Vec<Effect> {
        let flushed = self.flushed_at(here);
        let context = Context { here, now: self.now, lapsed: &self.lapsed, flushed, rules: &self.rules };
        let outcome = apply(&self.session, event, context);
        self.session = outcome.session;
        outcome.effects
    }

    /// The node waits only for the frames of a controller that has done the handshake.
    fn flushed_at(&self, here: &NodeId) -> Option<(ConnectionId, Epoch)> {
        let controller = self.session.core.controller.as_ref().filter(|controller| controller.place.node == *here)?;
        let connection = controller.place.connection;
        let waits =
            self.session.client(connection).is_some_and(|(_, client)| client.modern && client.cut_off_at.is_none());
        if waits { self.flushed } else { Some((connection, self.epoch())) }
    }

    pub fn join(&mut self, number: u128) -> Vec<Effect> {
        self.come_back(number, None)
    }

    /// Joins, showing the id and the token of another number.
    pub fn come_back(&mut self, number: u128, was: Option<u128>) -> Vec<Effect> {
        self.now += 1;
        let otherwise = name(number);
        let resume = was.map(|was| format!("token {was}"));
        let join = Join { connection: socket(number), wants: was.map(name), otherwise, asked_at: self.now, resume };
        self.apply(&node(number), &Event::Join(join))
    }

    pub fn handshake(&mut self, number: u128) {
        let event = Event::Handshake { connection: socket(number), resume: format!("token {number}") };
        self.apply(&node(number), &event);
    }

    pub fn frame(&mut self, number: u128, intent: Intent) -> Vec<Effect> {
        self.frame_of(number, intent, None)
    }

    pub fn frame_of(&mut self, number: u128, intent: Intent, epoch: Option<Epoch>) -> Vec<Effect> {
        self.frame_as(number, name(number), intent, epoch)
    }

    pub fn frame_as(&mut self, number: u128, alias: ClientId, intent: Intent, epoch: Option<Epoch>) -> Vec<Effect> {
        let connection = socket(number);
        let modern = self.session.client(connection).is_some_and(|(_, client)| client.modern);
        let stamp = if modern { Stamp::Named(epoch) } else { Stamp::Seen(epoch) };
        let event = Event::Frame { connection, alias: Some(alias), stamp, intent };
        self.apply(&node(number), &event)
    }

    pub fn leave(&mut self, number: u128, lost: bool) {
        self.apply(&node(number), &Event::Leave { connection: socket(number), lost });
    }

    /// All that the controller has sent is read; its node takes the next step.
    pub fn flush(&mut self) {
        let controller = self.session.core.controller.clone().expect("there is a controller");
        self.flushed = Some((controller.place.connection, self.epoch()));
        self.apply(&controller.place.node, &Event::Due);
    }

    /// Everything that is due happens, as this client's node sees it.
    pub fn tick(&mut self, number: u128) {
        self.apply(&node(number), &Event::Due);
    }

    pub fn client(&self, number: u128) -> &Client {
        self.session.client(socket(number)).expect("it has a place").1
    }

    pub fn role(&self, number: u128) -> Role {
        self.session.role(self.client(number))
    }

    pub fn drives(&self, number: u128) -> bool {
        self.session.sending_controller().is_some_and(|controller| controller.place.connection == socket(number))
    }

    pub fn epoch(&self) -> Epoch {
        self.session.core.epoch
    }

    pub fn waits(&self, number: u128) -> bool {
        self.session.core.requests.iter().any(|request| request.place.connection == socket(number))
    }

    /// The notices that a client with the view `told` gets now.
    pub fn notices(&self, number: u128, told: &mut ClientView) -> Vec<Notice> {
        reconcile::notices(told, self.client(number), &Diff::default(), &self.session, self.now)
    }
}

pub fn accept(from: u128) -> Intent {
    Intent::Accept(Some(name(from).as_str().to_owned()))
}

pub fn decline(from: u128) -> Intent {
    Intent::Decline(Some(name(from).as_str().to_owned()))
}

pub fn offer(by: u128) -> Intent {
    Intent::Offer(name(by))
}

pub fn refused(effects: &[Effect]) -> Option<ErrorCode> {
    effects.iter().find_map(|effect| if let Effect::Reject(_, code) = effect { Some(*code) } else { None })
}
