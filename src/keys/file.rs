//! The root in a directory: one file per epoch, and the anchor.
//!
//! The directory lies outside the data directory and belongs in no backup of it: whoever holds both holds the vault.
//!
//! ```text
//! epoch-<n>.key   "CVE1" | vault id (16) | epoch u64be | provider key (32) | wrapped epoch key (60) | CRC-32C u32be
//! anchor          as `anchor` has it
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::{
    crypto::{aead, context, secret::EpochKey, secret::Secret},
    domain::clock::Rng,
};

use super::{
    anchor::{self, checked},
    provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider},
};

const EPOCH_MAGIC: &[u8; 4] = b"CVE1";
const WRAPPED_LEN: usize = 60;
const EPOCH_LEN: usize = 4 + 16 + 8 + 32 + WRAPPED_LEN + 4;

/// A root provider over a directory that only its owner may enter.
#[derive(Debug)]
pub struct FileRoot {
    dir: PathBuf,
    rng: Arc<dyn Rng>,
    /// Of two that make an epoch at once, the second finds the first's.
    making: Mutex<()>,
}

impl FileRoot {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] if it cannot be made, or others may enter it.
    pub fn open(dir: &Path, rng: Arc<dyn Rng>) -> Result<Self, ProviderError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(unavailable)?;
        let mode = fs::metadata(dir).map_err(unavailable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(unavailable(io::Error::other(format!(
                "the root directory must be its owner's alone: chmod 0700 it (mode {:o})",
                mode & 0o777
            ))));
        }
        Ok(Self {
            dir: dir.to_owned(),
            rng,
            making: Mutex::new(()),
        })
    }

    fn epoch_path(&self, epoch: u64) -> PathBuf {
        self.dir.join(format!("epoch-{epoch:08}.key"))
    }

    fn read_epoch(&self, label: EpochLabel) -> Result<Option<EpochFile>, ProviderError> {
        match read_secret(&self.epoch_path(label.epoch)) {
            Ok(bytes) => EpochFile::decode(label, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn new_epoch(&self, label: EpochLabel) -> Result<EpochFile, ProviderError> {
        let failed = |_| ProviderError::Corrupt;
        let provider_key = Secret::<32>::generate(&*self.rng).map_err(failed)?;
        let epoch_key = EpochKey::generate(&*self.rng).map_err(failed)?;
        let aad = context::epoch_key(&label.vault, label.epoch);
        let wrapped = aead::wrap(&provider_key, epoch_key.expose(), &aad, &*self.rng).map_err(failed)?;
        let file = EpochFile {
            provider_key,
            wrapped,
        };
        self.write(&self.epoch_path(label.epoch), &file.encode(label))?;
        Ok(file)
    }

    /// Writes a file whole: beside, then in place, then the directory.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ProviderError> {
        let beside = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(unavailable)
    }
}

#[async_trait]
impl RootProvider for FileRoot {
    fn kind(&self) -> &'static str {
        "file"
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match self.read_epoch(label)? {
            Some(made_before) => made_before,
            None => self.new_epoch(label)?,
        };
        Ok(EpochGrant {
            handle: format!("epoch-{:08}", label.epoch),
            wrapped: file.wrapped,
        })
    }

    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
        let file = self.read_epoch(label)?.ok_or(ProviderError::NoSuchKey)?;
        let aad = context::epoch_key(&label.vault, label.epoch);
        let opened =
            aead::unwrap_to(&file.provider_key, &grant.wrapped, &aad).map_err(|_| ProviderError::Corrupt)?;
        EpochKey::from_slice(opened.expose()).map_err(|_| ProviderError::Corrupt)
    }

    /// Overwrites the file, then removes it. A solid-state disk may keep the old blocks until it erases them.
    async fn destroy(&self, label: EpochLabel, _handle: &str) -> Result<Destruction, ProviderError> {
        // What is damaged may be destroyed; what is another vault's may not.
        if let Err(ProviderError::NoSuchKey) = self.read_epoch(label) {
            return Err(ProviderError::NoSuchKey);
        }
        let path = self.epoch_path(label.epoch);
        let destroy = || -> io::Result<()> {
            let mut file = match OpenOptions::new().write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            let length = usize::try_from(file.metadata()?.len()).unwrap_or(EPOCH_LEN);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&vec![0; length])?;
            file.sync_all()?;
            fs::remove_file(&path)?;
            File::open(&self.dir)?.sync_all()
        };
        destroy().map_err(unavailable)?;
        Ok(Destruction::Destroyed)
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        _handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        let found = self.epoch_path(label.epoch).try_exists().map_err(unavailable)?;
        Ok((!found).then_some(Destruction::Destroyed))
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        match read_secret(&self.dir.join("anchor")) {
            Ok(bytes) => anchor::decode(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        self.write(&self.dir.join("anchor"), &anchor::encode(anchor))
    }
}

