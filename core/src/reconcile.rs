//! What to tell whom: the difference between what a connection was last told and what the document says. Pure.
//!
//! This is the only way in which clients learn of roles and presence, whoever changed the document and however it was
//! learnt: by the node whose write it was, by the others, after a fault and on a resume alike. Clients without the
//! handshake are told a role by a sequence that fits the phase they believe to be in (docs/protocol.md, "How a role is
//! told"); [`ClientView`] keeps what is known of that.

use std::collections::{HashMap, HashSet};

use crate::control::{Direction, Intent, StateClaim};
use crate::ids::{ClientId, ConnectionId, Epoch};
use crate::session::{Client, Ended, EpochEnd, Role, Session};

/// Above this many changes of role at once only those of the holders are announced: a session of thousands would
/// otherwise write millions of frames for one change of control.
const MAX_ANNOUNCEMENTS: usize = 32;

/// The phase that a client believes to be in, as far as the relay knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No role.
    #[default]
    Idle,
    /// It asked to be ACTIVE and waits.
    Pull,
    /// It asked to be PASSIVE and waits.
    Push,
    /// It drives.
    Active,
    /// It follows.
    Passive,
}

/// What one connection was last told, and what it owes the relay in return.
#[derive(Clone, Debug, Default)]
pub struct ClientView {
    /// Its phase.
    pub phase: Phase,
    /// The last epoch it was told.
    pub epoch: Epoch,
    /// It has done the handshake, so one frame tells it a role.
    pub modern: bool,
    /// How many of its `confirm_transfer` are outstanding. While any is, its role frames and states were under way.
    pub acks: u32,
    /// It was told that it drives when it believed so by itself: if it lets go, it may do so before the news arrives.
    pub assured: bool,
    /// It asked for a role, so it is told its role even if nothing changed.
    pub retell: bool,
    /// It gave control up, and takes itself for a follower from then on.
    pub let_go: bool,
    /// It has been told of the others.
    pub introduced: bool,
    /// It joined while another drove and has not said yet what it is: it may have come back to follow.
    pub may_be_back: bool,
}

/// One frame to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `client_connected`.
    Connected(ClientId),
    /// `client_disconnected`.
    Disconnected(ClientId),
    /// `assign_sync_direction`: ACTIVE, or PASSIVE for any other role.
    Assign(Role),
    /// `confirm_transfer`.
    ConfirmTransfer,
    /// `accept_control` in the name of the client that drives now.
    AcceptControl(ClientId),
    /// `release_control` of the client that drove.
    ReleaseControl(ClientId),
    /// `role_changed`.
    RoleChanged(ClientId, Role),
    /// `request_sync`, on behalf of everybody who follows now and did not before.
    RequestSync,
}

/// What changed between two documents, computed once for all connections of a node.
#[derive(Clone, Debug, Default)]
pub struct Diff {
    /// Who has no place any more.
    pub left: Vec<ClientId>,
    /// Who has one now.
    pub joined: Vec<ClientId>,
    /// Whose role is another.
    pub roles: Vec<(ClientId, Role)>,
    /// The epoch that ended by giving control up.
    pub released: Option<Ended>,
    /// Somebody follows who did not before.
    pub followers: bool,
    /// Who drives came back on another socket: what it was asked on the old one it does not know.
    pub returned: bool,
}

/// Compares two documents. `before` is `None` if the node knew nothing of the session.
#[must_use]
pub fn diff(before: Option<&Session>, after: &Session) -> Diff {
    let Some(before) = before else { return Diff::default() };
    let old: HashMap<&ClientId, &Client> = before.clients().map(|(_, client)| (&client.id, client)).collect();
    let new: HashSet<&ClientId> = after.clients().map(|(_, client)| &client.id).collect();
    let left = old.keys().filter(|id| !new.contains(**id)).map(|id| (*id).clone()).collect();
    let mut diff = Diff { left, ..Diff::default() };
    for (_, client) in after.clients() {
        let role = after.role(client);
        let was = old.get(&client.id).map(|client| before.role(client));
        if was.is_none() {
            diff.joined.push(client.id.clone());
        }
        if role != was.unwrap_or_default() {
            diff.roles.push((client.name().clone(), role));
        }
        // One that came back on another socket has missed what was said meanwhile.
        let moved = old.get(&client.id).is_some_and(|known| known.connection != client.connection);
        diff.followers |= role == Role::Passive && (was != Some(Role::Passive) || moved);
    }
    cap_role_changes(&mut diff, before, after);
    let ended = after.core.ended.as_ref().filter(|_| after.core.epoch != before.core.epoch);
    diff.returned = ended.is_some_and(|ended| ended.how == EpochEnd::Resumed);
    diff.released = after.core.ended.clone().filter(|ended| {
        ended.how == EpochEnd::Released && before.core.ended.as_ref().is_none_or(|known| known.epoch != ended.epoch)
    });
    diff
}

