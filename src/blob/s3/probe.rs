//! What a bucket can do, tried once at the opening, below `probe/`.
//!
//! A vault needs objects, ranges, listings, parts and removals. Everything else is a second line of defence: it is said once
//! that it is missing, and the vault goes on. Nothing in a bucket is believed because of what is found here.

use std::fmt;

use bytes::Bytes;

use super::{Checksum, OpenError, S3Store, refusal::Refusal};
use crate::{
    blob::store::{BlobStore, ByteRange, ObjectKey, StoreError},
    domain::clock::{Clock, Rng},
};

const PREFIX: &str = "probe/";
/// What a probe that was cut short left behind is removed after an hour.
const LEFTOVER_MICROS: i64 = 3_600_000_000;
const BODY: &[u8] = b"callvault tries what this bucket can do";

/// Whether a store can do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ability {
    /// It was tried and works.
    Yes,
    /// It was tried and does not.
    No,
    /// The store does not let us ask.
    #[default]
    Unknown,
}

/// What a bucket can do beyond what a vault needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It keeps the versions of what is overwritten or removed.
    pub keeps_versions: bool,
    /// It refuses a body that differs from its CRC-32C.
    pub checks_crc32c: Ability,
    /// Objects carry tags.
    pub tags: Ability,
    /// Removal may be forbidden for a time.
    pub object_lock: Ability,
    /// A write may be refused where something lies already.
    pub conditional_writes: Ability,
    /// Uploads under way can be listed.
    pub lists_uploads: Ability,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}

/// A line for each, for people.
impl fmt::Display for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeps = if self.keeps_versions { "yes" } else { "no" };
        writeln!(f, "the bucket can hold a vault; beyond what it needs:")?;
        writeln!(f, "  keeps versions      {keeps}")?;
        writeln!(f, "  checks CRC-32C      {}", self.checks_crc32c)?;
        writeln!(f, "  tags                {}", self.tags)?;
        writeln!(f, "  object lock         {}", self.object_lock)?;
        writeln!(f, "  conditional writes  {}", self.conditional_writes)?;
        write!(f, "  lists uploads       {}", self.lists_uploads)
    }
}

impl S3Store {
    pub(super) async fn probe(&mut self, clock: &dyn Clock, rng: &dyn Rng) -> Result<(), OpenError> {
        let mut name = [0; 16];
        rng.fill(&mut name).map_err(|error| {
            unusable(
                "nothing can be named without randomness",
                "see to the machine",
                &error,
            )
        })?;
        let name = format!("{PREFIX}{}", hex::encode(name));
        let tried = self.try_everything(&name).await;
        // Whatever came of it, nothing stays: neither this probe's objects nor those of one that was cut short.
        let cleared = self.clear(&name, clock).await;
        tried?;
        self.check_removal(cleared)?;
        self.tell();
        Ok(())
    }

    async fn try_everything(&mut self, name: &str) -> Result<(), OpenError> {
        let object = key(&format!("{name}/object"))?;
        self.try_objects(&object).await?;
        self.try_parts(&key(&format!("{name}/parts"))?).await?;
        self.abilities.checks_crc32c = self.try_wrong_checksum(&key(&format!("{name}/checksum"))?).await;
        self.abilities.conditional_writes = self.try_condition(&object).await;
        self.abilities.tags = self.try_tags(&object).await;
        self.abilities.object_lock = self.try_lock().await;
        self.abilities.lists_uploads = ability(self.uploads(name).await.map(drop).map_err(|e| e.to_string()));
        if self.abilities.keeps_versions {
            self.versions(&object, None, None).await.map_err(|error| {
                unusable(
                    "it keeps versions, and does not list them",
                    "grant s3:ListBucketVersions and s3:DeleteObjectVersion, or what is purged would stay",
                    &error,
                )
            })?;
        }
        Ok(())
    }

