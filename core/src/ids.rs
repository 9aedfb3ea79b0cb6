//! The names of things. A session id is a secret, so nothing here prints one: its `Debug` is a short hash.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Milliseconds since the Unix epoch, in the store's time.
pub type Millis = u64;

/// The longest client id that the relay remembers, in bytes. Longer ones are refused.
pub const MAX_CLIENT_ID_BYTES: usize = 128;

/// The id of a session: 122 random bits, the only secret a user shares (docs/protocol.md, "Sessions").
///
/// Its `Debug` form is [`SessionId::tag`], so a log line cannot leak it; only [`SessionId::reveal`] gives the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The id with these 128 bits. The caller draws them at random: a client that can guess them is in.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// Reads an id as a caller wrote it. Anything that this relay cannot have issued is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        (text.len() == 36).then_some(Self(id))
    }

    /// The id itself, for URLs and store keys. Never for logs, metrics or errors.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.hyphenated().to_string()
    }

    /// Eight hex digits of a hash: enough to follow one session through the logs, useless for joining it.
    #[must_use]
    pub fn tag(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes())[..4])
    }

    /// A well-spread number for this id, the same on every node.
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

/// One socket, unique over all nodes and all time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    /// The id with this number, which the caller gives to no other socket.
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

/// A client as its peers know it: the id in `client_connected`, or the one that it puts into its own frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// An id of the relay's own making, for a client that has not named itself.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(format!("client_{bits:032x}").into())
    }

    /// Reads an id as a peer wrote it: not empty, at most [`MAX_CLIENT_ID_BYTES`] bytes, no control characters.
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

/// One run of one node: the operator's name for it and a random boot id, `name@boot`. A restarted node is another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The incarnation `boot` of the node called `name`.
    #[must_use]
    pub fn incarnation(name: &str, boot: u64) -> Self {
        Self(format!("{name}@{boot:016x}").into())
    }

    /// The incarnation written as `name@boot`, as found in a store key or a frame.
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

/// The fencing token of a grant of control. Every grant in a session has a higher one than all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next grant: above the last one, and above any that a store which lost its memory can have
    /// handed out, since it is never below the store's time in microseconds.
    #[must_use]
    pub fn next(self, now: Millis) -> Self {
        Self((self.0 + 1).max(now.saturating_mul(1000)))
    }
}

/// The number of a frame among those of one connection, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// What a client shows to come back as itself (docs/protocol.md, "Leaving and coming back"). Used once.
///
/// The store keeps only [`ResumeToken::digest`]; like a session id it has no printable form but [`ResumeToken::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken(String);

impl ResumeToken {
    /// The token with these 128 bits. The caller draws them at random.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// A token as a client presents it.
    #[must_use]
    pub fn presented(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The token itself, for the one frame that issues it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the store keeps in its place.
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
    }
}
