//! The store in Redis: one hash per session, one key per node's heartbeat.
//!
//! On a Cluster each document is read and written only on its own primary. The store's time is then that primary's
//! clock, so the clocks of the primaries have to agree to well within the lease times.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, ClusterInterface, KeysInterface};
use fred::types::scan::Scanner;
use fred::types::scripts::Script;
use fred::types::{CustomCommand, Expiration, FromValue, Value};
use futures_util::StreamExt;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Base, Beat, Committed, Loaded, RENEWAL_KEPT, Renewal, Store, StoreError, StoreLineage, Stored, Write, WriteId,
    whole,
};
use crate::ids::{Millis, NodeId, SessionId};
use crate::metrics::Metrics;
use crate::random::Random;
use crate::redis::{Connection, Evicts, Failure, RedisSettings, beside, check_eviction, info_line};
use crate::session::{Activity, Session};

/// The script that reads both keys, and writes new values.
const LINEAGE: &str = include_str!("lua/lineage.lua");

/// The names of the keys, all with one prefix.
#[derive(Clone, Debug)]
struct Keys {
    prefix: String,
    /// The id of this Redis's data, and when the data began. The first node writes it once; it is lost only together
    /// with all other data.
    generation: String,
    /// When each server that answers for documents was first seen, by the name of its lineage. The key is in the slot
    /// of `generation`.
    servers: String,
}

impl Keys {
    fn with(prefix: &str) -> Self {
        let generation = format!("{prefix}generation");
        let servers = format!("{prefix}servers:{{{generation}}}");
        Self { prefix: prefix.to_owned(), generation, servers }
    }

    fn document(&self, id: SessionId) -> String {
        format!("{}{{{}}}", self.prefix, id.reveal())
    }

    /// Every document's key with its braces: 9 characters, then the first hyphen of the id.
    fn documents(&self) -> String {
        format!("{}?????????-????-????-????-?????????????", self.prefix)
    }

    fn session_of(&self, key: &str) -> Option<SessionId> {
        SessionId::parse(key.strip_prefix(&self.prefix)?.strip_prefix('{')?.strip_suffix('}')?)
    }

    fn beat(&self, node: &NodeId) -> String {
        format!("{}node:{{{node}}}", self.prefix)
    }

    fn renewal(&self, node: &NodeId) -> String {
        format!("{}:renewal", self.beat(node))
    }
}

/// Sessions and heartbeats in Redis. Connects in the background and reconnects by itself.
#[derive(Debug)]
pub struct RedisStore {
    connection: Arc<Connection>,
    /// A separate connection if heartbeats wait for replicas, so that no other command waits behind them.
    beats: Arc<Connection>,
    create: Script,
    load: Script,
    commit: Script,
    touch: Script,
    keys: Keys,
    timeout: Duration,
    replicas: u32,
    full_percent: u32,
    metrics: Arc<Metrics>,
}

impl RedisStore {
    /// Opens a store in the Redis of `settings`. Does not wait for Redis. The caller must be inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the settings cannot be used ([`RedisSettings::validate`]).
    pub async fn connect(settings: &RedisSettings, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let open = || {
            let connection = Connection::open(settings, 32, Arc::clone(&metrics), |_| ());
            connection.map(Arc::new).map_err(|error| StoreError::Unavailable(error.to_string()))
        };
        let connection = open()?;
        let beats = if settings.replicas > 0 { open()? } else { Arc::clone(&connection) };
        Ok(Self {
            connection,
            beats,
            create: Script::from_lua(include_str!("lua/create.lua")),
            load: Script::from_lua(include_str!("lua/load.lua")),
            commit: Script::from_lua(include_str!("lua/commit.lua")),
            touch: Script::from_lua(include_str!("lua/touch.lua")),
            keys: Keys::with(&settings.prefix),
            timeout: settings.command_timeout,
            replicas: settings.replicas,
            full_percent: settings.full_percent,
            metrics,
        })
    }

    /// Waits until Redis has been reached. Returns `false` if that takes longer than `deadline`; the store goes on
    /// trying.
    pub async fn wait_until_connected(&self, deadline: Duration) -> bool {
        let (store, beats) = (&self.connection, &self.beats);
        tokio::join!(store.wait_until_connected(deadline), beats.wait_until_connected(deadline)) == (true, true)
    }

    /// Checks whether this Redis evicts keys when it is full. A Redis that forbids the question passes.
    ///
    /// # Errors
    ///
    /// [`Evicts`] names the policy found.
    pub async fn check_eviction(&self) -> Result<(), Evicts> {
        check_eviction(&self.connection).await
    }