/// Bounds the announcements, and adds a new epoch of the same client: its peers have to know the epoch.
fn cap_role_changes(diff: &mut Diff, before: &Session, after: &Session) {
    let controller = after.core.controller.as_ref();
    if diff.roles.len() > MAX_ANNOUNCEMENTS {
        let old = before.core.controller.as_ref().map(|controller| controller.client.clone());
        diff.roles.retain(|(client, role)| *role == Role::Active || Some(client) == old.as_ref());
    }
    let announced = diff.roles.iter().any(|(_, role)| *role == Role::Active);
    if let Some(controller) = controller
        && after.core.epoch != before.core.epoch
        && !announced
    {
        diff.roles.push((controller.client.clone(), Role::Active));
    }
}

/// What to tell the connection of `me`, which was last told `told`; `told` is brought up to date.
#[must_use]
pub fn notices(told: &mut ClientView, me: &Client, diff: &Diff, after: &Session) -> Vec<Notice> {
    let mut out = Vec::new();
    let role = after.role(me);
    let newcomer = !told.introduced;
    told.introduced = true;
    if !newcomer {
        out.extend(diff.left.iter().cloned().map(Notice::Disconnected));
    }
    release_notice(told, me, role, diff, after, &mut out);
    if newcomer {
        let others = after.clients().filter(|(_, client)| client.id != me.id);
        out.extend(others.map(|(_, client)| Notice::Connected(client.id.clone())));
        correct_newcomer(told, me, after, &mut out);
    } else {
        out.extend(diff.joined.iter().filter(|id| **id != me.id).cloned().map(Notice::Connected));
    }
    role_notices(told, me, role, after, &mut out);
    out.extend(diff.roles.iter().cloned().map(|(client, role)| Notice::RoleChanged(client, role)));
    // One with the handshake repeats its state by itself when it comes back.
    if role == Role::Active && (diff.followers || (diff.returned && !told.modern)) {
        out.push(Notice::RequestSync);
    }
    out
}

/// Whoever joins while another drives may be a returning client that still believes to drive.
fn correct_newcomer(told: &mut ClientView, me: &Client, after: &Session, out: &mut Vec<Notice>) {
    let other = after.core.controller.as_ref().filter(|controller| controller.place.connection != me.connection);
    if let Some(controller) = other.filter(|_| !told.modern) {
        out.push(Notice::AcceptControl(controller.client.clone()));
        told.acks += 1;
        told.may_be_back = true;
    }
}

fn release_notice(told: &mut ClientView, me: &Client, role: Role, diff: &Diff, after: &Session, out: &mut Vec<Notice>) {
    let released = diff.released.as_ref().filter(|ended| ended.connection != me.connection);
    // Several changes may have come at once: what counts is that a follower of nobody hears that it is one.
    let freed = role == Role::Connected && told.phase == Phase::Passive;
    let by = match (released, &after.core.ended) {
        (Some(ended), _) => ended.client.clone(),
        (None, Some(ended)) if freed => ended.client.clone(),
        (None, None) if freed => me.name().clone(),
        _ => return,
    };
    out.push(Notice::ReleaseControl(by));
    if told.phase == Phase::Passive {
        told.phase = Phase::Idle;
    }
}

