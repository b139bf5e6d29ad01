//! `serve`: a server, until it is told to stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{DATA, loopback};
use crate::{
    app::{self, Instance, Mode},
    cli::{CliError, runtime, terminal},
    config::Config,
    telemetry,
};

/// Options of `serve`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {
    /// Zero configuration: a PKI, a tenant and a retention class are made; loopback only
    #[arg(long, required_unless_present = "config", conflicts_with = "config")]
    dev: bool,
    /// Configuration file; `callvault config check` checks it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory of dev mode; the root keyring lies beside it in DIR.root
    #[arg(long, value_name = "DIR", requires = "dev", default_value = DATA)]
    data: PathBuf,
    /// Address of dev mode; port 0 takes a free one
    #[arg(long, value_name = "ADDR", requires = "dev")]
    listen: Option<SocketAddr>,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), CliError> {
        let (config, mode) = match &self.config {
            Some(file) => (Config::load(file)?, Mode::Configured),
            None => {
                let listen = self.listen.map_or_else(loopback, Ok)?;
                (Config::dev(&self.data, listen)?, Mode::Dev)
            }
        };
        telemetry::write_logs(&config.log).map_err(app::AppError::from)?;
        telemetry::log_panics();
        app::harden();
        runtime()?.block_on(async {
            let instance = Instance::start(&config, mode).await?;
            instance.drain_on_signals()?;
            ready(&instance)?;
            instance.finish().await?;
            Ok(())
        })
    }
}

/// The line that scripts wait for, then what people type next.
fn ready(instance: &Instance) -> Result<(), CliError> {
    terminal::say(format!("ready listening={}", instance.address()))?;
    let Some(client_file) = instance.client_file() else {
        return Ok(());
    };
    let option = if client_file == &Path::new(DATA).join(app::CLIENT_FILE) {
        String::new()
    } else {
        format!(" --client {}", client_file.display())
    };
    terminal::say(format!(
        "\nin another terminal:\n\
         \x20 callvault put call.wav --conversation c-1 --tel +525512345678{option}\n\
         \x20 callvault ls --tel +525512345678{option}\n\
         \x20 callvault get RECORD -o back.wav{option}\n"
    ))?;
    Ok(())
}
