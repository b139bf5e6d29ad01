//! One process has a vault open at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::AppError;

const LOCK: &str = "lock";

/// Held as long as the vault is open; the kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(super) struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock of a data directory, which is made (0700) if need be.
    ///
    /// # Errors
    /// [`AppError::InUse`] if somebody holds it; [`AppError::File`].
    pub(super) fn take(data: &Path) -> Result<Self, AppError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)
            .map_err(AppError::file(data))?;
        let path = data.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(AppError::file(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(AppError::InUse {
                    data: data.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(error) => return Err(AppError::file(path)(error.into())),
        }
        // For people who ask who it is; nothing depends on it.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// The number that the holder left.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file
        .take(32)
        .read_to_string(&mut text)
        .map(|_| text.trim().parse::<u32>())
    {
        Ok(Ok(pid)) => format!(" (pid {pid})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let data = tempfile::tempdir().unwrap();
        let first = DataLock::take(data.path()).unwrap();
        let refused = DataLock::take(data.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("(pid {})", std::process::id())),
            "{refused}"
        );
        drop(first);
        DataLock::take(data.path()).unwrap();
    }
}
