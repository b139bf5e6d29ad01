//! A server in a process of its own, and what it uses.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{Failure, Role};

pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// What else it said when it was ready.
    pub(crate) said: String,
}

impl Process {
    /// The vault with everything below `data`, as `serve --dev` makes it.
    pub(crate) fn dev(data: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callvault"));
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data);
        Self::start(command)
    }

    /// The vault of a configuration.
    pub(crate) fn vault(config: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callvault"));
        command.args(["serve", "--config"]).arg(config);
        Self::start(command)
    }

    /// This program in another role.
    pub(crate) fn role(role: &Role) -> Result<Self, Failure> {
        let mut command = Command::new(env::current_exe()?);
        command.args(role.arguments());
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self, Failure> {
        let errors = match env::var_os("CALLVAULT_BENCH_SHOW") {
            Some(_) => Stdio::inherit(),
            None => Stdio::null(),
        };
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut lines = out.lines();
        while let Some(line) = lines.next().transpose()? {
            if let Some((_, rest)) = line.split_once("ready listening=") {
                let (address, said) = rest.trim().split_once(' ').unwrap_or_else(|| (rest.trim(), ""));
                let (address, said) = (address.to_owned(), said.to_owned());
                // Whoever writes to a pipe that nobody reads is held up.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, address, said });
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err("a server did not start; CALLVAULT_BENCH_SHOW=1 shows why".into())
    }

    /// User and system time of the process so far; ticks are a hundredth of a second.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = self.proc("stat")?;
        let fields = stat.rsplit_once(')').ok_or("stat")?.1;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    }

    /// Resident memory now and at its highest, bytes.
    pub(crate) fn resident(&self) -> Result<(u64, u64), Failure> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            Ok::<u64, Failure>(kib.ok_or("status")?.parse::<u64>()? << 10)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    fn proc(&self, file: &str) -> Result<String, Failure> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
