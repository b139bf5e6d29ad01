//! Looks for plaintext where there must be none: in every file below a directory, and in its name.

use std::{fs, io, path::Path};

use memchr::memmem::Finder;

/// Bytes that must not be found.
#[derive(Debug)]
pub(super) struct Secrets(Vec<(String, Finder<'static>)>);

/// What a search saw.
#[derive(Debug, Default)]
pub(super) struct Searched {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// `what in file`.
    pub(super) found: Vec<String>,
}

impl Secrets {
    /// From pairs of a name and the bytes. What is shorter than 4 bytes would be found by chance.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = (String, &'a [u8])>) -> Self {
        let long = secrets.into_iter().filter(|(_, bytes)| bytes.len() >= 4);
        Self(
            long.map(|(name, bytes)| (name, Finder::new(bytes).into_owned()))
                .collect(),
        )
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads everything below `dir`. Blocks.
    ///
    /// # Errors
    /// [`io::Error`] if something cannot be read: it might be in there.
    pub(super) fn search(&self, dir: &Path) -> io::Result<Searched> {
        let mut searched = Searched::default();
        self.search_below(dir, &mut searched)?;
        Ok(searched)
    }

    fn search_below(&self, dir: &Path, searched: &mut Searched) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            self.look(name.as_encoded_bytes(), "the name of", &path, searched);
            if entry.file_type()?.is_dir() {
                self.search_below(&path, searched)?;
                continue;
            }
            let bytes = fs::read(&path)?;
            self.look(&bytes, "", &path, searched);
            searched.files += 1;
            searched.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn look(&self, bytes: &[u8], part: &str, path: &Path, searched: &mut Searched) {
        for (name, finder) in &self.0 {
            if finder.find(bytes).is_some() {
                searched
                    .found
                    .push(format!("{name} in {part} {}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_in_content_and_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), b"....secret....").unwrap();
        fs::write(dir.path().join("a-secret-name"), b"").unwrap();
        let secrets = Secrets::new([("it".to_owned(), &b"secret"[..]), ("short".to_owned(), b"..")]);
        let searched = secrets.search(dir.path()).unwrap();
        assert_eq!(
            (
                secrets.len(),
                searched.files,
                searched.bytes,
                searched.found.len()
            ),
            (1, 2, 14, 2)
        );
    }
}
