//! The same scenes with a driver or a store that is broken in one way: the check has to find a violation, or it proves
//! nothing.

use super::check::{EXCLUSION, GONE, ONCE, ORDER};
use super::run::finds;
use super::scene::{Broken, Budget, Scene};
use super::scenes;

fn one_wish_more(scene: Scene) -> Scene {
    Scene { budget: Budget { wishes: scene.budget.wishes + 1, ..scene.budget }, ..scene }
}

#[test]
fn receivers_without_a_fence_show_states_out_of_order() {
    finds(scenes::moves(), Broken::Fence, ORDER);
}

#[test]
fn without_a_tombstone_a_deleted_session_comes_back() {
    finds(scenes::deletes(), Broken::Tombstone, GONE);
}

#[test]
fn without_the_store_generation_there_are_two_controllers() {
    finds(scenes::forgets(), Broken::Generation, EXCLUSION);
}

#[test]
fn without_the_version_check_there_are_two_controllers() {
    finds(scenes::moves(), Broken::VersionCheck, EXCLUSION);
}

#[test]
fn without_the_margin_there_are_two_controllers() {
    finds(scenes::lapses(), Broken::Margin, EXCLUSION);
}

#[test]
fn without_suspension_there_are_two_controllers() {
    finds(scenes::grants(), Broken::Suspension, EXCLUSION);
}

#[test]
fn without_the_deadline_check_there_are_two_controllers() {
    finds(scenes::lapses(), Broken::Deadline, EXCLUSION);
}

#[test]
fn without_forestalling_a_write_there_are_two_controllers() {
    finds(scenes::answers(), Broken::Forestalling, EXCLUSION);
}

#[test]
fn with_an_unconfirmed_controller_there_are_two_controllers() {
    finds(scenes::forgets(), Broken::SureHolder, EXCLUSION);
}

#[test]
fn after_an_unnoticed_failover_there_are_two_controllers() {
    finds(one_wish_more(scenes::fails_over()), Broken::Notice, EXCLUSION);
}

#[test]
fn without_the_server_check_an_epoch_is_granted_twice() {
    finds(one_wish_more(scenes::fails_over()), Broken::ServerCheck, ONCE);
}

#[test]
fn with_answers_before_their_writes_there_are_two_controllers() {
    finds(scenes::moves(), Broken::EarlyAnswer, EXCLUSION);
}

#[test]
fn without_a_second_look_at_the_heartbeats_there_are_two_controllers() {
    finds(scenes::lapses(), Broken::StaleLook, EXCLUSION);
}
