//! The servers of one Redis, and which of them has which region.
//!
//! Without a Cluster there is one. On a Cluster each server that has a region has a connection of its own, so a server
//! that is away or silent delays nobody else: the library's client of a Cluster stops altogether while one primary cannot
//! be reached. A region is one slot, so the relay only has to know one server for each region. A server that has it no
//! more says where it is (`MOVED`, `ASK`); beside that a task asks the servers for their slots.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::ServerConfig;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::join_all;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::eviction::info_line;
use super::names::slot;
use super::slots::{Address, Redirect, View};
use super::{Connection, Failure, NOT_CONNECTED, RedisSettings, RedisSettingsError};
use crate::metrics::Metrics;
use crate::region::{Region, Regions};

/// How often the servers of a Cluster are asked for their slots: at least, and at most when commands fail or are sent
/// elsewhere.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_SOON: Duration = Duration::from_millis(500);
/// How often a command is sent to where the last server says, before it has failed.
const MOST_HOPS: usize = 8;
/// How long a command waits while its keys are on two servers.
const PAUSE: Duration = Duration::from_millis(50);

/// Gets each new client of a server before the client connects.
pub(crate) type Fresh = Box<dyn Fn(&Client) + Send>;

/// One command.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    command: &'static str,
    args: Vec<Value>,
}

impl Call {
    pub(crate) fn new(command: &'static str, args: impl IntoIterator<Item = Value>) -> Self {
        Self { command, args: args.into_iter().collect() }
    }
}

/// A command by its name.
fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    address: Address,
    pub(crate) connection: Connection,
}

/// The servers of one Redis, with connections for one purpose.
pub(crate) struct Servers {
    inner: Arc<Inner>,
    _task: Option<AbortOnDropHandle<()>>,
}

struct Inner {
    settings: RedisSettings,
    regions: Regions,
    capacity: usize,
    metrics: Arc<Metrics>,
    fresh: Box<dyn Fn() -> Fresh + Send + Sync>,
    map: RwLock<Map>,
    /// Notified when the map is out of date.
    look: Notify,
}

#[derive(Default)]
struct Map {
    open: HashMap<Address, Arc<Server>>,
    /// The server of each region.
    owners: Vec<Option<Arc<Server>>>,
    /// All servers that were ever named, replicas among them.
    known: BTreeSet<Address>,
}

impl Servers {
    /// Connects in the background, and keeps trying. `fresh` makes, for each server, what gets its new clients.
    pub(crate) fn open(
        settings: &RedisSettings,
        capacity: usize,
        metrics: Arc<Metrics>,
        fresh: impl Fn() -> Fresh + Send + Sync + 'static,
    ) -> Result<Self, RedisSettingsError> {
        let regions = settings.regions();
        let named = match settings.config()?.server {
            ServerConfig::Clustered { hosts, .. } => hosts,
            _ => Vec::new(),
        };
        let known = named.into_iter().map(|host| (host.host.to_string(), host.port)).collect();
        let map = RwLock::new(Map { owners: vec![None; regions.count()], known, ..Map::default() });
        let (settings, fresh, look) = (settings.clone(), Box::new(fresh), Notify::new());
        let inner = Arc::new(Inner { settings, regions, capacity, metrics, fresh, map, look });
        let task = if inner.regions == Regions::ONE {
            let only = inner.server(None)?;
            inner.map.write().owners[0] = Some(only);
            None
        } else {
            Some(AbortOnDropHandle::new(tokio::spawn(Arc::clone(&inner).follow())))
        };
        Ok(Self { inner, _task: task })
    }

    /// Whether each region may have a server of its own.
    pub(crate) fn is_cluster(&self) -> bool {
        self.inner.regions != Regions::ONE
    }

    /// The server that has this region, if one is known.
    pub(crate) fn of(&self, region: Region) -> Option<Arc<Server>> {
        self.inner.map.read().owners[region.index()].clone()
    }

    /// Whether this region is not where it was.
    pub(crate) fn has_moved(&self, region: Region, before: Option<&Arc<Server>>) -> bool {
        let map = self.inner.map.read();
        map.owners[region.index()].as_ref().map(Arc::as_ptr) != before.map(Arc::as_ptr)
    }

    /// Asks the servers of a Cluster soon where the regions are.
    pub(crate) fn look_again(&self) {
        self.inner.look.notify_one();
    }

