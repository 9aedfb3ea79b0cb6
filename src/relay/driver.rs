//! The driver: it gives the rooms what happens, and performs their outputs.
//!
//! Outputs are performed in order, under the lock of their room, except those that wait for the store. These are
//! performed by a task of the room, which gives the answer back to the room and goes on until the room asks for nothing
//! more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use rand::Rng;
use tokio::sync::{broadcast, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use super::regions::HeldRegions;
use super::{RelaySettings, SPANS};
use crate::broker::{Message, SharedBroker};
use crate::clock::Clock;
use crate::hub::{Hub, Pushed, Room, Socket, Ticket};
use crate::ids::{Millis, NodeId, SessionId};
use crate::metrics::Metrics;
use crate::protocol::FrameType;
use crate::random::bits;
use crate::room::{Counted, Env, FLUSH_TIMEOUT, Output, Outputs, RelayEvent, Reply, Request};
use crate::session::Activity;
use crate::store::{Committed, SharedStore, StoreError};

/// Something that happens to a room.
pub(super) type Input = crate::room::Input<Arc<Socket>, Ticket>;

/// What a node is made of, and the way into its rooms.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) settings: RelaySettings,
    pub(super) store: SharedStore,
    pub(super) broker: SharedBroker,
    /// This incarnation of the node.
    pub(super) node: NodeId,
    pub(super) regions: HeldRegions,
    pub(super) clock: Arc<Clock>,
    pub(super) hub: Hub,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: broadcast::Sender<RelayEvent>,
    pub(super) connections: AtomicU64,
    pub(super) draining: AtomicBool,
    pub(super) tasks: TaskTracker,
}

impl Driver {
    /// Gives an input to the room of a session, which is opened if needed. `make` builds the input for that room.
    pub(super) fn submit(self: &Arc<Self>, id: SessionId, make: impl FnOnce(&Arc<Room>, Ticket) -> Input) -> Answer {
        let (reply, answer) = oneshot::channel();
        let ticket = Ticket { reply, span: Span::current() };
        let mut make = Some((make, ticket));
        loop {
            let room = self.hub.open(id);
            let mut state = room.lock();
            if state.closed {
                continue;
            }
            if let Some((make, ticket)) = make.take() {
                let stepped = self.advance(&room, &mut state, make(&room, ticket), None);
                drop(state);
                self.converse(&room, stepped.wake());
            }
            return Answer(answer);
        }
    }

    /// Gives an input to a room.
    pub(super) fn step(self: &Arc<Self>, room: &Arc<Room>, input: Input) {
        let stepped = self.advance(room, &mut room.lock(), input, None);
        self.converse(room, stepped.wake());
    }

    /// Gives a frame to the room of this socket.
    pub(super) fn frame(self: &Arc<Self>, socket: &Socket, frame: crate::protocol::Frame) {
        let (room, connection) = (&socket.room, socket.connection);
        let mut state = room.lock();
        let stepped = self.advance(room, &mut state, Input::Frame { connection, frame }, None);
        if state.machine.is_deciding(connection) {
            socket.set_deciding(true);
        }
        drop(state);
        self.converse(room, stepped.wake());
    }

    /// Lets the room take a step. Returns its request to the store, if it has one.
    fn advance(
        self: &Arc<Self>,
        room: &Arc<Room>,
        state: &mut crate::hub::RoomState,
        input: Input,
        error: Option<StoreError>,
    ) -> Stepped {
        if state.closed {
            // It came too late. The session may have a new room, which knows better.
            return Stepped::default();
        }
        let mut env = Env {
            session: room.id,
            here: &self.node,
            now: self.clock.now(),
            trust: self.regions.of(room.id).presence.trust(),
            rules: &self.settings.rules,
            draw: &mut bits,
        };
        let mut performer = Performer { driver: self, room, now: env.now.local, error, stepped: Stepped::default() };
        state.machine.step(&mut env, input, &mut performer);
        performer.stepped
    }