struct EpochFile {
    provider_key: Secret<32>,
    wrapped: Vec<u8>,
}

impl EpochFile {
    fn encode(&self, label: EpochLabel) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(EPOCH_LEN));
        out.extend_from_slice(EPOCH_MAGIC);
        out.extend_from_slice(label.vault.as_bytes());
        out.extend_from_slice(&label.epoch.to_be_bytes());
        out.extend_from_slice(self.provider_key.expose());
        out.extend_from_slice(&self.wrapped);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    fn decode(label: EpochLabel, bytes: &[u8]) -> Result<Self, ProviderError> {
        let body = checked(bytes, EPOCH_MAGIC)?;
        if bytes.len() != EPOCH_LEN {
            return Err(ProviderError::Corrupt);
        }
        let (vault, body) = body.split_at(16);
        let (epoch, body) = body.split_at(8);
        let (key, wrapped) = body.split_at(32);
        if vault != label.vault.as_bytes() || epoch != label.epoch.to_be_bytes() {
            return Err(ProviderError::NoSuchKey);
        }
        let provider_key = Secret::from_slice(key).map_err(|_| ProviderError::Corrupt)?;
        Ok(Self {
            provider_key,
            wrapped: wrapped.to_vec(),
        })
    }
}

/// Reads a file that only its owner may read.
fn read_secret(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other(
            "a root file must be its owner's alone: chmod 0600 it",
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0)));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unavailable(error: io::Error) -> ProviderError {
    ProviderError::Unavailable(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;

    mod promises {
        use super::*;
        use crate::keys::suite::Subject;

        async fn make() -> Subject {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("root");
            let open = move || {
                let path = path.clone();
                async move { FileRoot::open(&path, Arc::new(SystemRng::new())).unwrap() }
            };
            Subject::new(open, dir).await
        }

        crate::root_provider_suite!(make);
    }

    #[tokio::test]
    async fn a_damaged_epoch_is_corrupt_and_may_be_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let root = FileRoot::open(&dir.path().join("root"), Arc::new(SystemRng::new())).unwrap();
        let label = EpochLabel {
            vault: crate::domain::ids::VaultId::mint(crate::domain::clock::Timestamp(1), &SystemRng::new())
                .unwrap(),
            epoch: 1,
        };
        let grant = root.create_epoch(label).await.unwrap();
        let path = root.epoch_path(1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let refused = root.unwrap(label, &grant).await.unwrap_err();
        assert!(matches!(refused, ProviderError::Corrupt), "{refused}");
        let destroyed = root.destroy(label, &grant.handle).await.unwrap();
        assert_eq!(destroyed, Destruction::Destroyed);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_damaged_anchor_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let root = FileRoot::open(&dir.path().join("root"), Arc::new(SystemRng::new())).unwrap();
        root.write(&dir.path().join("root/anchor"), b"CVA1 and no anchor")
            .unwrap();
        assert!(matches!(root.anchor().await, Err(ProviderError::Corrupt)));
    }
}