    /// Sends a command, and counts and times the answer.
    async fn ask<T>(
        &self,
        connection: &Connection,
        name: &'static str,
        command: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        let timer = self.metrics.store_seconds.start_timer();
        let answer = connection.ask(name, command).await;
        timer.observe_duration();
        answer.map_err(|error| self.failed(connection.failure(&error)))
    }

    fn failed(&self, failure: Failure) -> StoreError {
        self.metrics.store_errors.inc();
        match failure {
            Failure::Refused(words) => StoreError::Refused(words),
            Failure::Strange => StoreError::Corrupt("an answer of another form".to_owned()),
            Failure::Unanswered(why) => StoreError::Unavailable(why),
        }
    }

    async fn run<T: FromValue>(
        &self,
        script: &Script,
        name: &'static str,
        key: String,
        args: Vec<Value>,
    ) -> Result<T, StoreError> {
        let client = self.connection.client();
        self.ask(&self.connection, name, script.evalsha_with_reload(&client, key, args)).await
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn create(&self, id: SessionId, session: &Session, keep: Duration) -> Result<Millis, StoreError> {
        let mut args: Vec<Value> = vec![px(keep).into(), self.full_percent.into()];
        let mut field = |name: String, value: String| args.extend([name.into(), value.into()]);
        field("info".into(), json(&*session.info)?);
        field("core".into(), json(&session.core)?);
        field("write".into(), WriteId::random().to_text());
        field("version".into(), "1".into());
        for (node, roster) in &session.rosters {
            field(format!("r:{node}"), json(roster)?);
        }
        for (node, activity) in &session.activity {
            field(format!("s:{node}"), json(activity)?);
        }
        match self.run::<Value>(&self.create, "create", self.keys.document(id), args).await? {
            Value::Null => Err(StoreError::Corrupt("the id of a new document is taken".into())),
            answer if answer.as_str().is_some_and(|answer| answer == "full") => Err(StoreError::Full),
            answer => answer.convert().map_err(|_| StoreError::Corrupt("an unknown answer to a creation".into())),
        }
    }

    async fn load(&self, id: SessionId) -> Result<Loaded, StoreError> {
        let answer: (Millis, String, Vec<Bytes>) =
            self.run(&self.load, "load", self.keys.document(id), Vec::new()).await?;
        let (now, server, fields) = answer;
        let names = fields.iter().step_by(2).map(|name| String::from_utf8_lossy(name).into_owned());
        let fields: HashMap<String, Bytes> = names.zip(fields.iter().skip(1).step_by(2).cloned()).collect();
        let found = if fields.is_empty() { None } else { Some(read(&fields, &server, now)?) };
        Ok(Loaded { now, server, found })
    }

    async fn commit(&self, id: SessionId, write: Write) -> Result<Committed, StoreError> {
        let (base, core) = (write.base.write.to_text(), json(&write.core)?);
        let mut args: Vec<Value> =
            vec![px(write.keep).into(), base.into(), write.base.server.into(), write.id.to_text().into(), core.into()];
        for (node, roster) in &write.rosters {
            let gone = roster.clients.is_empty();
            let value = if gone { String::new() } else { json(roster)? };
            args.extend([format!("r:{node}").into(), value.into()]);
            if gone {
                args.extend([format!("s:{node}").into(), String::new().into()]);
            }
        }
        let answer: Vec<u64> = self.run(&self.commit, "commit", self.keys.document(id), args).await?;
        match answer[..] {
            [0] => Ok(Committed::Missing),
            [1] => Ok(Committed::Conflict),
            [2, version, now] => Ok(Committed::Done { version, now }),
            _ => Err(StoreError::Corrupt("an unknown answer to a commit".into())),
        }
    }

    async fn touch(
        &self,
        id: SessionId,
        node: &NodeId,
        activity: Activity,
        keep: Duration,
    ) -> Result<bool, StoreError> {
        let args = vec![px(keep).into(), format!("s:{node}").into(), json(&activity)?.into()];
        self.run(&self.touch, "touch", self.keys.document(id), args).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        // The list has many pages. All of them together may take ten times as long as one command.
        let pages = async {
            let late = |_| Err(Error::new(ErrorKind::Canceled, "the list of sessions took too long"));
            tokio::time::timeout(self.timeout * 10, self.scan(limit)).await.unwrap_or_else(late)
        };
        self.ask(&self.connection, "scan", pages).await
    }

    async fn beat(&self, node: &NodeId, count: u64, renewal: Renewal, keep: Duration) -> Result<Beat, StoreError> {
        let key = self.keys.beat(node);
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let renewal = serde_json::to_string(&renewal).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let replicas = self.replicas;
        // Redis waits for at most half the time that the relay waits for Redis.
        let patience = px(self.timeout / 2);
        let primaries = self.primaries().await?;
        let all = async {
            let pipeline = self.beats.client().pipeline();
            let () = pipeline.set(&key, count, Some(Expiration::PX(px(keep))), None, false).await?;
            let kept = Some(Expiration::PX(px(RENEWAL_KEPT)));
            let () = pipeline.set(self.keys.renewal(node), renewal.as_str(), kept, None, false).await?;
            let () =
                pipeline.custom(beside("EVAL", &self.keys.generation), lineage_script(&self.keys, &primaries)).await?;
            if replicas > 0 {
                let wait = beside("WAIT", &key);
                let () = pipeline.custom(wait, vec![Value::from(i64::from(replicas)), patience.into()]).await?;
            }
            pipeline.all::<Vec<Value>>().await
        };
        let mut answers = self.ask(&self.beats, "beat", all).await?.into_iter().skip(2);
        let mut next = || answers.next().unwrap_or(Value::Null);
        let (now, lineage) = understand(next(), primaries)?;
        if replicas > 0 {
            let have: u32 = next().convert().map_err(strange)?;
            if have < replicas {
                let words = format!("{have} of {replicas} replicas have the heartbeat");
                return Err(self.failed(Failure::Refused(words)));
            }
        }
        Ok(Beat { now, lineage })
    }

    async fn lineage(&self) -> Result<StoreLineage, StoreError> {
        let primaries = self.primaries().await?;
        let client = self.connection.client();
        let ask = client
            .custom::<Value, Value>(beside("EVAL", &self.keys.generation), lineage_script(&self.keys, &primaries));
        let answer = self.ask(&self.connection, "memory", ask).await?;
        understand(answer, primaries).map(|(_, lineage)| lineage)
    }

    async fn beats(&self, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let all = async {
            let pipeline = self.connection.client().pipeline();
            for node in nodes {
                let () = pipeline.get(self.keys.beat(node)).await?;
            }
            pipeline.all::<Vec<Option<u64>>>().await
        };
        self.ask(&self.connection, "get", all).await
    }

    async fn renewals(&self, nodes: &[NodeId]) -> Result<Vec<Option<Renewal>>, StoreError> {
        let all = async {
            let pipeline = self.connection.client().pipeline();
            for node in nodes {
                let () = pipeline.get(self.keys.renewal(node)).await?;
            }
            pipeline.all::<Vec<Option<String>>>().await
        };
        let found = if nodes.is_empty() { Vec::new() } else { self.ask(&self.connection, "get", all).await? };
        // Without a renewal that this version understands, the node is watched for as long as a lease lasts.
        Ok(found.into_iter().map(|text| text.and_then(|text| serde_json::from_str(&text).ok())).collect())
    }

    async fn retire(&self, node: &NodeId) -> Result<(), StoreError> {
        // The command uses the connection of the heartbeats, so that no earlier heartbeat can arrive after it.
        let client = self.beats.client();
        self.ask(&self.beats, "del", client.del::<(), _>(self.keys.beat(node))).await
    }

    async fn time(&self) -> Result<Millis, StoreError> {
        let client = self.connection.client();
        let ask = client.custom::<(u64, u64), Value>(beside("TIME", &self.keys.generation), Vec::new());
        Ok(to_millis(self.ask(&self.connection, "time", ask).await?))
    }
}

impl RedisStore {
    /// The lineages of all primaries of a Cluster; empty without a Cluster.
    async fn primaries(&self) -> Result<BTreeSet<String>, StoreError> {
        let client = self.beats.client();
        if !client.is_clustered() {
            return Ok(BTreeSet::new());
        }
        let all = async {
            let servers = client.cached_cluster_state().map(|state| state.unique_primary_nodes()).unwrap_or_default();
            let info = CustomCommand::new_static("INFO", None, false);
            let ask = servers.into_iter().map(|server| {
                let (node, info) = (client.with_cluster_node(server), info.clone());
                async move { node.custom::<String, _>(info, vec!["replication"]).await }
            });
            futures_util::future::try_join_all(ask).await
        };
        let answers = self.ask(&self.beats, "info", all).await?;
        Ok(answers.iter().filter_map(|info| info_line(info, "master_replid")).collect())
    }

