//! Where a token's PIN is. It is read when it is needed, and zeroised when it was used.

use std::{
    env, fmt,
    fs::File,
    io::{self, Read},
    mem,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use crate::keys::provider::ProviderError;

/// No token takes a longer one.
const LONGEST_PIN: usize = 255;

/// Where a token's PIN is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// A file that others cannot read; white space around the PIN is not part of it.
    File(PathBuf),
    /// A variable of the process's environment.
    Environment(String),
}

impl PinSource {
    /// The PIN, on its way to the token.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] with what to do; it names the source and never the PIN.
    pub(super) fn read(&self) -> Result<RawAuthPin, ProviderError> {
        let mut pin = self.bytes()?;
        Ok(RawAuthPin::new(Box::new(mem::take(&mut *pin))))
    }

    fn bytes(&self) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        let refused = |why: String| ProviderError::Refused(why);
        let whole = match self {
            Self::File(path) => read_file(path)
                .map_err(|error| refused(format!("the PIN cannot be read from {self}: {error}")))?,
            Self::Environment(name) => {
                let value = env::var_os(name);
                let value = value.ok_or_else(|| refused(format!("there is no PIN: set {self}")))?;
                Zeroizing::new(value.into_vec())
            }
        };
        let pin = whole.trim_ascii();
        if pin.is_empty() || pin.len() > LONGEST_PIN {
            let rule = format!("{self} holds no PIN: 1 to {LONGEST_PIN} bytes are one");
            return Err(refused(rule));
        }
        Ok(Zeroizing::new(pin.to_vec()))
    }
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
        }
    }
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o027 != 0 {
        return Err(io::Error::other(format!(
            "others may read or change it: chmod 0600 it (mode {:o})",
            mode & 0o777
        )));
    }
    // Room for all that may be read, so that nothing is copied when it grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * LONGEST_PIN));
    file.take(2 * LONGEST_PIN as u64 - 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(bytes: &[u8], mode: u32) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let pin = PinSource::File(path).bytes();
        pin.map(|pin| pin.to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pin_is_what_stands_between_white_space() {
        assert_eq!(read(b" 4711\n", 0o600).unwrap(), b"4711");
        assert_eq!(read(b"4711", 0o440).unwrap(), b"4711");
        for empty in [&b""[..], b"\n", &[b'1'; 256]] {
            assert!(read(empty, 0o600).unwrap_err().contains("holds no PIN"));
        }
    }

    #[test]
    fn a_pin_that_others_may_read_is_refused_and_the_file_named() {
        let refused = read(b"4711", 0o604).unwrap_err();
        assert!(
            refused.contains("chmod 0600") && refused.contains("/pin"),
            "{refused}"
        );
        assert!(!refused.contains("4711"));
        let missing = PinSource::File("/nowhere/pin".into()).read().unwrap_err();
        assert!(missing.to_string().contains("/nowhere/pin"));
        let unset = PinSource::Environment("CALLVAULT_NO_SUCH_PIN".to_owned()).read();
        assert!(unset.unwrap_err().to_string().contains("$CALLVAULT_NO_SUCH_PIN"));
    }
}
