//! A token in software, SoftHSM 2, for tests that run in a process of their own: its module reads where its tokens are from the
//! environment.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot begin fails

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use crate::keys::pkcs11::{PinSource, Settings};

/// Its user's PIN.
pub const PIN: &str = "471147";
/// Its label.
pub const TOKEN: &str = "callvault tests";
/// Where SoftHSM's module may be.
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// SoftHSM's module, where it is installed.
pub fn module() -> Option<&'static str> {
    MODULES.iter().copied().find(|path| Path::new(path).exists())
}

/// Runs ignored tests whose names begin so, beside a token that is theirs alone; `None` without SoftHSM.
///
/// # Panics
/// If there is a module and no token can be made.
pub fn beside_a_token(tests: &str) -> Option<Output> {
    if module().is_none() {
        println!("skipped: SoftHSM 2 is not installed; apt-get install softhsm2");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let configuration = dir.path().join("softhsm2.conf");
    let tokens = dir.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    fs::write(&configuration, text).unwrap();
    let made = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            TOKEN,
            "--pin",
            PIN,
            "--so-pin",
            "00000000",
        ])
        .env("SOFTHSM2_CONF", &configuration)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let ran = Command::new(env::current_exe().unwrap())
        // One after the other: a login, and a module's faults, are a whole process's.
        .args(["--ignored", "--nocapture", "--test-threads=1", tests])
        .env("SOFTHSM2_CONF", &configuration)
        .env("CALLVAULT_TEST_PIN", PIN)
        .output();
    Some(ran.unwrap())
}

/// All of at least so many tests passed, and none told the PIN.
///
/// # Panics
/// Otherwise.
pub fn assert_all_passed(ran: &Output, least: usize) {
    let text = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{text}\n{errors}");
    let passed = text
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "));
    let passed = passed.and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    assert!(passed >= Some(least), "{text}");
    assert!(!text.contains(PIN) && !errors.contains(PIN), "the PIN is told");
}

/// Writes a PIN into the file `pin` of a directory, as an operator would.
///
/// # Panics
/// If it cannot be written.
pub fn write_pin(dir: &Path, pin: &str) {
    let path = dir.join("pin");
    fs::write(&path, format!("{pin}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// How the token is reached; `dir` has the PIN.
pub fn settings(dir: &Path, name: &str) -> Settings {
    Settings {
        module: module().unwrap_or("/nowhere").into(),
        token: TOKEN.to_owned(),
        name: name.to_owned(),
        pin: PinSource::File(dir.join("pin")),
        patience: Duration::from_secs(30),
    }
}
