//! The contract of every store, and that of the Redis store while Redis fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gitorial_relay::RedisSettings;
use gitorial_relay::ids::{ClientId, ConnectionId, Epoch, NodeId, SessionId};
use gitorial_relay::metrics::Metrics;
use gitorial_relay::random::{Random, boot};
use gitorial_relay::region::Region;
use gitorial_relay::session::{Activity, Assignment, Client, Core, Info, Roster, Session, Strategy};
use gitorial_relay::store::{
    Base, Committed, MemoryStore, RedisStore, Renewal, Store, StoreError, Stored, Write, WriteId,
};
use gitorial_relay::trust::MachineId;

use super::support::eventually;
use super::support::redis::RedisFixture;
use super::support::redis_cluster::RedisCluster;

const KEEP: Duration = Duration::from_secs(60);
const RENEWAL: Renewal = Renewal { machine: Some(MachineId(7)), began: 5, at: 6 };
const PATIENCE: Duration = Duration::from_secs(20);

async fn redis(fixture: &RedisFixture) -> RedisStore {
    store_at(fixture.url()).await
}

async fn cluster(fixture: &RedisCluster) -> RedisStore {
    let store = store_at(&fixture.url()).await;
    for region in store.regions().iter() {
        eventually(PATIENCE, async || store.time(region).await.ok()).await;
    }
    store
}

async fn store_at(url: &str) -> RedisStore {
    let mut settings = RedisSettings::new(url);
    settings.command_timeout = Duration::from_millis(500);
    settings.connect_timeout = Duration::from_millis(500);
    let store = RedisStore::connect(&settings, Arc::new(Metrics::new())).await.expect("the url is right");
    assert!(store.wait_until_connected(PATIENCE).await, "redis is there");
    store
}

fn a_session(now: u64) -> Session {
    let metadata = serde_json::value::RawValue::from_string(r#"{"b":1, "a":[]}"#.to_owned()).expect("json");
    let strategy = Strategy::UserChoice;
    Session::new(Arc::new(Info {
        created_at: now,
        ttl: 1_800_000,
        ends_at: now + 86_400_000,
        strategy,
        metadata: Some(metadata.into()),
    }))
}

fn a_roster(number: u128) -> Roster {
    let given = Assignment::default();
    Roster {
        clients: vec![Client {
            connection: ConnectionId::from_number(number),
            id: ClientId::parse("somebody").expect("an id"),
            alias: None,
            modern: true,
            resume: None,
            resume_before: None,
            joined_at: 7,
            spoke: false,
            given,
            cut_off_at: None,
        }],
    }
}

/// A region of this store.
fn a_region(store: &impl Store) -> Region {
    store.regions().iter().next().expect("there is one")
}

fn node(name: &str) -> NodeId {
    boot(name)
}

fn of_core(epoch: u64, base: Base) -> Write {
    let core = Core { epoch: Epoch(epoch), ..Core::default() };
    Write { core, base, rosters: Vec::new(), id: WriteId::random(), keep: KEEP }
}

/// Writes a roster over the document that the store has.
async fn put_roster(store: &impl Store, id: SessionId, node: &NodeId, roster: Roster) -> Committed {
    let stored = found(store, id).await;
    let rosters = vec![(node.clone(), roster)];
    let write = Write { core: stored.session.core, base: stored.base, rosters, id: WriteId::random(), keep: KEEP };
    store.commit(id, write).await.expect("answer")
}

async fn created(store: &impl Store, keep: Duration) -> SessionId {
    let id = SessionId::random();
    store.create(id, &a_session(1_000), keep).await.expect("created");
    id
}

async fn found(store: &impl Store, id: SessionId) -> Stored {
    store.load(id).await.expect("the store answers").found.expect("the document is there")
}

fn version(committed: Committed) -> u64 {
    match committed {
        Committed::Done { version, .. } => version,
        other => panic!("not committed: {other:?}"),
    }
}

async fn a_document_comes_back_as_it_was_written(store: impl Store) {
    let (a, b) = (node("a"), node("b"));
    let mut session = a_session(1_000);
    session.rosters.insert(a.clone(), a_roster(1));
    session.activity.insert(b.clone(), Activity { seen_at: 3, drove_at: 2 });
    let id = SessionId::random();
    let now = store.create(id, &session, KEEP).await.expect("created");
    let loaded = store.load(id).await.expect("loaded");
    let stored = loaded.found.expect("found");
    assert!(loaded.now >= now && now > 1_700_000_000_000, "the store's time is the time of day");
    assert_eq!(stored.session.info.metadata.as_ref().map(|json| json.get()), Some(r#"{"b":1, "a":[]}"#));
    assert_eq!((stored.session.info.ttl, stored.session.info.strategy), (1_800_000, Strategy::UserChoice));
    assert_eq!(stored.session.core, session.core);
    assert_eq!((&stored.session.rosters, &stored.session.activity), (&session.rosters, &session.activity));
    assert!(store.create(id, &session, KEEP).await.is_err(), "nothing is overwritten");
    assert!(store.load(SessionId::random()).await.expect("loaded").found.is_none());
    assert!(store.time(a_region(&store)).await.expect("time") >= now);
}

async fn a_stale_caller_is_refused_and_changes_nothing(store: impl Store) {
    let id = created(&store, KEEP).await;
    let old = found(&store, id).await.base;
    store.commit(id, of_core(1, old.clone())).await.expect("answer");
    let before = found(&store, id).await;
    let mut stale = of_core(2, old);
    stale.rosters = vec![(node("a"), a_roster(1))];
    assert_eq!(store.commit(id, stale).await.expect("answer"), Committed::Conflict);
    let after = found(&store, id).await;
    assert_eq!((after.version, after.base), (before.version, before.base));
    assert_eq!((after.session.core.epoch, after.session.rosters), (Epoch(1), BTreeMap::new()));
}

async fn a_commit_based_on_another_server_is_refused(store: impl Store) {
    let id = created(&store, KEEP).await;
    let base = found(&store, id).await.base;
    let elsewhere = Base { server: "another".to_owned(), ..base.clone() };
    assert_eq!(store.commit(id, of_core(1, elsewhere)).await.expect("answer"), Committed::Conflict);
    assert!(matches!(store.commit(id, of_core(1, base)).await.expect("answer"), Committed::Done { .. }));
}

/// Adds one to the epoch, twenty times, and retries when another commit comes first.
async fn increment<S: Store>(store: Arc<S>, id: SessionId) {
    for _ in 0..20 {
        loop {
            let stored = found(&*store, id).await;
            let write = of_core(stored.session.core.epoch.0 + 1, stored.base);
            if store.commit(id, write).await.expect("answer") != Committed::Conflict {
                break;
            }
        }
    }
}

async fn concurrent_commits_lose_no_increment(store: impl Store + 'static) {
    let id = created(&store, KEEP).await;
    let base = found(&store, id).await.base;
    let (one, two) = tokio::join!(store.commit(id, of_core(0, base.clone())), store.commit(id, of_core(0, base)));
    let outcomes = [one.expect("answer"), two.expect("answer")];
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Committed::Conflict).count(), 1);
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(increment(Arc::clone(&store), id))).collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(found(&*store, id).await.session.core.epoch, Epoch(80));
}

