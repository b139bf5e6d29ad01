//! `config check`: what `serve --config` would refuse, before it is restarted.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    app,
    cli::{CliError, runtime, terminal},
    config::Config,
    server::ServerTls,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Check a configuration file and the certificates that it names
    Check(Check),
}

/// Options of `config check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// The file
    #[arg(value_name = "FILE", required_unless_present = "config")]
    file: Option<PathBuf>,
    /// Reach the bucket as well, try what it can do, and say it
    #[arg(long)]
    store: bool,
    /// Reach the root's provider as well, log in to it, and say whose root it is
    #[arg(long)]
    root: bool,
    /// The same, as `serve` takes it
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self) -> Result<(), CliError> {
        let Self::Check(Check {
            file,
            store,
            root,
            config,
        }) = self;
        let path = file.or(config).unwrap_or_default();
        let config = Config::load(&path)?;
        ServerTls::load(config.tls()?).map_err(|error| CliError::failed(error.to_string()))?;
        app::policies(&config)?;
        if store {
            let abilities = runtime()?.block_on(app::check_store(&config))?;
            terminal::say(abilities)?;
        }
        if root {
            let found = runtime()?.block_on(app::check_root(&config))?;
            terminal::say(found)?;
        }
        Ok(terminal::say(format!("{} is good", path.display()))?)
    }
}
