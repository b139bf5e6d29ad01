//! The services over a real server on loopback: TLS, the dev PKI, a store in a directory.

mod harness;
mod listing;
mod reading;
mod refusals;
mod secrecy;
mod streams;
mod tenants;
mod updating;
mod uploading;
