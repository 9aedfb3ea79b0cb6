//! gitorial-relay keeps websites and editors on the same step of a tutorial. One client of a session is ACTIVE (the
//! controller), the others are PASSIVE (followers), and control moves between them. This is the library; the binary of
//! the same name adds settings, a command line, logs and signals. An application that only embeds the relay can leave
//! out the dependencies of the binary: `default-features = false`.
//!
//! ```
//! use std::time::Duration;
//!
//! use gitorial_relay::relay::NewSession;
//! use gitorial_relay::{Node, NodeSettings};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A node with the embedded store; with `redis: Some(..)` it shares its sessions with others.
//! let node = Node::start(NodeSettings::default()).await?;
//! assert!(node.ready(Duration::from_secs(5)).await);
//! let session = node.relay().create_session(NewSession::default()).await?;
//! assert!(node.relay().session(session.id()).await?.is_some());
//! // Mount `http::router(node.relay().clone(), ..)` in an axum application, or attach upgraded sockets by
//! // `connection::serve`: examples/embed.rs shows both.
//! node.stop(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! A [`room`] is one session on one node as a state machine. In it [`control`] decides which client controls the session,
//! [`reconcile`] which client is told what, and [`session`] is the document that both work on. These are parts of the crate
//! `gitorial-relay-core`, which is pure: no clock, no I/O, nothing async. The [`relay`] drives the rooms. ARCHITECTURE.md
//! describes the rest, and says which part may name which.

pub mod broker;
pub mod clock;
pub mod connection;
pub mod drain;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod node;
pub mod presence;
pub mod random;
mod redis;
pub mod region;
pub mod relay;
pub mod store;

pub use gitorial_relay_core::{control, dialect, ids, protocol, queue, reconcile, room, route, session, stored, trust};
pub use node::{Node, NodeError, NodeSettings};
pub use redis::{ClusterSecret, ClusterSecretError, Evicts, RedisSettings, RedisSettingsError};
