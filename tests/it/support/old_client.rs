//! An existing client at work: [`Script`] on a socket that it opens again whenever it closes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::cluster::{Node, PATIENCE};
use super::old_script::Script;
pub use super::old_script::{Call, Generation, Phase};
use super::stage::{state, step_of};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// After a close existing clients wait 2 s. Tests are more impatient.
pub const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// How often they try without a successful open.
const MAX_ATTEMPTS: u32 = 5;

/// How many frames are kept for messages.
const KEPT_FRAMES: usize = 1_000;

/// An order of the test for the client's task.
#[derive(Debug)]
enum Order {
    Call(Call),
    Cut { stay_away: bool },
    ComeBack { url: Option<String> },
    Disconnect,
    Exit,
}

/// Why a socket is no longer used.
enum End {
    Closed,
    Away,
    Exited,
}

/// The client as tests see it. Disconnected without a close frame when dropped.
pub struct OldClient {
    /// The id that it makes up for itself.
    pub id: String,
    /// Its kind.
    pub generation: Generation,
    orders: mpsc::UnboundedSender<Order>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    frames: Mutex<VecDeque<String>>,
    opens: watch::Sender<u32>,
    closes: watch::Sender<u32>,
    changes: watch::Sender<u64>,
}

impl Shared {
    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn violation(&self, what: String) {
        self.script.lock().violations.push(what);
        self.changed();
    }
}

impl OldClient {
    /// `connectToSession()`; returns when its socket is open.
    pub async fn join(node: &Node, session: &str, generation: Generation, name: &str) -> Self {
        Self::with_delay(node, session, generation, name, RECONNECT_DELAY).await
    }

    /// As [`OldClient::join`], with another `reconnectDelay`.
    pub async fn with_delay(
        node: &Node,
        session: &str,
        generation: Generation,
        name: &str,
        reconnect_delay: Duration,
    ) -> Self {
        Self::at(node.address(), session, generation, name, reconnect_delay).await
    }

    /// As [`OldClient::with_delay`], at an address that leads to a node.
    pub async fn at(
        address: &str,
        session: &str,
        generation: Generation,
        name: &str,
        reconnect_delay: Duration,
    ) -> Self {
        let id = format!("client_{name}");
        let shared = Arc::new(Shared {
            script: Mutex::new(Script::new(generation, &id)),
            frames: Mutex::default(),
            opens: watch::Sender::default(),
            closes: watch::Sender::default(),
            changes: watch::Sender::default(),
        });
        let (orders, inbox) = mpsc::unbounded_channel();
        let driver = LocalController {
            url: format!("ws://{address}/?session={session}"),
            check: (generation == Generation::Second).then(|| format!("http://{address}/api/sessions/{session}")),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            reconnect_delay,
            orders: inbox,
            shared: Arc::clone(&shared),
        };
        let client = Self { id, generation, orders, shared, task: tokio::spawn(driver.run()) };
        client.opened(1).await;
        client
    }

    /// Its user calls this function.
    pub fn call(&self, call: Call) {
        self.order(Order::Call(call));
    }

    /// Its user moves on to this step.
    pub fn send_state(&self, step: u64) {
        self.call(Call::SendState(state(step)));
    }

    /// Its TCP stream ends without a close frame; it comes back.
    pub async fn reconnect(&self) {
        let opens = *self.shared.opens.borrow();
        self.order(Order::Cut { stay_away: false });
        self.opened(opens + 1).await;
    }

    /// Its TCP stream ends without a close frame; it stays away until [`OldClient::come_back`].
    pub fn cut(&self) {
        self.order(Order::Cut { stay_away: true });
    }

    /// Ends [`OldClient::cut`].
    pub async fn come_back(&self) {
        self.order_back(None).await;
    }

    /// Ends [`OldClient::cut`] on another node, as behind a load balancer.
    pub async fn come_back_on(&self, node: &Node, session: &str) {
        self.order_back(Some(format!("{}/?session={session}", node.ws()))).await;
    }