    async fn try_objects(&mut self, object: &ObjectKey) -> Result<(), OpenError> {
        if let Err(error) = self.write(object, Bytes::from_static(BODY)).await {
            // Tags are no reason to refuse a store, nor a permission that only they need.
            if self.tagging.take().is_none() {
                return Err(unwritable(self.settings.checksum, &error));
            }
            self.write(object, Bytes::from_static(BODY))
                .await
                .map_err(|error| unwritable(self.settings.checksum, &error))?;
        }
        let length = BODY.len() as u64;
        for (range, from) in [
            (ByteRange::Full, 0),
            (
                ByteRange::Exact {
                    offset: 5,
                    length: length - 5,
                },
                5,
            ),
            (ByteRange::Suffix { length: 7 }, BODY.len() - 7),
        ] {
            let advice = "grant s3:GetObject on the bucket's objects, or use a store that knows byte ranges";
            let read = self
                .get(object, range)
                .await
                .map_err(|error| failed("what was written cannot be read", advice, error))?;
            if read.bytes != BODY[from..] || read.object_length != length {
                let cause = "other bytes came back";
                return Err(unusable("what was written cannot be read", advice, &cause));
            }
        }
        let info = self.head(object).await.map_err(|error| {
            failed(
                "an object cannot be looked at",
                "grant s3:GetObject on the bucket's objects",
                error,
            )
        })?;
        self.abilities.keeps_versions = !info.version.0.is_empty();
        let advice = "grant s3:ListBucket on the bucket";
        let listing = self
            .list(object.as_str(), false, None, 10)
            .await
            .map_err(|error| failed("objects cannot be listed", advice, error))?;
        match listing.objects.as_slice() {
            [one] if one.key == *object && one.length == length => Ok(()),
            _ => Err(unusable(
                "objects cannot be listed",
                "use a store whose listings show at once what was written",
                &"the object is not in the listing",
            )),
        }
    }

    async fn try_parts(&self, object: &ObjectKey) -> Result<(), OpenError> {
        let advice = "grant s3:PutObject and s3:AbortMultipartUpload on the bucket's objects";
        let refuse = |error| failed("an object cannot be written in parts", advice, error);
        let dropped = self.begin(object).await.map_err(refuse)?;
        self.abort(object, &dropped).await.map_err(refuse)?;
        let upload = self.begin(object).await.map_err(refuse)?;
        let part = self
            .put_part(object, &upload, 1, 0, Bytes::from_static(BODY))
            .await
            .map_err(refuse)?;
        self.complete(object, &upload, &[part]).await.map_err(refuse)?;
        let read = self.get(object, ByteRange::Full).await.map_err(refuse)?;
        if read.bytes == BODY {
            return Ok(());
        }
        Err(refuse(StoreError::Protocol("other bytes came back")))
    }

    /// Whether a body that differs from its checksum is refused.
    async fn try_wrong_checksum(&self, object: &ObjectKey) -> Ability {
        let Some(wrong) = self.crc32c(b"something else") else {
            return Ability::Unknown;
        };
        let answer = self
            .session
            .send("PutObject", |client| {
                client
                    .put_object()
                    .bucket(&self.settings.bucket)
                    .key(object.as_str())
                    .body(Bytes::from_static(BODY).into())
                    .checksum_crc32_c(&wrong)
                    .send()
            })
            .await;
        if answer.is_err() {
            Ability::Yes
        } else {
            Ability::No
        }
    }

    /// Whether a write that must not replace is refused where something lies.
    async fn try_condition(&self, object: &ObjectKey) -> Ability {
        let crc32c = self.crc32c(BODY);
        let answer = self
            .session
            .send("PutObject", |client| {
                client
                    .put_object()
                    .bucket(&self.settings.bucket)
                    .key(object.as_str())
                    .body(Bytes::from_static(BODY).into())
                    .set_checksum_crc32_c(crc32c.clone())
                    .if_none_match("*")
                    .send()
            })
            .await;
        match answer {
            Err(refusal) if refusal.code() == Some("PreconditionFailed") => Ability::Yes,
            _ => Ability::No,
        }
    }

    /// Whether the tags that were asked for are there.
    async fn try_tags(&mut self, object: &ObjectKey) -> Ability {
        if self.settings.tags.is_empty() {
            return Ability::Unknown;
        }
        let answer = self
            .session
            .send("GetObjectTagging", |client| {
                client
                    .get_object_tagging()
                    .bucket(&self.settings.bucket)
                    .key(object.as_str())
                    .send()
            })
            .await;
        match answer {
            Ok(answer) if answer.tag_set.len() == self.settings.tags.len() => Ability::Yes,
            Err(refusal) if refusal.is_denied() && self.tagging.is_some() => Ability::Unknown,
            _ => {
                self.tagging = None;
                Ability::No
            }
        }
    }

    async fn try_lock(&self) -> Ability {
        let answer = self
            .session
            .send("GetObjectLockConfiguration", |client| {
                client
                    .get_object_lock_configuration()
                    .bucket(&self.settings.bucket)
                    .send()
            })
            .await;
        match answer {
            Ok(answer) if answer.object_lock_configuration.is_some() => Ability::Yes,
            Ok(_) => Ability::No,
            Err(refusal) if refusal.code() == Some("ObjectLockConfigurationNotFoundError") => Ability::No,
            Err(refusal) if refusal.is_unknown_feature() => Ability::No,
            Err(_) => Ability::Unknown,
        }
    }

