//! Existing clients work unmodified, both generations in every pairing, on one node and on two.
//!
//! Each scenario runs with the first client on the first node and the second on the last, in its own session for
//! each pairing of generations.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::support::cluster::{Cluster, Kind, PATIENCE};
use super::support::eventually;
use super::support::old_client::{Call, Generation, OldClient, Phase};

/// How long phases have to stay unchanged to count.
const SETTLED: Duration = Duration::from_millis(80);

macro_rules! scenarios {
    ($($name:ident,)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::play(super::Kind::Embedded, async |pair| super::$name(&pair).await).await;
            })*
        }
        mod over_redis {
            $(#[tokio::test]
            async fn $name() {
                super::play(super::Kind::Redis(2), async |pair| super::$name(&pair).await).await;
            })*
        }
    };
}

scenarios! {
    one_pulls_and_the_other_pushes,
    one_pushes_before_the_other_pulls,
    a_refused_pull_makes_a_follower_that_has_the_state,
    an_accepted_offer_hands_control_over_and_back,
    a_declined_offer_changes_nothing,
    the_follower_takes_control,
    a_request_for_the_state_is_answered,
    released_control_is_taken_by_the_other,
    released_control_is_taken_again_by_the_same,
    a_controller_whose_socket_breaks_regains_control,
    a_follower_whose_socket_breaks_follows_again,
    a_follower_that_comes_back_is_shown_what_it_missed,
    a_follower_that_moves_to_another_node_is_shown_what_it_missed,
    a_controller_that_comes_back_too_late_has_lost_control,
    the_controller_leaves_and_the_other_takes_over,
    a_third_and_a_fourth_client_follow_and_take_control,
}

/// Two generations in a session.
struct Pair<'a> {
    cluster: &'a Cluster,
    session: String,
    first: Generation,
    second: Generation,
}

impl Pair<'_> {
    async fn join_first(&self, name: &str) -> OldClient {
        OldClient::join(self.cluster.near(), &self.session, self.first, name).await
    }

    async fn join_second(&self, name: &str) -> OldClient {
        OldClient::join(self.cluster.far(), &self.session, self.second, name).await
    }

    /// The first client has control, the second follows, both are at step 1.
    async fn start(&self) -> (OldClient, OldClient) {
        let a = self.join_first("a").await;
        pull(&a).await;
        let b = self.join_second("b").await;
        push(&b).await;
        // Asked on b's behalf, a has no state yet: otherwise its answer could cross b's next frame.
        a.has_got("request_sync", 1).await;
        a.send_state(1);
        b.state_is(1).await;
        (a, b)
    }

    async fn is_driven_by(&self, client: &OldClient) {
        eventually(PATIENCE, async || {
            let (_, session) = self.cluster.far().get_session(&self.session).await;
            (session["activeClientId"] == client.id.as_str()).then_some(())
        })
        .await;
    }
}