fn role_notices(told: &mut ClientView, me: &Client, role: Role, after: &Session, out: &mut Vec<Notice>) {
    if after.awaits(me.connection) {
        // Control is on its way to it: told when it comes, or when it goes elsewhere.
        return;
    }
    let retell = std::mem::take(&mut told.retell);
    let epoch = after.core.epoch;
    match role {
        // Control is leaving it. One without the handshake is told when it has left.
        Role::Active if after.core.transfer.is_some() => {
            if told.modern && (told.phase != Phase::Passive || retell) {
                out.push(Notice::Assign(Role::Passive));
                told.phase = Phase::Passive;
            }
        }
        Role::Active if told.phase != Phase::Active || told.epoch != epoch || retell => grant(told, out),
        Role::Passive if told.modern && (told.phase != Phase::Passive || retell) => {
            out.push(Notice::Assign(Role::Passive));
            told.phase = Phase::Passive;
        }
        Role::Passive if !told.modern => demote(told, me, after, out),
        // It drove, and nobody does now: its node had lost its place. Or it waits for a role that could not be given.
        Role::Connected if matches!(told.phase, Phase::Active | Phase::Pull | Phase::Push) => {
            demote(told, me, after, out);
            if !told.modern {
                out.push(Notice::ReleaseControl(me.name().clone()));
            }
            told.phase = Phase::Idle;
        }
        // It let go, or asked for a role that somebody then took from all: of two words under way the last one counts.
        Role::Connected if told.modern && retell => {
            out.push(Notice::Assign(Role::Connected));
            // That says that it follows. If it has not chosen so, and there is nobody to follow, it has no role.
            if !told.let_go && after.core.controller.is_none() {
                let ended = after.core.ended.as_ref().map(|ended| &ended.client);
                out.push(Notice::ReleaseControl(ended.unwrap_or_else(|| me.name()).clone()));
            }
            told.phase = Phase::Idle;
        }
        Role::Active | Role::Passive | Role::Connected => {}
    }
    told.epoch = epoch;
}

/// *Grant*. A client that waits for PASSIVE hears nothing else, so it is told that first.
fn grant(told: &mut ClientView, out: &mut Vec<Notice>) {
    told.assured = told.phase == Phase::Active;
    if !told.modern && told.phase == Phase::Push {
        out.push(Notice::Assign(Role::Passive));
    }
    out.push(Notice::Assign(Role::Active));
    if !told.modern {
        out.push(Notice::ConfirmTransfer);
    }
    told.phase = Phase::Active;
}

/// *Demote*, or *refuse* to one that waits for ACTIVE. A client that asked to follow is just told so.
fn demote(told: &mut ClientView, me: &Client, after: &Session, out: &mut Vec<Notice>) {
    let phase = std::mem::replace(&mut told.phase, Phase::Passive);
    match phase {
        Phase::Passive => return,
        Phase::Push => return out.push(Notice::Assign(Role::Passive)),
        Phase::Pull if !told.modern => out.push(Notice::Assign(Role::Active)),
        Phase::Pull | Phase::Idle | Phase::Active => {}
    }
    out.push(Notice::Assign(Role::Passive));
    if !told.modern {
        let by = after.core.controller.as_ref().map_or_else(|| me.name(), |controller| &controller.client);
        out.push(Notice::AcceptControl(by.clone()));
        told.acks += 1;
    }
}

/// Notes what a client's own frame says about the phase it believes to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// It waits for ACTIVE.
    Pull,
    /// It waits for PASSIVE.
    Push,
    /// It drives: it accepted, offered, or sent a state of its own.
    Drives,
    /// It let go.
    LetGo,
}

impl Belief {
    /// What a frame says of its sender, which held control before it or did not.
    #[must_use]
    pub fn of(intent: &Intent, held: bool) -> Option<Self> {
        match intent {
            Intent::Coordinate(Direction::Active) => Some(Self::Pull),
            Intent::Coordinate(Direction::Passive) => Some(Self::Push),
            Intent::Accept(_) => Some(Self::Drives),
            // What only an ACTIVE client sends says something new only if it comes from another.
            Intent::Offer(_) | Intent::State(StateClaim::Drive) => (!held).then_some(Self::Drives),
            Intent::Release => Some(Self::LetGo),
            Intent::Speak | Intent::Request | Intent::Decline(_) => None,
            Intent::State(StateClaim::Answer | StateClaim::InitialPush) => None,
        }
    }
}

impl ClientView {
    /// Takes a frame's word for what its sender believes.
    pub fn believes(&mut self, belief: Belief) {
        if self.modern {
            // It believes only what it is told; it asked, so it is told.
            self.retell = true;
            self.let_go = belief == Belief::LetGo;
            if self.let_go {
                self.phase = Phase::Idle;
            }
            return;
        }
        self.phase = match belief {
            Belief::Pull => Phase::Pull,
            Belief::Push => Phase::Push,
            Belief::Drives => {
                // One that was told already is not told again: the news could overtake its release.
                self.retell |= self.phase != Phase::Active;
                Phase::Active
            }
            // News that it drives makes it ACTIVE again, if it is still on its way: as ACTIVE it is told that it is not.
            Belief::LetGo if std::mem::take(&mut self.assured) => Phase::Active,
            Belief::LetGo => Phase::Idle,
        };
    }
}

/// Whether this connection's place was taken by a newer socket.
#[must_use]
pub fn is_superseded(session: &Session, connection: ConnectionId) -> bool {
    session.core.superseded.contains(&connection)
}
