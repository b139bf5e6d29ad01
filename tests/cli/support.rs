//! A server process and commands against it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// Runs the binary and waits for it.
pub(crate) fn callvault(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_callvault"))
        .env_remove("CALLVAULT_CLIENT")
        .args(args)
        .output()
        .unwrap()
}

/// What a successful command wrote.
#[track_caller]
pub(crate) fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The error line of a command that ended with `code`.
#[track_caller]
pub(crate) fn refused(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory to work in, with a data directory of dev mode.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("data.root")
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file of `size` bytes that differ from call to call.
    pub(crate) fn file(&self, name: &str, size: usize, seed: u64) -> (String, Vec<u8>) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(size)
        .collect();
        std::fs::write(self.path(name), &bytes).unwrap();
        (self.path(name), bytes)
    }

    /// A remote command.
    pub(crate) fn remote(&self, args: &[&str]) -> Output {
        let client = self.path("data/client.toml");
        callvault(&[args, &["--client", &client]].concat())
    }

    /// A remote command's answer in JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&done(&self.remote(&[args, &["--json"]].concat()))).unwrap()
    }

    /// A local command over the data directory.
    pub(crate) fn local(&self, args: &[&str]) -> Output {
        callvault(&[args, &["--data", &self.path("data")]].concat())
    }

    /// Uploads a file; its record's id.
    #[track_caller]
    pub(crate) fn put(&self, file: &str, more: &[&str]) -> String {
        let put = ["put", file, "--conversation", "c-1"];
        let record = self.json(&[&put[..], more].concat());
        record["record_id"].as_str().unwrap().to_owned()
    }

    /// Reads a record's content.
    #[track_caller]
    pub(crate) fn get(&self, record: &str) -> Vec<u8> {
        let output = self.remote(&["get", record]);
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }
}

/// A port of loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Carries connections to a port, and what clients send no faster than some megabytes a second; its own port.
pub(crate) fn slow_way_to(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || carry(up, server, Duration::from_millis(20)));
            thread::spawn(move || carry(down, client, Duration::ZERO));
        }
    });
    own
}

fn carry(mut from: TcpStream, mut to: TcpStream, pause: Duration) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        thread::sleep(pause);
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// A server process; killed when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Starts one in dev mode and waits for its ready line.
    pub(crate) fn start(data: &Path) -> Self {
        let mut server = Self::spawn(data);
        let mut line = String::new();
        server.stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("ready listening=127.0.0.1:"), "{line}");
        server
    }

    /// The same, at an address of the test's own: where it was before.
    pub(crate) fn start_at(data: &Path, port: u16) -> Self {
        let mut server = Self::spawn_at(data, port);
        let mut line = String::new();
        server.stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("ready listening=127.0.0.1:{port}\n"));
        server
    }

    /// Starts one in dev mode.
    pub(crate) fn spawn(data: &Path) -> Self {
        Self::spawn_at(data, 0)
    }

    fn spawn_at(data: &Path, port: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_callvault"))
            .args(["serve", "--dev", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.child.wait().unwrap().code()
    }

    /// SIGKILL after a while.
    pub(crate) fn kill_after(self, moment: std::time::Duration) {
        std::thread::sleep(moment);
        self.kill();
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
