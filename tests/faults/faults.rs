//! The faults that a world suffers, alone or two at once.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::member::Order;
use super::net::Flow;
use super::stores::Kind::{self, Cluster, Embedded, Sentinel, Single};
use super::world::World;

/// One fault.
pub struct Fault {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its description, for the table.
    pub says: &'static str,
    /// The stores that it runs on.
    pub stores: &'static [Kind],
    /// Phrases that a node logs when it has noticed. Empty: there is nothing to notice.
    pub signs: &'static [&'static str],
    /// Part of the everyday tests, on these stores.
    pub everyday: &'static [Kind],
    /// Runs the fault. Calls [`World::strike`] and [`World::heal`].
    pub happen: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
}

const LAPSED: &str = "the lease of another node has lapsed";
const NOT_RENEWED: &str = "the lease could not be renewed";
const LOST_MEMORY: &str = "the store has lost its memory";
const SERVING: &str = "lease is held: serving";
const DEAF: &str = "inbox is silent";
const DRAINING: &str = "draining";
const RECONNECTED: &str = "the connection to redis";
const BROKEN: &str = "nothing could be decided";

/// Every fault, in the order of the table.
pub const ALL: &[Fault] = &[
    Fault {
        name: "none",
        says: "nothing: the load alone",
        stores: &[Embedded, Single, Sentinel, Cluster],
        signs: &[],
        everyday: &[Embedded],
        happen: |world| {
            Box::pin(async {
                world.strike();
                world.work(Duration::from_secs(3)).await;
                world.heal();
            })
        },
    },
    Fault {
        name: "node-killed",
        says: "a node is killed (`kill -9`)",
        stores: &[Single, Sentinel, Cluster],
        signs: &[LAPSED],
        everyday: &[Single],
        happen: |world| Box::pin(node_killed(world)),
    },
    Fault {
        name: "zombie",
        says: "a node is paused past its lease, and wakes up believing that it is in charge",
        stores: &[Single, Cluster],
        signs: &[LAPSED],
        everyday: &[Single],
        happen: |world| Box::pin(zombie(world)),
    },
    Fault {
        name: "rolling-restart",
        says: "all nodes are replaced, one after the other, under load",
        stores: &[Single, Sentinel, Cluster],
        signs: &[DRAINING],
        everyday: &[Single],
        happen: |world| Box::pin(rolling_restart(world)),
    },
    Fault {
        name: "redis-restarted",
        says: "Redis is killed and comes back after 3 s with its data",
        stores: &[Single],
        signs: &[NOT_RENEWED, BROKEN, RECONNECTED],
        everyday: &[],
        happen: |world| Box::pin(redis_down(world, Duration::from_secs(3), false)),
    },
    Fault {
        name: "redis-emptied",
        says: "Redis is killed and comes back after 3 s with nothing",
        stores: &[Single],
        signs: &[NOT_RENEWED, LOST_MEMORY, BROKEN],
        everyday: &[Single],
        happen: |world| Box::pin(redis_down(world, Duration::from_secs(3), true)),
    },
    Fault {
        name: "redis-paused",
        says: "Redis stands still for 30 s",
        stores: &[Single],
        signs: &[NOT_RENEWED, BROKEN],
        everyday: &[],
        happen: |world| Box::pin(redis_paused(world)),
    },
    Fault {
        name: "subscribers-cut",
        says: "the nodes' subscriptions are killed in mid-stream, again and again for 5 s",
        stores: &[Single],
        signs: &[],
        everyday: &[Single],
        happen: |world| Box::pin(subscribers_cut(world)),
    },
    Fault {
        name: "deaf-node",
        says: "a node can write to Redis but hears nothing from it, past its lease",
        stores: &[Single],
        signs: &[NOT_RENEWED, LAPSED, DEAF],
        everyday: &[],
        happen: |world| Box::pin(cut_off(world, false, true)),
    },
    Fault {
        name: "mute-node",
        says: "a node hears Redis but what it writes does not arrive, past its lease",
        stores: &[Single],
        signs: &[NOT_RENEWED, LAPSED],
        everyday: &[],
        happen: |world| Box::pin(cut_off(world, true, false)),
    },
    Fault {
        name: "node-cut-off",
        says: "a node is cut off from Redis in both directions, past its lease",
        stores: &[Single],
        signs: &[NOT_RENEWED, LAPSED],
        everyday: &[Single],
        happen: |world| Box::pin(cut_off(world, true, true)),
    },
    Fault {
        name: "slow-network",
        says: "every word between nodes and Redis takes 40 ms longer each way for 5 s",
        stores: &[Single],
        signs: &[],
        everyday: &[],
        happen: |world| Box::pin(slow_network(world)),
    },
    Fault {
        name: "clients-cut",
        says: "half of the clients lose their sockets without a close",
        stores: &[Embedded, Single, Cluster],
        signs: &[],
        everyday: &[],
        happen: |world| Box::pin(clients(world, Order::Cut)),
    },
    Fault {
        name: "clients-vanish",
        says: "half of the clients lose their network: old sockets stay open and silent, new ones open",
        stores: &[Embedded, Single],
        signs: &[],
        everyday: &[Embedded],
        happen: |world| Box::pin(clients(world, Order::Ghost)),
    },
    Fault {
        name: "clients-stall",
        says: "a third of the clients read nothing for 4 s",
        stores: &[Embedded, Single],
        signs: &[],
        everyday: &[],
        happen: |world| Box::pin(clients(world, Order::Stall(Duration::from_secs(4)))),
    },
    Fault {
        name: "clocks-apart",
        says: "the nodes' clocks are up to 8 minutes apart, and a node is killed",
        stores: &[Single],
        signs: &[],
        everyday: &[],
        happen: |world| Box::pin(node_killed(world)),
    },
    Fault {
        name: "kill-and-emptied",
        says: "a node is killed, and before its lease is over Redis comes back empty",
        stores: &[Single],
        signs: &[NOT_RENEWED, LOST_MEMORY],
        everyday: &[],
        happen: |world| {
            Box::pin(async {
                world.strike();
                let node = world.some_node();
                world.kill(node);
                // A session without a client on any node is gone with its Redis: its clients come back first.
                world.work(Duration::from_millis(2_500)).await;
                emptied(world, Duration::from_secs(1), true).await;
                world.add_node(0).await;
                world.heal();
            })
        },
    },
    Fault {
        name: "zombie-and-restart",
        says: "a node is paused, and Redis restarts with its data meanwhile",
        stores: &[Single],
        signs: &[NOT_RENEWED, LAPSED],
        everyday: &[],
        happen: |world| {
            Box::pin(async {
                world.strike();
                let node = world.some_node();
                world.node(node).stop();
                emptied(world, Duration::from_secs(1), false).await;
                world.work(world.size.lapse() * 3 / 2).await;
                world.node(node).resume();
                world.heal();
            })
        },
    },
    Fault {
        name: "roll-and-cut",
        says: "all nodes are replaced while subscriptions are killed and the network is slow",
        stores: &[Single],
        signs: &[DRAINING],
        everyday: &[],
        happen: |world| Box::pin(roll_and_cut(world)),
    },
    Fault {
        name: "failover",
        says: "the primary is killed, and a replica takes its place",
        stores: &[Sentinel, Cluster],
        signs: &[NOT_RENEWED, BROKEN, SERVING, RECONNECTED],
        everyday: &[Sentinel, Cluster],
        happen: |world| Box::pin(failover(world)),
    },
    Fault {
        name: "failover-and-kill",
        says: "the primary and a node are killed at once",
        stores: &[Sentinel, Cluster],
        signs: &[NOT_RENEWED, LAPSED, BROKEN],
        everyday: &[],
        happen: |world| {
            Box::pin(async {
                let node = world.some_node();
                world.strike();
                world.kill(node);
                world.store.primary().kill();
                world.heal();
            })
        },
    },
    Fault {
        name: "dead-shard",
        says: "a primary and its replica are killed and come back empty; the sessions of the others go on meanwhile",
        stores: &[Cluster],
        signs: &[NOT_RENEWED, BROKEN],
        everyday: &[Cluster],
        happen: |world| Box::pin(dead_shard(world)),
    },
    Fault {
        name: "slots-moved",
        says: "slots are moved from primary to primary under load",
        stores: &[Cluster],
        signs: &[],
        everyday: &[],
        happen: |world| {
            Box::pin(async {
                world.strike();
                world.store.reshard(1_500).await;
                world.heal();
            })
        },
    },
];

