//! The same scenes with one rule of the shell broken: the check has to find out, or it proves nothing.

use super::check::{EXCLUSION, GONE, ONCE, ORDER};
use super::marks::Mark;
use super::run::{finds, never};
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
fn without_the_generation_of_the_store_two_drive() {
    finds(scenes::forgets(), Broken::Generation, EXCLUSION);
}

#[test]
fn without_a_check_of_the_version_two_drive() {
    finds(scenes::moves(), Broken::VersionCheck, EXCLUSION);
}

#[test]
fn without_the_margin_two_drive() {
    finds(scenes::lapses(), Broken::Margin, EXCLUSION);
}

#[test]
fn without_suspension_two_drive() {
    finds(scenes::grants(), Broken::Suspension, EXCLUSION);
}

#[test]
fn without_a_look_at_the_deadline_two_drive() {
    finds(scenes::lapses(), Broken::Deadline, EXCLUSION);
}

#[test]
fn without_forestalling_a_write_of_unknown_outcome_two_drive() {
    finds(scenes::answers(), Broken::Forestalling, EXCLUSION);
}

#[test]
fn with_a_holder_that_drives_though_its_node_is_not_sure_two_drive() {
    finds(scenes::forgets(), Broken::SureHolder, EXCLUSION);
}

#[test]
fn after_a_failover_that_nobody_notices_two_drive() {
    finds(one_wish_more(scenes::fails_over()), Broken::Notice, EXCLUSION);
}

#[test]
fn without_what_its_node_remembers_nobody_whose_grant_was_lost_drives_on() {
    never(scenes::outlives(), Broken::Remembrance, Mark::DroveOn);
}

#[test]
fn without_the_check_of_the_server_an_epoch_is_granted_twice() {
    finds(one_wish_more(scenes::fails_over()), Broken::ServerCheck, ONCE);
}
