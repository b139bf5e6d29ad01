//! An erasure of two records and one of a tenant, with logs of their own making: RFC 6962 and C2SP word by word.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use prost::Message;
use ring::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};

use crate::{
    evidence::{
        canonical,
        certificate::*,
        jws,
        keys::{KeySet, KeyUse, PublishedKey},
        verify::{ascending, or_none, time},
        wording,
    },
    ledger::log::Signer,
    proto::storage::{state_leaf::Body, *},
};

pub(in crate::evidence) struct TestKey(Ed25519KeyPair);

impl TestKey {
    pub(in crate::evidence) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(in crate::evidence) fn from_hex(seed: &str) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&hex::decode(seed).unwrap()).unwrap())
    }
}

impl fmt::Debug for TestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestKey")
    }
}

impl Signer for TestKey {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().unwrap()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().unwrap()
    }
}

pub(super) const VAULT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
pub(super) const ERASURE: &str = "01890a5d-ac96-774b-bcce-b302099a8001";
pub(super) const TENANT: &str = "acme";
const ORIGIN: &str = "callvault/01890a5d-ac96-774b-bcce-b302099a8057/state/1/4";
const T0: i64 = 1_795_478_400_000_000;

pub(super) fn id(last: u8) -> Bytes {
    let mut id: Vec<u8> = hex::decode("01890a5dac96774bbcceb302099a8000").unwrap();
    id[15] = last;
    id.into()
}

fn id_text(last: u8) -> String {
    format!("01890a5d-ac96-774b-bcce-b302099a80{last:02x}")
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn leaf_hash(leaf: &[u8]) -> [u8; 32] {
    sha256(&[&[0], leaf].concat())
}

/// RFC 6962 section 2.1.
fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            sha256(&[&[1][..], &root(left), &root(right)].concat())
        }
    }
}

/// RFC 6962 section 2.1.1.
fn path(leaves: &[[u8; 32]], at: usize) -> Vec<[u8; 32]> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, other) = if at < k {
        (path(left, at), root(right))
    } else {
        (path(right, at - k), root(left))
    };
    path.push(other);
    path
}

fn split(length: usize) -> usize {
    let mut k = 1;
    while 2 * k < length {
        k *= 2;
    }
    k
}

fn note(origin: &str, leaves: &[[u8; 32]], key: &TestKey) -> String {
    let text = format!(
        "{origin}\n{}\n{}\n",
        leaves.len(),
        BASE64_STANDARD.encode(root(leaves))
    );
    let public = key.public_key();
    let id = sha256(&[origin.as_bytes(), b"\n\x01", &public].concat());
    let signature = [&id[..4], &key.sign(text.as_bytes())].concat();
    format!(
        "{text}\n\u{2014} {origin} {}\n",
        BASE64_STANDARD.encode(signature)
    )
}

/// What a certificate is made of, to be bent.
pub(super) struct Sample {
    pub(super) log_key: TestKey,
    pub(super) certificate_key: TestKey,
    pub(super) leaves: Vec<StateLeaf>,
    pub(super) certificate: Certificate,
}

pub(super) fn leaf(at: i64, tenant: &str, body: Body) -> StateLeaf {
    StateLeaf {
        format_version: 1,
        time_micros: T0 + at,
        actor: "compliance-1".to_owned(),
        tenant_id: tenant.to_owned(),
        body: Some(body),
        ..StateLeaf::default()
    }
}

fn shredded(last: u8, entry: u32) -> ShreddedRecord {
    ShreddedRecord {
        record_id: id(last),
        kind: 2,
        object_key: format!("blobs/{TENANT}/2026/11/24/{}", id_text(0x10)),
        object_version: String::new(),
        footer_sha256: vec![7; 32].into(),
        entry_index: entry,
        entry_count: 3,
        plaintext_length: 100 + u64::from(entry),
        page_id: id(0x30),
        slot: 40 + entry,
        request_mac: Bytes::new(),
        request_expires_micros: 0,
    }
}

fn requested(target: ErasureTarget, set: Vec<Bytes>) -> Body {
    Body::ErasureRequested(ErasureRequested {
        erasure_id: id(1),
        target: target.into(),
        ground: ErasureGround::A17.into(),
        reference: "case-7".to_owned(),
        due_micros: T0 + 5,
        set_sha256: if set.is_empty() {
            Bytes::new()
        } else {
            sha256(&set.concat()).to_vec().into()
        },
        records: set.len() as u64,
        record_ids: set,
        set: None,
        approvers: vec!["dpo-1".to_owned()],
    })
}

