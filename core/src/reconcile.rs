//! The news: the frames that tell each connection about roles and presence.
//!
//! A node has a new document after a write of its own, after a write of another node, after a fault, or after a resume.
//! In all of these cases it does the same:
//!
//! 1. [`diff`] compares the document with the one before, once for all connections: clients that left or joined, roles
//!    that changed, the epoch that was released.
//! 2. [`notices`] computes the frames for one connection. It compares the role in the document with the [`ClientView`]
//!    of the connection (what the client was last told, and what it believes), and updates the view.
//!
//! Clients learn of roles and presence in no other way. A frame that a client sends never changes a role by itself: it
//! changes the document ([`crate::control`]), and it changes the view, because it shows what its sender believes
//! ([`ClientView::believes`]).
//!
//! A client with the handshake is told its role by one frame. A client without it runs a state machine of its own, and
//! ignores a role that does not fit its [`Phase`]. So it is told by a sequence that fits that phase (docs/protocol.md,
//! "How a role is told"):
//!
//! | role in the document | phase | frames |
//! | --- | --- | --- |
//! | active | `Push` | assign PASSIVE, assign ACTIVE, `confirm_transfer` |
//! | active | any other | assign ACTIVE, `confirm_transfer` |
//! | passive | `Pull` | assign ACTIVE, assign PASSIVE, `accept_control` |
//! | passive | `Push` | assign PASSIVE |
//! | passive | `Idle`, `Active` | assign PASSIVE, `accept_control` |
//! | connected | `Active`, `Pull`, `Push` | as for passive, then `release_control` |
//! | connected | `Passive` | `release_control` |
//!
//! A client without the handshake answers every `accept_control` by a `confirm_transfer`; [`ClientView::acks`] counts
//! the answers that are pending.

use std::collections::{HashMap, HashSet};

use crate::control::{Direction, Intent, StateClaim};
use crate::ids::{ClientId, ConnectionId, Epoch};
use crate::session::{Client, Ended, EpochEnd, Role, Session};

/// Above this many role changes at once, only those of the old and the new controller are announced (docs/protocol.md,
/// "Bounds"). Otherwise one change of control in a session of thousands would cause millions of frames.
const MAX_ANNOUNCEMENTS: usize = 32;

/// The phase that a client believes to be in, as far as the relay knows (docs/protocol.md, "How a role is told").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has no role.
    #[default]
    Idle,
    /// It asked to be ACTIVE and waits.
    Pull,
    /// It asked to be PASSIVE and waits.
    Push,
    /// It has control.
    Active,
    /// It follows.
    Passive,
}

/// One connection as the relay knows it: what the client was last told, what it believes, and which acknowledgements
/// are pending.
#[derive(Clone, Debug, Default)]
pub struct ClientView {
    /// The phase that it believes to be in.
    pub phase: Phase,
    /// The last epoch that it was told.
    pub epoch: Epoch,
    /// It has done the handshake, so one frame tells it a role.
    pub modern: bool,
    /// The number of pending acknowledgements: `confirm_transfer`s that it has not sent yet. While there are any, its
    /// role frames and states are dropped, because they were under way when it lost control.
    pub acks: u32,
    /// It already believed to have control when it was granted control. A release of it may cross the news of the
    /// grant.
    pub assured: bool,
    /// It asked for a role, so it is told its role even if the role has not changed.
    pub retell: bool,
    /// It gave control up, and believes to be a follower since.
    pub let_go: bool,
    /// It has been told of the other clients.
    pub introduced: bool,
    /// It joined under another controller and has not chosen a role yet: it may have come back to follow.
    pub may_be_back: bool,
}

/// A frame that tells one client about a role or a peer.
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
    /// `accept_control` in the name of the new controller, or of the receiver if there is no controller.
    AcceptControl(ClientId),
    /// `release_control` in the name of the last controller, or of the receiver if none is known.
    ReleaseControl(ClientId),
    /// `role_changed`: this client has this role now.
    RoleChanged(ClientId, Role),
    /// `request_sync`, on behalf of all clients that have become followers.
    RequestSync,
}

/// What changed between two documents, computed once for all connections of a node.
#[derive(Clone, Debug, Default)]
pub struct Diff {
    /// The clients that have left, by announced id.
    pub left: Vec<ClientId>,
    /// The clients that have joined, by announced id.
    pub joined: Vec<ClientId>,
    /// The clients whose role has changed, by the name that their peers know, with the new role.
    pub roles: Vec<(ClientId, Role)>,
    /// The epoch that ended because its controller gave control up or left, if one did.
    pub released: Option<Ended>,
    /// Whether a client has become a follower, or a follower has come back on another socket.
    pub followers: bool,
    /// Whether the controller has come back on another socket. A question that was put on the old socket is lost.
    pub returned: bool,
}

/// Compares two documents. `before` is `None` if the node did not know the session; then the difference is empty.
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
        // A client that came back on another socket has missed the states in between.
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

/// Bounds the announced role changes. Adds the controller if only its epoch changed, because its peers need the epoch.
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

/// The frames for the connection of the client `me`, in order. `told` is the view of that connection, and is updated.
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
    // A controller with the handshake repeats its state by itself when it comes back.
    if role == Role::Active && (diff.followers || (diff.returned && !told.modern)) {
        out.push(Notice::RequestSync);
    }
    out
}

/// Sends `accept_control` to a client without the handshake that joins under another controller: it may be a returning
/// client that still believes to have control.
fn correct_newcomer(told: &mut ClientView, me: &Client, after: &Session, out: &mut Vec<Notice>) {
    let other = after.core.controller.as_ref().filter(|controller| controller.place.connection != me.connection);
    if let Some(controller) = other.filter(|_| !told.modern) {
        out.push(Notice::AcceptControl(controller.client.clone()));
        told.acks += 1;
        told.may_be_back = true;
    }
}

