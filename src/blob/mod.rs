//! Stored objects: where they lie ([`store`]) and how they are laid out ([`format`]).

pub mod store;
