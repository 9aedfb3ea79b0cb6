//! The store in Redis: one hash per session, one key per node's heartbeat.
//!
//! On a Cluster each document is read and written only on its own primary. The store's time is then that primary's
//! clock, so the clocks of the primaries have to agree to well within the lease times.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::types::scan::Scanner;
use fred::types::{FromValue, Value};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

use super::keys::Keys;
use super::primaries::Primaries;
use super::{
    Base, Beat, Committed, Loaded, RENEWAL_KEPT, Renewal, Store, StoreError, StoreLineage, Stored, Write, WriteId,
    whole,
};
use crate::ids::{Millis, NodeId, SessionId};
use crate::metrics::Metrics;
use crate::random::Random;
use crate::redis::{Call, Connection, Evicts, Failure, RedisSettings, Script, Servers, check_eviction};
use crate::region::{Region, Regions};
use crate::session::{Activity, Session};

/// The script that reads both keys, and writes new values.
const LINEAGE: &str = include_str!("lua/lineage.lua");

/// Sessions and heartbeats in Redis. Connects in the background and reconnects by itself.
#[derive(Debug)]
pub struct RedisStore {
    servers: Arc<Servers>,
    /// Separate connections if heartbeats wait for replicas, so that no other command waits behind them.
    beats: Arc<Servers>,
    /// Which primaries of a Cluster are known.
    primaries: Mutex<Primaries>,
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
            let servers = Servers::open(settings, 32, Arc::clone(&metrics), || Box::new(|_| ()));
            servers.map(Arc::new).map_err(|error| StoreError::Unavailable(error.to_string()))
        };
        let servers = open()?;
        let beats = if settings.replicas > 0 { open()? } else { Arc::clone(&servers) };
        Ok(Self {
            servers,
            beats,
            primaries: Mutex::default(),
            create: Script::new(include_str!("lua/create.lua")),
            load: Script::new(include_str!("lua/load.lua")),
            commit: Script::new(include_str!("lua/commit.lua")),
            touch: Script::new(include_str!("lua/touch.lua")),
            keys: Keys::new(settings),
            timeout: settings.command_timeout,
            replicas: settings.replicas,
            full_percent: settings.full_percent,
            metrics,
        })
    }

    /// Waits until Redis has been reached, or a server of the Cluster. Returns `false` if that takes longer than `deadline`; the store goes on
    /// trying.
    pub async fn wait_until_connected(&self, deadline: Duration) -> bool {
        let (store, beats) = (&self.servers, &self.beats);
        tokio::join!(store.wait_until_connected(deadline), beats.wait_until_connected(deadline)) == (true, true)
    }

    /// Checks whether this Redis evicts keys when it is full. A Redis that forbids the question passes.
    ///
    /// # Errors
    ///
    /// [`Evicts`] names the policy found.
    pub async fn check_eviction(&self) -> Result<(), Evicts> {
        for server in self.servers.all() {
            check_eviction(&server.connection).await?;
        }
        Ok(())
    }

    /// Sends commands about keys of one region, and counts and times the answer.
    async fn ask(
        &self,
        servers: &Servers,
        region: Region,
        name: &'static str,
        calls: Vec<Call>,
    ) -> Result<Vec<Value>, StoreError> {
        let timer = self.metrics.store_seconds.start_timer();
        let answer = servers.ask(region, name, calls).await;
        timer.observe_duration();
        answer.map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: Failure) -> StoreError {
        self.metrics.store_errors.inc();
        match failure {
            Failure::Refused(words) => StoreError::Refused(words),
            Failure::Strange => StoreError::Corrupt("an answer of another form".to_owned()),
            Failure::Unanswered(why) => StoreError::Unavailable(why),
        }
    }

    /// Runs a script over the document of a session.
    async fn run<T: FromValue>(
        &self,
        script: &Script,
        name: &'static str,
        id: SessionId,
        args: Vec<Value>,
    ) -> Result<T, StoreError> {
        let (region, key) = (self.keys.regions.of(id), self.keys.document(id));
        let counted = (name, &self.metrics.store_seconds);
        let answer = script.run(&self.servers, region, counted, key, args).await;
        let strange = |_| self.failed(Failure::Strange);
        answer.map_err(|failure| self.failed(failure))?.convert().map_err(strange)
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
        match self.run::<Value>(&self.create, "create", id, args).await? {
            Value::Null => Err(StoreError::Corrupt("the id of a new document is taken".into())),
            answer if answer.as_str().is_some_and(|answer| answer == "full") => Err(StoreError::Full),
            answer => answer.convert().map_err(|_| StoreError::Corrupt("an unknown answer to a creation".into())),
        }
    }

    async fn load(&self, id: SessionId) -> Result<Loaded, StoreError> {
        let answer: (Millis, String, Vec<Bytes>) = self.run(&self.load, "load", id, Vec::new()).await?;
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
        let answer: Vec<u64> = self.run(&self.commit, "commit", id, args).await?;
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
        self.run(&self.touch, "touch", id, args).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        let (mut found, mut failed) = (HashSet::new(), None);
        let servers = self.servers.all();
        for server in &servers {
            match self.scan(&server.connection, limit - found.len()).await {
                Ok(some) => found.extend(some),
                Err(failure) => failed = Some(failure),
            }
        }
        match failed {
            // A server of a Cluster that is away hides its own sessions only.
            Some(failure) if servers.len() == 1 || found.is_empty() => Err(self.failed(failure)),
            _ => Ok(found.into_iter().collect()),
        }
    }

    fn regions(&self) -> Regions {
        self.keys.regions
    }

    async fn beat(
        &self,
        region: Region,
        node: &NodeId,
        count: u64,
        renewal: Renewal,
        keep: Duration,
    ) -> Result<Beat, StoreError> {
        let renewal = serde_json::to_string(&renewal).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let set = |key: String, value: Value, keep| Call::new("SET", [key.into(), value, "PX".into(), px(keep).into()]);
        let beat = set(self.keys.beat(region, node), i64::try_from(count).unwrap_or(i64::MAX).into(), keep);
        let renewal = set(self.keys.renewal(region, node), renewal.into(), RENEWAL_KEPT);
        let others = self.primaries.lock().others(keep);
        let mut calls = vec![beat, renewal, self.lineage_call(region, &others)];
        // Redis waits for at most half the time that the relay waits for Redis.
        let patience = px(self.timeout / 2);
        let wait = Call::new("WAIT", [i64::from(self.replicas).into(), patience.into()]);
        // On a Cluster the heartbeat may turn out to be on another server, and the wait has to follow it.
        let later = self.servers.is_cluster() && self.replicas > 0;
        if self.replicas > 0 && !later {
            calls.push(wait.clone());
        }
        let mut answers = self.ask(&self.beats, region, "beat", calls).await?;
        if later {
            answers.extend(self.ask(&self.beats, region, "wait", vec![wait]).await?);
        }
        let mut answers = answers.into_iter().skip(2);
        let mut next = || answers.next().unwrap_or(Value::Null);
        let (now, lineage) = self.understand(next(), others)?;
        if self.replicas > 0 {
            let have: u32 = next().convert().map_err(strange)?;
            if have < self.replicas {
                let words = format!("{have} of {} replicas have the heartbeat", self.replicas);
                return Err(self.failed(Failure::Refused(words)));
            }
        }
        Ok(Beat { now, lineage })
    }

    fn reconnect(&self, region: Region) {
        self.servers.reconnect(region);
        if !Arc::ptr_eq(&self.servers, &self.beats) {
            self.beats.reconnect(region);
        }
    }

    async fn lineage(&self, region: Region) -> Result<StoreLineage, StoreError> {
        let others = self.primaries.lock().others_as_before();
        let call = self.lineage_call(region, &others);
        let answer = self.one(region, "memory", call).await?;
        self.understand(answer, others).map(|(_, lineage)| lineage)
    }

    async fn beats(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError> {
        let found = self.get(region, nodes, Keys::beat).await?;
        found.into_iter().map(|value| value.convert().map_err(strange)).collect()
    }

    async fn renewals(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<Renewal>>, StoreError> {
        let found = self.get(region, nodes, Keys::renewal).await?;
        // Without a renewal that this version understands, the node is watched for as long as a lease lasts.
        Ok(found.into_iter().map(|text| serde_json::from_str(&text.as_string()?).ok()).collect())
    }

    async fn retire(&self, region: Region, node: &NodeId) -> Result<(), StoreError> {
        // The command uses the connection of the heartbeats, so that no earlier heartbeat can arrive after it.
        let call = Call::new("DEL", [self.keys.beat(region, node).into()]);
        self.ask(&self.beats, region, "del", vec![call]).await.map(drop)
    }

    async fn time(&self, region: Region) -> Result<Millis, StoreError> {
        let answer = self.one(region, "time", Call::new("TIME", [])).await?;
        answer.convert().map(to_millis).map_err(strange)
    }
}

impl RedisStore {
    async fn one(&self, region: Region, name: &'static str, call: Call) -> Result<Value, StoreError> {
        let answers = self.ask(&self.servers, region, name, vec![call]).await?;
        Ok(answers.into_iter().next().unwrap_or(Value::Null))
    }

    /// What there is under one key of each node.
    async fn get(
        &self,
        region: Region,
        nodes: &[NodeId],
        key: fn(&Keys, Region, &NodeId) -> String,
    ) -> Result<Vec<Value>, StoreError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let calls = nodes.iter().map(|node| Call::new("GET", [key(&self.keys, region, node).into()])).collect();
        self.ask(&self.servers, region, "get", calls).await
    }

    /// The call of lineage.lua.
    fn lineage_call(&self, region: Region, others: &[String]) -> Call {
        let marker = format!("{:032x}", rand::random::<u128>());
        let names = [self.keys.generation(region), self.keys.servers(region), marker].map(Value::from);
        let fixed = [Value::from(LINEAGE), Value::from(2)].into_iter().chain(names);
        Call::new("EVAL", fixed.chain(others.iter().map(|name| name.as_str().into())))
    }

    /// Parses the answer of lineage.lua.
    fn understand(&self, answer: Value, others: Vec<String>) -> Result<(Millis, StoreLineage), StoreError> {
        let (now, server, marker, since): (Millis, String, String, Millis) = answer.convert().map_err(strange)?;
        if self.servers.is_cluster() {
            self.primaries.lock().seen(&server);
        }
        let servers = others.into_iter().chain([server.clone()]).collect();
        Ok((now, StoreLineage { marker, since, server, servers }))
    }

    /// The sessions that one server has.
    async fn scan(&self, server: &Connection, limit: usize) -> Result<HashSet<SessionId>, Failure> {
        // The list has many pages. All of them together may take ten times as long as one command.
        let pages = async {
            let late = |_| Err(Error::new(ErrorKind::Canceled, "the list of sessions took too long"));
            tokio::time::timeout(self.timeout * 10, self.pages(server, limit)).await.unwrap_or_else(late)
        };
        let timer = self.metrics.store_seconds.start_timer();
        let answer = server.ask("scan", pages).await;
        timer.observe_duration();
        answer.map_err(|error| server.failure(&error))
    }

    async fn pages(&self, server: &Connection, limit: usize) -> Result<HashSet<SessionId>, Error> {
        let client = server.client();
        let mut pages = std::pin::pin!(client.scan(self.keys.documents(), Some(1_000), None));
        // SCAN may name a key twice.
        let mut found = HashSet::new();
        while found.len() < limit {
            let Some(page) = pages.next().await else { break };
            let mut page = page?;
            let keys = page.take_results().unwrap_or_default();
            let ids = keys.iter().filter_map(|key| self.keys.session_of(key.as_str()?));
            found.extend(ids.take(limit));
            if found.len() < limit {
                page.next();
            } else {
                page.cancel();
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }
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
