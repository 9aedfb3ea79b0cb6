//! Regions: the parts of the sessions that fail apart from each other.
//!
//! All keys of one region are in one slot of a Redis Cluster, so a region is always on one server. A node holds a lease
//! for each region. Without a Cluster all sessions are in one region.

use crate::ids::SessionId;

/// One region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(u8);

impl Region {
    /// Its number, counted from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// How many regions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regions(u8);

impl Regions {
    /// All sessions are in one region.
    pub const ONE: Self = Self(1);
    /// The regions of a Redis Cluster. The number is the same for every relay, because it decides the names of keys.
    pub const OF_A_CLUSTER: Self = Self(16);

    /// The region of a session. It is the same on every node.
    #[must_use]
    pub fn of(self, session: SessionId) -> Region {
        // The lower half of this number chooses which node acts first for a session.
        let part = (session.spread() >> 32) % u64::from(self.0);
        Region(u8::try_from(part).unwrap_or(0))
    }

    /// Every region.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Region> + use<> {
        (0..self.0).map(Region)
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn sessions_lie_evenly_in_the_regions() {
        let mut counts = [0; 16];
        for _ in 0..16_000 {
            counts[Regions::OF_A_CLUSTER.of(SessionId::random()).index()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
        assert_eq!(Regions::ONE.of(SessionId::random()).index(), 0);
        assert_eq!(Regions::OF_A_CLUSTER.iter().map(Region::index).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    }
}