    /// Performs the requests of a room until it has none.
    fn converse(self: &Arc<Self>, room: &Arc<Room>, request: Option<Request>) {
        let Some(mut request) = request else { return };
        let (driver, room) = (self.clone(), room.clone());
        self.tasks.spawn(async move {
            let mut span = Span::none();
            loop {
                if matches!(request, Request::Load) {
                    span = driver.span_of(&room);
                }
                let (input, error) = driver.ask(&room, request).instrument(span.clone()).await;
                let mut state = room.lock();
                let stepped = driver.advance(&room, &mut state, input, error);
                let idle = state.machine.is_idle(&driver.node);
                drop(state);
                let Some(next) = stepped.wake() else {
                    if idle {
                        driver.close_if_idle(&room);
                    }
                    return;
                };
                request = next;
            }
        });
    }

    /// The span of a decision, a child of the span of the first caller that waits for it.
    fn span_of(&self, room: &Room) -> Span {
        if !tracing::enabled!(target: SPANS, tracing::Level::DEBUG) {
            return Span::none();
        }
        let state = room.lock();
        let parent = state.machine.first_ticket().and_then(|ticket| ticket.span.id());
        let jobs = state.machine.batch();
        tracing::debug_span!(target: SPANS, parent: parent, "decide", session = room.id.tag(), jobs)
    }

    /// Asks the store, and turns its answer into the room's next input.
    async fn ask(&self, room: &Room, request: Request) -> (Input, Option<StoreError>) {
        match self.try_ask(room, request).await {
            Ok(input) => (input, None),
            Err(error) => (Input::Failed, Some(error)),
        }
    }

    async fn try_ask(&self, room: &Room, request: Request) -> Result<Input, StoreError> {
        let presence = &self.regions.of(room.id).presence;
        Ok(match request {
            Request::Load => {
                let loaded = self.store.load(room.id).await?;
                self.clock.set_store(loaded.now);
                presence.heard_from(&loaded.server);
                Input::Loaded(loaded)
            }
            Request::LookAgain(nodes) => Input::StillLapsed(presence.still_lapsed(nodes).await?),
            Request::Commit(write) => {
                let span = tracing::debug_span!(target: SPANS, "commit");
                let committed = self.store.commit(room.id, write).instrument(span).await?;
                if let Committed::Done { now, .. } = committed {
                    self.clock.set_store(now);
                }
                Input::Committed(committed)
            }
            Request::ReadLineage => {
                presence.read_lineage().await?;
                Input::LineageRead
            }
            Request::Create(session, keep) => {
                match self.store.create(room.id, &session, keep).await {
                    Ok(_) => tracing::info!(session = room.id.tag(), "session restored after the store lost its data"),
                    // Another node has restored it.
                    Err(StoreError::Corrupt(_)) => {}
                    Err(error) => return Err(error),
                }
                Input::Created
            }
            Request::Pause(attempt) => {
                let most = 1_u64 << attempt.min(6);
                let wait = rand::rng().random_range(0..=most);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                Input::Resumed
            }
        })
    }

    /// Drops a room that has nothing to do any more.
    pub(super) fn close_if_idle(&self, room: &Arc<Room>) {
        self.hub.close_if(room, |machine| machine.is_idle(&self.node));
    }

    async fn touch(self: Arc<Self>, room: Arc<Room>, activity: Activity, keep: Duration) {
        let found = match self.store.touch(room.id, &self.node, activity, keep).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(session = room.id.tag(), %error, "activity could not be reported; the relay retries");
                None
            }
        };
        self.step(&room, Input::Touched { activity, found });
    }

    pub(super) fn emit(&self, event: RelayEvent) {
        if self.events.receiver_count() > 0 {
            // An event without a receiver is no error.
            let _ = self.events.send(event);
        }
    }

    fn push(&self, socket: &Socket, item: crate::hub::Item, now: Millis) {
        if item.kind == FrameType::Rejected {
            socket.note_refusal();
        }
        if let Pushed::Queued(superseded) = socket.outbound.append(item, &self.settings.queue, now)
            && superseded > 0
        {
            self.metrics.conflated.inc_by(superseded as u64);
        }
    }
}

/// What is left of a step when its room is unlocked.
#[derive(Debug, Default)]
struct Stepped {
    request: Option<Request>,
    /// The sockets that wait for a decision, and have something to write or have it now.
    waiting: Vec<Waiting>,
}

/// A socket whose last frame is or was to be decided.
#[derive(Debug)]
struct Waiting {
    socket: Arc<Socket>,
    decided: bool,
}

