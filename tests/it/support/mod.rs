//! Helpers that the tests share.

pub mod client;
pub mod cluster;
pub mod old_client;
pub mod old_script;
pub mod redis;
pub mod redis_cluster;
pub mod slow_network;
pub mod stage;

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

/// Retries until there is an answer. Tests wait for the event itself, never for a time.
///
/// # Panics
///
/// If there is no answer within `deadline`; the message names the caller.
#[track_caller]
pub fn eventually<T>(deadline: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let asked_at = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(Instant::now() < end, "not within {deadline:?}: {asked_at}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
