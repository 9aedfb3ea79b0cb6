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
//! How a role is told depends on the client ([`crate::dialect`]).

use std::collections::{HashMap, HashSet};

use crate::dialect::{ClientView, Phase};
use crate::ids::{ClientId, ConnectionId, Millis};
use crate::session::{Client, Ended, EpochEnd, Role, Session};

/// Above this many role changes at once, only those of the old and the new controller are announced (docs/protocol.md,
/// "Bounds"). Otherwise one change of control in a session of thousands would cause millions of frames.
const MAX_ANNOUNCEMENTS: usize = 32;

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
    /// Whether a client has another controller to follow than before, or a follower has come back on another socket.
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
    let ended = after.core.ended.as_ref().filter(|_| after.core.epoch != before.core.epoch);
    diff.returned = ended.is_some_and(|ended| ended.how == EpochEnd::Resumed);
    let by = |session: &Session| session.core.controller.as_ref().map(|controller| controller.place.connection);
    let other = !diff.returned && by(after).is_some() && by(after) != by(before);
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
        diff.followers |= role == Role::Passive && (was != Some(Role::Passive) || moved || other);
    }
    cap_role_changes(&mut diff, before, after);
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
/// `now` is the node's own time.
#[must_use]
pub fn notices(told: &mut ClientView, me: &Client, diff: &Diff, after: &Session, now: Millis) -> Vec<Notice> {
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
    } else {
        out.extend(diff.joined.iter().filter(|id| **id != me.id).cloned().map(Notice::Connected));
    }
    if let Some(legacy) = told.legacy_mut()
        && (newcomer || legacy.joined_free() && role == Role::Connected)
    {
        legacy.correct_newcomer(me, after, now, &mut out);
    }
    told.tell_role(me, after, now, &mut out);
    out.extend(diff.roles.iter().cloned().map(|(client, role)| Notice::RoleChanged(client, role)));
    if role == Role::Active && (diff.followers || (diff.returned && !told.repeats_its_state())) {
        out.push(Notice::RequestSync);
    }
    out
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

/// Whether a newer socket of the same client has taken the place of this connection.
#[must_use]
pub fn is_superseded(session: &Session, connection: ConnectionId) -> bool {
    session.core.superseded.contains(&connection)
}