async fn node_killed(world: &mut World) {
    let node = world.some_node();
    world.strike();
    world.kill(node);
    world.heal();
}

async fn zombie(world: &mut World) {
    let node = world.some_node();
    world.strike();
    world.node(node).stop();
    world.work(world.size.lapse() * 3 / 2).await;
    world.node(node).resume();
    world.heal();
}

async fn rolling_restart(world: &mut World) {
    world.strike();
    for node in world.living() {
        world.add_node(0).await;
        world.terminate(node).await;
    }
    world.heal();
}

async fn redis_down(world: &mut World, away: Duration, empty: bool) {
    world.strike();
    emptied(world, away, empty).await;
    world.heal();
}

async fn emptied(world: &mut World, away: Duration, empty: bool) {
    world.store.only().kill();
    world.work(away).await;
    let redis = world.store.only();
    if empty {
        redis.forget();
    }
    assert!(redis.up().await, "Redis comes back");
}

async fn redis_paused(world: &mut World) {
    world.strike();
    world.store.only().pause();
    world.work(Duration::from_secs(30)).await;
    world.store.only().resume();
    world.heal();
}

async fn subscribers_cut(world: &mut World) {
    world.strike();
    for _ in 0..10 {
        world.store.only().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        world.work(Duration::from_millis(500)).await;
    }
    world.heal();
}

