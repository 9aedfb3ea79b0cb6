//! The rules of gitorial-relay: what a session is, which client controls it, and what each client is told.
//!
//! The crate is pure. It does no I/O, reads no clock and draws no random number: the caller hands in the time and fresh
//! ids. So the relay and the tests run the same code.
//!
//! # The document
//!
//! A *session* is one document in a store that all nodes share: [`session::Session`]. The document names the clients,
//! the *controller* (the one client that is ACTIVE, if any), and the claims that wait for a decision. It does not hold
//! the tutorial's state, which passes from the controller to the followers without the store.
//!
//! # A decision
//!
//! A join, a leave or a frame that affects roles is a [`control::Event`]. The node that receives the event
//!
//! 1. loads the document from the store;
//! 2. calls [`control::apply`], which returns the document after the event and a list of [`control::Effect`]s;
//! 3. commits the document, if no other node has committed one in the meantime, and starts again at 1 otherwise;
//! 4. tells the other nodes that the document has changed, tells its own clients, and performs the effects.
//!
//! # The news
//!
//! Each node compares every document that it loads or commits with the one before ([`reconcile::diff`]). From the
//! difference, and from what a connection was last told ([`dialect::ClientView`]), [`reconcile::notices`] computes
//! the frames for that connection. Clients learn of roles and peers in no other way, so the result is the same
//! whichever node made the change, and a lost message between nodes is repaired by the next load.
//!
//! # Modules
//!
//! - [`session`]: the document, and questions about it.
//! - [`control`]: the decision.
//! - [`reconcile`]: the news for each connection.
//! - [`dialect`]: how clients with and without the handshake learn of their roles.
//! - [`room`]: one session on one node, as a machine that runs all of the above.
//! - [`queue`]: the frames that wait for one socket.
//! - [`trust`]: what a node may believe of its lease, its store and the other nodes.
//! - [`stored`], [`route`]: the data that a room exchanges with the store and with other nodes.
//! - [`protocol`]: frames, close codes, error codes.
//! - [`ids`]: the ids of sessions, clients, connections and nodes, and the epoch of a grant.

pub mod control;
pub mod dialect;
pub mod ids;
mod print;
pub mod protocol;
pub mod queue;
pub mod reconcile;
pub mod room;
pub mod route;
pub mod session;
pub mod stored;
pub mod trust;
