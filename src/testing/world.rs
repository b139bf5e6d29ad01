//! A vault and all that it stands on, to be closed, killed, robbed of its index and opened again.
//!
//! ```text
//! <root>/bucket     the local store, behind a plan of faults
//! <root>/root       the file root
//! <root>/index      sled, or nothing when the index is kept in memory
//! <root>/spool      unfinished uploads, behind another plan of faults
//! <root>/recovery   the recovery store, behind a third plan of faults, if the world has one
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    blob::{
        local::LocalStore,
        patient::{Patience, Patient},
    },
    domain::{
        clock::{Clock, Rng},
        ids::{IndexId, RegionName},
    },
    index::{
        Index, IndexError,
        memory::MemoryIndex,
        sled::{SledIndex, SledOptions},
    },
    keys::{file::FileRoot, providers::Providers},
    spool::{Directory, SpoolError},
    vault::{Error, OpenError, Opened, Replayed, UploadSettings, Vault, VaultSettings},
};

use super::{
    clock::TestClock,
    disk::{DiskFaults, FaultyDisk},
    faulty::{Faults, FaultyStore},
    rng::SeededRng,
};

/// Which index a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// In memory: quick, and as durable as the [`World`].
    Memory,
    /// sled in a directory.
    Sled,
}

/// An index as it once was.
#[derive(Debug)]
pub enum Snapshot {
    /// Of an index in memory.
    Memory(MemoryIndex),
    /// Of sled's directory.
    Directory(PathBuf),
}

/// A vault with its store, index, root, time and randomness. Everything but the process outlives a restart.
#[derive(Debug)]
pub struct World {
    root: PathBuf,
    engine: Engine,
    memory: MemoryIndex,
    snapshots: u32,
    /// What the vault is opened with.
    pub settings: VaultSettings,
    /// Its time.
    pub clock: TestClock,
    /// Its randomness.
    pub rng: SeededRng,
    /// What goes wrong with its store.
    pub faults: Faults,
    /// Whether it has a recovery store, from the next start on.
    pub has_recovery: bool,
    /// What goes wrong with that.
    pub recovery_faults: Faults,
    /// What goes wrong with the disk of its spool.
    pub disk_faults: DiskFaults,
    /// Who holds its root from the next start on; a directory, unless somebody says otherwise.
    pub roots: Option<Providers>,
    /// How long the vault waits for its store from the next start on; it pauses less than in life.
    pub patience: Patience,
    opened: Option<Opened>,
}

impl World {
    /// A world in `root` that has no vault yet. Worlds of different seeds have different vaults.
    ///
    /// # Errors
    /// Without randomness, or if the fixed names do not parse: never.
    pub fn new(root: &Path, engine: Engine, seed: u64) -> Result<Self, OpenError> {
        let (clock, rng) = (TestClock::default(), SeededRng::new(seed));
        let disk_faults = DiskFaults::default();
        let disk = Directory::open(&root.join("spool")).map_err(SpoolError::from);
        let disk = FaultyDisk::sharing(disk.map_err(Error::from)?, &disk_faults);
        let region = "test-1".parse::<RegionName>();
        let settings = VaultSettings {
            region: region.map_err(|e| Error::invalid("region", e.rule))?,
            country: "MX".to_owned(),
            node: 1,
            memory_budget: 128 << 20,
            tenant_share_percent: crate::domain::limits::TENANT_SHARE_PERCENT,
            index_id: IndexId::mint(clock.now(), &rng)?,
            take_over: false,
            uploads: UploadSettings::new(Arc::new(disk)),
            recovery: None,
        };
        Ok(Self {
            root: root.to_owned(),
            engine,
            memory: MemoryIndex::new(),
            snapshots: 0,
            settings,
            clock,
            rng,
            faults: Faults::default(),
            has_recovery: false,
            recovery_faults: Faults::default(),
            disk_faults,
            roots: None,
            patience: Patience {
                pause: Duration::from_millis(1),
                ..Patience::default()
            },
            opened: None,
        })
    }

    /// Opens the vault, or makes it the first time. What a crash left running may hold the index for a moment: it waits.
    ///
    /// # Errors
    /// [`OpenError`] as the vault says.
    pub async fn open(&mut self) -> Result<Option<Replayed>, OpenError> {
        let index = self.index().await?;
        self.open_over(index).await
    }

