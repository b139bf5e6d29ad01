//! The service as a whole on a bucket that speaks S3: the vault in a process of its own, the bucket in another, and beside them the
//! bare parts of the same work. `scripts/bench_service.sh` runs all of it.
//!
//! ```text
//! cargo bench --bench service -- [s3|messages|memory|fairness]...        all of them by default
//! ```
//!
//! Prints Markdown. `CALLVAULT_BENCH_DIR` says below which directory everything lies, `CALLVAULT_BENCH_SHOW=1` shows what the
//! servers log, `CALLVAULT_BENCH_SHORT=1` makes it all a fifth as long, to see that it runs.

#[path = "../common/mod.rs"]
mod common;
mod fairness;
mod memory;
mod messages;
mod s3;

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{
    Failure, Role, arguments,
    place::{self, Place},
    process::Process,
};
use mimalloc::MiMalloc;

/// As the vault's, so that what is beside it differs in nothing else.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> Result<(), Failure> {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let arguments = arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(role) = Role::parse(&arguments) {
        return runtime.block_on(role.run());
    }
    runtime.block_on(run(&arguments))
}

async fn run(wanted: &[String]) -> Result<(), Failure> {
    const ALL: [&str; 4] = ["s3", "messages", "memory", "fairness"];
    if let Some(unknown) = wanted.iter().find(|name| !ALL.contains(&name.as_str())) {
        return Err(format!("{unknown}: there is s3, messages, memory, fairness").into());
    }
    for name in ALL {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        match name {
            "s3" => s3::run().await?,
            "messages" => messages::run().await?,
            "memory" => memory::run().await?,
            _ => fairness::run().await?,
        }
        println!();
    }
    Ok(())
}

/// A vault on a bucket, each in a process of its own.
struct World {
    place: Place,
    bucket: Process,
    vault: Process,
}

impl World {
    /// With so many tenants, on a bucket that takes so long for a PUT.
    async fn start(pause: Duration, tenants: usize) -> Result<Self, Failure> {
        let place = Place::new()?;
        let home = place.home();
        let bucket = Process::role(&Role::Bucket {
            home: home.clone(),
            pause,
        })?;
        let vault = Process::vault(&place.configure(&bucket.address)?)?;
        place::make_tenants(&home, &vault.address, tenants).await?;
        Ok(Self { place, bucket, vault })
    }

    fn home(&self) -> PathBuf {
        self.place.home()
    }
}

/// `callvault bench` on a server.
fn load(client: &std::path::Path, arguments: &[&str]) -> Result<Load, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callvault"));
    command.arg("bench").args(arguments).arg("--json").arg("--client");
    command.arg(client).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(Load(Some(command.spawn()?)))
}

/// Killed if nobody waits for its end.
struct Load(Option<Child>);

impl Load {
    /// Its report.
    async fn finish(mut self) -> Result<serde_json::Value, Failure> {
        let child = self.0.take().ok_or("no load")?;
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// So many seconds, or a fifth of them.
fn seconds(usual: u64) -> u64 {
    match std::env::var_os("CALLVAULT_BENCH_SHORT") {
        Some(_) => (usual / 5).max(2),
        None => usual,
    }
}
