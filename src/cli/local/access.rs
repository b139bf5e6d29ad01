//! `access test`: what policies come to, before a server has them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    access::policy::{PolicySet, cases},
    app,
    cli::{CliError, terminal},
    config::Config,
    domain::{ids::InvalidId, text::Country},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Run policy tests from a file; nothing is served meanwhile
    Test(Test),
}

/// Options of `access test`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    /// The tests; docs/policy-tests.toml is a sample
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A directory of policies beside the roles
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Or a server's configuration, which names it
    #[arg(long, value_name = "FILE", conflicts_with = "policies")]
    config: Option<PathBuf>,
    /// Where records lie, ISO 3166-1, where no configuration says it
    #[arg(long, value_name = "COUNTRY", default_value = "MX")]
    country: String,
}

impl Command {
    pub(super) fn run(self) -> Result<(), CliError> {
        let Self::Test(test) = self;
        let (policies, home) = match &test.config {
            Some(file) => {
                let config = Config::load(file)?;
                (app::policies(&config)?, config.country()?)
            }
            None => {
                let home: Country = test
                    .country
                    .parse()
                    .map_err(|error: InvalidId| CliError::failed(error.to_string()))?;
                let loaded = match &test.policies {
                    Some(dir) => PolicySet::load(dir, home.clone()),
                    None => PolicySet::default_set(home.clone()),
                };
                (loaded.map_err(|error| CliError::failed(error.to_string()))?, home)
            }
        };
        let text = std::fs::read_to_string(&test.file)
            .map_err(|error| CliError::failed(format!("cannot read {}: {error}", test.file.display())))?;
        let tests = cases::parse(&text).map_err(|error| CliError::failed(error.to_string()))?;
        let (mut lines, mut failed) = (Vec::new(), 0);
        for case in &tests {
            let outcome = case
                .run(&policies, &home)
                .map_err(|error| CliError::failed(error.to_string()))?;
            match outcome.failure {
                None => lines.push(format!("ok      {}", outcome.name)),
                Some(failure) => {
                    failed += 1;
                    lines.push(format!("FAILED  {}: {failure}", outcome.name));
                }
            }
        }
        lines.push(format!(
            "{} tests, {failed} failed; policy set {}",
            tests.len(),
            policies.hash()
        ));
        terminal::say(lines.join("\n"))?;
        if failed > 0 {
            return Err(CliError::failed("policies do not come to what the tests say"));
        }
        Ok(())
    }
}