    /// Opens the vault over an index of the caller's.
    ///
    /// # Errors
    /// [`OpenError`] as the vault says.
    pub async fn open_over(&mut self, index: Arc<dyn Index>) -> Result<Option<Replayed>, OpenError> {
        let store = FaultyStore::sharing(self.bucket().await?, &self.faults);
        let roots = match &self.roots {
            Some(roots) => roots.clone(),
            None => Providers::one(Arc::new(self.root_provider()?)),
        };
        let mut settings = self.settings.clone();
        if self.has_recovery {
            let copies = FaultyStore::sharing(self.recovery().await?, &self.recovery_faults);
            settings.recovery = Some(Arc::new(Patient::new(Arc::new(copies), self.patience)));
        }
        let opened = Vault::open(
            settings,
            Arc::new(Patient::new(Arc::new(store), self.patience)),
            index,
            roots,
            self.arc_clock(),
            self.arc_rng(),
        )
        .await?;
        let replayed = opened.replayed.clone();
        self.opened = Some(opened);
        Ok(replayed)
    }

    /// The directory's root provider, as the vault has it unless [`World::roots`] says otherwise.
    ///
    /// # Errors
    /// As the file system says.
    pub fn root_provider(&self) -> Result<FileRoot, OpenError> {
        Ok(FileRoot::open(&self.root_path(), self.arc_rng())?)
    }

    /// The bucket without its faults, to look into or to damage.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn bucket(&self) -> Result<LocalStore, OpenError> {
        Ok(LocalStore::open(&self.bucket_path(), self.arc_clock(), self.arc_rng()).await?)
    }

    /// The recovery store without its faults.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn recovery(&self) -> Result<LocalStore, OpenError> {
        Ok(LocalStore::open(&self.recovery_path(), self.arc_clock(), self.arc_rng()).await?)
    }

    /// The open vault.
    ///
    /// # Panics
    /// If it is closed.
    #[allow(clippy::panic)] // a test that asks for a closed vault is wrong
    pub fn vault(&self) -> &Arc<Vault> {
        match &self.opened {
            Some(opened) => &opened.vault,
            None => panic!("the world's vault is closed"),
        }
    }

    /// Ships what is queued and stops.
    pub async fn close(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.close().await;
        }
    }

    /// Stops at once: what is queued stays queued.
    pub async fn crash(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.crash().await;
        }
    }

    /// Destroys the index of a closed vault. The next one has the same id.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn lose_index(&mut self) -> io::Result<()> {
        self.memory = MemoryIndex::new();
        self.await_index().await;
        match fs::remove_dir_all(self.index_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies the index of a closed vault.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn snapshot_index(&mut self) -> io::Result<Snapshot> {
        if self.engine == Engine::Memory {
            return Ok(Snapshot::Memory(self.memory.snapshot()));
        }
        self.await_index().await;
        self.snapshots += 1;
        let to = self.root.join(format!("index-{}", self.snapshots));
        copy(&self.index_path(), &to)?;
        Ok(Snapshot::Directory(to))
    }

    /// Puts an older index of a closed vault back.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn restore_index(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.lose_index().await?;
        match snapshot {
            Snapshot::Memory(index) => self.memory = index.snapshot(),
            Snapshot::Directory(from) => copy(from, &self.index_path())?,
        }
        Ok(())
    }

    /// Where the bucket lies.
    pub fn bucket_path(&self) -> PathBuf {
        self.root.join("bucket")
    }

    /// Where the recovery store lies.
    pub fn recovery_path(&self) -> PathBuf {
        self.root.join("recovery")
    }

    /// Where the file root lies.
    pub fn root_path(&self) -> PathBuf {
        self.root.join("root")
    }

    /// Where unfinished uploads lie.
    pub fn spool_path(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Where sled lies.
    pub fn index_path(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The index in memory, if that is where it is.
    pub fn memory_index(&self) -> &MemoryIndex {
        &self.memory
    }

    /// The index, opened.
    ///
    /// # Errors
    /// [`OpenError`] as the engine says.
    pub async fn index(&self) -> Result<Arc<dyn Index>, OpenError> {
        if self.engine == Engine::Memory {
            return Ok(Arc::new(self.memory.clone()));
        }
        Ok(Arc::new(self.sled().await?))
    }

    async fn sled(&self) -> Result<SledIndex, IndexError> {
        let options = SledOptions {
            cache_bytes: 16 << 20,
        };
        for _ in 0..1_000 {
            match SledIndex::open(&self.index_path(), options) {
                Err(IndexError::Locked) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => return other,
            }
        }
        Err(IndexError::Locked)
    }

    /// Waits until nobody holds the index.
    async fn await_index(&self) {
        if self.engine == Engine::Sled && self.index_path().exists() {
            drop(self.sled().await);
        }
    }

    fn arc_clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn arc_rng(&self) -> Arc<dyn Rng> {
        Arc::new(self.rng.clone())
    }
}

/// Copies a directory and what is in it, modes included.
///
/// # Errors
/// As the file system says.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