async fn cut_off(world: &mut World, to_redis: bool, to_node: bool) {
    let node = world.some_node();
    let cut = |cut: bool| Flow { cut, ..Flow::default() };
    world.strike();
    world.network(node).set(cut(to_redis), cut(to_node));
    world.work(world.size.lapse() * 3 / 2).await;
    world.network(node).set(Flow::default(), Flow::default());
    world.heal();
}

async fn slow_network(world: &mut World) {
    world.strike();
    slow(world, Duration::from_millis(40));
    world.work(Duration::from_secs(5)).await;
    slow(world, Duration::ZERO);
    world.heal();
}

fn slow(world: &World, delay: Duration) {
    let flow = Flow { delay, ..Flow::default() };
    world.living().into_iter().for_each(|node| world.network(node).set(flow, flow));
}

async fn clients(world: &mut World, order: Order) {
    world.strike();
    let share = if matches!(order, Order::Stall(_)) { 3 } else { 2 };
    let some: Vec<usize> = (0..world.members.len()).collect();
    let some: Vec<usize> = some.choose_multiple(&mut world.rng, world.members.len() / share).copied().collect();
    for index in some {
        world.members[index].order(order);
    }
    if let Order::Stall(time) = order {
        world.work(time).await;
    }
    world.heal();
}

async fn roll_and_cut(world: &mut World) {
    world.strike();
    for node in world.living() {
        world.add_node(0).await;
        let delay = Duration::from_millis(world.rng.random_range(5..30));
        slow(world, delay);
        world.store.only().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        world.terminate(node).await;
    }
    slow(world, Duration::ZERO);
    world.heal();
}

async fn dead_shard(world: &mut World) {
    let shard = world.store.shard();
    let elsewhere = world.sessions_not_on(shard[0]);
    world.strike();
    shard.iter().for_each(|server| world.store.server(*server).kill());
    world.work(world.size.lapse() * 2).await;
    world.live_on(&elsewhere).await;
    for server in shard {
        assert!(world.store.server(server).up().await, "the server comes back");
    }
    world.heal();
}

async fn failover(world: &mut World) {
    world.strike();
    world.store.primary().kill();
    world.heal();
}
