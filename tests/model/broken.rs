//! The same scenes with one rule of the shell broken: the check has to find out, or it proves nothing.

use super::check::{EXCLUSION, GONE, ONCE, ORDER};
use super::run::finds;
use super::scene::Broken;
use super::scenes;

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
fn with_a_holder_restored_by_a_node_whose_lease_had_lapsed_two_drive() {
    finds(scenes::forgets(), Broken::SureHolder, EXCLUSION);
}

#[test]
fn when_a_failover_loses_a_write_that_was_answered_two_drive() {
    finds(scenes::fails_over(), Broken::Replication, EXCLUSION);
}

#[test]
fn when_a_decision_of_before_a_failover_is_written_after_it_an_epoch_is_granted_twice() {
    finds(scenes::fails_over(), Broken::Reconnection, ONCE);
}
