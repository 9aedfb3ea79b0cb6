//! The two clocks of a node: a monotonic one, and the store's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::ids::Millis;

/// Milliseconds since this machine booted. The clock runs on while the machine sleeps, and nobody can set it.
#[must_use]
pub fn since_boot() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The store's time, computed from its last answer and the time that has passed here since then. Before the first
/// answer the clock shows this machine's wall clock, and no decision uses it.
#[derive(Debug)]
pub struct StoreClock {
    /// The store's time when this machine booted.
    at_boot: AtomicU64,
}

impl Default for StoreClock {
    fn default() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Millis::try_from(wall.as_millis()).unwrap_or(0);
        Self { at_boot: AtomicU64::new(wall.saturating_sub(since_boot())) }
    }
}

impl StoreClock {
    /// The store's time now.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.at_boot.load(Ordering::Relaxed) + since_boot()
    }

    /// Sets the clock to the time that the store has just reported.
    pub fn set(&self, now: Millis) {
        self.at_boot.store(now.saturating_sub(since_boot()), Ordering::Relaxed);
    }
}
