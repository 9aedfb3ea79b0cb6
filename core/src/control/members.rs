//! Joins and leaves, the second socket of one client, the handshake, resumes, and repairs after a fault.

use super::{Decider, Effect};
use crate::ids::{ClientId, ConnectionId, Millis};
use crate::protocol::CloseReason;
use crate::session::{Assignment, Client, Core, EpochEnd, Place, Role, Status};

/// A socket that asks to join a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Join {
    /// The socket.
    pub connection: ConnectionId,
    /// The id that the client asks for, if it names one (`?client=`).
    pub wants: Option<ClientId>,
    /// The id that it gets if it asks for none, or another client has that id.
    pub otherwise: ClientId,
    /// When it asked, in the store's time. Of two sockets of one client the one that asked later is the newer one, even if
    /// it joined first.
    pub asked_at: Millis,
    /// The digest of the resume token that it presents, if it claims to be back (`?resume=`).
    pub resume: Option<String>,
}

/// How a socket shows that it belongs to a client that has another socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// By a resume token. The older socket is closed.
    Token,
    /// By its name only. The older socket stays open, and gets nothing any more.
    Name,
}

impl Decider<'_> {
    pub(super) fn join(&mut self, join: &Join) {
        if self.session.core.status != Status::Active {
            return self.emit(Effect::Close(join.connection, CloseReason::SessionNotFound));
        }
        // An earlier write with an unknown outcome may have been committed.
        if self.own_client(join.connection).is_some() {
            return;
        }
        let back = self.comes_back(join);
        if back.is_none() && self.session.clients().count() >= self.context.rules.max_clients {
            return self.emit(Effect::Close(join.connection, CloseReason::SessionFull));
        }
        let taken = |id: &ClientId| self.session.clients().any(|(_, client)| client.is_called(id.as_str()));
        let id = match &back {
            Some(client) => client.id.clone(),
            None => join.wants.clone().filter(|id| !taken(id)).unwrap_or_else(|| join.otherwise.clone()),
        };
        let given = Assignment { role: Role::Connected, change: self.session.core.everyone.change };
        let newcomer = Client {
            connection: join.connection,
            id,
            alias: None,
            modern: false,
            resume: None,
            resume_before: join.resume.clone().filter(|_| back.is_some()),
            joined_at: join.asked_at.min(self.context.now),
            spoke: false,
            given,
            cut_off_at: None,
        };
        let roster = self.session.rosters.entry(self.context.here.clone()).or_default();
        roster.clients.push(newcomer);
        if let Some(old) = back {
            self.replace(&old, join.connection, Proof::Token);
        }
    }

    /// The place that the client of this join had before, if its token proves that it is the same client.
    fn comes_back(&self, join: &Join) -> Option<Client> {
        let (id, proof) = (join.wants.as_ref()?, join.resume.as_ref()?);
        let same = |client: &&Client| client.id == *id && client.resumes_with(proof, self.context.now);
        self.session.clients().map(|(_, client)| client).find(same).cloned()
    }

    /// The socket `new` of this node takes over the place of `old`: role, name and claims.
    fn replace(&mut self, old: &Client, new: ConnectionId, by: Proof) {
        let role = self.session.role(old);
        let change = self.session.core.everyone.change;
        if let Some(client) = self.own_client(new) {
            client.alias = old.alias.clone();
            client.modern = old.modern;
            client.spoke = old.spoke;
            client.given = Assignment { role: if role == Role::Passive { role } else { Role::Connected }, change };
        }
        self.move_claims(old.connection, new);
        // A socket in `superseded` has no place, so control has to move first. If a transfer is moving control away
        // already, that transfer goes on.
        if role == Role::Active
            && self.session.core.transfer.is_none()
            && let Some((_, client)) = self.session.client(new)
        {
            let client = client.clone();
            self.grant_again(&client);
        }
        let own = self.own_client(old.connection).is_some();
        if by == Proof::Token {
            self.emit(Effect::Close(old.connection, CloseReason::Evicted));
        }
        if own && by == Proof::Token {
            self.remove(old.connection);
        } else {
            self.session.core.superseded.push(old.connection);
        }
    }

    fn move_claims(&mut self, old: ConnectionId, new: ConnectionId) {
        let core = &mut self.session.core;
        let requested = core.requests.iter_mut().map(|request| &mut request.place);
        let coming = core.transfer.iter_mut().filter_map(|transfer| transfer.to.as_mut()).map(|to| &mut to.place);
        for place in requested.chain(coming).filter(|place| place.connection == old) {
            *place = Place { node: self.context.here.clone(), connection: new };
        }
    }

    pub(super) fn leave(&mut self, connection: ConnectionId, lost: bool) {
        let now = self.context.now;
        let superseded = self.session.core.superseded.contains(&connection);
        let Some(client) = self.own_client(connection) else { return };
        if lost && client.may_return() && !superseded {
            client.cut_off_at.get_or_insert(now);
            // A transfer that waited for this socket has nothing to wait for any more.
            if self.session.controls(connection) {
                self.complete_transfer();
            }
            return;
        }
        self.remove(connection);
        self.session.core.requests.retain(|request| request.place.connection != connection);
        if self.session.controls(connection) {
            if self.session.core.transfer.is_some() {
                self.complete_transfer();
            } else {
                self.give_up();
            }
        }
    }

    fn remove(&mut self, connection: ConnectionId) {
        self.session.core.superseded.retain(|superseded| *superseded != connection);
        let here = self.context.here;
        let Some(roster) = self.session.rosters.get_mut(here) else { return };
        roster.clients.retain(|client| client.connection != connection);
        if roster.clients.is_empty() {
            self.session.rosters.remove(here);
            self.session.activity.remove(here);
        }
    }

    pub(super) fn rejoin(&mut self, clients: &[Client], held: Option<ConnectionId>) {
        if self.session.core.status != Status::Active {
            return;
        }
        for client in clients {
            if !self.session.core.superseded.contains(&client.connection) {
                let back = self.as_it_comes_back(client, held.is_some());
                self.rejoin_one(back);
            }
        }
        // Other nodes may be taking control from the controller without asking this node, so it goes on only in a new
        // epoch.
        let still = self.session.core.controller.as_ref().map(|controller| controller.place.connection);
        let still = still.filter(|controller| clients.iter().any(|client| client.connection == *controller));
        let held = still.or(held.filter(|_| self.session.core.controller.is_none()));
        let held = held.and_then(|held| self.session.client(held)).map(|(_, client)| client.clone());
        if let Some(client) = held {
            self.grant_again(&client);
        }
    }

    /// Grants control to the controller once more. One that never asked for control has not asked for it by coming back.
    fn grant_again(&mut self, client: &Client) {
        let provisional = self.session.core.controller.as_ref().is_some_and(|controller| controller.provisional);
        self.grant_to(client, provisional, EpochEnd::Resumed);
    }

    /// A missing place comes back with the role that it had, unless all clients were given a role since, or it would
    /// follow nobody beside another follower. A place that the document has keeps the role in the document. `held`: one
    /// of the clients still has control.
    fn as_it_comes_back(&mut self, client: &Client, held: bool) -> Client {
        let kept = self.own_client(client.connection).map(|kept| kept.given);
        let Core { controller, everyone, .. } = &self.session.core;
        let nobody = controller.is_none() && !held && everyone.role != Role::Passive;
        let follows = |(_, other): (_, &Client)| self.session.role(other) == Role::Passive;
        let role = match client.given.role {
            Role::Passive if nobody && self.session.clients().any(follows) => Role::Connected,
            role => role,
        };
        // A restored document may have a lower change number than this node has seen.
        let change = client.given.change.min(everyone.change);
        Client { given: kept.unwrap_or(Assignment { role, change }), ..client.clone() }
    }

    /// Restores one place.
    fn rejoin_one(&mut self, back: Client) {
        // While its place was missing, its client may have come back on another socket.
        let same = |other: &&Client| other.connection != back.connection && other.id == back.id;
        let elsewhere = self.session.clients().map(|(_, client)| client).find(same).cloned();
        if let Some(other) = elsewhere {
            let newer = |client: &Client| (client.cut_off_at.is_none(), client.joined_at);
            match (newer(&other) > newer(&back), back.cut_off_at) {
                (true, Some(_)) => return,
                (true, None) => self.session.core.superseded.push(back.connection),
                (false, _) => self.session.core.superseded.push(other.connection),
            }
        }
        let roster = self.session.rosters.entry(self.context.here.clone()).or_default();
        roster.clients.retain(|known| known.connection != back.connection);
        roster.clients.push(back);
    }

    /// Replaces the core by the core that this node last saw, if that is later. Of two cores the one with the later
    /// grant is later, and with the same grant the one that changed later, so that a grant that was made is not made
    /// again. The order is the same on all nodes, because nodes that disagreed would overwrite each other without end.
    /// A core that another node restored lacks a controller of this node, because a node restores only its own clients;
    /// this node adds it.
    pub(super) fn remember(&mut self, core: &Core) {
        let known = &self.session.core;
        let ours = core.controller.as_ref().is_some_and(|controller| controller.place.node == *self.context.here);
        let lacks_ours = ours && core.age() == known.age() && known.controller.is_none();
        if (core.age() > known.age() || lacks_ours) && known.status == Status::Active {
            let doubtful_until = self.session.core.doubtful_until.max(core.doubtful_until);
            self.session.core = Core { status: Status::Active, doubtful_until, ..core.clone() };
        }
    }

    pub(super) fn handshake(&mut self, connection: ConnectionId, resume: &str) {
        if let Some(client) = self.own_client(connection) {
            client.modern = true;
            client.spoke = true;
            client.resume = Some(resume.to_owned());
        }
    }

    /// Notes a client's first frame and the name in it. If an older socket has the same name, and neither client can
    /// prove who it is by a token, both belong to one client, and the newer socket takes over (docs/protocol.md, "Two
    /// sockets of one client").
    pub(super) fn speak(&mut self, connection: ConnectionId, alias: Option<&ClientId>) {
        let Some(client) = self.own_client(connection) else { return };
        client.spoke = true;
        let Some(alias) = alias.filter(|_| client.alias.is_none()) else { return };
        client.alias = Some(alias.clone());
        let (has_token, joined_at) = (client.may_return(), client.joined_at);
        if has_token || self.session.core.superseded.contains(&connection) {
            return;
        }
        let older = |client: &&Client| {
            !client.may_return()
                && client.connection != connection
                && (client.joined_at, client.connection) < (joined_at, connection)
                && client.alias.as_ref() == Some(alias)
        };
        let old = self.session.clients().map(|(_, client)| client).find(older).cloned();
        if let Some(old) = old {
            self.replace(&old, connection, Proof::Name);
        }
    }
}
