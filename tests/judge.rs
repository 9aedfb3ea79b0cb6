//! Tests of the fault suite's checker: forged histories, each with one thing wrong in it.

#![allow(dead_code, unreachable_pub, reason = "the checker as the fault suite has it, and not all of it needed here")]

#[path = "faults/history.rs"]
mod history;
#[path = "faults/judge.rs"]
mod judge;

use std::time::Duration;

use history::{Event, Quiet, Role, Standing, StateFrame, What, Who};
use judge::{Promise, Verdict};

const A: Who = Who { session: 0, client: 0 };
const B: Who = Who { session: 0, client: 1 };
const C: Who = Who { session: 0, client: 2 };

fn state(frame: u64, author: Who, step: u64, epoch: u64) -> StateFrame {
    StateFrame { frame, author, step, repeated: false, epoch: Some(epoch) }
}

fn happened(entries: &[(Who, What)]) -> Vec<Event> {
    let at = |index: usize| Duration::from_millis(u64::try_from(index).unwrap_or(0));
    entries
        .iter()
        .enumerate()
        .map(|(index, (who, what))| Event { at: at(index), who: *who, what: what.clone() })
        .collect()
}

fn told(who: Who, epoch: u64) -> (Who, What) {
    (who, What::ClientView(Role::Active, Some(epoch)))
}

fn lost(who: Who, epoch: u64) -> (Who, What) {
    (who, What::ClientView(Role::Other, Some(epoch)))
}

fn got(who: Who, state: StateFrame) -> (Who, What) {
    (who, What::Got(state))
}

/// Control goes from A to B; C receives the states of both.
fn good() -> Vec<(Who, What)> {
    vec![
        told(A, 1),
        got(C, state(1, A, 1, 1)),
        got(B, state(1, A, 1, 1)),
        got(C, state(2, A, 2, 1)),
        lost(A, 2),
        told(B, 2),
        got(C, state(3, B, 1, 2)),
        got(A, state(3, B, 1, 2)),
    ]
}

fn verdicts(entries: &[(Who, What)]) -> Vec<Verdict> {
    judge::judge(&happened(entries))
}

fn broken(entries: &[(Who, What)]) -> Vec<Promise> {
    verdicts(entries).iter().map(Verdict::promise).collect()
}

#[test]
fn a_good_history_has_no_verdicts() {
    assert_eq!(verdicts(&good()), []);
}

#[test]
fn two_controllers_in_one_epoch_are_found_across_receivers() {
    let mut history = good();
    history.extend([told(C, 2), got(A, state(4, C, 1, 2))]);
    let found = verdicts(&history);
    assert!(found.contains(&Verdict::TwoControllers { session: 0, epoch: 2, clients: (B, C) }), "{found:?}");
}

#[test]
fn an_older_epoch_after_a_newer_one_is_found() {
    let mut history = good();
    history.push(got(C, state(4, A, 3, 1)));
    let found = verdicts(&history);
    assert_eq!(found, [Verdict::OlderAfterNewer { receiver: C, older: 1, newer: 2 }]);
}

#[test]
fn an_older_epoch_is_found_at_a_receiver_without_epochs() {
    let unshown = |state: StateFrame| StateFrame { epoch: None, ..state };
    let mut history = good();
    history.extend([got(B, state(4, A, 3, 1))]);
    history.retain(|(who, _)| *who != C);
    history.extend([got(C, unshown(state(3, B, 1, 2))), got(C, unshown(state(4, A, 3, 1)))]);
    let found = verdicts(&history);
    assert!(found.contains(&Verdict::OlderAfterNewer { receiver: C, older: 1, newer: 2 }), "{found:?}");
}

#[test]
fn a_requested_state_says_nothing_about_control() {
    let mut history = good();
    let answer = StateFrame { repeated: true, ..state(4, A, 2, 1) };
    history.push(got(C, answer));
    assert_eq!(verdicts(&history), []);
}

#[test]
fn states_out_of_order_and_duplicate_frames_are_found() {
    let mut history = good();
    history.insert(3, got(C, state(5, A, 3, 1)));
    assert_eq!(verdicts(&history), [Verdict::OutOfOrder { receiver: C, author: A, step: 2, after: 3 }]);
    let mut history = good();
    history.insert(4, got(C, state(2, A, 2, 1)));
    let found = verdicts(&history);
    assert!(found.contains(&Verdict::Twice { receiver: C, frame: 2 }), "{found:?}");
}

#[test]
fn a_returning_client_may_see_repeats_but_no_older_epoch() {
    let mut history = good();
    history.extend([(C, What::Opened), got(C, state(3, B, 1, 2))]);
    assert_eq!(verdicts(&history), []);
    history.push(got(C, state(4, A, 3, 1)));
    assert_eq!(verdicts(&history), [Verdict::OlderAfterNewer { receiver: C, older: 1, newer: 2 }]);
}

#[test]
fn a_frame_in_another_session_is_found() {
    let mut history = good();
    let stranger = Who { session: 7, client: 0 };
    history.push((stranger, What::Got(StateFrame { epoch: None, ..state(3, B, 1, 2) })));
    assert_eq!(verdicts(&history), [Verdict::WrongSession { receiver: stranger, author: B }]);
}

