//! A node as src/relay makes one of the rules: one worker per session, a view, and the gate before the controller.

use std::collections::{BTreeMap, HashSet, VecDeque};

use gitorial_relay::control::{Context, Direction, Effect, Event, Intent, Outcome, Rules, StateClaim, apply};
use gitorial_relay::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};
use gitorial_relay::reconcile::{Belief, ClientView};
use gitorial_relay::session::{Client, Session};

use super::client::Up;

/// A document in the store, with the number of its last core and of its last write.
#[derive(Clone, Debug)]
pub struct Stored {
    pub session: Session,
    pub core_write: u64,
    pub version: u64,
}

/// A socket as its node knows it.
#[derive(Clone, Debug, Default)]
pub struct Member {
    pub client_view: ClientView,
    pub client: Option<Client>,
    pub superseded: bool,
    pub spoke: bool,
    pub initial_push: bool,
    pub open_sync: bool,
    /// A state of it waits for control to come.
    pub held: bool,
    /// One of its frames is being decided, so the next is not read yet.
    pub busy: bool,
}

/// The confirmed controller.
#[derive(Clone, Copy, Debug)]
pub struct LocalController {
    pub connection: ConnectionId,
    pub epoch: Epoch,
    /// The lease under which its node read that it is the controller.
    pub term: u64,
    pub provisional: bool,
    pub suspended: bool,
}

/// Something to decide.
#[derive(Clone, Debug)]
pub struct Job {
    pub event: Event,
    pub frame: Option<(ConnectionId, Up)>,
}

/// A decision that is not written yet.
#[derive(Clone, Debug)]
pub struct Decision {
    pub base: Stored,
    pub after: Session,
    pub effects: Vec<(usize, Effect)>,
    pub taken: usize,
    /// The lease under which it was taken.
    pub term: u64,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub alive: bool,
    /// Whether it has its lease. Without one it still works, but confirms no controller.
    pub leased: bool,
    /// The number of its lease.
    pub term: u64,
    /// The last lease under which it has written its places; before that it confirms no controller.
    pub claimed: u64,
    pub view: Option<(Session, u64)>,
    pub driver: Option<LocalController>,
    pub members: BTreeMap<ConnectionId, Member>,
    pub jobs: VecDeque<Job>,
    pub decision: Option<Decision>,
    /// The last version it was told of.
    pub notified: u64,
    pub lapsed: HashSet<NodeId>,
}

impl Node {
    pub fn new(number: usize) -> Self {
        Self {
            id: NodeId::from_text(&format!("node-{number}@0")),
            alive: true,
            leased: true,
            term: 1,
            claimed: 1,
            view: None,
            driver: None,
            members: BTreeMap::new(),
            jobs: VecDeque::new(),
            decision: None,
            notified: 0,
            lapsed: HashSet::new(),
        }
    }

    pub fn submit(&mut self, event: Event, frame: Option<(ConnectionId, Up)>) {
        if let Some((connection, _)) = &frame
            && let Some(member) = self.members.get_mut(connection)
        {
            member.busy = true;
        }
        self.jobs.push_back(Job { event, frame });
    }

    /// The local client whose states are forwarded now.
    pub fn passing(&self) -> Option<LocalController> {
        let entitled = |driver: &LocalController| driver.term == self.term && !driver.suspended;
        self.driver.filter(|driver| self.alive && self.leased && entitled(driver))
    }

    /// Loads, repairs and applies: everything but the write.
    pub fn decide(&mut self, stored: &Stored, now: Millis, rules: &Rules) {
        let flushed = self.flushed();
        let context = Context { here: &self.id, now, lapsed: &self.lapsed, flushed, rules };
        let mut after = stored.session.clone();
        for repair in self.repairs(&after) {
            after = apply(&after, &repair, context).session;
        }
        let (mut effects, mut taken) = (Vec::new(), 0);
        for (index, job) in self.jobs.iter().enumerate() {
            let Outcome { session, effects: new } = apply(&after, &job.event, context);
            let moved =
                session.core.controller != after.core.controller || session.core.transfer != after.core.transfer;
            if moved && taken > 0 {
                // Earlier changes are told first.
                break;
            }
            after = session;
            effects.extend(new.into_iter().map(|effect| (index, effect)));
            taken = index + 1;
            if moved {
                break;
            }
        }
        self.decision = Some(Decision { base: stored.clone(), after, effects, taken, term: self.term });
        self.suspend_controller();
    }

    fn suspend_controller(&mut self) {
        if let (Some(driver), Some(Decision { after, .. })) = (&mut self.driver, &self.decision) {
            let stays = after.controls(driver.connection) && after.core.epoch == driver.epoch;
            let told_first = after.client(driver.connection).is_some_and(|(_, client)| client.modern);
            driver.suspended |= !stays || (after.core.transfer.is_some() && !told_first);
        }
    }

    /// The local controller that was told that it is losing control: all its earlier frames are read by now.
    fn flushed(&self) -> Option<(ConnectionId, Epoch)> {
        let (view, _) = self.view.as_ref().filter(|(view, _)| view.core.transfer.is_some())?;
        let controller = view.core.controller.as_ref().filter(|controller| controller.place.node == self.id)?;
        Some((controller.place.connection, view.core.epoch))
    }

