//! Tests only: writes down every secret as it is made, so that a test may look for it where none may be. Keeps none in memory.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, OnceLock},
};

/// Shorter ones may be anywhere by chance.
const SHORTEST: usize = 16;

static NOTES: OnceLock<Mutex<File>> = OnceLock::new();

/// Writes every secret that this process makes from now on into a file: a byte of length, then the secret.
pub(crate) fn write_into(path: &Path) {
    NOTES.set(Mutex::new(File::create_new(path).unwrap())).unwrap();
}

pub(super) fn note(secret: &[u8]) {
    let Some(notes) = NOTES.get() else { return };
    if secret.len() >= SHORTEST {
        let length = u8::try_from(secret.len()).unwrap();
        let mut notes = notes.lock().unwrap();
        notes.write_all(&[length]).unwrap();
        notes.write_all(secret).unwrap();
    }
}
