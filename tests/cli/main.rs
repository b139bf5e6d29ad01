//! The real binary, as people and scripts run it.

#![allow(clippy::unwrap_used, clippy::panic)] // tests say what went wrong by panicking

mod certificate;
mod commands;
mod crash;
mod erasing;
mod resume;
mod root;
mod support;
mod vault;
