//! The one place where the spool touches a disk.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// A directory of flat files. Every call blocks: off the async threads.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a file that must not exist.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Writes at offsets of a file, in order, and then makes its content durable if asked.
    ///
    /// # Errors
    /// As the system says; any part may have been written.
    fn write(&self, name: &str, writes: &[(u64, &[u8])], sync: bool) -> io::Result<()>;

    /// Reads from an offset until `into` is full or the file ends; returns how many bytes.
    ///
    /// # Errors
    /// As the system says.
    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// As the system says.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// Cuts a file.
    ///
    /// # Errors
    /// As the system says.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All files.
    ///
    /// # Errors
    /// As the system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_names(&self) -> io::Result<()>;
}

/// A directory of the file system. Files are opened for each call, so that thousands of uploads hold no handles.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Opens a directory, made (0700) if need be.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }

    fn file(&self, name: &str, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        options.mode(0o600).custom_flags(nofollow).open(self.0.join(name))
    }
}

impl Disk for Directory {
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name, fs::OpenOptions::new().write(true).create_new(true))?;
        file.write_all_at(bytes, 0)
    }

    fn write(&self, name: &str, writes: &[(u64, &[u8])], sync: bool) -> io::Result<()> {
        let file = self.file(name, fs::OpenOptions::new().write(true))?;
        for (offset, bytes) in writes {
            file.write_all_at(bytes, *offset)?;
        }
        if sync { file.sync_data() } else { Ok(()) }
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name, fs::OpenOptions::new().read(true))?;
        let mut have = 0;
        while have < into.len() {
            match file.read_at(&mut into[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::symlink_metadata(self.0.join(name))?.len())
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.file(name, fs::OpenOptions::new().write(true))?
            .set_len(length)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }
}