fn key(version: u64) -> WrappedTenantKey {
    WrappedTenantKey {
        version,
        root_id: "region".to_owned(),
        region_page_id: id(0x40),
        slot: u32::try_from(version).unwrap(),
        wrapped_key: vec![1; 60].into(),
        commitment: vec![2; 32].into(),
    }
}

/// What a sweep logs of an erasure whose key versions are these.
fn swept(versions: &[u64], punctured: bool) -> Vec<StateLeaf> {
    let mut leaves = vec![leaf(
        1,
        TENANT,
        Body::TenantCreated(TenantCreated {
            key: Some(key(1)),
            ..TenantCreated::default()
        }),
    )];
    leaves.extend(versions.iter().filter(|version| **version > 1).map(|version| {
        let rotated = TenantKeyRotated {
            key: Some(key(*version)),
            ..TenantKeyRotated::default()
        };
        leaf(2, TENANT, Body::TenantKeyRotated(rotated))
    }));
    if !punctured {
        leaves.extend(versions.iter().map(|version| {
            leaf(
                20,
                TENANT,
                Body::TenantKeyDestroyed(TenantKeyDestroyed { version: *version }),
            )
        }));
    }
    for epoch in [1, 2] {
        leaves.push(leaf(
            21,
            "",
            Body::RootEpochDestroying(RootEpochDestroying {
                epoch,
                current_epoch: 3,
                operation_id: id(0x50),
            }),
        ));
        for scheduled_micros in [T0 + 30, 0] {
            leaves.push(leaf(
                22,
                "",
                Body::RootEpochDestroyed(RootEpochDestroyed {
                    epoch,
                    scheduled_micros,
                    operation_id: id(0x50),
                }),
            ));
        }
    }
    for (at, content, search_traces) in [(31, true, false), (32, false, true)] {
        leaves.push(leaf(
            at,
            TENANT,
            Body::ErasureFinal(ErasureFinal {
                erasure_id: id(1),
                content,
                search_traces,
                operation_id: id(0x50),
                key_versions: versions.to_vec(),
                epochs: vec![1, 2],
            }),
        ));
    }
    leaves
}

impl Sample {
    /// Two messages of a shared blob.
    pub(super) fn records(stage: Stage) -> Self {
        let records = [shredded(2, 0), shredded(3, 2)];
        let set = records.iter().map(|record| record.record_id.clone()).collect();
        let mut leaves = vec![leaf(0, TENANT, requested(ErasureTarget::Records, set))];
        leaves.extend(records.iter().map(|record| {
            leaf(
                6,
                TENANT,
                Body::RecordsShredded(RecordsShredded {
                    erasure_id: id(1),
                    records: vec![record.clone()],
                    ..RecordsShredded::default()
                }),
            )
        }));
        leaves.push(effective(2));
        let erased = records.iter().map(|record| Erased {
            record: id_text(record.record_id[15]),
            kind: "message".to_owned(),
            entry: record.entry_index,
            entries: 3,
            bytes: record.plaintext_length,
            page: id_text(0x30),
            slot: record.slot,
        });
        let blob = Blob {
            store: "local".to_owned(),
            region: "test-1".to_owned(),
            object: records[0].object_key.clone(),
            version_id: NONE.to_owned(),
            footer_sha256: hex::encode([7; 32]),
            bytes: records.iter().map(|record| record.plaintext_length).sum(),
            records: erased.collect(),
        };
        let target = Target {
            asked_for: "RECORDS".to_owned(),
            data_class: wording::DATA_CLASS.to_owned(),
            encrypted_before_stored: wording::ENCRYPTED_BEFORE_STORED.to_owned(),
            set_sha256: hex::encode(sha256(&[id(2), id(3)].concat())),
            record_count: 2,
            blobs: Listed(vec![blob]),
            derived_since: Listed::default(),
            elsewhere: Listed::default(),
            tenant_keys: Listed::default(),
        };
        Self::of(stage, leaves, target, &[1, 2])
    }