async fn a_write_of_one_roster_leaves_the_others(store: impl Store) {
    let id = created(&store, KEEP).await;
    let (a, b) = (node("a"), node("b"));
    put_roster(&store, id, &a, a_roster(1)).await;
    put_roster(&store, id, &b, a_roster(2)).await;
    let change = of_core(5, found(&store, id).await.base);
    let name = change.id;
    version(store.commit(id, change).await.expect("answer"));
    let stored = found(&store, id).await;
    assert_eq!((stored.base.write, stored.session.core.epoch), (name, Epoch(5)));
    assert_eq!(stored.session.rosters, BTreeMap::from([(a, a_roster(1)), (b, a_roster(2))]));
}

async fn the_version_rises_with_every_write_but_not_with_a_touch(store: impl Store) {
    let id = created(&store, KEEP).await;
    let a = node("a");
    let first = found(&store, id).await;
    let second = version(put_roster(&store, id, &a, a_roster(1)).await);
    let base = found(&store, id).await.base;
    let third = version(store.commit(id, of_core(1, base)).await.expect("answer"));
    assert!(first.version < second && second < third);
    let activity = Activity { seen_at: 9, drove_at: 8 };
    assert!(store.touch(id, &a, activity, KEEP).await.expect("answer"));
    let touched = found(&store, id).await;
    assert_eq!((touched.version, touched.session.activity.get(&a)), (third, Some(&activity)));
}

async fn an_empty_roster_is_removed_with_its_nodes_activity(store: impl Store) {
    let id = created(&store, KEEP).await;
    let a = node("a");
    put_roster(&store, id, &a, a_roster(1)).await;
    store.touch(id, &a, Activity::default(), KEEP).await.expect("answer");
    put_roster(&store, id, &a, Roster::default()).await;
    let session = found(&store, id).await.session;
    assert!(session.rosters.is_empty() && session.activity.is_empty());
}

