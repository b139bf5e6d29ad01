//! CPU of uploads and reads through S3, beside their bare parts. Rounds alternate, and the median counts: what a neighbour of the
//! machine does to one round, it does not to all.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    World,
    common::{
        Failure, MIB, Role,
        place::{self, tenant},
        process::Process,
        recordings::{Cost, read, timed, upload},
    },
    seconds,
};

const STREAMS: u64 = 4;

pub(crate) async fn run() -> Result<(), Failure> {
    let (bytes, rounds) = (seconds(160) * MIB, 5);
    let world = World::start(Duration::ZERO, 1).await?;
    let parts = Process::role(&Role::Parts {
        home: world.home(),
        bucket: world.bucket.address.clone(),
    })?;
    let (mut of_vault, mut of_parts) = (Vec::new(), Vec::new());
    // The first of each is not counted: connections are made, pages of memory found.
    for round in 0..=rounds {
        for (server, costs) in [(&world.vault, &mut of_vault), (&parts, &mut of_parts)] {
            let cost = both(&world.home(), server, bytes).await?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    println!(
        "{STREAMS} streams of {} MiB, median of {rounds} rounds\n\n\
         | | upload CPU-s/GiB | read CPU-s/GiB | upload GB/s | read GB/s |\n|---|---|---|---|---|",
        bytes / MIB
    );
    let (vault, parts) = (Medians::of(&of_vault), Medians::of(&of_parts));
    vault.say("callvault");
    parts.say("its parts");
    vault.by(&parts).say("callvault / parts");
    Ok(())
}

async fn both(home: &Path, server: &Process, bytes: u64) -> Result<(Cost, Cost), Failure> {
    let (total, tenant) = (bytes * STREAMS, tenant(1));
    let client = Arc::new(place::connect(home, &server.address, "uploader").await?);
    let (up, records) = timed(server, total, || upload(&client, &tenant, bytes, STREAMS)).await?;
    let client = Arc::new(place::connect(home, &server.address, "reader").await?);
    let (down, ()) = timed(server, total, || read(&client, &tenant, records, bytes)).await?;
    Ok((up, down))
}

/// Upload and read CPU, then their rates.
struct Medians([f64; 4]);

impl Medians {
    fn of(costs: &[(Cost, Cost)]) -> Self {
        let median = |of: fn(&(Cost, Cost)) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self([
            median(|(up, _)| up.cpu_per_gib),
            median(|(_, down)| down.cpu_per_gib),
            median(|(up, _)| up.gb_per_second),
            median(|(_, down)| down.gb_per_second),
        ])
    }

    fn by(&self, other: &Self) -> Self {
        let mut ratios = self.0;
        for (ratio, by) in ratios.iter_mut().zip(other.0) {
            *ratio /= by;
        }
        Self(ratios)
    }

    fn say(&self, name: &str) {
        let [a, b, c, d] = self.0;
        println!("| {name} | {a:.2} | {b:.2} | {c:.2} | {d:.2} |");
    }
}
