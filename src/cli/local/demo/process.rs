//! A server in a process of its own, so that it can be killed.

use std::{
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::steps::must;
use crate::cli::CliError;

/// This program, serving; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    /// Kept open: a server that has nobody to talk to ends.
    said: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it and waits until it serves.
    pub(super) async fn start(data: &Path) -> Result<Self, CliError> {
        let data = data.to_owned();
        tokio::task::spawn_blocking(move || Self::start_blocking(&data))
            .await
            .map_err(io::Error::other)?
    }

    fn start_blocking(data: &Path) -> Result<Self, CliError> {
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut this = Self { child, said: None };
        let mut line = String::new();
        if let Some(out) = this.child.stdout.take() {
            let said = this.said.insert(BufReader::new(out));
            said.read_line(&mut line)?;
        }
        must(line.starts_with("ready "), "the server did not start")?;
        Ok(this)
    }

    /// SIGKILL: nothing is drained, nothing is said.
    pub(super) fn kill(mut self) -> Result<(), CliError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM: calls may end, and what is queued is shipped.
    pub(super) async fn stop(self) -> Result<(), CliError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(io::Error::from)?;
        }
        let mut this = self;
        let ended = tokio::task::spawn_blocking(move || this.child.wait())
            .await
            .map_err(io::Error::other)??;
        must(ended.success(), "the server did not stop well")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, unless something failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
