//! `verify`: the scrub.

use clap::Args;

use super::Place;
use crate::{
    app::Offline,
    cli::{CliError, runtime, terminal},
    vault::Report,
};

/// Options of `verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    place: Place,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), CliError> {
        let config = self.place.config()?;
        let report = runtime()?.block_on(async {
            let vault = Offline::open(&config).await?;
            let report = vault.verify().await;
            vault.close().await;
            report
        })?;
        tell(&report)
    }
}

fn tell(report: &Report) -> Result<(), CliError> {
    let rows = [
        ("logs", report.logs.to_string()),
        ("leaves", report.leaves.to_string()),
        ("tenants", report.tenants.to_string()),
        ("records", report.records.to_string()),
        ("content", terminal::bytes(report.bytes)),
        ("blobs", report.blobs.to_string()),
        ("findings", report.findings.len().to_string()),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    terminal::say(terminal::columns(&rows))?;
    for finding in &report.findings {
        terminal::say(format!("  {}: {}", finding.subject, finding.what))?;
    }
    if report.findings.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "the vault is not as it should be findings={}",
        report.findings.len()
    )))
}
