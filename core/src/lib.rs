//! The rules of gitorial-relay: what a session is, who may control it, and what each client is told.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and fresh ids are handed in, so that a test, a model
//! and the relay run the same code. [`session`] is the document, [`control`] decides who may drive, [`reconcile`] what to
//! tell whom, [`protocol`] has the frames, [`ids`] the names of things.

pub mod control;
pub mod ids;
pub mod protocol;
pub mod reconcile;
pub mod session;
