//! The names of the keys in Redis.

use crate::ids::{NodeId, SessionId};
use crate::redis::{Names, RedisSettings};
use crate::region::{Region, Regions};

/// The names of the keys. On a Cluster all keys of a region are in one slot. Without one each key has a slot of its own,
/// but for the two about the lineage, which are read together.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    names: Names,
    pub(super) regions: Regions,
}

impl Keys {
    pub(super) fn new(settings: &RedisSettings) -> Self {
        let regions = settings.regions();
        Self { names: Names::new(&settings.prefix, regions), regions }
    }

    pub(super) fn document(&self, id: SessionId) -> String {
        match self.names.tagged(self.regions.of(id)) {
            Some(begin) => format!("{begin}{}", id.reveal()),
            None => format!("{}{{{}}}", self.names.prefix(), id.reveal()),
        }
    }

    /// Every document's key, and hardly another: 9 characters with a brace, or 8, then the first hyphen of the id.
    pub(super) fn documents(&self) -> String {
        let prefix = self.names.prefix();
        if self.regions == Regions::ONE {
            format!("{prefix}?????????-????-????-????-?????????????")
        } else {
            format!("{prefix}{{*}}:????????-????-????-????-????????????")
        }
    }

    pub(super) fn session_of(&self, key: &str) -> Option<SessionId> {
        let rest = key.strip_prefix(self.names.prefix())?.strip_prefix('{')?;
        let id = if self.regions == Regions::ONE { rest.strip_suffix('}')? } else { rest.split_once("}:")?.1 };
        SessionId::parse(id)
    }

    /// The id of a region's data, and when the data began. The first node writes it once; it is lost only together with
    /// all other data of the region.
    pub(super) fn generation(&self, region: Region) -> String {
        format!("{}generation", self.begin(region))
    }

    /// When each server that answers for documents was first seen, by the name of its lineage. The key is in the slot
    /// of the generation.
    pub(super) fn servers(&self, region: Region) -> String {
        match self.names.tagged(region) {
            Some(begin) => format!("{begin}servers"),
            None => format!("{}servers:{{{}}}", self.names.prefix(), self.generation(region)),
        }
    }

    /// A node's heartbeat.
    pub(super) fn beat(&self, region: Region, node: &NodeId) -> String {
        match self.names.tagged(region) {
            Some(begin) => format!("{begin}node:{node}"),
            None => format!("{}node:{{{node}}}", self.names.prefix()),
        }
    }

    /// When a node's last renewal began.
    pub(super) fn renewal(&self, region: Region, node: &NodeId) -> String {
        format!("{}:renewal", self.beat(region, node))
    }

    fn begin(&self, region: Region) -> String {
        self.names.tagged(region).unwrap_or_else(|| self.names.prefix().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn keys(scheme: &str, prefix: &str) -> Keys {
        Keys::new(&RedisSettings { prefix: prefix.to_owned(), ..RedisSettings::new(format!("{scheme}://h")) })
    }

    fn slot(key: &str) -> u16 {
        fred::util::redis_keyslot(key.as_bytes())
    }

    #[test]
    fn a_single_redis_keeps_its_names() {
        let region = Regions::ONE.iter().next().expect("one");
        for prefix in ["gitorial:", "a", "staging:relay-2."] {
            let keys = keys("redis", prefix);
            assert_eq!(slot(&keys.generation(region)), slot(&keys.servers(region)), "{prefix}");
            let id = SessionId::random();
            assert_eq!(keys.document(id), format!("{prefix}{{{}}}", id.reveal()));
            assert_eq!(keys.session_of(&keys.document(id)), Some(id));
        }
        let (keys, node) = (keys("redis-sentinel", "gitorial:"), NodeId::from_text("a@1"));
        assert_eq!(keys.generation(region), "gitorial:generation");
        assert_eq!(keys.servers(region), "gitorial:servers:{gitorial:generation}");
        assert_eq!(keys.beat(region, &node), "gitorial:node:{a@1}");
        assert_eq!(keys.renewal(region, &node), "gitorial:node:{a@1}:renewal");
    }

    #[test]
    fn all_keys_of_a_region_of_a_cluster_are_in_one_slot() {
        let (keys, node) = (keys("rediss-cluster", "gitorial:"), NodeId::from_text("a@1"));
        let mut seen = std::collections::HashSet::new();
        while seen.len() < keys.regions.count() {
            let id = SessionId::random();
            let region = keys.regions.of(id);
            let names =
                [keys.generation(region), keys.servers(region), keys.beat(region, &node), keys.renewal(region, &node)];
            assert!(names.iter().all(|name| slot(name) == slot(&keys.document(id))), "{names:?}");
            assert_eq!(keys.session_of(&keys.document(id)), Some(id));
            seen.insert(slot(&keys.document(id)));
        }
    }

    #[test]
    fn a_key_of_another_prefix_is_no_session() {
        for scheme in ["redis", "redis-cluster"] {
            let other = keys(scheme, "a:b:").document(SessionId::random());
            assert_eq!(keys(scheme, "a:").session_of(&other), None);
        }
    }
}
