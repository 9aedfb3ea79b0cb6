//! The names of keys and channels.

use crate::region::{Region, Regions};

/// How many slots a Cluster has.
const SLOTS: usize = 16_384;

/// Begins the names of keys and channels with the prefix and, on a Cluster, with the hash tag of their region. So all
/// names of a region are in one slot, and the slots of the regions lie evenly among the servers.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    /// The hash tag of each region; empty without a Cluster.
    tags: Vec<String>,
}

impl Names {
    pub(crate) fn new(prefix: &str, regions: Regions) -> Self {
        let tags =
            if regions == Regions::ONE { Vec::new() } else { regions.iter().map(|at| tag(at, regions)).collect() };
        Self { prefix: prefix.to_owned(), tags }
    }

    /// What every name of this region begins with on a Cluster; `None` without a Cluster.
    pub(crate) fn tagged(&self, region: Region) -> Option<String> {
        self.tags.get(region.index()).map(|tag| format!("{}{{{tag}}}:", self.prefix))
    }

    /// What every name begins with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The slot of a region: the middle of its part of all slots.
pub(super) fn slot(region: Region, regions: Regions) -> u16 {
    let middle = (2 * region.index() + 1) * SLOTS / (2 * regions.count());
    u16::try_from(middle).expect("below the number of slots")
}

/// The first tag in the region's slot: its number, a hyphen, and a number that is found by trying.
fn tag(region: Region, regions: Regions) -> String {
    let slot = slot(region, regions);
    let tags = (0_u32..).map(|number| format!("{}-{number}", region.index()));
    tags.into_iter().find(|tag| fred::util::redis_keyslot(tag.as_bytes()) == slot).expect("each slot has a tag")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_a_tag_in_the_middle_of_its_slots() {
        let names = Names::new("gitorial:", Regions::OF_A_CLUSTER);
        let slots: Vec<_> = Regions::OF_A_CLUSTER
            .iter()
            .map(|region| {
                let tagged = names.tagged(region).expect("a cluster");
                assert!(tagged.starts_with(&format!("gitorial:{{{}-", region.index())), "{tagged}");
                let slot = fred::util::redis_keyslot(tagged.as_bytes());
                assert_eq!(slot, fred::util::redis_keyslot(format!("{tagged}inbox:a{{b}}@1").as_bytes()));
                slot
            })
            .collect();
        assert_eq!(slots, (0..16).map(|region| 512 + region * 1_024).collect::<Vec<u16>>());
    }

    #[test]
    fn the_tags_never_change() {
        let names = Names::new("", Regions::OF_A_CLUSTER);
        let first = names.tagged(Regions::OF_A_CLUSTER.iter().next().expect("one")).expect("a cluster");
        assert_eq!(first, "{0-3704}:");
        assert_eq!(Names::new("a:", Regions::ONE).tagged(Regions::ONE.iter().next().expect("one")), None);
    }
}
