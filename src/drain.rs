//! Draining a node. Sockets are closed with 1012 in waves, so that their clients do not all reconnect to another node
//! at once. ACTIVE clients are closed last, so that no follower waits for a controller that is moving.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::protocol::CloseReason;
use crate::relay::Relay;

/// The largest number of waves in a drain.
const WAVES: usize = 20;

/// A node with fewer sockets than this closes them in one wave, because more waves would only take longer.
const SMALLEST_WAVE: usize = 50;

/// The share of the time for the waves; the rest is for the last clients to leave.
const WAVE_SHARE: f64 = 0.8;

/// How often the drain checks whether all sockets are closed.
const POLL: Duration = Duration::from_millis(20);

/// Closes all sockets of `relay` within `timeout` and refuses new ones. Returns how many were still open at the
/// deadline.
pub async fn drain(relay: &Relay, timeout: Duration) -> u64 {
    relay.begin_drain();
    let deadline = Instant::now() + timeout;
    let sockets = relay.sockets_to_drain();
    let wave = sockets.len().div_ceil(WAVES).max(SMALLEST_WAVE);
    let waves = u32::try_from(sockets.len().div_ceil(wave)).unwrap_or(1).max(1);
    let pause = timeout.mul_f64(WAVE_SHARE) / waves;
    tracing::info!(sockets = sockets.len(), waves, "draining");
    let mut chunks = sockets.chunks(wave).peekable();
    while let Some(chunk) = chunks.next() {
        for socket in chunk {
            socket.outbound.close(CloseReason::Drain);
        }
        if chunks.peek().is_some() {
            sleep(pause).await;
        }
    }
    while relay.connections() > 0 && Instant::now() < deadline {
        // These sockets were still joining when the drain began.
        for socket in relay.sockets_to_drain() {
            socket.outbound.close(CloseReason::Drain);
        }
        sleep_until((Instant::now() + POLL).min(deadline)).await;
    }
    relay.connections()
}
