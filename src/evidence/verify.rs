//! A certificate checked from its file and a set of published keys, without any vault.
//!
//! | step | what must hold |
//! |---|---|
//! | 1 | one signature, by a published certificate key, over the one spelling of a document of the known form |
//! | 2 | every cited checkpoint is signed by a published log key; every cited leaf is in the log of its checkpoint |
//! | 3 | the leaves are of this erasure, and say what the document says: ids, slots, key versions, epochs, times |
//! | 4 | the stage follows: EFFECTIVE has its leaf; FINAL has every way up end in an epoch whose destruction is logged |

use std::collections::{BTreeMap, BTreeSet};

use ring::digest::{SHA256, digest};

use super::{
    canonical,
    certificate::{Blob, Certificate, Erased, FORMAT, Line, NONE, Stage, VERSION},
    jws::{self, JwsError},
    keys::KeySet,
    proof::{self, ProofError},
    story::Story,
    wording,
};
use crate::{
    domain::{
        clock::Timestamp,
        ids::{ErasureId, PageId, RecordId},
    },
    proto::storage::ShreddedRecord,
};

/// Why a file is not a certificate that holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody who may signed it.
    #[error(transparent)]
    Signature(#[from] JwsError),
    /// It is not a document of the known form.
    #[error("the document is not a certificate of a form that this release knows: {0}")]
    Form(String),
    /// What it cites is not in the vault's log.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The leaves do not tell one erasure.
    #[error("{0}")]
    Leaves(&'static str),
    /// The document says something else than the leaves.
    #[error("the log does not say what the certificate says of {0}")]
    Disagrees(&'static str),
}

/// A certificate that holds.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The document.
    pub certificate: Certificate,
    /// What was proven, a line each, for people.
    pub lines: Vec<String>,
}

/// Checks a certificate.
///
/// # Errors
/// [`Refused`] with the first thing that does not hold.
pub fn verify(file: &[u8], keys: &KeySet) -> Result<Proven, Refused> {
    let signed = jws::verify(file, |kid| keys.certificate_key(kid))?;
    let document = canonical::parse(&signed.payload).map_err(|error| Refused::Form(error.to_string()))?;
    let certificate: Certificate =
        serde_json::from_value(document).map_err(|error| Refused::Form(error.to_string()))?;
    form(&certificate)?;
    let leaves = proof::proven(&certificate.inclusion, &certificate.identity.vault, keys)?;
    let erasure: ErasureId = certificate
        .identity
        .erasure
        .parse()
        .map_err(|_| Refused::Form("erasure id".to_owned()))?;
    let story = Story::read(&leaves, &certificate.identity.tenant, erasure.as_bytes())?;
    agrees(&certificate, &story)?;
    let lines = told(&certificate, &signed.kid);
    Ok(Proven { certificate, lines })
}

/// Whether a document says what the leaves that it cites say.
///
/// # Errors
/// [`Refused::Leaves`], [`Refused::Disagrees`].
pub fn agrees(certificate: &Certificate, story: &Story) -> Result<(), Refused> {
    identity(certificate, story)?;
    if story.tenant.is_some() {
        tenant_target(certificate, story)?;
    } else {
        record_target(certificate, story)?;
    }
    let (effective, _) = story
        .effective
        .ok_or(Refused::Leaves("the log does not say that it is effective"))?;
    let verification = &certificate.verification;
    match certificate.identity.stage {
        Stage::Effective => {
            line(&verification.content, Stage::Effective, effective, "content")?;
            line(
                &verification.search_traces,
                Stage::Effective,
                effective,
                "search traces",
            )?;
            nothing_final(certificate, story)
        }
        Stage::Final => {
            let missing = Refused::Leaves("the log does not say that content and search traces are final");
            let (Some(content), Some(traces)) = (story.content_final, story.traces_final) else {
                return Err(missing);
            };
            line(&verification.content, Stage::Final, content, "content")?;
            line(&verification.search_traces, Stage::Final, traces, "search traces")?;
            every_way_ends(certificate, story)
        }
    }
}

fn form(certificate: &Certificate) -> Result<(), Refused> {
    let identity = &certificate.identity;
    let id = format!("{}-{}", identity.erasure, identity.stage.name().to_lowercase());
    for (holds, what) in [
        (
            certificate.format == FORMAT && identity.version == VERSION,
            "version",
        ),
        (identity.id == id, "id"),
        (!certificate.proves.is_empty(), "what it proves"),
        (!certificate.residual_copies.is_empty(), "residual copies"),
    ] {
        if !holds {
            return Err(Refused::Form(what.to_owned()));
        }
    }
    Ok(())
}

fn identity(certificate: &Certificate, story: &Story) -> Result<(), Refused> {
    let said = &certificate.identity;
    let (at, actor, requested) = story
        .requested
        .as_ref()
        .ok_or(Refused::Leaves("the log does not say that it was asked for"))?;
    agree(said.requested_at == time(*at), "when it was asked for")?;
    agree(said.due_at == time(requested.due_micros), "when it was due")?;
    agree(said.requested_by == *actor, "who asked for it")?;
    agree(said.approvers.0 == requested.approvers, "who approved it")?;
    agree(said.reference == or_none(&requested.reference), "its reference")?;
    agree(
        Some(said.ground.as_str()) == wording::ground(requested.ground),
        "its ground",
    )?;
    let asked_for = wording::asked_for(requested.target);
    agree(
        Some(certificate.target.asked_for.as_str()) == asked_for,
        "what was asked for",
    )?;
    agree(
        certificate.target.set_sha256 == or_none(&hex::encode(&requested.set_sha256)),
        "the set of records",
    )
}

/// A whole tenant: its key versions, and no records.
fn tenant_target(certificate: &Certificate, story: &Story) -> Result<(), Refused> {
    let (target, method) = (&certificate.target, &certificate.method);
    let versions = story
        .tenant
        .as_ref()
        .map(|tenant| ascending(&tenant.key_versions));
    let versions = versions.unwrap_or_default();
    agree(
        !versions.is_empty() && target.tenant_keys.0 == versions,
        "the tenant's keys",
    )?;
    agree(
        target.blobs.0.is_empty()
            && target.derived_since.0.is_empty()
            && target.elsewhere.0.is_empty()
            && target.record_count == 0
            && story.shredded.is_empty(),
        "records of a whole tenant",
    )?;
    agree(target.asked_for == "TENANT", "what was asked for")?;
    agree(
        method.slots_punctured == versions.len() as u64,
        "the number of slots",
    )
}

/// Records: every one that the log names, and no other.
fn record_target(certificate: &Certificate, story: &Story) -> Result<(), Refused> {
    let target = &certificate.target;
    agree(
        target.asked_for != "TENANT" && target.tenant_keys.0.is_empty(),
        "what was asked for",
    )?;
    let mut logged = BTreeMap::new();
    for record in &story.shredded {
        let before = logged.insert(record_text(&record.record_id)?, record);
        agree(before.is_none(), "a record that is shredded twice")?;
    }
    let (_, effective) = story.effective.unwrap_or_default();
    let count = target.record_count;
    agree(
        logged.len() as u64 == count && effective == count && certificate.method.slots_punctured == count,
        "the number of records",
    )?;
    of_the_set(certificate, story, &logged)?;
    for blob in &target.blobs.0 {
        agree(
            blob.bytes == blob.records.iter().map(|record| record.bytes).sum::<u64>(),
            "the bytes of an object",
        )?;
        for erased in &blob.records {
            let record = logged.remove(&erased.record);
            let record = record.ok_or(Refused::Disagrees("a record that is not in the log"))?;
            same_record(blob, erased, record)?;
        }
    }
    agree(logged.is_empty(), "a record that the certificate leaves out")
}

fn same_record(blob: &Blob, erased: &Erased, record: &ShreddedRecord) -> Result<(), Refused> {
    let page = page_text(&record.page_id)?;
    agree(
        erased.page == page && erased.slot == record.slot,
        "a punctured slot",
    )?;
    agree(
        blob.object == record.object_key
            && blob.version_id == or_none(&record.object_version)
            && blob.footer_sha256 == hex::encode(&record.footer_sha256),
        "an object",
    )?;
    agree(
        Some(erased.kind.as_str()) == wording::kind(record.kind)
            && erased.entry == record.entry_index
            && erased.entries == record.entry_count
            && erased.bytes == record.plaintext_length,
        "a record",
    )
}

/// EFFECTIVE claims nothing of what only a sweep does.
fn nothing_final(certificate: &Certificate, story: &Story) -> Result<(), Refused> {
    let (method, verification) = (&certificate.method, &certificate.verification);
    let punctured = story
        .tenant
        .as_ref()
        .map(|tenant| ascending(&tenant.key_versions));
    agree(
        method.tenant_key_versions_destroyed.0 == punctured.unwrap_or_default()
            && method.root_epochs_destroyed.0.is_empty()
            && verification.pages.0.is_empty()
            && verification.paths.0.is_empty()
            && verification.epochs.0.is_empty(),
        "what is destroyed",
    )
}

/// FINAL: slot -> page -> key version -> slot of a region page -> epoch, and the epoch is destroyed; for every way.
fn every_way_ends(certificate: &Certificate, story: &Story) -> Result<(), Refused> {
    let (method, verification) = (&certificate.method, &certificate.verification);
    agree(verification.errors.0.is_empty(), "errors")?;
    let pages = certificate.target.blobs.0.iter().flat_map(|blob| &blob.records);
    let pages: BTreeSet<_> = pages.map(|record| record.page.as_str()).collect();
    agree(
        verification.pages.0.iter().map(String::as_str).eq(pages),
        "the pages",
    )?;
    let (versions, epochs) = &story.because;
    let ways: Vec<_> = verification.paths.0.iter().map(|path| path.key_version).collect();
    agree(
        !ways.is_empty()
            && ways.is_sorted_by(|a, b| a < b)
            && ways == method.tenant_key_versions_destroyed.0
            && versions.iter().all(|version| ways.contains(version)),
        "the key versions",
    )?;
    let ends: Vec<_> = verification.epochs.0.iter().map(|epoch| epoch.epoch).collect();
    agree(
        !ends.is_empty()
            && ends.is_sorted_by(|a, b| a < b)
            && ends == method.root_epochs_destroyed.0
            && epochs.iter().all(|epoch| ends.contains(epoch)),
        "the root epochs",
    )?;
    for path in &verification.paths.0 {
        let key = story.keys.get(&path.key_version);
        let key = key.ok_or(Refused::Disagrees("a key version that it does not know"))?;
        let page = page_text(&key.region_page_id)?;
        agree(
            page == path.region_page && key.slot == path.region_slot,
            "the slot of a key version",
        )?;
        agree(
            story.keys_destroyed.contains(&path.key_version),
            "the end of a key version",
        )?;
        agree(
            path.first_epoch <= path.last_epoch
                && ends.contains(&path.first_epoch)
                && ends.contains(&path.last_epoch),
            "where a way ends",
        )?;
    }
    for epoch in &verification.epochs.0 {
        let at = story.destroyed.get(&epoch.epoch);
        agree(
            story.destroying.contains(&epoch.epoch) && at.is_some_and(|at| epoch.destroyed_at == time(*at)),
            "the end of a root epoch",
        )?;
        agree(
            [wording::REFUSED, wording::NOT_ASKED].contains(&epoch.answer.as_str()),
            "what the provider answered",
        )?;
    }
    Ok(())
}

fn line(said: &Line, stage: Stage, since: i64, what: &'static str) -> Result<(), Refused> {
    agree(said.stage == stage && said.since == time(since), what)
}

/// What was asked for is what was shredded, here or by another erasure, but for what was derived from it since.
fn of_the_set(
    certificate: &Certificate,
    story: &Story,
    logged: &BTreeMap<String, &ShreddedRecord>,
) -> Result<(), Refused> {
    let target = &certificate.target;
    let mut set: BTreeSet<&str> = logged.keys().map(String::as_str).collect();
    for derived in &target.derived_since.0 {
        agree(set.remove(derived.as_str()), "what was derived since")?;
    }
    for other in &target.elsewhere.0 {
        let is_new = !logged.contains_key(&other.record) && set.insert(&other.record);
        agree(is_new, "what another erasure shredded")?;
    }
    let asked = story
        .requested
        .as_ref()
        .map(|(_, _, requested)| requested.records);
    agree(
        asked == Some(set.len() as u64),
        "the number of records that were asked for",
    )?;
    // Their texts are in the order of their bytes.
    let mut ids = Vec::with_capacity(set.len() * 16);
    for id in set {
        let id: RecordId = id.parse().map_err(|_| Refused::Disagrees("a record"))?;
        ids.extend_from_slice(id.as_bytes());
    }
    agree(
        target.set_sha256 == hex::encode(digest(&SHA256, &ids)),
        "the set of records",
    )
}

/// What was proven, for people.
fn told(certificate: &Certificate, kid: &str) -> Vec<String> {
    let Certificate {
        identity,
        target,
        method,
        verification,
        inclusion,
        ..
    } = certificate;
    let list = |numbers: &[u64]| {
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        numbers.join(", ")
    };
    let mut lines = vec![
        format!("signed by {kid} at {}", identity.issued_at),
        format!(
            "{} leaves are in the log of vault {}, under {} signed checkpoints",
            inclusion.leaves.len(),
            identity.vault,
            inclusion.checkpoints.len()
        ),
        format!(
            "erasure {} of tenant {} was asked for at {} on ground {}, reference {}",
            identity.erasure, identity.tenant, identity.requested_at, identity.ground, identity.reference
        ),
    ];
    lines.push(if target.asked_for == "TENANT" {
        format!(
            "the tenant's key versions {} are punctured: nothing of the tenant opens under the current key state",
            list(&target.tenant_keys.0)
        )
    } else {
        format!(
            "{} records in {} objects are shredded: the slot of each is punctured",
            target.record_count,
            target.blobs.0.len()
        )
    });
    if identity.stage == Stage::Final {
        lines.push(format!(
            "key versions {} and root epochs {} are destroyed: every way up ends in one of them",
            list(&method.tenant_key_versions_destroyed.0),
            list(&method.root_epochs_destroyed.0)
        ));
    }
    for (name, line) in [
        ("content", &verification.content),
        ("search traces", &verification.search_traces),
    ] {
        lines.push(format!(
            "{name} {} since {}: {}",
            line.stage, line.since, line.meaning
        ));
    }
    lines.extend(certificate.proves.iter().cloned());
    lines
}

/// A time as certificates spell it.
pub fn time(micros: i64) -> String {
    Timestamp(micros).to_string()
}

/// A text, or that there is none.
pub fn or_none(text: &str) -> String {
    if text.is_empty() { NONE } else { text }.to_owned()
}

/// Numbers in ascending order, each once.
pub fn ascending(numbers: &[u64]) -> Vec<u64> {
    let numbers: BTreeSet<_> = numbers.iter().copied().collect();
    numbers.into_iter().collect()
}

/// A record's id as text.
///
/// # Errors
/// [`Refused::Leaves`] if it is none.
pub fn record_text(bytes: &[u8]) -> Result<String, Refused> {
    let id = RecordId::from_slice(bytes).map_err(|_| Refused::Leaves("a leaf has a malformed id"))?;
    Ok(id.to_string())
}

/// A page's id as text.
///
/// # Errors
/// [`Refused::Leaves`] if it is none.
pub fn page_text(bytes: &[u8]) -> Result<String, Refused> {
    let id = PageId::from_slice(bytes).map_err(|_| Refused::Leaves("a leaf has a malformed id"))?;
    Ok(id.to_string())
}

fn agree(holds: bool, what: &'static str) -> Result<(), Refused> {
    if holds {
        Ok(())
    } else {
        Err(Refused::Disagrees(what))
    }
}