/// Runs a scenario for each pairing of generations, all at once.
async fn play(kind: Kind, scenario: impl AsyncFn(Pair<'_>)) {
    use Generation::{First, Second};
    let cluster = Cluster::start(kind, super::support::cluster::Options::default()).await;
    let pairings = [(First, First), (First, Second), (Second, First), (Second, Second)];
    join_all(pairings.map(async |(first, second)| {
        let session = cluster.near().create_session(json!({ "metadata": { "tutorial": "t" } })).await;
        scenario(Pair { cluster: &cluster, session, first, second }).await;
    }))
    .await;
}

/// Asks for control. An old client waits for the answer to its choice.
async fn pull(client: &OldClient) {
    client.call(Call::Pull);
    client.phase_is(Phase::Active).await;
}

/// Asks to follow. A client of the first generation that believes that it follows already cannot ask.
async fn push(client: &OldClient) {
    if client.phase() == Phase::Idle {
        client.call(Call::Push);
    }
    client.phase_is(Phase::Passive).await;
}

/// Takes control in the client's own way, and sends this step: only then does the relay hear of it from a
/// client of the first generation.
async fn take(client: &OldClient, step: u64) {
    match client.phase() {
        Phase::Idle => pull(client).await,
        _ => client.call(Call::Take),
    }
    client.send_state(step);
}

/// Waits until these are the phases, and stay the same.
async fn settle(expected: &[(&OldClient, Phase)]) {
    let phases = || expected.iter().all(|(client, phase)| client.phase() == *phase);
    loop {
        for (client, phase) in expected {
            client.phase_is(*phase).await;
        }
        tokio::time::sleep(SETTLED).await;
        if phases() {
            break;
        }
    }
    for (client, _) in expected {
        client.assert_clean();
    }
}

/// A client's phase after it heard that no client has control, or came back: the first generation cannot go back to
/// idle.
fn without_driver(client: &OldClient) -> Phase {
    if client.generation == Generation::First { Phase::Passive } else { Phase::Idle }
}

async fn one_pulls_and_the_other_pushes(pair: &Pair<'_>) {
    let (a, b) = (pair.join_first("a").await, pair.join_second("b").await);
    settle(&[(&a, Phase::Idle), (&b, Phase::Idle)]).await;
    pull(&a).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    for step in 1..=20 {
        a.send_state(step);
    }
    b.state_is(20).await;
    assert_eq!(b.count("state_update"), 20, "every state, once");
    pair.is_driven_by(&a).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
}

async fn one_pushes_before_the_other_pulls(pair: &Pair<'_>) {
    let (a, b) = (pair.join_first("a").await, pair.join_second("b").await);
    push(&b).await;
    settle(&[(&a, Phase::Idle), (&b, Phase::Passive)]).await;
    pull(&a).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    a.send_state(3);
    b.state_is(3).await;
    a.assert_clean();
    b.assert_clean();
}

async fn a_refused_pull_makes_a_follower_that_has_the_state(pair: &Pair<'_>) {
    let a = pair.join_first("a").await;
    pull(&a).await;
    a.send_state(5);
    let b = pair.join_second("b").await;
    b.call(Call::Pull);
    b.is_refused("control_held").await;
    b.state_is(5).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    a.send_state(6);
    b.state_is(6).await;
    pair.is_driven_by(&a).await;
}

async fn hand_over(from: &OldClient, to: &OldClient) {
    from.call(Call::Offer);
    to.is_offered_control().await;
    let told = from.count("accept_control");
    to.call(Call::Accept);
    settle(&[(from, Phase::Passive), (to, Phase::Active)]).await;
    assert_eq!(from.count("accept_control"), told + 1, "exactly one accept_control: {}", from.transcript());
}

async fn an_accepted_offer_hands_control_over_and_back(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    hand_over(&a, &b).await;
    pair.is_driven_by(&b).await;
    b.send_state(2);
    a.state_is(2).await;
    hand_over(&b, &a).await;
    pair.is_driven_by(&a).await;
    a.send_state(3);
    b.state_is(3).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
}

async fn a_declined_offer_changes_nothing(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    a.call(Call::Offer);
    b.is_offered_control().await;
    b.call(Call::Decline);
    a.send_state(2);
    b.state_is(2).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    assert_eq!(a.count("decline_control"), 1, "the controller hears of it");
    pair.is_driven_by(&a).await;
}

async fn the_follower_takes_control(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    take(&b, 7).await;
    a.state_is(7).await;
    settle(&[(&a, Phase::Passive), (&b, Phase::Active)]).await;
    pair.is_driven_by(&b).await;
    a.knows_driver(&b).await;
    take(&a, 8).await;
    b.state_is(8).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    pair.is_driven_by(&a).await;
}

async fn a_request_for_the_state_is_answered(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    let before = (a.count("state_update"), b.count("state_update"));
    a.call(Call::RequestState);
    eventually(PATIENCE, async || (a.count("state_update") > before.0).then_some(())).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    a.state_is(1).await;
    b.state_is(1).await;
    let after = (a.count("state_update"), b.count("state_update"));
    assert_eq!(after, (before.0 + 1, before.1), "one answer, to the one who asked");
}

async fn released_control_is_taken_by_the_other(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    a.call(Call::Release);
    match a.generation {
        // Nothing is sent: the relay cannot know.
        Generation::First => settle(&[(&a, Phase::Passive), (&b, Phase::Passive)]).await,
        Generation::Second => settle(&[(&a, Phase::Idle), (&b, without_driver(&b))]).await,
    }
    take(&b, 4).await;
    a.state_is(4).await;
    settle(&[(&a, Phase::Passive), (&b, Phase::Active)]).await;
    pair.is_driven_by(&b).await;
}

async fn released_control_is_taken_again_by_the_same(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    a.call(Call::Release);
    a.phase_is(without_driver(&a)).await;
    take(&a, 4).await;
    b.state_is(4).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    pair.is_driven_by(&a).await;
}

async fn a_controller_whose_socket_breaks_regains_control(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    a.reconnect().await;
    if a.generation == Generation::Second {
        pull(&a).await;
    }
    a.send_state(9);
    b.state_is(9).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    pair.is_driven_by(&a).await;
}

async fn a_follower_whose_socket_breaks_follows_again(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    let met = b.count("client_connected");
    b.reconnect().await;
    // An open socket is not in its session yet.
    b.has_got("client_connected", met + 1).await;
    push(&b).await;
    a.send_state(9);
    b.state_is(9).await;
    settle(&[(&a, Phase::Active), (&b, Phase::Passive)]).await;
    take(&b, 10).await;
    a.state_is(10).await;
    settle(&[(&a, Phase::Passive), (&b, Phase::Active)]).await;
}

/// While `b` is away the controller moves to this step; at even steps the relay has noticed the loss before.
async fn go_on_without(a: &OldClient, b: &OldClient, step: u64) {
    let left = a.count("client_disconnected");
    b.cut();
    if step.is_multiple_of(2) {
        a.has_got("client_disconnected", left + 1).await;
    }
    a.send_state(step);
}

async fn a_follower_that_comes_back_is_shown_what_it_missed(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    for step in 2..8 {
        go_on_without(&a, &b, step).await;
        b.come_back().await;
        b.state_is(step).await;
    }
    settle(&[(&a, Phase::Active), (&b, without_driver(&b))]).await;
}

async fn a_follower_that_moves_to_another_node_is_shown_what_it_missed(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    for step in 2..8 {
        go_on_without(&a, &b, step).await;
        let node = if step < 5 { pair.cluster.near() } else { pair.cluster.far() };
        b.come_back_on(node, &pair.session).await;
        b.state_is(step).await;
    }
    settle(&[(&a, Phase::Active), (&b, without_driver(&b))]).await;
}

async fn a_controller_that_comes_back_too_late_has_lost_control(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    a.cut();
    eventually(PATIENCE, async || (b.count("client_disconnected") == 1).then_some(())).await;
    b.phase_is(without_driver(&b)).await;
    take(&b, 20).await;
    pair.is_driven_by(&b).await;
    a.come_back().await;
    // The first generation believes that it has control until it is told otherwise; the second cannot send.
    a.send_state(2);
    settle(&[(&a, without_driver(&a)), (&b, Phase::Active)]).await;
    b.state_is(20).await;
    b.send_state(21);
    a.state_is(21).await;
    pair.is_driven_by(&b).await;
}

async fn the_controller_leaves_and_the_other_takes_over(pair: &Pair<'_>) {
    let (mut a, b) = pair.start().await;
    a.leave().await;
    settle(&[(&b, without_driver(&b))]).await;
    assert_eq!(b.count("client_disconnected"), 1, "{}", b.transcript());
    take(&b, 5).await;
    pair.is_driven_by(&b).await;
    let again = pair.join_first("again").await;
    push(&again).await;
    again.state_is(5).await;
    settle(&[(&again, Phase::Passive), (&b, Phase::Active)]).await;
}

async fn a_third_and_a_fourth_client_follow_and_take_control(pair: &Pair<'_>) {
    let (a, b) = pair.start().await;
    let (c, d) = (pair.join_first("c").await, pair.join_second("d").await);
    settle(&[(&a, Phase::Active), (&b, Phase::Passive), (&c, Phase::Idle), (&d, Phase::Idle)]).await;
    // As in `start`: requests on their behalf are answered before they do anything.
    for (follower, asked) in [(&c, 2), (&d, 3)] {
        push(follower).await;
        a.has_got("request_sync", asked).await;
    }
    a.send_state(30);
    for follower in [&b, &c, &d] {
        follower.state_is(30).await;
    }
    take(&d, 31).await;
    for follower in [&a, &b, &c] {
        follower.state_is(31).await;
    }
    settle(&[(&a, Phase::Passive), (&b, Phase::Passive), (&c, Phase::Passive), (&d, Phase::Active)]).await;
    pair.is_driven_by(&d).await;
    hand_over(&d, &c).await;
    c.send_state(32);
    for follower in [&a, &b, &d] {
        follower.state_is(32).await;
    }
    settle(&[(&a, Phase::Passive), (&b, Phase::Passive), (&c, Phase::Active), (&d, Phase::Passive)]).await;
}