    /// Each server that has a region.
    pub(crate) fn all(&self) -> Vec<Arc<Server>> {
        let mut all: Vec<Arc<Server>> = self.inner.map.read().owners.iter().flatten().cloned().collect();
        all.sort_by(|one, other| one.address.cmp(&other.address));
        all.dedup_by(|one, other| one.address == other.address);
        all
    }

    /// The lineage of the server that has this region, by name; empty if it is a replica.
    ///
    /// # Errors
    ///
    /// If the server did not say.
    pub(crate) async fn primary(&self, region: Region) -> Result<String, Failure> {
        let info = Call::new("INFO", ["replication".into()]);
        let answer = self.ask(region, "info", vec![info]).await?.pop().and_then(|answer| answer.as_string());
        let info = answer.ok_or(Failure::Strange)?;
        let primary = info_line(&info, "role").is_some_and(|role| role == "master");
        Ok(info_line(&info, "master_replid").filter(|_| primary).unwrap_or_default())
    }

    /// Connects again to the server that has this region.
    pub(crate) fn reconnect(&self, region: Region) {
        if let Some(server) = self.of(region) {
            server.connection.reconnect();
        }
    }

    /// Waits until a server that has a region is connected. Returns `false` if that takes longer than `deadline`.
    pub(crate) async fn wait_until_connected(&self, deadline: Duration) -> bool {
        let connected = async {
            while !self.all().iter().any(|server| server.connection.is_up()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(deadline, connected).await.is_ok()
    }

    /// Sends commands about keys of one region in one round trip, counts them under `name`, and returns their answers.
    /// Each command is done once at most.
    pub(crate) async fn ask(
        &self,
        region: Region,
        name: &'static str,
        calls: Vec<Call>,
    ) -> Result<Vec<Value>, Failure> {
        let mut answers = vec![Value::Null; calls.len()];
        let mut open: Vec<usize> = (0..calls.len()).collect();
        for _ in 0..MOST_HOPS {
            let server = self.of(region).ok_or_else(|| self.inner.nowhere())?;
            let sent: Vec<&Call> = open.iter().map(|index| &calls[*index]).collect();
            // Another server may have the region by now.
            let sent = send(&server.connection, name, &sent, false).await.inspect_err(|_| self.look_again());
            let mut again = Vec::new();
            for (index, answer) in open.iter().zip(sent?) {
                let found = match answer {
                    Ok(value) => Some(value),
                    Err(error) => self.inner.redirect(region, name, &calls[*index], &error, &server.address).await?,
                };
                match found {
                    Some(value) => answers[*index] = value,
                    None => again.push(*index),
                }
            }
            if again.is_empty() {
                return Ok(answers);
            }
            open = again;
        }
        Err(Failure::Unanswered("the keys are on their way from one server to another".to_owned()))
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().iter().map(|server| &server.address)).finish()
    }
}

type Answers = Vec<Result<Value, Error>>;

/// Sends commands to one server. An answer is an error only if it sends the command elsewhere.
async fn send(connection: &Connection, name: &'static str, calls: &[&Call], asking: bool) -> Result<Answers, Failure> {
    let all = async {
        let pipeline = connection.client().pipeline();
        for call in calls {
            if asking {
                let () = pipeline.custom(command("ASKING"), Vec::<Value>::new()).await?;
            }
            let () = pipeline.custom(command(call.command), call.args.clone()).await?;
        }
        let mut answers: Answers = pipeline.try_all::<Value>().await;
        if asking && answers.len() == 2 * calls.len() {
            answers = answers.into_iter().skip(1).step_by(2).collect();
        }
        let refused = answers.iter().find_map(|answer| answer.as_ref().err().filter(|error| !is_redirect(error)));
        if let Some(error) = refused {
            return Err(error.clone());
        }
        if answers.len() == calls.len() { Ok(answers) } else { Err(Error::new(ErrorKind::Protocol, "too few answers")) }
    };
    connection.ask(name, all).await.map_err(|error| connection.failure(&error))
}

fn is_redirect(error: &Error) -> bool {
    ["MOVED ", "ASK ", "TRYAGAIN "].iter().any(|code| error.details().starts_with(code))
}

impl Inner {
    /// A connection to the server at this address, or to what the URL names.
    fn server(&self, address: Option<&Address>) -> Result<Arc<Server>, RedisSettingsError> {
        let (metrics, fresh) = (Arc::clone(&self.metrics), (self.fresh)());
        let connection = Connection::open(&self.settings, address, self.capacity, metrics, fresh)?;
        Ok(Arc::new(Server { address: address.cloned().unwrap_or_default(), connection }))
    }

