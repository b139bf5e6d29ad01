//! What the benches of the whole service share: processes, a place for them, a bucket, services that only mirror, and load.
#![allow(dead_code)] // each bench uses some of it

pub(crate) mod bare;
pub(crate) mod bucket;
pub(crate) mod parts;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod recordings;

use std::{error::Error, path::PathBuf, time::Duration};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const MIB: u64 = 1 << 20;

/// What this program was told, without what cargo adds.
pub(crate) fn arguments() -> Vec<String> {
    std::env::args().skip(1).filter(|a| a != "--bench").collect()
}

/// What this program is when it was started again, to be a server in a process of its own.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Takes and gives messages, and does nothing with them.
    Bare { home: PathBuf },
    /// Does what nobody can do without: receives, seals once, sends to the bucket; and back.
    Parts { home: PathBuf, bucket: String },
    /// A bucket in memory that takes so long for a PUT.
    Bucket { home: PathBuf, pause: Duration },
}

impl Role {
    pub(crate) fn parse(arguments: &[String]) -> Option<Self> {
        match arguments {
            [role, home] if role == "serve-bare" => Some(Self::Bare { home: home.into() }),
            [role, home, bucket] if role == "serve-parts" => Some(Self::Parts {
                home: home.into(),
                bucket: bucket.clone(),
            }),
            [role, home, millis] if role == "serve-bucket" => Some(Self::Bucket {
                home: home.into(),
                pause: Duration::from_millis(millis.parse().ok()?),
            }),
            _ => None,
        }
    }

    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Bare { home } => bare::serve(&home, bare::Discard).await,
            Self::Parts { home, bucket } => {
                let parts = parts::Parts::open(&home, &bucket).await?;
                bare::serve(&home, parts).await
            }
            Self::Bucket { home, pause } => bucket::serve(&home, pause).await,
        }
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let home = |home: &PathBuf| home.display().to_string();
        match self {
            Self::Bare { home: dir } => vec!["serve-bare".to_owned(), home(dir)],
            Self::Parts { home: dir, bucket } => {
                vec!["serve-parts".to_owned(), home(dir), bucket.clone()]
            }
            Self::Bucket { home: dir, pause } => {
                let millis = pause.as_millis().to_string();
                vec!["serve-bucket".to_owned(), home(dir), millis]
            }
        }
    }
}