#[test]
fn a_lost_session_is_found_and_an_eviction_is_allowed() {
    let closed = |reason: &str| (A, What::Closed(1008, reason.to_owned()));
    let mut history = good();
    history.push(closed("Evicted: the client resumed on another connection"));
    assert_eq!(verdicts(&history), []);
    history.push(closed("Session not found"));
    assert_eq!(broken(&history), [Promise::Sessions]);
}

#[test]
fn a_controller_that_was_never_told_is_found() {
    let mut history = good();
    history.push(got(C, state(4, B, 2, 3)));
    assert_eq!(verdicts(&history), [Verdict::DroveUntold { who: B, epoch: 3 }]);
}

#[test]
fn a_client_never_told_of_its_loss_is_found_unless_it_was_away() {
    let mut history = good();
    history.retain(|entry| *entry != lost(A, 2));
    assert_eq!(verdicts(&history), [Verdict::LossUntold { who: A, epoch: 2 }]);
    history.push((A, What::Closed(1006, String::new())));
    assert_eq!(verdicts(&history), []);
}

#[test]
fn harm_done_to_a_client_is_found() {
    let mut history = good();
    history.push((B, What::Hurt("an error was sent".to_owned())));
    assert_eq!(broken(&history), [Promise::Truth]);
}

fn standing(who: Who) -> Standing {
    let last = Some((A, 5));
    Standing {
        who,
        active: false,
        follows: true,
        connected: true,
        stubborn: false,
        deserted: false,
        returned: false,
        lost_role: false,
        last,
    }
}

fn quiet() -> Quiet {
    let standings = vec![Standing { active: true, follows: false, ..standing(A) }, standing(B), standing(C)];
    Quiet { controller: Some(A), clients: 3, standings }
}

fn at_rest(change: impl FnOnce(&mut Quiet)) -> Vec<Verdict> {
    let mut quiet = quiet();
    change(&mut quiet);
    judge::judge_quiet(0, &quiet)
}

#[test]
fn a_good_session_at_rest_has_no_verdicts() {
    assert_eq!(at_rest(|_| ()), []);
}

#[test]
fn a_follower_that_missed_a_state_is_found() {
    let found = at_rest(|quiet| quiet.standings[2].last = Some((A, 4)));
    assert_eq!(found, [Verdict::Missed { who: C, last: Some((A, 4)), of: (A, 5) }]);
}

#[test]
fn a_returned_client_that_shows_an_old_state_is_found() {
    let back = |follows| Standing { follows, returned: true, last: Some((A, 4)), ..standing(C) };
    for follows in [true, false] {
        let found = at_rest(|quiet| quiet.standings[2] = back(follows));
        assert_eq!(found, [Verdict::Missed { who: C, last: Some((A, 4)), of: (A, 5) }]);
    }
}

#[test]
fn followers_without_a_controller_are_found() {
    let nobody = |quiet: &mut Quiet| {
        quiet.controller = None;
        quiet.standings[0].active = false;
    };
    assert_eq!(at_rest(nobody), [Verdict::NobodyDrives { session: 0, followers: 2 }]);
    let one = |quiet: &mut Quiet| {
        nobody(quiet);
        quiet.standings[1].stubborn = true;
    };
    assert_eq!(at_rest(one), [], "the first follower, and a client that cannot be told");
}

#[test]
fn a_follower_that_lost_its_role_is_found() {
    let lost = |quiet: &mut Quiet| quiet.standings[1] = Standing { follows: false, lost_role: true, ..standing(B) };
    assert_eq!(at_rest(lost), [Verdict::RoleLost { who: B }]);
}

#[test]
fn a_wrong_belief_is_found_on_both_sides() {
    let found = at_rest(|quiet| quiet.controller = Some(B));
    let wrong = |who| Verdict::WrongRole { who, controller: Some(B) };
    assert_eq!(found, [wrong(A), wrong(B)]);
}

#[test]
fn a_deserted_client_may_be_given_control_that_it_cannot_use() {
    let deserted = |quiet: &mut Quiet| {
        quiet.standings[0].active = false;
        quiet.standings[0].deserted = true;
    };
    assert_eq!(at_rest(deserted), []);
}

#[test]
fn a_first_generation_client_may_wrongly_believe_it_has_control() {
    let nobody = |quiet: &mut Quiet| {
        quiet.controller = None;
        quiet.standings[0].stubborn = true;
        quiet.standings[1].follows = false;
    };
    assert_eq!(at_rest(nobody), []);
    let wrong = |quiet: &mut Quiet| {
        nobody(quiet);
        quiet.standings[0].stubborn = false;
    };
    assert_eq!(at_rest(wrong), [Verdict::WrongRole { who: A, controller: None }]);
}

#[test]
fn a_client_not_back_and_a_wrong_client_count_are_found() {
    let gone = at_rest(|quiet| {
        quiet.standings[1].connected = false;
        quiet.clients = 2;
    });
    assert_eq!(gone, [Verdict::NotBack { who: B }]);
    assert_eq!(at_rest(|quiet| quiet.clients = 4), [Verdict::Miscounted { session: 0, counted: 4, there: 3 }]);
}
