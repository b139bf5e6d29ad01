//! The `callvault` binary: parses the command line and does what it says.

use std::process::ExitCode;

use callvault::cli::{self, Cli};
use clap::Parser;
use mimalloc::MiMalloc;

/// docs/adr/0011-an-allocator-of-our-own.md
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Room for a whole extent is reserved for an upload that may stay small: what is not touched must cost nothing. Where the
    // system cannot promise that, memory costs more and everything works.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    cli::run(Cli::parse())
}