    /// So many records, each in an object of its own.
    pub(super) fn many(count: u32) -> Self {
        let mut sample = Self::records(Stage::Effective);
        let record = |n: u32| {
            let mut record = shredded(2, 0);
            let mut id = record.record_id.to_vec();
            id[12..].copy_from_slice(&n.to_be_bytes());
            let name = uuid::Uuid::from_slice(&id).unwrap();
            record.record_id = id.into();
            record.object_key = format!("blobs/{TENANT}/2026/11/24/{name}");
            record.object_version = "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY".to_owned();
            record
        };
        let records: Vec<_> = (0..count).map(record).collect();
        let set = records.iter().map(|record| record.record_id.clone()).collect();
        let Body::ErasureRequested(mut body) = requested(ErasureTarget::Query, set) else {
            unreachable!()
        };
        body.record_ids.clear();
        sample.certificate.target.asked_for = "QUERY".to_owned();
        sample.certificate.target.set_sha256 = hex::encode(&body.set_sha256);
        sample.leaves = vec![leaf(0, TENANT, Body::ErasureRequested(body))];
        sample.leaves.extend(records.chunks(300).map(|records| {
            let body = RecordsShredded {
                erasure_id: id(1),
                records: records.to_vec(),
                ..RecordsShredded::default()
            };
            leaf(6, TENANT, Body::RecordsShredded(body))
        }));
        sample.leaves.push(effective(count.into()));
        let one = sample.certificate.target.blobs.0[0].clone();
        let blob = |record: &ShreddedRecord| Blob {
            object: record.object_key.clone(),
            version_id: record.object_version.clone(),
            bytes: record.plaintext_length,
            records: vec![Erased {
                record: uuid::Uuid::from_slice(&record.record_id).unwrap().to_string(),
                ..one.records[0].clone()
            }],
            ..one.clone()
        };
        sample.certificate.target.blobs = records.iter().map(blob).collect();
        sample.certificate.target.record_count = count.into();
        sample.certificate.method.slots_punctured = count.into();
        sample
    }

    /// A tenant with two versions of its key.
    pub(super) fn tenant(stage: Stage) -> Self {
        let shredded = TenantShredded {
            erasure_id: id(1),
            key_versions: vec![1, 2],
        };
        let leaves = vec![
            leaf(0, TENANT, requested(ErasureTarget::Tenant, Vec::new())),
            leaf(6, TENANT, Body::TenantShredded(shredded)),
            effective(0),
        ];
        let target = Target {
            asked_for: "TENANT".to_owned(),
            data_class: wording::DATA_CLASS.to_owned(),
            encrypted_before_stored: wording::ENCRYPTED_BEFORE_STORED.to_owned(),
            set_sha256: or_none(""),
            record_count: 0,
            blobs: Listed::default(),
            derived_since: Listed::default(),
            elsewhere: Listed::default(),
            tenant_keys: Listed(vec![1, 2]),
        };
        Self::of(stage, leaves, target, &[1, 2])
    }