async fn a_document_is_gone_when_it_expires(store: impl Store) {
    let id = created(&store, Duration::from_millis(30)).await;
    let write = of_core(1, Base { write: WriteId::random(), server: "any".to_owned() });
    eventually(PATIENCE, async || store.load(id).await.expect("answer").found.is_none().then_some(())).await;
    assert_eq!(store.commit(id, write).await.expect("answer"), Committed::Missing);
    assert!(!store.touch(id, &node("a"), Activity::default(), KEEP).await.expect("answer"));
    assert!(store.load(id).await.expect("answer").found.is_none(), "a late touch brings nothing back");
}

async fn no_write_shortens_a_documents_life(store: impl Store) {
    let (kept, short) = (created(&store, KEEP).await, created(&store, Duration::from_millis(30)).await);
    let soon = Duration::from_millis(1);
    store.touch(kept, &node("a"), Activity::default(), soon).await.expect("answer");
    let write = Write { keep: soon, ..of_core(1, found(&store, kept).await.base) };
    store.commit(kept, write).await.expect("answer");
    eventually(PATIENCE, async || store.load(short).await.expect("answer").found.is_none().then_some(())).await;
    found(&store, kept).await;
}

async fn a_touch_prolongs_a_documents_life(store: impl Store) {
    let (touched, other) =
        (created(&store, Duration::from_millis(400)).await, created(&store, Duration::from_millis(400)).await);
    assert!(store.touch(touched, &node("a"), Activity::default(), KEEP).await.expect("answer"));
    eventually(PATIENCE, async || store.load(other).await.expect("answer").found.is_none().then_some(())).await;
    found(&store, touched).await;
}

async fn a_list_names_each_document_once_and_no_more_than_asked(store: impl Store) {
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(created(&store, KEEP).await);
    }
    store.beat(a_region(&store), &node("a"), 1, RENEWAL, KEEP).await.expect("answer");
    let listed = store.list(100_000).await.expect("answer");
    assert!(ids.iter().all(|id| listed.iter().filter(|other| *other == id).count() == 1));
    assert_eq!(store.list(7).await.expect("answer").len(), 7);
}

async fn heartbeats_are_seen_until_they_lapse_or_are_retired(store: impl Store) {
    let (a, b, c) = (node("a"), node("b"), node("c"));
    let first = store.beat(a_region(&store), &a, 1, RENEWAL, KEEP).await.expect("answer");
    let second = store.beat(a_region(&store), &a, 2, RENEWAL, KEEP).await.expect("answer");
    assert!(second.now >= first.now && first.lineage == second.lineage && !first.lineage.servers.is_empty());
    store.beat(a_region(&store), &b, 7, RENEWAL, Duration::from_millis(30)).await.expect("answer");
    let all = [c.clone(), a.clone(), b.clone()];
    eventually(PATIENCE, async || {
        (store.beats(a_region(&store), &all).await.expect("answer") == [None, Some(2), None]).then_some(())
    })
    .await;
    store.retire(a_region(&store), &a).await.expect("answer");
    assert_eq!(store.beats(a_region(&store), &all).await.expect("answer"), [None, None, None]);
    assert_eq!(store.beats(a_region(&store), &[]).await.expect("answer"), []);
}

async fn a_renewal_is_known_when_its_heartbeat_is_gone(store: impl Store) {
    let (a, b) = (node("a"), node("b"));
    store.beat(a_region(&store), &a, 1, RENEWAL, Duration::from_millis(30)).await.expect("answer");
    let gone = async || {
        (store.beats(a_region(&store), std::slice::from_ref(&a)).await.expect("answer") == [None]).then_some(())
    };
    eventually(PATIENCE, gone).await;
    let later = Renewal { began: 9, ..RENEWAL };
    assert_eq!(store.renewals(a_region(&store), &[b, a.clone()]).await.expect("answer"), [None, Some(RENEWAL)]);
    store.beat(a_region(&store), &a, 2, later, KEEP).await.expect("answer");
    store.retire(a_region(&store), &a).await.expect("answer");
    assert_eq!(store.renewals(a_region(&store), &[a]).await.expect("answer"), [Some(later)]);
    assert_eq!(store.renewals(a_region(&store), &[]).await.expect("answer"), []);
}

macro_rules! contract {
    ($($rule:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::MemoryStore::new()).await;
            })*
        }
        mod in_redis {
            $(#[tokio::test]
            async fn $rule() {
                let fixture = super::RedisFixture::any().await;
                super::$rule(super::redis(&fixture).await).await;
            })*
        }
        mod in_a_cluster {
            /// All rules over one Cluster, because it takes a while to start.
            #[tokio::test]
            async fn keeps_the_contract() {
                let fixture = super::RedisCluster::start(3).await;
                $(super::$rule(super::cluster(&fixture).await).await;)*
            }
        }
    };
}

