//! A client at work: a [`Brain`] on a socket that it opens again, on any node, whenever it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::brain::Brain;
use super::history::{History, Standing, What, Who};
use super::support::old_script::Generation;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long existing clients wait after any close.
const OLD_RECONNECT: Duration = Duration::from_secs(2);
/// How long a client waits for a socket to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// For so long a frame may cross a client's goodbye, when many worlds share two cores. tests/it/old_goodbyes.rs allows none.
const CROSSING: Duration = Duration::from_millis(250);
/// After so long without a word from the relay a client with the handshake takes its socket for dead.
const DEAD: Duration = Duration::from_secs(6);

/// The addresses of the nodes that clients connect to.
pub type Addresses = Arc<RwLock<Vec<String>>>;

/// An effect of a fault on a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Its socket ends without a close frame.
    Cut,
    /// It loses its network: the old socket stays open and silent, and it opens another.
    Ghost,
    /// It reads nothing for this long.
    Stall(Duration),
}

/// A client.
pub struct Member {
    /// Its identity in the history.
    pub who: Who,
    orders: mpsc::UnboundedSender<Order>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    who: Who,
    brain: Mutex<Brain>,
    connected: AtomicBool,
    history: Arc<History>,
}

/// A client's view of its world.
pub struct Surroundings {
    /// The addresses of the nodes.
    pub addresses: Addresses,
    /// The id of its session.
    pub session: String,
    /// Whether its user acts.
    pub driving: watch::Receiver<bool>,
    /// The history.
    pub history: Arc<History>,
}

impl Member {
    /// A client that begins to connect.
    pub fn start(who: Who, generation: Option<Generation>, around: Surroundings, seed: u64) -> Self {
        let history = Arc::clone(&around.history);
        let brain = Mutex::new(Brain::new(who, generation));
        let shared = Arc::new(Shared { who, brain, connected: AtomicBool::new(false), history });
        let (orders, inbox) = mpsc::unbounded_channel();
        let life = Life {
            shared: Arc::clone(&shared),
            around,
            orders: inbox,
            rng: StdRng::seed_from_u64(seed),
            ghosts: Vec::new(),
        };
        Self { who, orders, shared, task: tokio::spawn(life.run()) }
    }