    fn of(stage: Stage, mut leaves: Vec<StateLeaf>, target: Target, versions: &[u64]) -> Self {
        let is_tenant = target.asked_for == "TENANT";
        let is_final = stage == Stage::Final;
        if is_final {
            leaves.extend(swept(versions, is_tenant));
        }
        let line = |at, meaning: &str| Line {
            stage,
            since: time(T0 + at),
            meaning: meaning.to_owned(),
        };
        let (content, traces) = if is_final { (31, 32) } else { (7, 7) };
        let pages = target.blobs.0.iter().take(1).map(|_| id_text(0x30));
        let destroyed = if is_final || is_tenant {
            ascending(versions)
        } else {
            Vec::new()
        };
        let slots = if is_tenant { 2 } else { target.record_count };
        let certificate = Certificate {
            format: FORMAT.to_owned(),
            identity: Identity {
                id: format!("{ERASURE}-{}", stage.name().to_lowercase()),
                version: VERSION,
                stage,
                issued_at: time(T0 + 40),
                vault: VAULT.to_owned(),
                region: "test-1".to_owned(),
                tenant: TENANT.to_owned(),
                erasure: ERASURE.to_owned(),
                reference: "case-7".to_owned(),
                ground: "dpv:A17".to_owned(),
                requested_by: "compliance-1".to_owned(),
                approvers: Listed(vec!["dpo-1".to_owned()]),
                requested_at: time(T0),
                due_at: time(T0 + 5),
            },
            method: Method {
                technique: wording::TECHNIQUE.to_owned(),
                reaches: wording::REACHES.to_owned(),
                algorithm: wording::ALGORITHM.to_owned(),
                strength_bits: wording::STRENGTH_BITS,
                slots_punctured: slots,
                tenant_key_versions_destroyed: Listed(destroyed),
                root_epochs_destroyed: if is_final {
                    Listed(vec![1, 2])
                } else {
                    Listed::default()
                },
                rng: wording::RNG.to_owned(),
                module: wording::MODULE.to_owned(),
                validation: wording::VALIDATION.to_owned(),
                zeroisation: wording::ZEROISATION.to_owned(),
                escrow: wording::ESCROW.to_owned(),
            },
            tool: Tool {
                name: "callvault".to_owned(),
                version: "0.1.0".to_owned(),
                build_sha256: "unknown".to_owned(),
            },
            verification: Verification {
                content: line(content, wording::content(stage)),
                search_traces: line(traces, wording::search_traces(stage)),
                pages: if is_final {
                    pages.collect()
                } else {
                    Listed::default()
                },
                paths: if is_final {
                    versions.iter().map(way).collect()
                } else {
                    Listed::default()
                },
                epochs: if is_final {
                    [1, 2].map(end).into_iter().collect()
                } else {
                    Listed::default()
                },
                objects: Objects {
                    checked: wording::OBJECTS_OF_RECORDS.to_owned(),
                    gone: 0,
                    kept: target.blobs.0.iter().map(|blob| blob.object.clone()).collect(),
                    pending: Listed::default(),
                },
                errors: Listed::default(),
            },
            residual_copies: wording::residual_copies(
                stage,
                &time(T0 + 31),
                false,
                false,
                &["file".to_owned()],
            ),
            proves: wording::proves(stage),
            inclusion: Inclusion::default(),
            target,
        };
        Self {
            log_key: TestKey::new(1),
            certificate_key: TestKey::new(2),
            leaves,
            certificate,
        }
    }

    pub(super) fn keys(&self) -> KeySet {
        KeySet::new(vec![
            PublishedKey {
                key_use: KeyUse::LogCheckpoint,
                public_key: self.log_key.public_key(),
            },
            PublishedKey {
                key_use: KeyUse::Certificate,
                public_key: self.certificate_key.public_key(),
            },
        ])
    }

    /// Logs the leaves among others, cites them all, and signs.
    pub(super) fn signed(&mut self) -> Vec<u8> {
        let filler = leaf(0, "", Body::LogClosed(LogClosed { size: 9 })).encode_to_vec();
        let mut entries = vec![filler; 3];
        entries.extend(self.leaves.iter().map(Message::encode_to_vec));
        entries.push(entries[0].clone());
        let hashes: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let cited = (3..3 + self.leaves.len()).map(|at| CitedLeaf {
            origin: ORIGIN.to_owned(),
            index: at as u64,
            leaf: entries[at].clone(),
            proof: path(&hashes, at).into_iter().map(Hash).collect(),
        });
        self.certificate.inclusion = Inclusion {
            checkpoints: vec![Checkpoint {
                origin: ORIGIN.to_owned(),
                note: note(ORIGIN, &hashes, &self.log_key),
            }],
            leaves: cited.collect(),
        };
        self.sign()
    }

    /// Signs the document as it is.
    pub(super) fn sign(&self) -> Vec<u8> {
        let document = serde_json::to_value(&self.certificate).unwrap();
        let document = canonical::to_bytes(&document).unwrap();
        let kid = KeyUse::Certificate.kid(&self.certificate_key.public_key());
        jws::sign(&document, &kid, &self.certificate_key)
    }
}

fn effective(records: u64) -> StateLeaf {
    let body = ErasureEffective {
        erasure_id: id(1),
        records,
    };
    leaf(7, TENANT, Body::ErasureEffective(body))
}

fn way(version: &u64) -> Path {
    Path {
        key_version: *version,
        region_page: id_text(0x40),
        region_slot: u32::try_from(*version).unwrap(),
        first_epoch: 1,
        last_epoch: 2,
    }
}

fn end(epoch: u64) -> Epoch {
    Epoch {
        epoch,
        provider: "file".to_owned(),
        destroyed_at: time(T0 + 22),
        answer: wording::REFUSED.to_owned(),
    }
}
