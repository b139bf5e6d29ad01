//! The store over a real connection: against a bucket in memory, and against servers that misbehave.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that fails panics

pub(crate) mod bucket;
mod faults;
pub(crate) mod live;
mod opening;
mod versions;
pub(crate) mod wire;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use tempfile::TempDir;

use self::{
    bucket::{Bucket, Ways},
    wire::{Answer, Wire},
};
use super::*;
use crate::{
    blob::suite::{Capabilities, Subject},
    domain::clock::SystemClock,
    testing::rng::SeededRng,
};

/// S3 overwrites, and knows nothing of offsets.
const CAPABILITIES: Capabilities = Capabilities {
    no_overwrite: false,
    checks_offsets: false,
    lists_uploads: true,
    knows_uploads: true,
    part_bytes: bucket::SMALLEST_PART,
};

/// A store and what must outlive it.
pub(crate) struct Rig {
    pub(crate) store: S3Store,
    pub(crate) bucket: Bucket,
    pub(crate) keep: TempDir,
}

impl Rig {
    pub(crate) async fn new(ways: Ways) -> Self {
        let bucket = Bucket::new(ways);
        let keep = TempDir::new().unwrap();
        let settings = settings(&format!("http://{}", bucket.serve().await), &keep);
        let store = open(settings).await.unwrap();
        Self { store, bucket, keep }
    }

    fn subject(self) -> Subject {
        Subject::new(self.store, CAPABILITIES, "", (self.bucket, self.keep))
    }
}

async fn open(settings: Settings) -> Result<S3Store, OpenError> {
    S3Store::open(settings, &SystemClock, &SeededRng::new(1)).await
}

/// Settings for a test: impatient, with the bucket's own credentials in a file.
pub(crate) fn settings(endpoint: &str, keep: &TempDir) -> Settings {
    Settings {
        bucket: bucket::NAME.to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        ca_file: None,
        profile: None,
        credentials_file: Some(credentials(keep, bucket::ACCESS_KEY, bucket::SECRET_KEY)),
        checksum: Checksum::Crc32c,
        tags: BTreeMap::new(),
        patience: Patience {
            attempts: 3,
            backoff: Duration::from_millis(5),
            connect: Duration::from_secs(2),
            read: Duration::from_secs(5),
            operation: Duration::from_secs(20),
        },
    }
}

/// Writes a credentials file.
pub(crate) fn credentials(keep: &TempDir, access_key: &str, secret_key: &str) -> PathBuf {
    let path = keep.path().join("credentials");
    let text = format!("[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n");
    fs::write(&path, text).unwrap();
    path
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn body(length: usize) -> Bytes {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

mod promises {
    use super::*;

    async fn make() -> Subject {
        Rig::new(Ways::default()).await.subject()
    }

    crate::blob_store_suite!(make);
}

/// The same of a bucket that keeps versions.
mod promises_with_versions {
    use super::*;

    async fn make() -> Subject {
        let ways = Ways {
            versions: true,
            ..Ways::default()
        };
        Rig::new(ways).await.subject()
    }

    crate::blob_store_suite!(make);
}

/// The same over TLS, the bucket being a part of the host's name.
mod promises_as_a_host_over_tls {
    use super::*;

    async fn make() -> Subject {
        let as_host = |settings: &mut Settings| settings.path_style = false;
        let wire = Wire::over_tls_with(true, as_host, |_, _| Answer::Forward).await;
        let Wire {
            store, bucket, keep, ..
        } = wire.unwrap();
        Subject::new(store, CAPABILITIES, "", (bucket, keep))
    }

    crate::blob_store_suite!(make);
}

#[tokio::test]
async fn both_styles_of_address_name_the_bucket() {
    let keep = TempDir::new().unwrap();
    for (path_style, url) in [
        (true, "https://s3.example.com/calls/a/b?"),
        (false, "https://calls.s3.example.com/a/b?"),
    ] {
        let mut settings = settings("https://s3.example.com", &keep);
        settings.path_style = path_style;
        let session = Session::open(Arc::new(settings)).await.unwrap();
        let signed = session.address("calls", "a/b").await;
        assert!(signed.starts_with(url), "{signed}");
    }
}