    async fn clear(&self, name: &str, clock: &dyn Clock) -> Result<(), StoreError> {
        let old = clock.now().plus_micros(-LEFTOVER_MICROS).micros();
        let listing = self.list(PREFIX, false, None, 1_000).await?;
        for object in listing.objects {
            if object.key.as_str().starts_with(name) || object.modified_micros < old {
                self.delete(&object.key).await?;
            }
        }
        Ok(())
    }

    fn check_removal(&self, cleared: Result<(), StoreError>) -> Result<(), OpenError> {
        match cleared {
            Err(StoreError::Denied(error)) if self.abilities.object_lock == Ability::Yes => {
                tracing::warn!(
                    %error,
                    "the bucket does not let go of objects yet (object lock); what is purged stays until it does, undecipherable \
                     once its key is gone"
                );
                Ok(())
            }
            Err(error) => Err(failed(
                "an object cannot be removed",
                "grant s3:DeleteObject, and s3:DeleteObjectVersion where versions are kept",
                error,
            )),
            Ok(()) => Ok(()),
        }
    }

    /// One line of what there is, and one for each thing that is not.
    fn tell(&self) {
        let it = &self.abilities;
        tracing::info!(
            keeps_versions = it.keeps_versions,
            checks_crc32c = ?it.checks_crc32c,
            tags = ?it.tags,
            object_lock = ?it.object_lock,
            conditional_writes = ?it.conditional_writes,
            lists_uploads = ?it.lists_uploads,
            "the bucket can hold a vault; everything that is required works"
        );
        let missing = |feature, consequence| {
            tracing::info!(
                feature,
                consequence,
                required = false,
                "a second line of defence is missing"
            );
        };
        if !it.keeps_versions {
            missing(
                "versions",
                "what a stranger removes or overwrites in the bucket is gone, though noticed",
            );
        }
        if self.settings.checksum == Checksum::Crc32c && it.checks_crc32c == Ability::No {
            missing(
                "crc32c",
                "a body that changes on its way is noticed when it is read, not when it is written",
            );
        }
        if !self.settings.tags.is_empty() && it.tags == Ability::No {
            missing(
                "tags",
                "rules of the store that go by tags do not see the vault's objects",
            );
        }
        if it.object_lock == Ability::No {
            missing(
                "object_lock",
                "nothing but access rules keeps objects from being removed",
            );
        }
        if it.conditional_writes == Ability::No {
            missing("conditional_writes", "none: names are unique");
        }
        if it.lists_uploads != Ability::Yes {
            missing(
                "lists_uploads",
                "the bucket's lifecycle rule alone removes uploads that were given up",
            );
        }
    }
}

fn key(name: &str) -> Result<ObjectKey, OpenError> {
    ObjectKey::parse(name).map_err(|error| unusable("a name is refused", "report it", &error))
}

fn ability(tried: Result<(), String>) -> Ability {
    if tried.is_ok() { Ability::Yes } else { Ability::No }
}

fn unwritable(checksum: Checksum, error: &Refusal) -> OpenError {
    let advice = match (error.code(), checksum) {
        (Some("NoSuchBucket"), _) => "create it, or correct store.s3.bucket, region and endpoint",
        (Some("PermanentRedirect" | "AuthorizationHeaderMalformed"), _) => "correct store.s3.region",
        (Some("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken"), _) => {
            "correct the credentials"
        }
        (Some(_), Checksum::Crc32c) if !error.is_denied() => {
            "if it does not know CRC-32C, set store.s3.checksum = \"none\""
        }
        (Some(_), _) => "grant s3:PutObject on the bucket's objects",
        (None, _) => "check store.s3.endpoint, ca_file, the network, and that there are credentials",
    };
    unusable("nothing can be written", advice, error)
}

fn failed(what: &'static str, advice: &'static str, error: StoreError) -> OpenError {
    let cause = match &error {
        StoreError::Unavailable(source) | StoreError::Denied(source) => source.to_string(),
        error => error.to_string(),
    };
    unusable(what, advice, &cause)
}

fn unusable(what: &'static str, advice: &'static str, cause: &dyn std::fmt::Display) -> OpenError {
    OpenError::Unusable {
        what,
        advice,
        cause: cause.to_string(),
    }
}
