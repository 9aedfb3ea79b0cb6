//! The document in a state of the model: the product's own, without the parts that no decision of the model depends on.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use gitorial_relay::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};
use gitorial_relay::session::{Assignment, Client, Controller, Session, Status};

/// A session document that is cheap to clone and to compare: by a hash of its content.
pub struct Doc {
    pub session: Session,
    print: u64,
}

impl Doc {
    pub fn of(session: Session) -> Arc<Self> {
        let session = plain(session);
        let mut hasher = DefaultHasher::new();
        session.core.hash(&mut hasher);
        session.rosters.hash(&mut hasher);
        Arc::new(Self { print: hasher.finish(), session })
    }

    pub fn epoch(&self) -> Epoch {
        self.session.core.epoch
    }

    pub fn controller(&self) -> Option<ConnectionId> {
        self.session.core.controller.as_ref().map(|controller| controller.place.connection)
    }

    pub fn has_claims(&self) -> bool {
        !self.session.core.requests.is_empty() || self.session.core.offer.is_some()
    }

    /// The same, but without requests for control.
    pub fn without_claims(&self) -> Arc<Self> {
        let mut session = self.session.clone();
        (session.core.requests, session.core.offer) = (Vec::new(), None);
        Self::of(session)
    }

    pub fn is_active(&self) -> bool {
        self.session.core.status == Status::Active
    }
}

impl Hash for Doc {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl PartialEq for Doc {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Eq for Doc {}

impl fmt::Debug for Doc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.session.core;
        write!(f, "{:?} epoch {} holder {:?}", core.status, core.epoch.0, self.controller())?;
        if let Some(transfer) = &core.transfer {
            write!(f, " moving to {:?}", transfer.to.as_ref().map(|to| to.place.connection))?;
        }
        for (node, roster) in &self.session.rosters {
            let clients = roster.clients.iter().map(|client| (client.connection, client.cut_off_at.is_some()));
            write!(f, " {node}: {:?}", clients.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// Removes the parts that only inform or order clients: times except that of the last change, roles except that of the
/// controller.
/// Nothing in the model lives long enough for a time-out of minutes.
fn plain(mut session: Session) -> Session {
    let core = &mut session.core;
    (core.ended, core.everyone) = (None, Assignment::default());
    let at_once = |controller: &mut Controller| controller.since = 0;
    core.controller.iter_mut().for_each(at_once);
    core.transfer.iter_mut().filter_map(|transfer| transfer.to.as_mut()).for_each(at_once);
    core.requests.iter_mut().for_each(|request| request.at = 0);
    core.offer.iter_mut().for_each(|offer| offer.at = 0);
    for client in session.rosters.values_mut().flat_map(|roster| &mut roster.clients) {
        (client.joined_at, client.given) = (0, Assignment::default());
        client.cut_off_at = client.cut_off_at.map(|_| 0);
    }
    session.activity.clear();
    session
}

/// The socket of this client: the first, or the one on which it came back.
pub fn socket(client: u8, again: u8) -> ConnectionId {
    ConnectionId::from_number(u128::from(client + 1 + again * 16) << 96)
}

pub fn node_id(index: usize) -> NodeId {
    NodeId::from_text(["a@0", "b@0", "c@0"][index])
}

pub fn name(client: u8) -> ClientId {
    ClientId::parse(&format!("client_{client}")).unwrap()
}

pub fn token(client: u8) -> String {
    format!("token_{client}")
}

/// The place of this socket, from which it can be restored.
pub fn place(doc: &Doc, connection: ConnectionId) -> Option<Client> {
    let mut clients = doc.session.rosters.values().flat_map(|roster| &roster.clients);
    clients.find(|client| client.connection == connection).cloned()
}

/// A tick of the model is a millisecond of the rules.
pub fn millis(tick: u8) -> Millis {
    Millis::from(tick)
}
