//! A bearer token from a file that somebody else keeps fresh.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tonic::{
    Status,
    metadata::{Ascii, MetadataValue},
};

/// How long a token is used before the file is read again: a call that is refused for an old one is repeated after about that long.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// When the file was read, and what the header is since.
type Read = (Instant, MetadataValue<Ascii>);

/// The token that a file has now. Clones share what was read.
#[derive(Clone, Debug)]
pub(super) struct TokenFile {
    path: Arc<PathBuf>,
    read: Arc<Mutex<Option<Read>>>,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
            read: Arc::default(),
        }
    }

    /// The value of the metadata key `authorization`. Reads the file, of a few kilobytes, every second.
    ///
    /// # Errors
    /// UNAUTHENTICATED if there is no file with a token; what it has is never told.
    pub(super) fn header(&self) -> Result<MetadataValue<Ascii>, Status> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, header)) = &*read
            && at.elapsed() < READ_AGAIN
        {
            return Ok(header.clone());
        }
        let unusable = || {
            Status::unauthenticated(format!(
                "the token file cannot be read, or has no token path={}",
                self.path.display()
            ))
        };
        let text = fs::read_to_string(&*self.path).unwrap_or_default();
        let token = text.trim();
        if token.is_empty() {
            // Somebody is replacing it: the one before counts until the server says otherwise.
            let before = read.as_ref().map(|(_, header)| header.clone());
            return before.ok_or_else(unusable);
        }
        let mut header: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| unusable())?;
        header.set_sensitive(true);
        *read = Some((Instant::now(), header.clone()));
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_the_file_says_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let file = TokenFile::new(path.clone());
        assert!(file.header().unwrap_err().message().contains("token"));
        fs::write(&path, "\n").unwrap();
        file.header().unwrap_err();
        fs::write(&path, "secret\nsecret").unwrap();
        assert!(!file.header().unwrap_err().message().contains("secret"));
        fs::write(&path, "secret\n").unwrap();
        assert_eq!(file.header().unwrap(), "Bearer secret");
        assert!(!format!("{file:?}").contains("secret"));
    }
}