/// Tells a client that control was given up, so that it follows no controller any more.
fn release_notice(told: &mut ClientView, me: &Client, role: Role, diff: &Diff, after: &Session, out: &mut Vec<Notice>) {
    let released = diff.released.as_ref().filter(|ended| ended.connection != me.connection);
    // Several changes may have come at once. A follower that has no controller any more must hear of it in any case.
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

/// Tells a client its own role, if its view differs from the document or the client asked.
fn role_notices(told: &mut ClientView, me: &Client, role: Role, after: &Session, out: &mut Vec<Notice>) {
    if after.awaits(me.connection) {
        // Control is moving to this client. It is told its role when control arrives, or goes to another client.
        return;
    }
    let retell = std::mem::take(&mut told.retell);
    let epoch = after.core.epoch;
    match role {
        // Control is moving away from it: it is told when control has moved.
        Role::Active if after.core.transfer.is_some() => {}
        Role::Active if told.phase != Phase::Active || told.epoch != epoch || retell => grant(told, out),
        Role::Passive if told.modern && (told.phase != Phase::Passive || retell) => {
            out.push(Notice::Assign(Role::Passive));
            told.phase = Phase::Passive;
        }
        Role::Passive if !told.modern => demote(told, me, after, out),
        // It had control and there is no controller now, because its node had lost its place; or it waits for a role
        // that it could not be given.
        // It had control and there is no controller now, because its node had lost its place; or it waits for a role
        // that it could not be given.
        Role::Connected if matches!(told.phase, Phase::Active | Phase::Pull | Phase::Push) => {
            demote(told, me, after, out);
            free(told, me, after, out);
        }
        // It gave control up, or asked for a role that a change for all clients then took away. The last change counts.
        Role::Connected if told.modern && retell => {
            out.push(Notice::Assign(Role::Connected));
            free(told, me, after, out);
        }
        Role::Active | Role::Passive | Role::Connected => {}
    }
    told.epoch = epoch;
}

/// *Grant*. A client that waits for PASSIVE ignores all else, so it is assigned PASSIVE first.
fn grant(told: &mut ClientView, out: &mut Vec<Notice>) {
    told.assured = told.phase == Phase::Active;
    told.let_go = false;
    if !told.modern && told.phase == Phase::Push {
        out.push(Notice::Assign(Role::Passive));
    }
    out.push(Notice::Assign(Role::Active));
    if !told.modern {
        out.push(Notice::ConfirmTransfer);
    }
    told.phase = Phase::Active;
}

/// *Demote*, or *refuse* for a client that waits for ACTIVE. A client that asked to follow is only assigned PASSIVE.
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

/// PASSIVE says that a client follows. A client that has no role is told that there is nobody to follow, unless it has
/// given control up itself: such a client takes itself for a follower until another has control.
fn free(told: &mut ClientView, me: &Client, after: &Session, out: &mut Vec<Notice>) {
    let by_choice = told.modern && (told.let_go || after.core.controller.is_some());
    if !by_choice {
        let ended = after.core.ended.as_ref().filter(|_| told.modern).map(|ended| &ended.client);
        out.push(Notice::ReleaseControl(ended.unwrap_or_else(|| me.name()).clone()));
    }
    told.phase = Phase::Idle;
}

/// What a client's own frame shows about the phase that it believes to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// It waits for ACTIVE.
    Pull,
    /// It waits for PASSIVE.
    Push,
    /// It has control: it accepted, offered, or sent a state of its own.
    Drives,
    /// It gave control up.
    LetGo,
}

impl Belief {
    /// What a frame shows about its sender; `None` if it shows nothing. `held`: the sender was the controller before
    /// it.
    #[must_use]
    pub fn of(intent: &Intent, held: bool) -> Option<Self> {
        match intent {
            Intent::Coordinate(Direction::Active) => Some(Self::Pull),
            Intent::Coordinate(Direction::Passive) => Some(Self::Push),
            Intent::Accept(_) => Some(Self::Drives),
            // A frame that only a controller sends shows something new only if its sender is not the controller.
            Intent::Offer(_) | Intent::State(StateClaim::Drive) => (!held).then_some(Self::Drives),
            Intent::Release => Some(Self::LetGo),
            Intent::Speak | Intent::Request | Intent::Decline(_) => None,
            Intent::State(StateClaim::Answer | StateClaim::InitialPush) => None,
        }
    }
}

impl ClientView {
    /// Takes a frame's word for what its sender believes, though nothing was decided on it: the client is told its role
    /// once more, for it may believe something else.
    pub fn was_not_decided(&mut self, belief: Belief) {
        self.believes(belief);
        self.retell = true;
    }

    /// Updates the view by a frame of the client, before the news of that frame's decision is computed.
    pub fn believes(&mut self, belief: Belief) {
        if self.modern {
            // It believes only the role that it is told. It asked, so it is told its role.
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
                // A client that was told already is not told again, because its release could cross the news.
                self.retell |= self.phase != Phase::Active;
                Phase::Active
            }
            // The news of its grant may be under way still, and would make it ACTIVE again. So it counts as ACTIVE, and
            // is told that it is not.
            Belief::LetGo if std::mem::take(&mut self.assured) => Phase::Active,
            Belief::LetGo => Phase::Idle,
        };
    }
}

/// Whether a newer socket of the same client has taken the place of this connection.
#[must_use]
pub fn is_superseded(session: &Session, connection: ConnectionId) -> bool {
    session.core.superseded.contains(&connection)
}
