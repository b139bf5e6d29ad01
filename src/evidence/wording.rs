//! What certificates say in words, each sentence once.

use super::certificate::{Residual, Stage};
use crate::{domain::erasure::Ground, proto::storage::ErasureTarget};

/// The kinds of data that a vault holds.
pub const DATA_CLASS: &str = "call recordings, message bodies and artifacts derived from them, each with its descriptor (parties, times, labels): personal data";
/// True by construction.
pub const ENCRYPTED_BEFORE_STORED: &str =
    "yes: every byte of content and descriptor was sealed before it was ever stored";
/// NIST SP 800-88 r2's name of the technique.
pub const TECHNIQUE: &str = "cryptographic erase (NIST SP 800-88 r2): the only keys of the data are destroyed, its ciphertext is deleted";
/// What of Clear, Purge, Destroy.
pub const REACHES: &str = "Clear";
/// What seals content, descriptors and keys.
pub const ALGORITHM: &str =
    "AES-256-GCM; keys by HKDF-SHA256; slot keys by a puncturable GGM tree of HMAC-SHA256, 256-bit seeds";
/// Bits of every key.
pub const STRENGTH_BITS: u32 = 256;
/// Where keys come from.
pub const RNG: &str = "the operating system's generator, through ring::rand::SystemRandom";
/// What does the cryptography.
pub const MODULE: &str = "software, in the vault's process: ring 0.17 and RustCrypto aes-gcm 0.11";
/// Whether anybody validated it.
pub const VALIDATION: &str = "none: plain libraries reach Clear, not Purge";
/// How keys leave memory and media.
pub const ZEROISATION: &str = "keys in memory are overwritten when they are dropped (ring's key schedules are not); a punctured slot's seed is in no \
     newer page state; a root epoch's key is destroyed by its provider: file overwrites, syncs and unlinks, pkcs11 destroys the token's \
     object, aws_kms deletes the key after its window";
/// Whether anybody else holds keys.
pub const ESCROW: &str = "none exists";
/// The provider does not have an epoch's key any more.
pub const REFUSED: &str = "refused: no such key";
/// The provider that held it is not the region's any more.
pub const NOT_ASKED: &str =
    "not asked: its provider is no longer the region's; it answered the destruction when it was asked for it";
/// How objects were looked for.
pub const OBJECTS_OF_RECORDS: &str = "each object of the target was looked for in the store, and in the list of objects that wait for their deletion";
/// Of a tenant they are not enumerated.
pub const OBJECTS_OF_TENANT: &str = "the tenant's objects were listed in the store, and in the list of objects that wait for their deletion; those that are gone are not counted";
/// An object that holds what is not erased.
pub const WAITS: &str = "waits for its deletion";

/// What a line of content means.
pub fn content(stage: Stage) -> &'static str {
    match stage {
        Stage::Effective => {
            "nothing serves the content any more, and the current key state cannot open it; who kept older copies of the key state and has \
             today's keys still could"
        }
        Stage::Final => {
            "no copy of the bucket and the index, however old, opens the content with any key that exists"
        }
    }
}

/// What a line of search traces means.
pub fn search_traces(stage: Stage) -> &'static str {
    match stage {
        Stage::Effective => {
            "the index has no rows of the records any more; in older copies of it, the tenant's index key still tells who spoke with whom"
        }
        Stage::Final => {
            "the index key that old rows were blinded with is destroyed and surviving people have new numbers: no identifier leads to old rows; \
             a copy of the index from before still shows which erased records shared a person or a conversation with records that survive"
        }
    }
}

/// In plain words, what a certificate proves.
pub fn proves(stage: Stage) -> Vec<String> {
    let destroyed = match stage {
        Stage::Effective => {
            "Proves a committed, recorded destruction of keys in the vault's current key state: the log that nobody can change unnoticed says so, and the vault \
             signed it."
        }
        Stage::Final => {
            "Proves a committed, recorded destruction of keys: of the current key state, and of every root epoch that older key states could be opened with. The \
             log that nobody can change unnoticed says so, and the vault signed it."
        }
    };
    let never = "Never proves the absence of a copy that was decrypted before: what was read, exported or played is outside the vault.";
    let stated = "What providers and stores answered, and what is said of residual copies, is the vault's signed statement, not part of the log.";
    [destroyed, never, stated].map(str::to_owned).to_vec()
}

