//! Runs a check and reports its result.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::check::Check;
use super::marks::Mark;
use super::scene::{Broken, Scene};

/// How much more of something in each scene: `MODEL_DEEPER=1` is for a machine with time and memory.
pub fn deep() -> u8 {
    std::env::var("MODEL_DEEPER").ok().and_then(|more| more.parse().ok()).unwrap_or(0)
}

/// Every property holds in every state, and these things happened.
pub fn controls(scene: Scene, happen: &[Mark]) {
    let (name, began) = (scene.name, Instant::now());
    let check = Check::of(scene);
    let marks = check.marks.clone();
    let checker = check.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, depth {depth}, {:.1} s", began.elapsed().as_secs_f64());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{property} does not hold: {:#?}", path.into_actions());
    }
    assert!(checker.is_done(), "the search did not reach the end");
    for mark in happen {
        assert!(marks.seen(*mark) > 0, "{mark:?} never happened, so the check proves nothing");
    }
}

/// With a driver or a store that is broken in this way the property does not hold, and the check finds a
/// counterexample.
pub fn finds(scene: Scene, broken: Broken, property: &'static str) {
    let began = Instant::now();
    let check = Check::of(Scene { broken: Some(broken), ..scene });
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = check.checker().finish_when(wanted).spawn_bfs().join();
    let Some(path) = checker.discovery(property) else { panic!("{broken:?} was not found") };
    // The checker may show a later state of the same history.
    let holds = checker.model().property(property).condition;
    let states = path.into_vec().into_iter().take_while(|(state, _)| holds(checker.model(), state));
    let steps: Vec<_> = states.filter_map(|(_, step)| step).collect();
    let (states, time) = (checker.unique_state_count(), began.elapsed().as_secs_f64());
    println!("{broken:?}: {} steps, {states} states, {time:.1} s: {steps:?}", steps.len());
}
