//! `root migrate`: the root moves to another provider, while nobody serves.

use clap::Args;

use super::Place;
use crate::{
    app::Offline,
    cli::{CliError, terminal},
    config::RootKind,
    vault::Moved,
};

/// Options of `root migrate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Migrate {
    /// Where to: file, pkcs11 or aws_kms; the configuration needs its section beside that of the provider which holds the root
    #[arg(long, value_name = "PROVIDER")]
    to: RootKind,
    #[command(flatten)]
    place: Place,
}

impl Migrate {
    pub(in crate::cli) async fn run(self) -> Result<(), CliError> {
        let config = self.place.config()?;
        let bar = terminal::pages();
        let moved = Offline::migrate_root(&config, self.to, |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })
        .await;
        bar.finish_and_clear();
        tell(&moved?, config.root.provider)
    }
}

fn tell(moved: &Moved, configured: RootKind) -> Result<(), CliError> {
    let Moved { to, epoch, .. } = moved;
    match moved.moved {
        true => terminal::say(format!("the root is with {to} now, from epoch {epoch} on"))?,
        false => terminal::say(format!(
            "nothing to do: the root is with {to} already, epoch {epoch}"
        ))?,
    }
    if configured.name() != to {
        terminal::say(format!("set before the next start:  root.provider = \"{to}\""))?;
    }
    let mut kinds: Vec<_> = moved.left.iter().map(|(_, kind)| kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind = moved.left.iter().filter(|(_, of)| of == kind);
        let epochs: Vec<_> = of_kind.map(|(epoch, _)| epoch.to_string()).collect();
        terminal::say(format!(
            "keep [root.{kind}], and what it leads to, until `callvault root list` says that they are destroyed:  epochs {}",
            epochs.join(", ")
        ))?;
    }
    if !moved.left.is_empty() {
        terminal::say("the next sweep has them destroyed:  callvault sweep run")?;
    }
    Ok(())
}
