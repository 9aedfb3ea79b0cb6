//! The scenes that are searched to the end: every order of every step that the budget allows.

use gitorial_relay::session::Strategy;

use super::marks::Mark;
use super::run::{controls, deep};
use super::scene::{Budget, Scene, Wish};

/// Two nodes with a client each; the first one has control.
pub fn scene(name: &'static str, budget: Budget) -> Scene {
    Scene {
        name,
        nodes: 2,
        clients: vec![(0, false), (1, false)],
        strategy: Strategy::FirstComeFirstServed,
        wishes: vec![Wish::Take],
        lease: None,
        steady: Vec::new(),
        far_behind: false,
        copies: 1,
        budget,
        broken: None,
    }
}

pub fn moves() -> Scene {
    let budget = Budget { wishes: 3 + deep(), states: 2, ..Budget::default() };
    Scene { wishes: vec![Wish::Take, Wish::Release], copies: 2, ..scene("moves", budget) }
}

pub fn grants() -> Scene {
    let budget = Budget { wishes: 3 + deep(), states: 1, ..Budget::default() };
    let wishes = vec![Wish::Ask, Wish::Grant, Wish::Release];
    Scene { strategy: Strategy::UserChoice, wishes, ..scene("grants", budget) }
}

pub fn three() -> Scene {
    let budget = Budget { wishes: 2 + deep(), breaks: 1, ..Budget::default() };
    Scene { clients: vec![(0, false), (1, false), (0, true)], ..scene("three", budget) }
}

pub fn lapses() -> Scene {
    let budget = Budget { ticks: 4, renewals: 1, wishes: 1 + deep(), states: 1, ..Budget::default() };
    Scene { lease: Some(3), steady: vec![1], ..scene("lapses", budget) }
}

pub fn both_lapse() -> Scene {
    let budget = Budget { ticks: 2, renewals: 1 + deep(), wishes: 1, ..Budget::default() };
    Scene { lease: Some(2), ..scene("both lapse", budget) }
}

pub fn crashes() -> Scene {
    let budget =
        Budget { ticks: 2 + deep(), renewals: 1, wishes: 1, states: 1, returns: 1, crashes: 1, ..Budget::default() };
    let clients = vec![(0, true), (1, false)];
    Scene { nodes: 3, clients, lease: Some(2), steady: vec![1, 2], ..scene("crashes", budget) }
}

pub fn answers() -> Scene {
    let budget = Budget { wishes: 3 + deep(), states: 1, lost_answers: 1, ..Budget::default() };
    Scene { strategy: Strategy::UserChoice, wishes: vec![Wish::Ask, Wish::Grant], ..scene("answers", budget) }
}

pub fn forgets() -> Scene {
    let budget = Budget { ticks: 3 + deep(), renewals: 1, wishes: 1, memory_losses: 1, ..Budget::default() };
    Scene { lease: Some(2), steady: vec![1], ..scene("forgets", budget) }
}

pub fn three_forget() -> Scene {
    let budget = Budget { ticks: 1 + deep(), wishes: 1, memory_losses: 1, ..Budget::default() };
    let clients = vec![(0, false), (1, false), (2, false)];
    Scene { nodes: 3, clients, lease: Some(2), steady: vec![1, 2], ..scene("three forget", budget) }
}

pub fn fails_over() -> Scene {
    let budget = Budget { ticks: 1, renewals: 1, wishes: 2 + deep(), states: 1, fail_overs: 1, ..Budget::default() };
    Scene { wishes: vec![Wish::Take, Wish::Release], ..scene("fails over", budget) }
}

pub fn outlives() -> Scene {
    let budget = Budget { ticks: 5 + deep(), wishes: 3, fail_overs: 1, ..Budget::default() };
    let wishes = vec![Wish::Take, Wish::Release];
    Scene { lease: Some(3), steady: vec![0, 1], wishes, ..scene("outlives", budget) }
}

pub fn loses_all() -> Scene {
    let budget = Budget { ticks: 5 + deep(), wishes: 2, breaks: 1, fail_overs: 1, ..Budget::default() };
    let wishes = vec![Wish::Take, Wish::Release];
    Scene { lease: Some(3), steady: vec![0, 1], wishes, far_behind: true, ..scene("loses all", budget) }
}

pub fn deletes() -> Scene {
    let budget = Budget { wishes: 1 + deep(), states: 1, deletes: 1, lost_answers: 1, ..Budget::default() };
    scene("deletes", budget)
}

#[test]
fn rules_hold_in_every_order_of_takes_and_releases() {
    controls(moves(), &[Mark::Revoking, Mark::Transferred, Mark::Conflict, Mark::Arrived, Mark::Fenced]);
}

#[test]
fn rules_hold_in_every_order_of_requests_and_grants() {
    controls(grants(), &[Mark::Granted, Mark::Conflict, Mark::Fenced]);
}

#[test]
fn rules_hold_in_every_order_of_three_clients() {
    controls(three(), &[Mark::Revoking, Mark::Transferred, Mark::Conflict]);
}

#[test]
fn rules_hold_when_the_controllers_node_pauses() {
    controls(lapses(), &[Mark::NewLease, Mark::TakenFromTheLapsed, Mark::Transferred, Mark::Fenced]);
}

#[test]
fn rules_hold_when_both_nodes_pause() {
    controls(both_lapse(), &[Mark::NewLease, Mark::TakenFromTheLapsed, Mark::Conflict]);
}

#[test]
fn rules_hold_when_a_node_crashes_and_its_client_returns() {
    controls(crashes(), &[Mark::TakenFromTheDead, Mark::Returned]);
}

#[test]
fn rules_hold_when_the_answer_to_a_write_is_lost() {
    controls(answers(), &[Mark::LandedLate, Mark::Granted]);
}

#[test]
fn rules_hold_when_the_store_comes_back_empty() {
    controls(forgets(), &[Mark::MemoryLost, Mark::Restored, Mark::NewLease]);
}

#[test]
fn rules_hold_whichever_node_notices_the_empty_store_first() {
    controls(three_forget(), &[Mark::MemoryLost, Mark::Restored]);
}

#[test]
fn rules_hold_when_a_failover_loses_a_write() {
    controls(fails_over(), &[Mark::FailedOver, Mark::Remembered, Mark::DroveOn, Mark::Transferred, Mark::Fenced]);
}

#[test]
fn rules_hold_when_the_doubt_after_a_failover_ends() {
    controls(outlives(), &[Mark::FailedOver, Mark::Remembered, Mark::DroveOn, Mark::Transferred]);
}

#[test]
fn rules_hold_when_a_failover_loses_every_write() {
    controls(loses_all(), &[Mark::FailedOver, Mark::Remembered, Mark::DroveOn, Mark::Transferred]);
}

#[test]
fn rules_hold_while_a_session_is_deleted() {
    controls(deletes(), &[Mark::Transferred, Mark::LandedLate]);
}