    /// Applies this effect to it.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Its knowledge now.
    pub fn standing(&self) -> Standing {
        let brain = self.shared.brain.lock();
        Standing {
            who: self.who,
            active: brain.is_active(),
            follows: brain.follows(),
            connected: self.shared.connected.load(Ordering::Acquire) && brain.is_ready(),
            stubborn: brain.is_stubborn(),
            deserted: brain.is_deserted(),
            returned: brain.has_returned(),
            lost_role: brain.has_lost_its_role(),
            last: brain.last(),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client's task.
struct Life {
    shared: Arc<Shared>,
    around: Surroundings,
    orders: mpsc::UnboundedReceiver<Order>,
    rng: StdRng,
    /// Sockets that were left open.
    ghosts: Vec<Socket>,
}

/// How a connection ended.
enum End {
    Closed(u16, String),
    Ghost(Box<Socket>),
}

impl Life {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let code = match self.open().await {
                Some(socket) => {
                    failures = 0;
                    self.live(socket).await
                }
                None => 1006,
            };
            let modern = self.shared.brain.lock().is_modern();
            sleep(self.pause(modern, code, failures)).await;
            failures += 1;
        }
    }

    /// How long it waits before it comes back.
    fn pause(&mut self, modern: bool, code: u16, failures: u32) -> Duration {
        if !modern {
            return OLD_RECONNECT;
        }
        let most = match (code, failures) {
            (1012, 0) => 250,
            (1013, _) => 1_000,
            _ => (100_u64 << failures.min(5)).min(2_000),
        };
        Duration::from_millis(self.rng.random_range(0..=most))
    }

    async fn open(&mut self) -> Option<Socket> {
        let address = {
            let addresses = self.around.addresses.read();
            (!addresses.is_empty()).then(|| addresses[self.rng.random_range(0..addresses.len())].clone())?
        };
        let query = self.shared.brain.lock().query();
        let url = format!("ws://{address}/ws?session={}{query}", self.around.session);
        Some(timeout(OPEN_TIMEOUT, connect_async(&url)).await.ok()?.ok()?.0)
    }

    /// From the open of a socket to its end; the close code.
    async fn live(&mut self, socket: Socket) -> u16 {
        let greeting = self.shared.brain.lock().opened();
        self.note([What::Opened]);
        let end = self.serve(socket, greeting).await;
        self.shared.connected.store(false, Ordering::Release);
        self.shared.brain.lock().closed();
        let (code, reason) = match end {
            End::Closed(code, reason) => (code, reason),
            End::Ghost(socket) => {
                self.ghosts.push(*socket);
                (1006, String::new())
            }
        };
        self.note([What::Closed(code, reason)]);
        code
    }

    async fn serve(&mut self, mut socket: Socket, greeting: Vec<serde_json::Value>) -> End {
        let lost = || End::Closed(1006, String::new());
        for frame in greeting {
            if socket.send(Message::text(frame.to_string())).await.is_err() {
                return lost();
            }
        }
        self.shared.connected.store(true, Ordering::Release);
        let modern = self.shared.brain.lock().is_modern();
        let (mut heard, mut next) = (Instant::now(), self.next_act());
        let mut ping = Instant::now() + DEAD / 3;
        let mut goodbye = None;
        loop {
            let frames = tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            // Recorded in the order in which it was understood.
                            let mut brain = self.shared.brain.lock();
                            let (mut notes, answers) = brain.on_text(&text);
                            // The relay cannot know of a goodbye that is on its way to it.
                            if goodbye.is_some_and(|at: Instant| at.elapsed() < CROSSING) {
                                notes.retain(|what| !matches!(what, What::Hurt(_)));
                            }
                            self.note(notes);
                            answers
                        }
                        Some(Ok(Message::Close(frame))) => {
                            let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                            return End::Closed(code, reason);
                        }
                        Some(Ok(_)) => continue,
                        Some(Err(_)) | None => return lost(),
                    }
                }
                () = sleep_until(next) => {
                    next = self.next_act();
                    if !*self.around.driving.borrow() {
                        continue;
                    }
                    let mut brain = self.shared.brain.lock();
                    if !brain.is_ready() {
                        continue;
                    }
                    let (notes, frames) = brain.act(&mut self.rng);
                    self.note(notes);
                    frames
                }
                () = sleep_until(ping), if modern => {
                    if heard.elapsed() > DEAD {
                        return lost();
                    }
                    ping = Instant::now() + DEAD / 3;
                    vec![serde_json::json!({ "type": "protocol_ping", "timestamp": 1 })]
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Cut => return lost(),
                    Order::Ghost => return End::Ghost(Box::new(socket)),
                    Order::Stall(time) => {
                        sleep(time).await;
                        heard = Instant::now();
                        continue;
                    }
                },
            };
            if goodbye.is_none() && self.shared.brain.lock().is_closing() {
                goodbye = Some(Instant::now());
                // What comes before the answer to that is still handled.
                self.shared.connected.store(false, Ordering::Release);
                let _ = timeout(DEAD, socket.close(None)).await;
            }
            for frame in frames {
                // A relay that reads nothing must not keep a client from noticing.
                let sent = timeout(DEAD, socket.send(Message::text(frame.to_string()))).await;
                if !sent.is_ok_and(|sent| sent.is_ok()) {
                    return lost();
                }
            }
        }
    }

    fn next_act(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.rng.random_range(150..=450))
    }

    fn note(&self, notes: impl IntoIterator<Item = What>) {
        for what in notes {
            self.shared.history.note(self.shared.who, what);
        }
    }
}
