//! Signs publications and checks their signatures, so that whoever can reach Redis cannot speak for a node.
//!
//! A signature covers the receiver's incarnation and the whole publication. A publication that is sent again to the same
//! incarnation has numbers that arrived before ([`super::exchange::Exchange::signed`]); no other incarnation accepts it.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::ids::NodeId;
use crate::redis::ClusterSecret;
use crate::region::Region;

/// The length of a signature, in bytes: HMAC-SHA256, of which the first half is sent.
pub(super) const SIGNATURE: usize = 16;

type Key = Hmac<Sha256>;

/// The keys of a node.
#[derive(Clone, Default)]
pub(super) struct Seal {
    /// The first one signs; `None` stands for no signature.
    keys: Vec<Option<Key>>,
}

/// Why a publication is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forged {
    /// It has no signature.
    Unsigned,
    /// Its signature belongs to another secret, another receiver or another content.
    WronglySigned,
}

impl Seal {
    /// The keys of these secrets; without secrets nothing is signed and nothing is checked.
    pub(super) fn of(secret: Option<&ClusterSecret>) -> Self {
        let key = |secret: &str| Key::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
        let secrets = secret.into_iter().flat_map(ClusterSecret::secrets);
        Self { keys: secrets.map(|secret| secret.map(key)).collect() }
    }

    /// The same keys for one region of a Cluster, so that what is signed for one inbox of a node is not believed in another.
    pub(super) fn of_region(self, region: Region) -> Self {
        // It stands where the length of a name does, and no name is that long.
        let mark = (u64::MAX - region.index() as u64).to_le_bytes();
        Self { keys: self.keys.into_iter().map(|key| key.map(|key| key.chain_update(mark))).collect() }
    }

    /// Whether nothing is believed without a signature.
    pub(super) fn is_required(&self) -> bool {
        !self.keys.is_empty() && self.keys.iter().all(Option::is_some)
    }

    /// Whether this node signs.
    pub(super) fn signs(&self) -> bool {
        self.keys.first().is_some_and(Option::is_some)
    }

    /// The signature of this content for `to`, if this node signs.
    pub(super) fn sign(&self, to: &NodeId, content: &[u8]) -> Option<[u8; SIGNATURE]> {
        let whole = over(self.keys.first()?.as_ref()?, to, content).finalize().into_bytes();
        whole.first_chunk().copied()
    }

    /// Checks the signature of this content for this node.
    pub(super) fn check(&self, here: &NodeId, signature: Option<&[u8]>, content: &[u8]) -> Result<(), Forged> {
        let fits = |key: &Option<Key>| match (key, signature) {
            (Some(key), Some(signature)) => over(key, here, content).verify_truncated_left(signature).is_ok(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if self.keys.is_empty() || self.keys.iter().any(fits) {
            return Ok(());
        }
        Err(if signature.is_some() { Forged::WronglySigned } else { Forged::Unsigned })
    }
}

/// The length of the name is part of what is signed, so that no byte can move between name and content.
fn over(key: &Key, to: &NodeId, content: &[u8]) -> Key {
    let name = to.as_str().as_bytes();
    key.clone().chain_update((name.len() as u64).to_le_bytes()).chain_update(name).chain_update(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Regions;

    fn seal(secret: &str) -> Seal {
        Seal::of(Some(&secret.parse().expect("a secret")))
    }

    #[test]
    fn a_signature_is_good_for_its_receiver_its_content_and_its_secret() {
        let (a, b) = ("a".repeat(16), "b".repeat(16));
        let (here, there) = (NodeId::from_text("n@1"), NodeId::from_text("n@2"));
        let signature = seal(&a).sign(&here, b"text").expect("it signs");
        let check = |secret: &str, to: &NodeId, content: &[u8]| seal(secret).check(to, Some(&signature), content);
        assert_eq!(check(&a, &here, b"text"), Ok(()));
        for refused in [check(&b, &here, b"text"), check(&a, &there, b"text"), check(&a, &here, b"texts")] {
            assert_eq!(refused, Err(Forged::WronglySigned));
        }
        assert_eq!(
            seal(&a).check(&here, Some(&signature[..8]), b"text"),
            Ok(()),
            "its length is checked by the reader"
        );
        assert_eq!(seal(&a).check(&here, None, b"text"), Err(Forged::Unsigned));
        assert_eq!(check(&format!("{b},{a}"), &here, b"text"), Ok(()), "each secret is accepted");
    }

    #[test]
    fn a_signature_is_good_for_one_region_only() {
        let (secret, here) = ("a".repeat(16), NodeId::from_text("n@1"));
        let mut regions = Regions::OF_A_CLUSTER.iter().map(|region| seal(&secret).of_region(region));
        let (first, second) = (regions.next().expect("one"), regions.next().expect("another"));
        let signature = first.sign(&here, b"text").expect("it signs");
        assert_eq!(first.check(&here, Some(&signature), b"text"), Ok(()));
        for other in [second, seal(&secret)] {
            assert_eq!(other.check(&here, Some(&signature), b"text"), Err(Forged::WronglySigned));
        }
    }

    #[test]
    fn an_empty_entry_stands_for_no_signature() {
        let (a, here) = ("a".repeat(16), NodeId::from_text("n@1"));
        let (first, last) = (seal(&format!(",{a}")), seal(&format!("{a},")));
        assert_eq!(first.sign(&here, b"text"), None);
        let signature = last.sign(&here, b"text").expect("it signs");
        for seal in [&first, &last] {
            assert_eq!(seal.check(&here, None, b"text"), Ok(()));
            assert_eq!(seal.check(&here, Some(&signature), b"text"), Ok(()));
            assert_eq!(seal.check(&here, Some(&[0; SIGNATURE]), b"text"), Err(Forged::WronglySigned));
            assert!(!seal.is_required());
        }
        assert!(seal(&a).is_required() && !Seal::default().is_required());
        assert_eq!(Seal::default().check(&here, Some(&[0; SIGNATURE]), b"text"), Ok(()));
    }
}
