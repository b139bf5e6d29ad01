//! What a certificate of erasure says: the fields of NIST SP 800-88 r2's certificate, for a cryptographic erase.
//!
//! Every field is there, or says "none". Nothing personal is: ids that the vault minted, names of objects, numbers and times.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Names the form of the document.
pub const FORMAT: &str = "callvault-erasure-certificate/1";
/// Version of the form.
pub const VERSION: u32 = 1;
/// What stands where there is nothing.
pub const NONE: &str = "none";

/// How far an erasure has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Stage {
    /// The keys are gone from the current key state; nothing serves the content.
    Effective,
    /// They are gone from every copy of any key state that keys of today open.
    Final,
}

impl Stage {
    /// As it stands in certificates.
    pub fn name(self) -> &'static str {
        match self {
            Self::Effective => "EFFECTIVE",
            Self::Final => "FINAL",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A list that is "none" when it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T>(pub Vec<T>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<T> for Listed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<T: Serialize> Serialize for Listed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            serializer.serialize_str(NONE)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list, or \"none\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == NONE {
                    Ok(Listed::default())
                } else {
                    Err(E::custom("neither a list nor \"none\""))
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                if all.is_empty() {
                    return Err(de::Error::custom("an empty list is spelt \"none\""));
                }
                Ok(Listed(all))
            }
        }

        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

/// The document that is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// [`FORMAT`].
    pub format: String,
    /// Which certificate, of which erasure.
    pub identity: Identity,
    /// What was erased.
    pub target: Target,
    /// How.
    pub method: Method,
    /// With what.
    pub tool: Tool,
    /// How it was verified, and what came of it.
    pub verification: Verification,
    /// Copies that may still exist, and what kills each.
    pub residual_copies: Vec<Residual>,
    /// In plain words, what the document proves and what it does not.
    pub proves: Vec<String>,
    /// The leaves of the state log that say all this, and the proofs that they are in it.
    pub inclusion: Inclusion,
}

/// Which certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `<erasure id>-<stage, lowercase>`.
    pub id: String,
    /// [`VERSION`].
    pub version: u32,
    /// The stage that it certifies.
    pub stage: Stage,
    /// When it was made. All times are RFC 3339, UTC, with microseconds.
    pub issued_at: String,
    /// The vault.
    pub vault: String,
    /// Its region.
    pub region: String,
    /// Whose data.
    pub tenant: String,
    /// The erasure.
    pub erasure: String,
    /// The controller's reference of the case.
    pub reference: String,
    /// Why, as a term: `dpv:A17`, `dpv:A7-3`, `callvault:RetentionExpired`, `callvault:MandatoryDestruction`,
    /// `callvault:ContractEnded`.
    pub ground: String,
    /// Alias of who asked.
    pub requested_by: String,
    /// Aliases of who approved; none where one person is enough.
    pub approvers: Listed<String>,
    /// When it was asked for; nothing was readable from then on.
    pub requested_at: String,
    /// When its grace ended.
    pub due_at: String,
}

/// What was erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// How it was asked for: `RECORDS`, `QUERY`, `SUBJECT`, `CONVERSATION`, `TENANT`.
    pub asked_for: String,
    /// What kind of data it was.
    pub data_class: String,
    /// Whether anything was ever stored in the clear.
    pub encrypted_before_stored: String,
    /// SHA-256 of the ids of the set, 16 bytes each, ascending; "none" for a tenant.
    pub set_sha256: String,
    /// How many records this erasure shredded; for a tenant its keys are listed instead.
    pub record_count: u64,
    /// The records, by the object that holds them.
    pub blobs: Listed<Blob>,
    /// Those of them that are not of the set: derived from it after it was fixed.
    pub derived_since: Listed<String>,
    /// Records of the set that another erasure had shredded before.
    pub elsewhere: Listed<Elsewhere>,
    /// Of a tenant, every version of its key.
    pub tenant_keys: Listed<u64>,
}

/// A record that another erasure shredded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// The record.
    pub record: String,
    /// That erasure: its certificate tells.
    pub erasure: String,
}

/// An object with erased records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Kind of the store: `s3` or `local`.
    pub store: String,
    /// Where it is.
    pub region: String,
    /// The object's name.
    pub object: String,
    /// The object's version; "none" where the store keeps none.
    pub version_id: String,
    /// SHA-256 of the object's footer, hex: with name and version its identity.
    pub footer_sha256: String,
    /// Bytes of erased content in it.
    pub bytes: u64,
    /// The erased records, in their order in the object.
    pub records: Vec<Erased>,
}

