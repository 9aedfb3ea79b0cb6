//! New ids. This module is the only one that draws random numbers for them.

use rand::rngs::OsRng;
use rand::{RngCore, TryRngCore};
use uuid::Builder;

use crate::ids::{ClientId, ConnectionId, NodeId, SessionId};
use crate::stored::WriteId;

/// An id that is unique and that nobody can guess.
pub trait Random {
    /// Returns a new id.
    #[must_use]
    fn random() -> Self;
}

impl Random for SessionId {
    fn random() -> Self {
        Self::from_bits(bits())
    }
}

impl Random for ConnectionId {
    fn random() -> Self {
        Self::from_number(bits())
    }
}

impl Random for ClientId {
    fn random() -> Self {
        Self::from_bits(bits())
    }
}

impl Random for WriteId {
    fn random() -> Self {
        Self::from_bits(bits())
    }
}

/// Draws 128 bits from the operating system's source of randomness; 122 of them are random.
///
/// # Panics
///
/// If the operating system has none: then no id could be safe.
#[must_use]
pub fn bits() -> u128 {
    let mut bytes = [0; 16];
    OsRng.unwrap_err().fill_bytes(&mut bytes);
    Builder::from_random_bytes(bytes).into_uuid().as_u128()
}

/// Returns the id of a new incarnation of the node called `name`.
#[must_use]
pub fn boot(name: &str) -> NodeId {
    NodeId::incarnation(name, rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_never_shows_itself_in_debug() {
        let id = SessionId::random();
        let shown = format!("{id:?}");
        assert!(!shown.contains(&id.reveal()) && shown.contains(&id.tag()));
    }

    #[test]
    fn only_the_issued_form_is_an_id() {
        let id = SessionId::random();
        assert_eq!(SessionId::parse(&id.reveal()), Some(id));
        for other in ["", "abc", &id.reveal().replace('-', ""), &format!("{{{}}}", id.reveal())] {
            assert_eq!(SessionId::parse(other), None);
        }
    }

    #[test]
    fn every_incarnation_of_a_node_is_different() {
        assert_ne!(boot("a"), boot("a"));
    }
}
