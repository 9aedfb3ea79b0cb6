//! The ids of sessions, connections, clients and nodes, and the numbers that order grants and frames.
//!
//! Session ids and resume tokens are secrets. Their `Debug` forms do not show them, so that no log line can.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Milliseconds since the Unix epoch, in the store's time. Also used for durations in milliseconds.
pub type Millis = u64;

/// The longest client id that the relay stores, in bytes (docs/protocol.md, "Bounds").
pub const MAX_CLIENT_ID_BYTES: usize = 128;

/// The id of a session: 122 random bits, and the only secret that the clients of a session share (docs/protocol.md,
/// "Sessions").
///
/// Its `Debug` form shows only [`SessionId::tag`]. Only [`SessionId::reveal`] gives the id itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The id with these 128 bits. The caller draws them at random, because a client that guesses them can join.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// Parses an id in its hyphenated form of 36 characters. Any other text is `None`, because the relay issues no such
    /// id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        (text.len() == 36).then_some(Self(id))
    }

    /// The id itself, for URLs and store keys. It must not go into logs, metrics or errors.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.hyphenated().to_string()
    }

    /// Eight hex digits of a hash of the id. They identify a session in the logs, and do not help to join it.
    #[must_use]
    pub fn tag(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes())[..4])
    }

    /// A number derived from the id: evenly distributed, and the same on every node.
    #[must_use]
    pub fn spread(&self) -> u64 {
        self.0.as_u64_pair().1
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session#{}", self.tag())
    }
}

/// The id of one socket, unique over all nodes and all time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    /// The id with this number. The caller must not give the number to another socket.
    #[must_use]
    pub fn from_number(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection#{}", &self.0.simple().to_string()[..8])
    }
}

/// The id of a client, by which its peers know it: the id in `client_connected`, or the `clientId` of its own frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// An id that the relay makes, for a client that has not named itself.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(format!("client_{bits:032x}").into())
    }

    /// Parses an id from a client. `None` if it is empty, is longer than [`MAX_CLIENT_ID_BYTES`], or has control
    /// characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX_CLIENT_ID_BYTES;
        (fits && !text.chars().any(char::is_control)).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of one incarnation of a node, `name@boot`: the operator's name and a random boot id. A restart gives a new
/// id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The incarnation `boot` of the node called `name`.
    #[must_use]
    pub fn incarnation(name: &str, boot: u64) -> Self {
        Self(format!("{name}@{boot:016x}").into())
    }

    /// The incarnation that a store key or a message of another node names as `name@boot`.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// `name@boot`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fencing token of a grant of control. Every grant in a session has a higher epoch than all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// How far an epoch may be ahead of the store's time, in milliseconds: a day. It is ahead after a failover to a server
/// whose clock is behind.
const EPOCH_AHEAD: Millis = 24 * 60 * 60 * 1_000;

impl Epoch {
    /// Whether a grant until `now` can have this epoch. A forged or corrupt one that is far higher than all that will be
    /// granted would refuse the states of every controller to come.
    #[must_use]
    pub const fn is_possible(self, now: Millis) -> bool {
        self.0 <= now.saturating_add(EPOCH_AHEAD).saturating_mul(1000)
    }

    /// The epoch of the next grant at `now`. It is above this epoch. It is also at least the store's time in
    /// microseconds, and so above the epochs of earlier grants that the store may have lost.
    #[must_use]
    pub fn next(self, now: Millis) -> Self {
        Self(self.0.saturating_add(1).max(now.saturating_mul(1000)))
    }
}

/// The number of a frame among the frames of one connection, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// The secret by which a client proves that it is back (docs/protocol.md, "Leaving and coming back"). A token is used
/// once.
///
/// The store keeps only [`ResumeToken::digest`]. The `Debug` form does not show the token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ResumeToken(String);

impl ResumeToken {
    /// The token with these 128 bits. The caller draws them at random.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// The token that a client presents. Any text is accepted here; only a digest that the store knows proves
    /// something.
    #[must_use]
    pub fn presented(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The token itself, for the one frame that issues it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The form that the store keeps: 32 hex digits of a hash.
    #[must_use]
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes())[..16])
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(..)")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_above_the_last_and_above_the_clock() {
        assert_eq!(Epoch(7).next(0), Epoch(8));
        assert_eq!(Epoch(7).next(1_000), Epoch(1_000_000));
        assert!(Epoch(1_000_000).next(1_000) > Epoch(1_000_000));
        assert_eq!(Epoch(u64::MAX).next(1), Epoch(u64::MAX));
    }

    #[test]
    fn an_epoch_a_day_ahead_of_the_clock_is_impossible() {
        let now = 1_700_000_000_000;
        assert!(Epoch(0).is_possible(now) && Epoch(0).next(now).is_possible(now) && Epoch(5).is_possible(0));
        assert!(Epoch(now * 1_000).is_possible(now - EPOCH_AHEAD));
        assert!(!Epoch(now * 1_000 + 1).is_possible(now - EPOCH_AHEAD) && !Epoch(u64::MAX).is_possible(now));
    }
}
