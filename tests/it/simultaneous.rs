//! Two clients on two nodes do the same thing at the same time: the result is the same as if one had come after the
//! other.

use std::time::Duration;

use futures_util::{StreamExt, future::join, stream};
use serde_json::json;
use tokio::time::sleep;

use super::support::client::RawClient;
use super::support::cluster::{Cluster, Kind, Options, PATIENCE};
use super::support::eventually;
use super::support::old_client::{Call, Generation, OldClient, Phase};

/// Milliseconds between the two clients.
const GAPS: [u64; 5] = [0, 1, 2, 5, 20];

/// How many sessions run at once.
const AT_ONCE: usize = 16;

/// Runs a scene this often at each gap, each time in its own session.
async fn repeat(kind: Kind, repetitions: usize, scene: impl AsyncFn(&Cluster, String, Duration)) {
    let cluster = Cluster::start(kind, Options::default()).await;
    for gap in GAPS.map(Duration::from_millis) {
        let once = async |_| {
            let session = cluster.near().create_session(json!({})).await;
            scene(&cluster, session, gap).await;
        };
        stream::iter(0..repetitions).map(once).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }
}

async fn both_push(cluster: &Cluster, session: &str, pair: (Generation, Generation), gap: Duration) {
    let (a, b) = join(
        OldClient::join(cluster.near(), session, pair.0, "a"),
        OldClient::join(cluster.far(), session, pair.1, "b"),
    )
    .await;
    for client in [&a, &b] {
        // An open socket is not in its session yet.
        client.has_got("client_connected", 1).await;
    }
    a.call(Call::Push);
    sleep(gap).await;
    // A client that was given a role meanwhile cannot ask for one.
    if b.phase() == Phase::Idle {
        b.call(Call::Push);
    }
    eventually(PATIENCE, async || {
        let phases = [a.phase(), b.phase()];
        (phases.contains(&Phase::Active) && phases.contains(&Phase::Passive)).then_some(())
    })
    .await;
    a.assert_clean();
    b.assert_clean();
}

/// Every pairing of the two generations in turn.
async fn old_clients_push(cluster: &Cluster, session: String, gap: Duration) {
    use Generation::{First, Second};
    let turn = usize::from(session.as_bytes()[0]) % 4;
    both_push(cluster, &session, [(First, First), (First, Second), (Second, First), (Second, Second)][turn], gap).await;
}

async fn modern_clients_push(cluster: &Cluster, session: String, gap: Duration) {
    let (a, _) = RawClient::join_modern(cluster.near(), &session, "a").await;
    let (b, _) = RawClient::join_modern(cluster.far(), &session, "b").await;
    let push = json!({ "preferredDirection": "PASSIVE", "reason": "push" });
    a.say("coordinate_sync_direction", push.clone()).await;
    sleep(gap).await;
    b.say("coordinate_sync_direction", push).await;
    let active = async || cluster.near().get_session(&session).await.1["activeClientId"].clone();
    eventually(PATIENCE, async || active().await.is_string().then_some(())).await;
}

async fn both_pull(cluster: &Cluster, session: String, gap: Duration) {
    let (a, _) = RawClient::join_modern(cluster.near(), &session, "a").await;
    let (b, _) = RawClient::join_modern(cluster.far(), &session, "b").await;
    let pull = json!({ "preferredDirection": "ACTIVE", "reason": "pull" });
    a.say("coordinate_sync_direction", pull.clone()).await;
    sleep(gap).await;
    b.say("coordinate_sync_direction", pull).await;
    let last = |client: &RawClient| {
        client.frames_of("assign_sync_direction").last().map(|told| told["data"]["assignedDirection"].clone())
    };
    let expected = [Some(json!("ACTIVE")), Some(json!("PASSIVE"))];
    eventually(PATIENCE, async || {
        let told = [last(&a), last(&b)];
        expected.iter().all(|role| told.contains(role)).then_some(())
    })
    .await;
}

async fn both_join_under_one_name(cluster: &Cluster, session: String, gap: Duration) {
    let late = async {
        sleep(gap).await;
        RawClient::join_modern(cluster.far(), &session, "editor").await
    };
    let ((_a, first), (_b, second)) = join(RawClient::join_modern(cluster.near(), &session, "editor"), late).await;
    let names = [&first["clientId"], &second["clientId"]];
    assert_ne!(names[0], names[1], "two clients have one name");
    assert!(names.contains(&&json!("editor")), "{names:?}");
    let counted = async || cluster.far().get_session(&session).await.1["clientCount"].clone();
    eventually(PATIENCE, async || (counted().await == 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pushes_on_one_node_give_one_controller() {
    repeat(Kind::Embedded, 50, async |cluster, session, gap| old_clients_push(cluster, session, gap).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pushes_on_two_nodes_give_one_controller() {
    repeat(Kind::Redis(2), 200, async |cluster, session, gap| old_clients_push(cluster, session, gap).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pushes_with_the_handshake_give_one_controller() {
    repeat(Kind::Redis(2), 50, async |cluster, session, gap| modern_clients_push(cluster, session, gap).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_give_one_controller_and_one_follower() {
    repeat(Kind::Redis(2), 50, async |cluster, session, gap| both_pull(cluster, session, gap).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_that_join_under_one_name_get_two_names() {
    repeat(Kind::Redis(2), 50, async |cluster, session, gap| both_join_under_one_name(cluster, session, gap).await)
        .await;
}
