//! How a node hears its inboxes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{EventInterface, PubsubInterface};
use fred::types::{Message as Publication, Value};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::super::wire::Refused;
use super::{Post, words_of};
use crate::redis::{Call, Connection, Failure, Server};

/// How long the next attempt to subscribe waits.
const PAUSE: Duration = Duration::from_millis(50);

/// Those who read publications: known when all of them are made, and gone with the broker.
pub(super) type Readers = Arc<OnceLock<Weak<[Arc<Post>]>>>;

/// Gets the clients that listen to one server. A task reads from the present one until there is a new one. It ends with
/// the connection to that server.
pub(super) fn reader(posts: Readers) -> Box<dyn Fn(&Client) + Send> {
    // The channel holds one entry for each client that was given up: a handful in an outage.
    let (tell, publications) = mpsc::unbounded_channel();
    tokio::spawn(listen(posts, publications));
    Box::new(move |client| drop(tell.send(client.message_rx())))
}

async fn listen(posts: Readers, mut clients: mpsc::UnboundedReceiver<Receiver<Publication>>) {
    let Some(mut publications) = clients.recv().await else { return };
    loop {
        let heard = tokio::select! {
            heard = publications.recv() => heard,
            next = clients.recv() => match next {
                Some(next) => {
                    publications = next;
                    continue;
                }
                None => return,
            },
        };
        match heard {
            Ok(publication) => {
                let Some(posts) = posts.get().and_then(Weak::upgrade) else { return };
                hand_over(&posts, publication);
            }
            Err(RecvError::Lagged(count)) => tracing::warn!(count, "publications arrived faster than they were read"),
            Err(RecvError::Closed) => match clients.recv().await {
                Some(next) => publications = next,
                None => return,
            },
        }
    }
}

/// Gives a publication to the region that its channel is for.
fn hand_over(posts: &[Arc<Post>], publication: Publication) {
    let Publication { channel, value, .. } = publication;
    let of = |post: &&Arc<Post>| channel.starts_with(&post.inboxes.0);
    match (posts.iter().find(of), value) {
        (Some(post), Value::Bytes(bytes)) => post.take_in(bytes),
        (post, _) => post.or(posts.first()).into_iter().for_each(|post| post.ignore(Refused::Garbled)),
    }
}

/// The task that keeps the subscription. It subscribes on each new connection until Redis confirms the subscription,
/// and asks once in each heartbeat whether it still stands, so that a connection that has died silently is noticed, and
/// an inbox that has moved to another server.
pub(super) async fn stay_subscribed(post: Arc<Post>, heartbeat: Duration) {
    let mut count = 0;
    loop {
        let Some(server) = post.listening.of(post.region) else {
            // No server of the Cluster has been reached yet.
            let _ = timeout(PAUSE, post.doubted.notified()).await;
            continue;
        };
        let mut made = server.connection.made();
        made.mark_unchanged();
        let subscribed = post.subscribe(&server.connection).await;
        let words = subscribed.as_ref().err().and_then(|failure| match failure {
            Failure::Unanswered(_) => None,
            refused => Some(words_of(refused.clone())),
        });
        // The client is usually not connected yet. Once it is connected, a longer wait would only lose messages. A Redis
        // that says no is asked less often.
        let pause = if words.is_some() { heartbeat } else { PAUSE };
        post.refused.send_replace(words);
        if !subscribed.unwrap_or(false) {
            let _ = timeout(pause, made.changed()).await;
            continue;
        }
        count += 1;
        post.subscribed.send_replace(count);
        post.wait_for_the_end(&server, made, heartbeat).await;
        post.subscribed.send_replace(0);
    }
}

impl Post {
    /// Subscribes to this node's inbox. Returns whether the server counts the subscription.
    async fn subscribe(&self, connection: &Connection) -> Result<bool, Failure> {
        let inbox = self.inbox(&self.node);
        if self.listening.is_cluster() {
            let subscribe = Call::new("SSUBSCRIBE", [inbox.into()]);
            self.listening.ask(self.region, "subscribe", vec![subscribe]).await?;
        } else {
            // The library does not wait for the answer to SUBSCRIBE. The answer to the next command comes after it.
            let subscribe = connection.ask("subscribe", connection.client().subscribe(inbox)).await;
            subscribe.map_err(|error| connection.failure(&error))?;
        }
        self.is_subscribed().await
    }

    /// Whether the server counts the subscription to this node's inbox.
    async fn is_subscribed(&self) -> Result<bool, Failure> {
        let count = if self.listening.is_cluster() { "SHARDNUMSUB" } else { "NUMSUB" };
        let call = Call::new("PUBSUB", [count.into(), self.inbox(&self.node).into()]);
        let answer = self.listening.ask(self.region, "subscribe", vec![call]).await?.pop().unwrap_or(Value::Null);
        let listeners: HashMap<String, u64> = answer.convert().map_err(|_| Failure::Strange)?;
        Ok(listeners.into_values().any(|count| count > 0))
    }

    /// Waits until the subscription at this server ends.
    async fn wait_for_the_end(&self, server: &Arc<Server>, mut made: watch::Receiver<u64>, heartbeat: Duration) {
        loop {
            tokio::select! {
                _ = made.changed() => return,
                () = self.doubted.notified() => {}
                () = tokio::time::sleep(heartbeat) => {}
            }
            // A probe that did not come back says more than what the server counts.
            if *self.subscribed.borrow() == 0 || self.listening.has_moved(self.region, Some(server)) {
                return;
            }
            let stands = if self.listening.is_cluster() {
                self.is_subscribed().await
            } else {
                let ping = self.listening.ask(self.region, "ping", vec![Call::new("PING", [])]).await;
                ping.map(|_| true)
            };
            match stands {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "no answer on the listening connection"),
            }
        }
    }

    /// Replaces a subscription that brings nothing. On a Cluster the connection serves other regions too, and lives, for
    /// it answers; so only the inbox is looked for.
    pub(super) fn subscribe_again(&self) {
        if self.listening.is_cluster() {
            self.publishing.look_again();
            self.listening.look_again();
            self.doubted.notify_one();
        } else {
            self.listening.reconnect(self.region);
        }
    }
}