contract!(
    a_document_comes_back_as_it_was_written,
    a_stale_caller_is_refused_and_changes_nothing,
    a_commit_based_on_another_server_is_refused,
    concurrent_commits_lose_no_increment,
    a_write_of_one_roster_leaves_the_others,
    the_version_rises_with_every_write_but_not_with_a_touch,
    an_empty_roster_is_removed_with_its_nodes_activity,
    a_document_is_gone_when_it_expires,
    no_write_shortens_a_documents_life,
    a_touch_prolongs_a_documents_life,
    a_list_names_each_document_once_and_no_more_than_asked,
    heartbeats_are_seen_until_they_lapse_or_are_retired,
    a_renewal_is_known_when_its_heartbeat_is_gone,
);

#[tokio::test]
async fn the_write_id_tells_whether_an_unknown_write_was_committed() {
    let mut fixture = RedisFixture::local().await;
    let store = redis(&fixture).await;
    let id = created(&store, KEEP).await;
    let base = found(&store, id).await;
    fixture.pause();
    let cut = of_core(1, base.base.clone());
    let name = cut.id;
    let outcome = store.commit(id, cut).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    fixture.resume();
    let now = eventually(PATIENCE, async || store.load(id).await.ok()).await.found.expect("found");
    // It was committed once or not at all; the write id tells which.
    let was_committed = now.base.write == name;
    assert_eq!(
        (now.session.core.epoch, now.version),
        (Epoch(was_committed.into()), base.version + u64::from(was_committed))
    );
    assert!(was_committed || now.base.write == base.base.write);
}

#[tokio::test]
async fn calls_to_a_paused_redis_fail_in_time_and_later_succeed() {
    let mut fixture = RedisFixture::local().await;
    let store = redis(&fixture).await;
    let id = created(&store, KEEP).await;
    fixture.pause();
    for _ in 0..4 {
        let started = std::time::Instant::now();
        assert!(matches!(store.load(id).await, Err(StoreError::Unavailable(_))));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    fixture.resume();
    eventually(Duration::from_secs(5), async || store.load(id).await.ok()?.found).await;
}

#[tokio::test]
async fn a_store_started_before_its_redis_answers_once_it_is_up() {
    let mut fixture = RedisFixture::local().await;
    fixture.stop().await;
    let store = RedisStore::connect(&RedisSettings::new(fixture.url()), Arc::new(Metrics::new())).await.expect("url");
    assert!(matches!(store.time(a_region(&store)).await, Err(StoreError::Unavailable(_))));
    fixture.restart().await;
    assert!(store.wait_until_connected(PATIENCE).await);
    created(&store, KEEP).await;
}

#[tokio::test]
async fn the_generation_outlives_a_connection_but_not_redis_data() {
    let mut fixture = RedisFixture::local().await;
    let store = redis(&fixture).await;
    let a = node("a");
    let beat = async || store.beat(a_region(&store), &a, 1, RENEWAL, KEEP).await.ok();
    let first = eventually(PATIENCE, beat).await.lineage;
    fixture.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(eventually(PATIENCE, beat).await.lineage, first);
    fixture.restart().await;
    assert_ne!(eventually(PATIENCE, beat).await.lineage, first);
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let mut fixture = RedisFixture::local().await;
    let store = redis(&fixture).await;
    let id = created(&store, KEEP).await;
    fixture.command(&["SCRIPT", "FLUSH"]);
    version(put_roster(&store, id, &node("a"), a_roster(1)).await);
}

#[tokio::test]
async fn a_heartbeat_missing_on_the_replicas_does_not_count() {
    let fixture = RedisFixture::local().await;
    let mut settings = RedisSettings::new(fixture.url());
    settings.replicas = 1;
    let store = RedisStore::connect(&settings, Arc::new(Metrics::new())).await.expect("url");
    assert!(store.wait_until_connected(PATIENCE).await);
    let beat = store.beat(a_region(&store), &node("a"), 1, RENEWAL, KEEP).await;
    assert!(matches!(beat, Err(StoreError::Refused(_))), "{beat:?}");
}

#[tokio::test]
async fn a_document_with_foreign_content_is_corrupt_and_not_shown() {
    let mut fixture = RedisFixture::local().await;
    let store = redis(&fixture).await;
    let id = created(&store, KEEP).await;
    fixture.command(&["HSET", &format!("gitorial:{{{}}}", id.reveal()), "core", "private"]);
    let error = store.load(id).await.expect_err("it is unreadable");
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert!(!error.to_string().contains("private") && !error.to_string().contains(&id.reveal()));
}

#[tokio::test]
async fn a_redis_that_evicts_is_rejected() {
    let mut fixture = RedisFixture::local().await;
    let store = redis(&fixture).await;
    store.check_eviction().await.expect("noeviction is the default");
    fixture.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(store.check_eviction().await.expect_err("it evicts").policy, "allkeys-lru");
}