    async fn scan(&self, limit: usize) -> Result<Vec<SessionId>, Error> {
        let client = self.connection.client();
        let mut pages = if client.is_clustered() {
            client.scan_cluster(self.keys.documents(), Some(1_000), None).left_stream()
        } else {
            client.scan(self.keys.documents(), Some(1_000), None).right_stream()
        };
        // SCAN may name a key twice.
        let mut found = HashSet::new();
        while found.len() < limit {
            let Some(page) = pages.next().await else { break };
            let mut page = page?;
            let keys = page.take_results().unwrap_or_default();
            found.extend(keys.iter().filter_map(|key| self.keys.session_of(key.as_str()?)));
            if found.len() < limit {
                page.next();
            } else {
                page.cancel();
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }
}

/// The arguments of EVAL for lineage.lua.
fn lineage_script(keys: &Keys, primaries: &BTreeSet<String>) -> Vec<Value> {
    let marker = format!("{:032x}", rand::random::<u128>());
    let names = [keys.generation.as_str(), keys.servers.as_str(), marker.as_str()];
    let fixed = [Value::from(LINEAGE), Value::from(2)].into_iter().chain(names.map(Value::from));
    fixed.chain(primaries.iter().map(|name| name.as_str().into())).collect()
}

/// Parses the answer of lineage.lua.
fn understand(answer: Value, primaries: BTreeSet<String>) -> Result<(Millis, StoreLineage), StoreError> {
    let (now, server, marker, since): (Millis, String, String, Millis) = answer.convert().map_err(strange)?;
    let servers = if primaries.is_empty() { [server].into() } else { primaries };
    Ok((now, StoreLineage { marker, since, servers }))
}

fn strange(_: Error) -> StoreError {
    StoreError::Corrupt("an unknown answer about a server's lineage".into())
}

fn px(keep: Duration) -> i64 {
    // Redis refuses a time to live of zero.
    i64::try_from(keep.as_millis()).unwrap_or(i64::MAX / 4).max(1)
}

fn to_millis((seconds, micros): (u64, u64)) -> Millis {
    seconds.saturating_mul(1_000).saturating_add(micros / 1_000)
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt("a document that cannot be written as json".into()))
}

fn read(fields: &HashMap<String, Bytes>, server: &str, now: Millis) -> Result<Stored, StoreError> {
    let text = |name: &'static str| {
        let bytes = fields.get(name).ok_or_else(|| unreadable(name))?;
        std::str::from_utf8(bytes).map_err(|_| unreadable(name))
    };
    let mut session = whole(parse("info", text("info")?.as_bytes())?, parse("core", text("core")?.as_bytes())?);
    session.core.epoch.is_possible(now).then_some(()).ok_or_else(|| unreadable("the epoch"))?;
    session.rosters = parts(fields, "r:", "a roster")?;
    session.activity = parts(fields, "s:", "an activity")?;
    let version = text("version")?.parse().map_err(|_| unreadable("version"))?;
    let write = WriteId::from_text(text("write")?).ok_or_else(|| unreadable("write"))?;
    Ok(Stored { session, version, base: Base { write, server: server.to_owned() } })
}

fn parts<T: DeserializeOwned>(
    fields: &HashMap<String, Bytes>,
    prefix: &str,
    what: &'static str,
) -> Result<BTreeMap<NodeId, T>, StoreError> {
    let of_nodes = fields.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
    of_nodes.map(|(node, value)| Ok((NodeId::from_text(node), parse(what, value)?))).collect()
}

fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    // The column of the error helps; the text itself may be private.
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("{what} of a session, at column {}", error.column())))
}

fn unreadable(what: &'static str) -> StoreError {
    StoreError::Corrupt(format!("{what} of a session"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_of_the_lineage_are_in_one_slot_whatever_the_prefix() {
        let slot = |key: &str| fred::util::redis_keyslot(key.as_bytes());
        for prefix in ["gitorial:", "a", "staging:relay-2."] {
            let keys = Keys::with(prefix);
            assert_eq!(slot(&keys.generation), slot(&keys.servers), "{prefix}");
            let id = SessionId::random();
            assert_eq!(keys.session_of(&keys.document(id)), Some(id));
            assert_eq!(slot(&keys.document(id)), slot(&id.reveal()));
        }
        assert_eq!(Keys::with("gitorial:").servers, "gitorial:servers:{gitorial:generation}");
        assert_eq!(Keys::with("a:").session_of(&Keys::with("a:b:").document(SessionId::random())), None);
    }
}
