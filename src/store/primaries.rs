//! The primaries of a Cluster that a node has known for long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A server that has not answered for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);

/// The names of the lineages of primaries, and when each was first and last seen.
///
/// A region that is moved to another primary has lost nothing, and one whose replica takes over may have. A server that
/// was a primary before cannot have been the region's replica. One that became a primary a moment ago may have lost what
/// is in doubt now, so it counts only after every lease of that time has lapsed.
#[derive(Debug)]
pub(super) struct Primaries {
    seen: BTreeMap<String, (Instant, Instant)>,
    /// How long a server has to be known.
    settled: Duration,
}

impl Default for Primaries {
    fn default() -> Self {
        Self { seen: BTreeMap::new(), settled: FORGOTTEN }
    }
}

impl Primaries {
    /// Notes that a server answers for a region.
    pub(super) fn seen(&mut self, server: &str) {
        let now = Instant::now();
        self.seen.retain(|_, (_, last)| now - *last < FORGOTTEN);
        self.seen.entry(server.to_owned()).or_insert((now, now)).1 = now;
    }

    /// The primaries that have been known for at least as long as a heartbeat is kept.
    pub(super) fn others(&mut self, kept: Duration) -> Vec<String> {
        self.settled = kept;
        self.others_as_before()
    }

    /// The same for the time of the last call.
    pub(super) fn others_as_before(&self) -> Vec<String> {
        let settled = self.seen.iter().filter(|(_, (first, _))| first.elapsed() >= self.settled);
        settled.map(|(server, _)| server.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_primary_counts_when_it_has_been_known_for_long_enough() {
        let (mut primaries, kept) = (Primaries::default(), Duration::from_secs(7));
        primaries.seen("a");
        tokio::time::advance(Duration::from_secs(6)).await;
        primaries.seen("b");
        assert_eq!(primaries.others(kept), [""; 0]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(primaries.others(kept), ["a"]);
        assert_eq!(primaries.others_as_before(), ["a"]);
        for _ in 0..2 {
            tokio::time::advance(FORGOTTEN / 2).await;
            primaries.seen("b");
        }
        assert_eq!(primaries.others(kept), ["b"], "a has not answered for too long");
    }
}