    async fn order_back(&self, url: Option<String>) {
        let opens = *self.shared.opens.borrow();
        self.order(Order::ComeBack { url });
        self.opened(opens + 1).await;
    }

    /// `disconnect()`: until its socket is closed it still handles frames, and then it comes back by itself.
    pub fn disconnect(&self) {
        self.order(Order::Disconnect);
    }

    /// Waits until its socket has been closed as often as this.
    pub async fn is_closed(&self, times: u32) {
        let mut closes = self.shared.closes.subscribe();
        let closed = tokio::time::timeout(PATIENCE, closes.wait_for(|closes| *closes >= times)).await;
        assert!(closed.is_ok_and(|closed| closed.is_ok()), "{} stays open; {}", self.id, self.transcript());
    }

    /// Calls `disconnect()`, and its process ends when its socket is closed.
    pub async fn leave(&mut self) {
        self.order(Order::Exit);
        (&mut self.task).await.expect("the client lives until it is told to leave");
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the client is there");
    }

    async fn opened(&self, times: u32) {
        let mut opens = self.shared.opens.subscribe();
        let open = opens.wait_for(|opens| *opens >= times);
        let in_time = tokio::time::timeout(PATIENCE, open).await.is_ok_and(|open| open.is_ok());
        assert!(in_time, "{} cannot connect; {}", self.id, self.transcript());
    }

    /// The phase that it believes to be in.
    pub fn phase(&self) -> Phase {
        self.shared.script.lock().phase
    }

    /// Waits until it is in this phase.
    pub async fn phase_is(&self, phase: Phase) {
        self.until(&format!("{phase:?}"), |script| script.phase == phase).await;
    }

    /// Waits until the last state it sent or received is at this step.
    pub async fn state_is(&self, step: u64) {
        let at = |script: &mut Script| script.state.as_ref().and_then(step_of) == Some(step);
        self.until(&format!("step {step}"), at).await;
    }

    /// Waits until it was offered control.
    pub async fn is_offered_control(&self) {
        self.until("an offer", |script| script.offer.is_some()).await;
    }

    /// Waits until it has seen a frame of this controller.
    pub async fn knows_driver(&self, driver: &Self) {
        self.until("its controller", |script| script.driver.as_ref() == Some(&driver.id)).await;
    }

    /// Waits for a refusal with this code, which then does not count as a fault.
    pub async fn is_refused(&self, code: &str) {
        let refused = |script: &mut Script| {
            let found = script.refusals.iter().position(|refusal| refusal == code);
            found.map(|index| script.refusals.remove(index)).is_some()
        };
        self.until(code, refused).await;
    }

    /// Waits until it has got this many frames of this type.
    pub async fn has_got(&self, kind: &str, times: usize) {
        self.until(kind, |_| self.count(kind) >= times).await;
    }

    /// How many frames of this type it got.
    pub fn count(&self, kind: &str) -> usize {
        let frames = self.shared.frames.lock();
        let of_kind = |text: &&String| serde_json::from_str::<Value>(text).is_ok_and(|frame| frame["type"] == kind);
        frames.iter().filter(of_kind).count()
    }

    /// Whether it has died, or another forbidden thing happened to it, apart from refusals.
    pub fn has_died(&self) -> bool {
        !self.shared.script.lock().violations.is_empty()
    }

    /// Asserts that its process lives, and that no other forbidden thing happened to it, apart from refusals.
    pub fn has_not_died(&self) {
        let violations = self.shared.script.lock().violations.clone();
        assert!(violations.is_empty(), "{}: {violations:?}; {}", self.id, self.transcript());
    }

    /// Asserts that nothing forbidden happened to it.
    pub fn assert_clean(&self) {
        let script = self.shared.script.lock();
        let clean = script.violations.is_empty() && script.refusals.is_empty();
        let faults = format!("{:?}, refused: {:?}", script.violations, script.refusals);
        drop(script);
        assert!(clean, "{} ({:?}): {faults}; {}", self.id, self.generation, self.transcript());
    }

