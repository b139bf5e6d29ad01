//! A disk that fails when told.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use crate::spool::Disk;

/// What goes wrong with a disk, shared between a test and the disk. Clones are the same plan.
#[derive(Clone, Debug)]
pub struct DiskFaults(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    /// Bytes that the next write still takes; negative for all.
    cut: AtomicI64,
    syncs_to_fail: AtomicU64,
    full: AtomicBool,
    syncs: AtomicU64,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self(Arc::new(Plan {
            cut: AtomicI64::new(-1),
            syncs_to_fail: AtomicU64::new(0),
            full: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        }))
    }
}

impl DiskFaults {
    /// The next write stops for want of room after this many bytes.
    pub fn fail_next_write_after(&self, bytes: i64) {
        self.0.cut.store(bytes, Ordering::SeqCst);
    }

    /// The next sync fails, and what it was to make durable is in doubt.
    pub fn fail_next_sync(&self) {
        self.0.syncs_to_fail.store(1, Ordering::SeqCst);
    }

    /// From now on, or no longer, nothing fits.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::SeqCst)
    }

    fn room(&self) -> io::Result<()> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// Any disk, with faults.
#[derive(Debug)]
pub struct FaultyDisk<D> {
    disk: D,
    faults: DiskFaults,
}

impl<D: Disk> FaultyDisk<D> {
    /// Wraps a disk under a plan.
    pub fn sharing(disk: D, faults: &DiskFaults) -> Self {
        Self {
            disk,
            faults: faults.clone(),
        }
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.faults.room()?;
        self.disk.create(name, bytes)
    }

    fn write(&self, name: &str, writes: &[(u64, &[u8])], sync: bool) -> io::Result<()> {
        if !writes.is_empty() {
            self.faults.room()?;
        }
        for (offset, bytes) in writes {
            if let Ok(cut) = usize::try_from(self.faults.0.cut.swap(-1, Ordering::SeqCst)) {
                let cut = cut.min(bytes.len());
                self.disk.write(name, &[(*offset, &bytes[..cut])], false)?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.disk.write(name, &[(*offset, bytes)], false)?;
        }
        if !sync {
            return Ok(());
        }
        self.faults.0.syncs.fetch_add(1, Ordering::SeqCst);
        if self.faults.0.syncs_to_fail.swap(0, Ordering::SeqCst) > 0 {
            return Err(io::Error::other("injected"));
        }
        self.disk.write(name, &[], true)
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.read(name, offset, into)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.disk.length(name)
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.disk.truncate(name, length)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}
