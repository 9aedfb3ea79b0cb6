//! Existing clients that disconnect while the relay has frames for them: no process dies of it.
//!
//! After `disconnect()` a client handles frames until its socket is closed. A frame that makes it answer then ends a
//! Node process of the first generation (docs/protocol.md, "Frames that are held").

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::support::cluster::{Cluster, Kind, Options};
use super::support::old_client::{Call, Generation, OldClient, Phase, RECONNECT_DELAY};
use super::support::slow_network::SlowNetwork;

/// Milliseconds between the frame that the relay answers and the goodbye.
const GAPS: [u64; 5] = [0, 1, 2, 5, 20];

/// How many sessions run at once: with more, the goodbyes would be too late.
const AT_ONCE: usize = 12;

/// How late a goodbye may be to count: this machine may be busy with other tests.
const LATE: Duration = Duration::from_millis(10);

macro_rules! situations {
    ($($name:ident: $repetitions:expr,)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::repeat(super::Kind::Embedded, $repetitions, async |stage| super::$name(&stage).await).await;
            })*
        }
        mod over_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::repeat(super::Kind::Redis(2), $repetitions, async |stage| super::$name(&stage).await).await;
            })*
        }
    };
}

// How often each situation is tried at each gap.
situations! {
    all_leave_right_after_a_take: 200,
    one_leaves_right_after_a_refused_pull: 200,
    all_leave_right_after_a_newcomer_follows: 40,
    all_leave_right_after_one_asks_for_the_state: 40,
    all_leave_right_after_an_offer_is_accepted: 40,
    one_leaves_right_after_it_joined: 40,
}

/// Its own session for each repetition, clients of the first generation, and the gap.
struct Stage<'a> {
    /// The addresses of the two ends of the cluster, for these clients.
    near: &'a str,
    far: &'a str,
    session: String,
    gap: Duration,
}

/// Runs a situation many times for every gap.
async fn repeat(kind: Kind, repetitions: usize, situation: impl AsyncFn(Stage<'_>) -> Duration) {
    let cluster = Cluster::start(kind, Options::default()).await;
    for gap in GAPS.map(Duration::from_millis) {
        let once = async |_| loop {
            let session = cluster.near().create_session(json!({})).await;
            let (near, far) = (cluster.near().address(), cluster.far().address());
            let late = situation(Stage { near, far, session, gap }).await;
            if late < LATE {
                break;
            }
        };
        stream::iter(0..repetitions).map(once).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }
}

impl Stage<'_> {
    async fn near(&self, name: &str) -> OldClient {
        OldClient::at(self.near, &self.session, Generation::First, name, RECONNECT_DELAY).await
    }

    async fn far(&self, name: &str) -> OldClient {
        OldClient::at(self.far, &self.session, Generation::First, name, RECONNECT_DELAY).await
    }

    /// `a` has control and `b` follows, both at step 1, and no frame is held for either.
    async fn driven(&self) -> (OldClient, OldClient) {
        let (a, b) = (self.near("a").await, self.far("b").await);
        // An open socket is not in its session yet.
        for client in [&a, &b] {
            client.has_got("client_connected", 1).await;
        }
        a.call(Call::Pull);
        a.phase_is(Phase::Active).await;
        b.phase_is(Phase::Passive).await;
        for (client, held) in [(&b, "accept_control"), (&b, "request_sync"), (&a, "request_sync")] {
            client.has_got(held, 1).await;
        }
        a.send_state(1);
        b.state_is(1).await;
        (a, b)
    }

    /// As [`Stage::leave`], without the check that no process has died.
    async fn leave_somehow(&self, since: Instant, clients: &[&OldClient]) -> Duration {
        sleep_until(since + self.gap).await;
        let late = since.elapsed() - self.gap;
        clients.iter().for_each(|client| client.disconnect());
        for client in clients {
            client.is_closed(1).await;
        }
        late
    }

    /// All clients call `disconnect()`, the gap after `since`, and none has died at the end. Returns how late that was.
    async fn leave(&self, since: Instant, clients: &[&OldClient]) -> Duration {
        let late = self.leave_somehow(since, clients).await;
        if late < LATE {
            clients.iter().for_each(|client| client.has_not_died());
        }
        late
    }
}

async fn all_leave_right_after_a_take(stage: &Stage<'_>) -> Duration {
    let (a, b) = stage.driven().await;
    let since = Instant::now();
    b.call(Call::Take);
    b.send_state(2);
    stage.leave(since, &[&a, &b]).await
}

async fn one_leaves_right_after_a_refused_pull(stage: &Stage<'_>) -> Duration {
    let (a, b) = stage.driven().await;
    let c = stage.far("c").await;
    c.has_got("accept_control", 1).await;
    let since = Instant::now();
    c.call(Call::Pull);
    let late = stage.leave(since, &[&c]).await;
    a.has_not_died();
    b.has_not_died();
    late
}

async fn all_leave_right_after_a_newcomer_follows(stage: &Stage<'_>) -> Duration {
    let (a, b) = stage.driven().await;
    let c = stage.far("c").await;
    c.has_got("accept_control", 1).await;
    let since = Instant::now();
    c.call(Call::Push);
    stage.leave(since, &[&a, &b, &c]).await
}

async fn all_leave_right_after_one_asks_for_the_state(stage: &Stage<'_>) -> Duration {
    let (a, b) = stage.driven().await;
    let since = Instant::now();
    a.call(Call::RequestState);
    stage.leave(since, &[&a, &b]).await
}

async fn all_leave_right_after_an_offer_is_accepted(stage: &Stage<'_>) -> Duration {
    let (a, b) = stage.driven().await;
    a.call(Call::Offer);
    b.is_offered_control().await;
    let since = Instant::now();
    b.call(Call::Accept);
    stage.leave(since, &[&a, &b]).await
}

async fn one_leaves_right_after_it_joined(stage: &Stage<'_>) -> Duration {
    let (_a, _b) = stage.driven().await;
    let c = stage.far("c").await;
    stage.leave(Instant::now(), &[&c]).await
}

/// With clients 40 ms away, the relay cannot know of a goodbye that is in flight when it writes. These deaths are
/// printed (`cargo test --test it -- --nocapture distant_clients`); there are none for a goodbye right after a take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distant_clients_all_leave_right_after_a_take() {
    const AWAY: Duration = Duration::from_millis(40);
    const REPETITIONS: usize = 20;
    let cluster = Cluster::start(Kind::Redis(2), Options::default()).await;
    let near = SlowNetwork::to(cluster.near().address(), AWAY).await;
    let far = SlowNetwork::to(cluster.far().address(), AWAY).await;
    let later = [40, 60, 80, 100, 120, 140, 160];
    for gap in GAPS.into_iter().chain(later).map(Duration::from_millis) {
        let once = async |_| loop {
            let session = cluster.near().create_session(json!({})).await;
            let stage = Stage { near: near.address(), far: far.address(), session, gap };
            let (a, b) = stage.driven().await;
            let since = Instant::now();
            b.call(Call::Take);
            b.send_state(2);
            if stage.leave_somehow(since, &[&a, &b]).await < LATE {
                break usize::from(a.has_died() || b.has_died());
            }
        };
        let died: Vec<usize> = stream::iter(0..REPETITIONS).map(once).buffer_unordered(AT_ONCE).collect().await;
        let died: usize = died.into_iter().sum();
        eprintln!("a goodbye {gap:?} after a take, {AWAY:?} away: a process died in {died} of {REPETITIONS}");
        assert!(died == 0 || gap > Duration::from_millis(20), "{died} of {REPETITIONS} at {gap:?}");
    }
}