    fn repairs(&self, session: &Session) -> Vec<Event> {
        let about: Vec<ConnectionId> = self
            .jobs
            .iter()
            .filter_map(|job| match &job.event {
                Event::Join(join) => Some(join.connection),
                Event::Leave { connection, .. } => Some(*connection),
                _ => None,
            })
            .collect();
        let roster = session.rosters.get(&self.id).cloned().unwrap_or_default();
        let ghost = |client: &&Client| {
            let connection = &client.connection;
            client.cut_off_at.is_none() && !self.members.contains_key(connection) && !about.contains(connection)
        };
        let leave = |client: &Client| Event::Leave { connection: client.connection, lost: true };
        let mut events: Vec<Event> = roster.clients.iter().filter(ghost).map(leave).collect();
        let known: HashSet<ConnectionId> = roster.clients.iter().map(|client| client.connection).collect();
        // After a lapse others may be about to take from this node what it has, so it claims all of it by a write of
        // its own before it confirms a controller. Without a lease it claims nothing: the others would take it again.
        let anew = self.claimed != self.term;
        let cut_off = |connection| roster.clients.iter().any(|c| c.connection == connection && c.cut_off_at.is_some());
        let missing = |connection: &ConnectionId| anew || !known.contains(connection) || cut_off(*connection);
        let missing = self.members.iter().filter(|(connection, member)| missing(connection) && !member.superseded);
        let view = self.view.as_ref().map(|(view, _)| view);
        let as_it_was = |client: Client| {
            let given = view.map_or(client.given, |view| view.assignment(&client));
            Client { given, cut_off_at: None, ..client }
        };
        let clients: Vec<Client> = missing.filter_map(|(_, member)| member.client.clone().map(as_it_was)).collect();
        if !clients.is_empty() && self.leased {
            events.push(Event::Rejoin { clients, held: None });
        }
        events
    }

    /// Reads a client's frame. `Some`: it is the controller's state, which is forwarded at once.
    pub fn read(&mut self, connection: ConnectionId, name: &str, frame: Up, epoch: Option<Epoch>) -> Option<Epoch> {
        let driver = self.driver.filter(|driver| driver.connection == connection);
        let viewed = self.view.as_ref().filter(|(view, _)| view.controls(connection)).map(|(view, _)| view.core.epoch);
        let member = self.members.get_mut(&connection)?;
        if member.superseded || (frame.awaits_ack() && member.client_view.acks > 0) {
            return None;
        }
        if frame == Up::Confirm {
            member.client_view.acks = member.client_view.acks.saturating_sub(1);
            if member.spoke {
                return None;
            }
        }
        let answers = member.open_sync && frame == Up::State { answer: true };
        if let (Up::State { .. }, true, Some(driver)) = (&frame, member.spoke, driver) {
            let stale = member.client_view.modern && epoch.is_some_and(|epoch| epoch < driver.epoch);
            let entitled = self.leased && driver.term == self.term && !driver.suspended;
            if entitled && !stale && (!driver.provisional || answers) {
                member.open_sync = false;
                return Some(driver.epoch);
            }
        }
        let controls = viewed.is_some();
        let intent = match intent(member, &frame, controls, answers, name) {
            Some(intent) => intent,
            None => {
                let token = format!("token of {connection:?}");
                self.submit(Event::Handshake { connection, resume: token }, Some((connection, frame)));
                return None;
            }
        };
        // A frame without an epoch belongs to the one in which its sender had control when it was read.
        let epoch = epoch.or(viewed);
        let alias = ClientId::parse(name);
        self.submit(Event::Frame { connection, alias, epoch, intent }, Some((connection, frame)));
        None
    }
}

/// A frame's intent, and its sender's belief that it shows; `None` for a handshake.
fn intent(member: &mut Member, frame: &Up, controls: bool, answers: bool, name: &str) -> Option<Intent> {
    Some(match frame {
        Up::Handshake => return None,
        Up::Speak | Up::Confirm => Intent::Speak,
        Up::Coordinate(Direction::Active) => {
            member.client_view.believes(Belief::Pull);
            Intent::Coordinate(Direction::Active)
        }
        Up::Coordinate(Direction::Passive) => {
            member.client_view.believes(Belief::Push);
            member.initial_push = true;
            Intent::Coordinate(Direction::Passive)
        }
        Up::Request => Intent::Request,
        Up::Offer => {
            if !controls && !member.client_view.modern {
                member.client_view.believes(Belief::Drives);
            }
            Intent::Offer(ClientId::parse(name)?)
        }
        Up::Accept(from) => {
            member.client_view.believes(Belief::Drives);
            Intent::Accept(from.clone())
        }
        Up::Decline(from) => Intent::Decline(from.clone()),
        Up::Release => {
            member.client_view.believes(Belief::LetGo);
            Intent::Release
        }
        Up::State { .. } if answers => Intent::State(StateClaim::Answer),
        Up::State { .. } if member.client_view.modern && std::mem::take(&mut member.initial_push) => {
            Intent::State(StateClaim::InitialPush)
        }
        Up::State { .. } => {
            if !controls && !member.client_view.modern {
                member.client_view.believes(Belief::Drives);
            }
            Intent::State(StateClaim::Drive)
        }
    })
}