    /// The reason why no server of a region is known: that of a server that should have said.
    fn nowhere(&self) -> Failure {
        let map = self.map.read();
        self.look.notify_one();
        let away = map.open.values().find(|server| !server.connection.is_up());
        let unknown = || Failure::Unanswered("no server of the cluster has these keys".to_owned());
        away.map_or_else(unknown, |server| server.connection.failure(&Error::new(ErrorKind::IO, NOT_CONNECTED)))
    }

    /// The server at this address of the Cluster, to which a connection is opened if there is none.
    fn at(&self, address: &Address) -> Option<Arc<Server>> {
        let mut map = self.map.write();
        if let Some(server) = map.open.get(address) {
            return Some(Arc::clone(server));
        }
        match self.server(Some(address)) {
            Ok(server) => {
                map.open.insert(address.clone(), Arc::clone(&server));
                Some(server)
            }
            Err(error) => {
                tracing::warn!(%error, "a server of the cluster cannot be used");
                None
            }
        }
    }

    /// The server that another one has named, when it is connected.
    async fn reach(&self, address: &Address) -> Option<Arc<Server>> {
        let server = self.at(address)?;
        server.connection.wait_until_connected(self.settings.connect_timeout).await.then_some(server)
    }

    /// Does what a server says that does not have the key of `call`. Returns the answer of the server that has it, or
    /// `None` if the command has to be sent to the region's server again.
    async fn redirect(
        &self,
        region: Region,
        name: &'static str,
        call: &Call,
        error: &Error,
        from: &Address,
    ) -> Result<Option<Value>, Failure> {
        match Redirect::of(error, from) {
            Some(Redirect::Moved(to)) => {
                let server = self.reach(&to).await.or_else(|| self.at(&to));
                self.map.write().owners[region.index()] = server;
                self.look.notify_one();
                Ok(None)
            }
            Some(Redirect::Ask(to)) => {
                let Some(server) = self.reach(&to).await else { return Ok(None) };
                let mut answers = send(&server.connection, name, &[call], true).await?;
                Ok(answers.pop().and_then(Result::ok))
            }
            Some(Redirect::Later) | None => {
                tokio::time::sleep(PAUSE).await;
                Ok(None)
            }
        }
    }

    /// The task that asks the servers which of them has which region.
    async fn follow(self: Arc<Self>) {
        loop {
            self.refresh().await;
            tokio::time::sleep(LOOK_SOON).await;
            let _ = timeout(LOOK, self.look.notified()).await;
        }
    }

    async fn refresh(&self) {
        if self.connected().is_empty() {
            let known: Vec<Address> = self.map.read().known.iter().cloned().collect();
            known.iter().for_each(|address| drop(self.at(address)));
            let any = async {
                while self.connected().is_empty() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let _ = timeout(self.settings.connect_timeout, any).await;
        }
        let slots = Call::new("CLUSTER", ["SLOTS".into()]);
        let asked = self.connected();
        let ask = asked.iter().map(async |server| {
            let answer = send(&server.connection, "cluster", &[&slots], false).await;
            answer.ok()?.pop()?.ok().map(|slots| View::of(slots, &server.address))
        });
        let views: Vec<View> = join_all(ask).await.into_iter().flatten().collect();
        if !views.is_empty() {
            self.accept(&views);
        }
    }

    fn connected(&self) -> Vec<Arc<Server>> {
        self.map.read().open.values().filter(|server| server.connection.is_up()).cloned().collect()
    }

    /// Takes over what most servers say, because one that is cut off from the others does not know better.
    fn accept(&self, views: &[View]) {
        for region in self.regions.iter() {
            let slot = slot(region, self.regions);
            let said: Vec<&Address> = views.iter().filter_map(|view| view.owner(slot)).collect();
            let votes = |owner: &&&Address| said.iter().filter(|other| *other == *owner).count();
            let Some(server) = said.iter().max_by_key(votes).and_then(|owner| self.at(owner)) else { continue };
            self.map.write().owners[region.index()] = Some(server);
        }
        let mut map = self.map.write();
        map.known.extend(views.iter().flat_map(|view| view.servers.iter().cloned()));
        // Servers that have lost their last region, and those that the URL names otherwise.
        let owners: BTreeSet<Address> = map.owners.iter().flatten().map(|server| server.address.clone()).collect();
        map.open.retain(|address, _| owners.contains(address));
    }
}