    async fn until(&self, what: &str, mut controls: impl FnMut(&mut Script) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            changes.borrow_and_update();
            if controls(&mut self.shared.script.lock()) {
                return;
            }
            let over = timeout_at(deadline, changes.changed()).await.is_err();
            assert!(!over, "{} ({:?}) never got {what}; {}", self.id, self.generation, self.transcript());
        }
    }

    /// Its frames, for messages.
    pub fn transcript(&self) -> String {
        let got: String = self.shared.frames.lock().iter().map(|text| format!("\n  {text}")).collect();
        format!("{:?}, got{got}", self.shared.script.lock())
    }
}

impl Drop for OldClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client's task.
struct LocalController {
    url: String,
    check: Option<String>,
    http: reqwest::Client,
    reconnect_delay: Duration,
    orders: mpsc::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
}

impl LocalController {
    async fn run(mut self) {
        let mut failures = 0;
        while failures < MAX_ATTEMPTS {
            match connect_async(&self.url).await {
                Ok((socket, _)) => {
                    failures = 0;
                    let end = self.live(socket).await;
                    self.shared.closes.send_modify(|closes| *closes += 1);
                    match end {
                        Ok(End::Exited) => return,
                        Ok(End::Away) => self.away().await,
                        // An error is a socket that broke: it is closed too.
                        Ok(End::Closed) | Err(_) => {}
                    }
                }
                Err(_) => failures += 1,
            }
            tokio::time::sleep(self.reconnect_delay).await;
        }
        self.shared.violation("gave up reconnecting".to_owned());
    }

    async fn away(&mut self) {
        loop {
            match self.orders.recv().await {
                Some(Order::ComeBack { url }) => {
                    self.url = url.unwrap_or_else(|| self.url.clone());
                    return;
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// From the open of a socket to its end. Orders wait while there is none.
    async fn live(&mut self, mut socket: Socket) -> Result<End, Box<Error>> {
        self.shared.script.lock().opened();
        self.check_session().await;
        self.shared.opens.send_modify(|opens| *opens += 1);
        self.shared.changed();
        let mut at_the_end = End::Closed;
        loop {
            let answers = tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        self.record(&text);
                        self.shared.script.lock().on_text(&text)
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Ok(at_the_end),
                },
                order = self.orders.recv() => match order {
                    Some(Order::Call(call)) => self.shared.script.lock().call(&call),
                    Some(Order::Cut { stay_away }) => return Ok(if stay_away { End::Away } else { End::Closed }),
                    Some(Order::ComeBack { .. }) => continue,
                    Some(Order::Disconnect) => self.disconnect(&mut socket).await?,
                    Some(Order::Exit) | None => {
                        at_the_end = End::Exited;
                        self.disconnect(&mut socket).await?
                    }
                },
            };
            self.shared.changed();
            for answer in answers {
                socket.send(Message::text(answer.to_string())).await?;
            }
        }
    }

    /// Sends a close frame. Frames that arrive before the answer to that are still handled.
    async fn disconnect(&self, socket: &mut Socket) -> Result<Vec<Value>, Box<Error>> {
        let nothing = self.shared.script.lock().call(&Call::Disconnect);
        socket.close(None).await?;
        Ok(nothing)
    }

    /// The second generation asks for its session whenever its socket has opened, and waits for the answer.
    async fn check_session(&self) {
        let Some(url) = &self.check else { return };
        let found = self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success());
        if !found {
            self.shared.violation("its session was not found".to_owned());
        }
    }

    fn record(&self, text: &str) {
        let mut frames = self.shared.frames.lock();
        frames.push_back(text.to_owned());
        if frames.len() > KEPT_FRAMES {
            frames.pop_front();
        }
    }
}
