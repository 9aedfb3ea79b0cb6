//! The two clocks of a node: its own, and the store's.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::ids::Millis;
use crate::trust::{MachineId, Now};

/// What a node measures time by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeSource {
    /// The time since this machine booted. It runs on while the machine sleeps, and nobody can set it.
    #[default]
    Boot,
    /// The time of the Tokio runtime, which a test can pause and advance.
    Runtime,
}

/// A node's own clock, and the store's time, computed from the store's last answer and the time that has passed here
/// since then. Before the first answer the store's time is this machine's wall clock, and no decision uses it.
#[derive(Debug)]
pub struct Clock {
    /// The origin of the node's own clock; `None` is the time when this machine booted.
    origin: Option<Instant>,
    /// The store's time at the origin.
    store_at_origin: AtomicU64,
}

impl Clock {
    /// A clock that measures time by `source`.
    #[must_use]
    pub fn new(source: TimeSource) -> Self {
        let origin = (source == TimeSource::Runtime).then(Instant::now);
        let clock = Self { origin, store_at_origin: AtomicU64::new(0) };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        clock.set_store(millis(wall));
        clock
    }

    /// The machine whose clock this is, if other processes can read the same one.
    #[must_use]
    pub fn machine(&self) -> Option<MachineId> {
        if self.origin.is_some() {
            return None;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        // A container may have a clock of its own.
        let clock = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
        let mut digest = DefaultHasher::new();
        (boot.trim(), clock).hash(&mut digest);
        Some(MachineId(digest.finish()))
    }

    /// The node's own time: milliseconds since an origin that has no meaning.
    #[must_use]
    pub fn local(&self) -> Millis {
        match self.origin {
            // A second later than the origin, so that no deadline of zero lies ahead.
            Some(origin) => millis(origin.elapsed()) + 1_000,
            None => since_boot(),
        }
    }

    /// The time on both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let local = self.local();
        Now { local, store: self.store_at_origin.load(Ordering::Relaxed).saturating_add(local) }
    }

    /// Sets the store's time to what the store has just reported.
    pub fn set_store(&self, now: Millis) {
        self.store_at_origin.store(now.saturating_sub(self.local()), Ordering::Relaxed);
    }
}

fn since_boot() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