impl Stepped {
    /// Wakes a socket that has something to write. The task of one that waits for a decision would soon wait for the
    /// room, so it is woken when the room is unlocked.
    fn wrote(&mut self, socket: &Arc<Socket>) {
        if socket.is_deciding() {
            self.waiting(socket);
        } else {
            socket.outbound.wake();
        }
    }

    fn waiting(&mut self, socket: &Arc<Socket>) -> &mut Waiting {
        let found = self.waiting.iter().position(|waiting| Arc::ptr_eq(&waiting.socket, socket));
        let index = found.unwrap_or_else(|| {
            self.waiting.push(Waiting { socket: socket.clone(), decided: false });
            self.waiting.len() - 1
        });
        &mut self.waiting[index]
    }

    /// Wakes the sockets that wait for a decision. Returns the request.
    fn wake(self) -> Option<Request> {
        for Waiting { socket, decided } in self.waiting {
            if decided {
                socket.set_deciding(false);
            }
            socket.outbound.wake();
        }
        self.request
    }
}

/// The reply to come.
pub(super) struct Answer(oneshot::Receiver<Reply>);

impl Answer {
    /// Waits for it.
    pub(super) async fn get(self) -> Reply {
        self.0.await.unwrap_or(Reply::Unavailable)
    }
}

/// Performs the outputs of one step of one room.
struct Performer<'a> {
    driver: &'a Arc<Driver>,
    room: &'a Arc<Room>,
    /// The node's own time.
    now: Millis,
    /// Why the store did not answer.
    error: Option<StoreError>,
    stepped: Stepped,
}

impl Outputs<Arc<Socket>, Ticket> for Performer<'_> {
    fn put(&mut self, output: Output<'_, Arc<Socket>, Ticket>) {
        let driver = self.driver;
        match output {
            Output::Send(socket, item) => {
                driver.push(socket, item, self.now);
                self.stepped.wrote(socket);
            }
            Output::Publish(node, body) => driver.broker.publish(node, Message { session: self.room.id, body }),
            Output::Ask(request) => self.stepped.request = Some(*request),
            Output::Touch(activity, keep) => {
                driver.tasks.spawn(driver.clone().touch(self.room.clone(), activity, keep));
            }
            Output::Close(socket, reason) => socket.outbound.close(reason),
            Output::Probe(socket, number) => self.probe(socket, number),
            Output::HoldAfterLeave(socket) => socket.outbound.hold_after_leave(self.now),
            Output::HoldNothing(socket) => socket.outbound.hold_nothing(),
            Output::Decided(socket) => self.stepped.waiting(socket).decided = true,
            // The caller may be gone.
            Output::Reply(ticket, reply) => drop(ticket.reply.send(reply)),
            Output::Emit(event) => driver.emit(event),
            Output::Count(counted) => self.count(counted),
            Output::Undecided { first } => self.log_undecided(first),
        }
    }

    fn withdraw(&mut self, socket: &Arc<Socket>, kind: FrameType) -> usize {
        socket.outbound.withdraw(kind)
    }
}

impl Performer<'_> {
    fn count(&self, counted: Counted) {
        match counted {
            Counted::Dropped => self.driver.metrics.dropped.inc(),
            Counted::Refused(code) => self.driver.metrics.refusal(code),
            Counted::Control(transition) => self.driver.metrics.transition(transition),
        }
    }

    fn probe(&self, socket: &Socket, number: u64) {
        socket.outbound.probe(number);
        let (driver, room, connection) = (self.driver.clone(), self.room.clone(), socket.connection);
        self.driver.tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(FLUSH_TIMEOUT)).await;
            driver.step(&room, Input::Pong { connection, number });
        });
    }

    /// The warning appears once for each session, because all sessions retry while the store is unavailable.
    fn log_undecided(&self, first: bool) {
        let session = self.room.id.tag();
        let error = self
            .error
            .as_ref()
            .map_or_else(|| "too many other writes to the same session".to_owned(), ToString::to_string);
        if first {
            tracing::warn!(session, error, "nothing could be decided; the relay retries");
        } else {
            tracing::debug!(session, error, "nothing could be decided yet");
        }
    }
}
