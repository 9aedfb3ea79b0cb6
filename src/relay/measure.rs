//! Snapshots for the metrics, taken when they are scraped, so that the hot path pays nothing.

use std::sync::atomic::Ordering;

use super::{Readiness, Relay};
use crate::metrics::Snapshot;

impl Relay {
    /// Updates the gauges. Looks at every socket's queue once, each under its own short lock.
    pub fn measure(&self) {
        let draining = self.driver.draining.load(Ordering::Acquire);
        let open = usize::try_from(self.connections()).unwrap_or(usize::MAX);
        let mut snapshot = Snapshot {
            ready: self.readiness() == Readiness::Ready,
            draining,
            drain_sockets: if draining { open } else { 0 },
            lease: self.driver.regions.left(),
            regions_without_lease: self.driver.regions.away(),
            broker_queue: self.driver.broker.queued(),
            sessions: self.driver.hub.len(),
            ..Snapshot::default()
        };
        for room in self.driver.hub.rooms() {
            for member in room.lock().machine.members() {
                let (_, frames) = member.socket.outbound.depth();
                snapshot.queued_frames += frames;
                snapshot.longest_queue_frames = snapshot.longest_queue_frames.max(frames);
            }
        }
        self.driver.metrics.show(&snapshot);
    }
}
