//! `rebuild-index`: the bucket alone makes the index again.

use clap::Args;

use super::Place;
use crate::{
    app::{Offline, Rebuilt},
    cli::{CliError, runtime, terminal},
};

/// Options of `rebuild-index`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RebuildIndex {
    #[command(flatten)]
    place: Place,
}

impl RebuildIndex {
    pub(super) fn run(self) -> Result<(), CliError> {
        let config = self.place.config()?;
        let rebuilt = runtime()?.block_on(async {
            let (vault, rebuilt) = Offline::rebuild(&config).await?;
            vault.close().await;
            Ok::<_, CliError>(rebuilt)
        })?;
        tell(&rebuilt)
    }
}

fn tell(rebuilt: &Rebuilt) -> Result<(), CliError> {
    let rows = [
        ("leaves", rebuilt.leaves),
        ("records", rebuilt.records),
        ("adopted", rebuilt.adopted),
        ("broken", rebuilt.broken.len() as u64),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(name, n)| vec![name.to_owned(), n.to_string()])
        .collect();
    terminal::say(terminal::columns(&rows))?;
    for object in &rebuilt.broken {
        terminal::say(format!("  {object}: missing, or not as its leaf says"))?;
    }
    if rebuilt.broken.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "objects of the bucket are lost or damaged; restore them and run again broken={}",
        rebuilt.broken.len()
    )))
}
