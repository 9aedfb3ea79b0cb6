//! The controller in every history of a small world: docs/model.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test stops at the first surprise; its helpers are nobody's API; figures are printed"
)]

mod model {
    mod broken;
    mod check;
    mod first;
    mod marks;
    mod names;
    mod node;
    mod outputs;
    mod run;
    mod scene;
    mod scenes;
    mod steps;
    mod store;
    mod world;
}