/// An erased record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erased {
    /// Its id.
    pub record: String,
    /// `recording`, `message` or `artifact`.
    pub kind: String,
    /// Its place in the object, from 0.
    pub entry: u32,
    /// Entries of the object.
    pub entries: u32,
    /// Bytes of content.
    pub bytes: u64,
    /// The page whose slot wrapped its key.
    pub page: String,
    /// The slot, punctured.
    pub slot: u32,
}

/// How it was erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Cryptographic erase.
    pub technique: String,
    /// What it reaches of NIST SP 800-88's Clear, Purge, Destroy.
    pub reaches: String,
    /// What the data was sealed with.
    pub algorithm: String,
    /// Strength of its keys.
    pub strength_bits: u32,
    /// Slots that were punctured; the target names page and slot of each.
    pub slots_punctured: u64,
    /// Versions of the tenant's key that are destroyed with it.
    pub tenant_key_versions_destroyed: Listed<u64>,
    /// Root epochs that are destroyed with it.
    pub root_epochs_destroyed: Listed<u64>,
    /// Where keys came from.
    pub rng: String,
    /// What did the cryptography.
    pub module: String,
    /// Whether anybody validated that.
    pub validation: String,
    /// How keys leave memory and media.
    pub zeroisation: String,
    /// Whether anybody else holds keys.
    pub escrow: String,
}

/// What made the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the running executable, hex, or "unknown".
    pub build_sha256: String,
}

/// How it was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// What was said.
    pub content: Line,
    /// Who spoke with whom.
    pub search_traces: Line,
    /// Pages that the records' slots are of; each led to every key version of `paths`. None before FINAL, and none of a tenant.
    pub pages: Listed<String>,
    /// Every way up from a page. None before FINAL.
    pub paths: Listed<Path>,
    /// Where the ways end, and what the provider says of each. None before FINAL.
    pub epochs: Listed<Epoch>,
    /// What became of the objects.
    pub objects: Objects,
    /// What went wrong.
    pub errors: Listed<String>,
}

/// One of the two things that are erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// How far it is.
    pub stage: Stage,
    /// Since when.
    pub since: String,
    /// What that means.
    pub meaning: String,
}

/// A version of the tenant's key, and what it was wrapped by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// The version.
    pub key_version: u64,
    /// The region page whose slot wrapped it.
    pub region_page: String,
    /// The slot, punctured.
    pub region_slot: u32,
    /// The first root epoch that ever sealed a state of that page with the slot in it.
    pub first_epoch: u64,
    /// And the last one.
    pub last_epoch: u64,
}

/// A destroyed root epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Which.
    pub epoch: u64,
    /// Who held its key.
    pub provider: String,
    /// When the provider's destruction was complete.
    pub destroyed_at: String,
    /// What the provider answered when it was asked for the key as the certificate was made.
    pub answer: String,
}

/// What became of the objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objects {
    /// How it was looked.
    pub checked: String,
    /// How many of those that the target names the store no longer has, all versions of them.
    pub gone: u64,
    /// Those that hold other records as well, which are not erased.
    pub kept: Listed<String>,
    /// Those that are not deleted yet.
    pub pending: Listed<Pending>,
}

/// An object that is not deleted yet. What it holds of the target cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The object.
    pub object: String,
    /// How often it was tried.
    pub tries: u32,
    /// Why it did not work.
    pub reason: String,
}

/// Copies of one kind that may be left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// Which copies.
    pub copies: String,
    /// What is known of them.
    pub status: String,
    /// What makes them worthless.
    pub killed_by: String,
    /// When that has happened at the latest.
    pub dead_by: String,
}

/// Leaves and proofs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// One checkpoint of each log that a leaf is cited from.
    pub checkpoints: Vec<Checkpoint>,
    /// The leaves.
    pub leaves: Vec<CitedLeaf>,
}

/// A signed head of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The log.
    pub origin: String,
    /// The signed note.
    pub note: String,
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CitedLeaf {
    /// The log.
    pub origin: String,
    /// Its position.
    pub index: u64,
    /// The entry, base64url.
    #[serde(with = "base64url")]
    pub leaf: Vec<u8>,
    /// RFC 6962 inclusion proof, base64url each, from the leaf up.
    pub proof: Vec<Hash>,
}

/// A SHA-256, in base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        base64url::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = base64url::deserialize(deserializer)?;
        let hash = bytes.try_into();
        hash.map(Self)
            .map_err(|_| de::Error::custom("a hash is 32 bytes"))
    }
}

mod base64url {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_URL_SAFE_NO_PAD.decode(text).map_err(de::Error::custom)
    }
}