/// Copies that may be left. `dead` is when the root epochs were destroyed, or by when they have to be; `providers` hold them;
/// `recovery` says whether the vault copies its key state to a second store.
pub fn residual_copies(
    stage: Stage,
    dead: &str,
    pending: bool,
    recovery: bool,
    providers: &[String],
) -> Vec<Residual> {
    let keys = match stage {
        Stage::Effective => {
            "the sweep that follows: it destroys the root epochs that old key states open with"
        }
        Stage::Final => "the destruction of the root epochs above: without them it is noise",
    };
    let of = |copies: &str, status: &str, killed_by: &str, dead_by: &str| Residual {
        copies: copies.to_owned(),
        status: status.to_owned(),
        killed_by: killed_by.to_owned(),
        dead_by: dead_by.to_owned(),
    };
    let versions = if pending {
        "some wait for their deletion: verification.objects.pending"
    } else {
        "deleted, every version that the store lists"
    };
    let mut all = vec![
        of("object versions in the bucket", versions, keys, dead),
        of(
            "replicas in other regions",
            "none: this vault makes none",
            "none",
            "none",
        ),
        of(
            "Object-Locked copies and the store's own backups",
            "not known to the vault; whoever locked or copied objects holds ciphertext",
            keys,
            dead,
        ),
        of(
            "backups of the index and of the data directory",
            "not known to the vault; they show times, sizes and kinds, and which erased records shared a person or a conversation with \
             records that survive",
            keys,
            dead,
        ),
        of(
            "objects with corrected descriptors and with settings",
            "not deleted: each is sealed under the key of its record, or a key of its own in a page of the tenant",
            keys,
            dead,
        ),
    ];
    if recovery {
        all.push(of(
            "key states and logs in the vault's recovery store",
            "copies, sealed as in the bucket; no content and no descriptor is among them. After each sweep those that no living key opens are \
             deleted; the logs stay",
            keys,
            dead,
        ));
    }
    all.extend(
        providers
            .iter()
            .map(|provider| deletion_window(provider, stage, dead)),
    );
    all.push(of(
        "keys and opened content in caches of the vault's processes",
        "keys are cached for at most 60 seconds and checked against the key state at every read; running streams of the target were cut",
        "time",
        "60 seconds after EFFECTIVE",
    ));
    all.extend(providers.iter().map(|provider| remnants(provider, dead)));
    all.push(of(
        "exports and their recipients",
        "outside the vault's control; whoever was allowed to read or export may have kept a copy",
        "nothing that the vault can do",
        "not known",
    ));
    all.push(of(
        "analytics",
        "none: the vault derives none; artifacts in the vault were erased with their sources",
        "none",
        "none",
    ));
    all
}

fn deletion_window(provider: &str, stage: Stage, dead: &str) -> Residual {
    let (status, dead_by) = match (provider, stage) {
        ("aws_kms", Stage::Effective) => (
            "the provider deletes a key 7 to 30 days after it was asked to; until then it can be called back",
            dead,
        ),
        ("aws_kms", Stage::Final) => ("over: the provider has deleted the keys", dead),
        _ => ("none: this provider destroys at once", "none"),
    };
    Residual {
        copies: format!("deletion window of the root provider {provider}"),
        status: status.to_owned(),
        killed_by: if dead_by == "none" { "none" } else { "time" }.to_owned(),
        dead_by: dead_by.to_owned(),
    }
}

fn remnants(provider: &str, dead: &str) -> Residual {
    let (status, killed_by, dead_by) = match provider {
        "file" => (
            "the key file is overwritten and unlinked; a solid-state disk may keep what was in it in spare blocks, which software cannot reach",
            "the disk's own erase, or its destruction",
            "not known",
        ),
        "pkcs11" => (
            "keys never left the token; what the token keeps is its maker's to say, and backups of it are its operator's",
            "the token's destruction of the object",
            dead,
        ),
        _ => (
            "keys never left the service; what it keeps is the service's to say",
            "the service's deletion of the key",
            dead,
        ),
    };
    Residual {
        copies: format!("remnants of keys on media of the root provider {provider}"),
        status: status.to_owned(),
        killed_by: killed_by.to_owned(),
        dead_by: dead_by.to_owned(),
    }
}

/// How an erasure's ground stands in certificates; `None` for one that is not known.
pub fn ground(number: i32) -> Option<&'static str> {
    Ground::from_number(u32::try_from(number).ok()?).map(Ground::term)
}

/// How an erasure's target stands in certificates; `None` for one that is not known.
pub fn asked_for(number: i32) -> Option<&'static str> {
    match ErasureTarget::try_from(number).ok()? {
        ErasureTarget::Unspecified => None,
        ErasureTarget::Records => Some("RECORDS"),
        ErasureTarget::Query => Some("QUERY"),
        ErasureTarget::Subject => Some("SUBJECT"),
        ErasureTarget::Conversation => Some("CONVERSATION"),
        ErasureTarget::Tenant => Some("TENANT"),
    }
}

/// How a record's kind stands in certificates; `None` for one that is not known.
pub fn kind(number: u32) -> Option<&'static str> {
    match number {
        1 => Some("recording"),
        2 => Some("message"),
        3 => Some("artifact"),
        _ => None,
    }
}
