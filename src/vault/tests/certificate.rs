//! Certificates over rows and leaves that are written here: what the vault signs holds for a stranger, and nothing else is signed.

use crate::{
    domain::{
        erasure::{ErasureState, Ground, Target},
        ids::{ErasureId, RecordId},
    },
    evidence::{
        keys::{KeySet, KeyUse, PublishedKey},
        verify::{Proven, verify},
    },
    index::{Change, Key, Row, Scope},
    keys::provider::{EpochLabel, RootProvider},
    ledger::{leaf, outbox::Until},
    proto::storage::{
        EpochRow, ErasureEffective, ErasureFinal, ErasureGround, ErasureRequested, ErasureRow, ErasureTarget,
        PurgeRow, RecordRow, RecordsShredded, RootEpochDestroyed, RootEpochDestroying, ShreddedRecord,
        TenantShredded, TombstoneRow, state_leaf::Body,
    },
};

use super::{
    rotation::{put, rotate, turn},
    *,
};

const SECOND: i64 = 1_000_000;

/// An erasure that the test writes, step by step, as the vault would.
struct Case<'a> {
    bench: &'a Bench,
    erasure: ErasureId,
    row: ErasureRow,
}

impl<'a> Case<'a> {
    fn new(bench: &'a Bench) -> Self {
        Self {
            bench,
            erasure: ErasureId::mint(bench.clock.now(), &*bench.rng).unwrap(),
            row: ErasureRow {
                state: ErasureState::Effective.number(),
                ground: ErasureGround::A17.into(),
                ..ErasureRow::default()
            },
        }
    }

    fn id(&self) -> Bytes {
        self.erasure.as_bytes().to_vec().into()
    }

    /// A second later, this leaf and these rows.
    async fn log(&mut self, vault: &Vault, scope: Scope, body: Body, mut put: Vec<Row>) -> i64 {
        let now = self.bench.clock.advance(SECOND);
        put.push(vault.rows.row(Key::Erasure(tenant(), self.erasure), &self.row));
        let change = Change {
            put,
            leaves: vec![leaf::draft(scope, "compliance", now, body)],
            ..Change::default()
        };
        vault.ledger.commit(change, Until::Shipped).await.unwrap();
        now.micros()
    }

    async fn save(&self, vault: &Vault) {
        let change = Change {
            put: vec![vault.rows.row(Key::Erasure(tenant(), self.erasure), &self.row)],
            ..Change::default()
        };
        vault.index.commit(change).await.unwrap();
    }

    async fn request(&mut self, vault: &Vault, target: ErasureTarget, records: &[RecordId]) {
        let mut ids: Vec<Bytes> = records.iter().map(|id| id.as_bytes().to_vec().into()).collect();
        ids.sort();
        let set = match target {
            ErasureTarget::Tenant => Bytes::new(),
            _ => crate::vault::payload::name_payload(&ids.concat()).sha256,
        };
        let body = ErasureRequested {
            erasure_id: self.id(),
            target: target.into(),
            ground: ErasureGround::A17.into(),
            reference: "case-7".to_owned(),
            due_micros: self.bench.clock.now().micros() + SECOND,
            set_sha256: set.clone(),
            records: ids.len() as u64,
            record_ids: ids.clone(),
            ..ErasureRequested::default()
        };
        self.row.record_ids = ids;
        self.row.set_sha256 = set;
        self.row.target = target.into();
        let at = self
            .log(
                vault,
                Scope::Tenant(tenant()),
                Body::ErasureRequested(body),
                vec![],
            )
            .await;
        self.row.created_micros = at;
        self.save(vault).await;
    }

    async fn shred(&mut self, vault: &Vault, records: &[RecordId]) {
        for id in records {
            let record = shredded(vault, id).await;
            let body = RecordsShredded {
                erasure_id: self.id(),
                records: vec![record.clone()],
                ..RecordsShredded::default()
            };
            let tombstone = TombstoneRow {
                erasure_id: self.id(),
                record: Some(record),
                shredded_micros: self.bench.clock.now().micros() + SECOND,
            };
            let tombstone = vault.rows.row(Key::Tombstone(tenant(), *id), &tombstone);
            let body = Body::RecordsShredded(body);
            self.log(vault, Scope::Tenant(tenant()), body, vec![tombstone])
                .await;
        }
    }

    async fn effective(&mut self, vault: &Vault, records: u64) {
        let body = ErasureEffective {
            erasure_id: self.id(),
            records,
        };
        let at = self
            .log(
                vault,
                Scope::Tenant(tenant()),
                Body::ErasureEffective(body),
                vec![],
            )
            .await;
        self.row.effective_micros = at;
        self.save(vault).await;
    }

    /// What a sweep does to keys: another version, the old one destroyed, another epoch.
    async fn sweep_keys(&mut self, vault: &Arc<Vault>) {
        self.bench.clock.advance(SECOND);
        rotate(vault).await;
        self.bench.clock.advance(SECOND);
        vault.destroy_key_version("keys", &tenant(), 1).await.unwrap();
        self.bench.clock.advance(SECOND);
        turn(vault).await;
        self.bench.clock.advance(SECOND);
    }

    /// And to the old epoch, as far as log and index know; the provider is asked by the test.
    async fn destroy_epoch(&mut self, vault: &Vault) {
        let destroying = RootEpochDestroying {
            epoch: 1,
            current_epoch: 2,
            operation_id: Bytes::new(),
        };
        let key = Key::Epoch(1);
        let value = vault.index.get(&key).await.unwrap().unwrap();
        let mut epoch: EpochRow = vault.rows.open(&key, &value).unwrap();
        let body = Body::RootEpochDestroying(destroying);
        epoch.destroying_micros = self.log(vault, Scope::Region, body, vec![]).await;
        epoch.destroyed_micros = self.bench.clock.now().micros() + SECOND;
        epoch.state = 3;
        let destroyed = RootEpochDestroyed {
            epoch: 1,
            ..RootEpochDestroyed::default()
        };
        let row = vault.rows.row(key, &epoch);
        self.log(
            vault,
            Scope::Region,
            Body::RootEpochDestroyed(destroyed),
            vec![row],
        )
        .await;
    }

    async fn finish(&mut self, vault: &Vault) {
        for (content, search_traces) in [(true, false), (false, true)] {
            let body = ErasureFinal {
                erasure_id: self.id(),
                content,
                search_traces,
                operation_id: Bytes::new(),
                key_versions: vec![1],
                epochs: vec![1],
            };
            let at = self
                .log(vault, Scope::Tenant(tenant()), Body::ErasureFinal(body), vec![])
                .await;
            if content {
                self.row.content_final_micros = at;
            } else {
                self.row.traces_final_micros = at;
            }
        }
        self.row.key_versions = vec![1];
        self.row.epochs = vec![1];
        self.save(vault).await;
    }
}

fn tenant() -> TenantId {
    "dev".parse().unwrap()
}

async fn shredded(vault: &Vault, id: &RecordId) -> ShreddedRecord {
    let key = Key::Record(tenant(), *id);
    let value = vault.index.get(&key).await.unwrap().unwrap();
    let row: RecordRow = vault.rows.open(&key, &value).unwrap();
    ShreddedRecord {
        record_id: id.as_bytes().to_vec().into(),
        kind: row.kind as u32,
        object_key: row.object_key,
        object_version: row.object_version,
        footer_sha256: row.footer_sha256,
        entry_index: row.entry_index,
        entry_count: row.entry_count,
        plaintext_length: row.plaintext_length,
        page_id: row.page_id,
        slot: row.slot,
        request_mac: Bytes::new(),
        request_expires_micros: 0,
    }
}

/// What `ListSigningKeys` tells.
fn published(vault: &Vault) -> KeySet {
    let keys = vault.signing_keys().iter().map(|key| PublishedKey {
        key_use: match key.signing_use {
            SigningUse::LogCheckpoint => KeyUse::LogCheckpoint,
            SigningUse::Certificate => KeyUse::Certificate,
        },
        public_key: key.public_key,
    });
    let keys: Vec<_> = keys.collect();
    for (published, key) in keys.iter().zip(vault.signing_keys()) {
        assert_eq!(published.key_use.kid(&published.public_key), key.kid);
    }
    KeySet::new(keys)
}

/// As a stranger: from the file and the published keys.
fn proven(vault: &Vault, file: &[u8]) -> Proven {
    verify(file, &published(vault)).unwrap()
}

fn reason<T>(answer: Result<T, Error>) -> &'static str {
    answer.err().map_or("none", |error| error.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_made_once_a_stage_and_never_changes() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    bench.clock.advance(SECOND);
    let records = [
        put(vault, "r-1", b"one").await.id,
        put(vault, "r-2", b"two").await.id,
    ];
    let mut case = Case::new(&bench);
    case.request(vault, ErasureTarget::Records, &records).await;
    case.shred(vault, &records).await;
    case.effective(vault, 2).await;
    let (stage, effective) = vault.certificate(&tenant(), &case.erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Effective);
    let said = proven(vault, &effective).certificate;
    assert_eq!(said.target.record_count, 2);
    assert_eq!(said.target.blobs.0[0].store, "local");
    assert_eq!(said.target.blobs.0[0].bytes, 3);
    assert_eq!(
        said.verification.objects.pending.0.len(),
        2,
        "nothing has deleted them"
    );
    assert_eq!(said.tool.build_sha256.len(), 64);

    // One object is gone, the other waits with a reason.
    let names: Vec<_> = said
        .target
        .blobs
        .0
        .iter()
        .map(|blob| blob.object.clone())
        .collect();
    bench
        .store
        .delete(&crate::blob::store::ObjectKey::parse(&names[0]).unwrap())
        .await
        .unwrap();
    let purge = PurgeRow {
        tries: 4,
        reason: "STORE_DENIED".to_owned(),
        ..PurgeRow::default()
    };
    let purge = vault.rows.row(Key::Purge(tenant(), names[1].clone()), &purge);
    let change = Change {
        put: vec![purge],
        ..Change::default()
    };
    vault.index.commit(change).await.unwrap();
    case.sweep_keys(vault).await;
    let label = EpochLabel {
        vault: *vault.id(),
        epoch: 1,
    };
    bench.root.destroy(label, "").await.unwrap();
    case.destroy_epoch(vault).await;
    case.finish(vault).await;
    let (stage, last) = vault.certificate(&tenant(), &case.erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Final);
    let said = proven(vault, &last).certificate;
    assert_eq!(said.method.root_epochs_destroyed.0, [1]);
    assert_eq!(said.method.tenant_key_versions_destroyed.0, [1]);
    assert_eq!(said.verification.epochs.0[0].answer, "refused: no such key");
    let objects = &said.verification.objects;
    assert_eq!(
        (objects.gone, objects.pending.0[0].reason.as_str()),
        (1, "STORE_DENIED")
    );
    opened.close().await;

    // Whatever time it is, and with whatever index.
    bench.clock.advance(86_400 * SECOND);
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    for (asked, file) in [
        (CertificateStage::Effective, &effective),
        (CertificateStage::Final, &last),
    ] {
        let again = vault
            .certificate(&tenant(), &case.erasure, Some(asked))
            .await
            .unwrap();
        assert_eq!(again, (asked, file.clone()));
    }
    // Somebody writes over the stored one.
    let name = format!("certificates/dev/{}-final.json", case.erasure);
    let name = crate::blob::store::ObjectKey::parse(&name).unwrap();
    bench.store.overwrite(&name, effective).await.unwrap();
    assert_eq!(
        reason(vault.certificate(&tenant(), &case.erasure, None).await),
        "INTEGRITY"
    );
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_not_reached_has_no_certificate() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let record = put(vault, "r-1", b"one").await.id;
    let mut case = Case::new(&bench);
    let ask = |erasure, stage| async move { reason(vault.certificate(&tenant(), &erasure, stage).await) };
    assert_eq!(ask(case.erasure, None).await, "NOT_FOUND");
    case.request(vault, ErasureTarget::Records, &[record]).await;
    assert_eq!(ask(case.erasure, None).await, "STAGE_NOT_REACHED");
    assert_eq!(
        ask(case.erasure, Some(CertificateStage::Effective)).await,
        "STAGE_NOT_REACHED"
    );
    case.shred(vault, &[record]).await;
    case.effective(vault, 1).await;
    assert_eq!(
        ask(case.erasure, Some(CertificateStage::Final)).await,
        "STAGE_NOT_REACHED"
    );
    case.row.content_final_micros = 1;
    case.save(vault).await;
    let refused = vault
        .certificate(&tenant(), &case.erasure, Some(CertificateStage::Final))
        .await
        .unwrap_err();
    assert!(refused.message.contains("search traces"), "{refused}");
    let other = "other".parse().unwrap();
    assert_eq!(
        reason(vault.certificate(&other, &case.erasure, None).await),
        "NOT_FOUND"
    );
    assert_eq!(ask(case.erasure, None).await, "none");
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_says_final_while_a_way_up_is_open() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    bench.clock.advance(SECOND);
    let record = put(vault, "r-1", b"one").await.id;
    let mut case = Case::new(&bench);
    case.request(vault, ErasureTarget::Records, &[record]).await;
    case.shred(vault, &[record]).await;
    case.effective(vault, 1).await;
    // Log and index say that it is final, and nothing was done.
    case.finish(vault).await;
    let ask = |erasure| async move { reason(vault.certificate(&tenant(), &erasure, None).await) };
    assert_eq!(ask(case.erasure).await, "PATHS_OPEN");
    case.sweep_keys(vault).await;
    assert_eq!(ask(case.erasure).await, "PATHS_OPEN", "the epoch lives");
    // The index forgets to say which keys matter: their times tell.
    (case.row.key_versions, case.row.epochs) = (vec![], vec![]);
    case.save(vault).await;
    assert_eq!(ask(case.erasure).await, "PATHS_OPEN");
    case.destroy_epoch(vault).await;
    assert_eq!(
        ask(case.erasure).await,
        "PATHS_OPEN",
        "the provider still gives the key out"
    );
    let label = EpochLabel {
        vault: *vault.id(),
        epoch: 1,
    };
    bench.root.destroy(label, "").await.unwrap();
    assert_eq!(ask(case.erasure).await, "none");
    opened.close().await;
}

/// A lying index: the log has the last word on what was erased.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_that_the_log_does_not_say() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let record = put(vault, "r-1", b"one").await.id;
    let mut case = Case::new(&bench);
    case.request(vault, ErasureTarget::Records, &[record]).await;
    case.row.effective_micros = case.row.created_micros;
    case.save(vault).await;
    assert_eq!(
        reason(vault.certificate(&tenant(), &case.erasure, None).await),
        "CERTIFICATE"
    );
    // Two records are said to be shredded, one is.
    case.shred(vault, &[record]).await;
    case.effective(vault, 2).await;
    assert_eq!(
        reason(vault.certificate(&tenant(), &case.erasure, None).await),
        "CERTIFICATE"
    );
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_are_found_wherever_and_whenever_they_were_logged() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    make_tenant(&opened.vault).await;
    let records = [
        put(&opened.vault, "r-1", b"one").await.id,
        put(&opened.vault, "r-2", b"two").await.id,
    ];
    let mut case = Case::new(&bench);
    case.request(&opened.vault, ErasureTarget::Records, &records)
        .await;
    opened.close().await;
    // Every start writes a log of its own.
    for (at, record) in records.iter().enumerate() {
        let opened = bench.open(&index).await;
        for _ in 0..300 {
            let filler = Body::ErasureCancelled(Default::default());
            let draft = leaf::draft(Scope::Fact, "filler", bench.clock.advance(SECOND), filler);
            let change = Change {
                leaves: vec![draft],
                ..Change::default()
            };
            opened.vault.ledger.commit(change, Until::Queued).await.unwrap();
        }
        case.shred(&opened.vault, &[*record]).await;
        if at == 1 {
            // The clock is set back by a day while the erasure ends.
            bench.clock.advance(-86_400 * SECOND);
            case.effective(&opened.vault, 2).await;
            bench.clock.advance(2 * 86_400 * SECOND);
            case.row.effective_micros += 86_400 * SECOND;
            case.save(&opened.vault).await;
        }
        opened.close().await;
    }
    let opened = bench.open(&index).await;
    let (_, file) = opened
        .vault
        .certificate(&tenant(), &case.erasure, None)
        .await
        .unwrap();
    let said = proven(&opened.vault, &file).certificate;
    assert_eq!(said.inclusion.checkpoints.len(), 3);
    assert_eq!(said.inclusion.leaves.len(), 4);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_certificate_names_its_keys() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    bench.clock.advance(SECOND);
    put(vault, "r-1", b"one").await;
    case_of_tenant(&bench, vault).await;
    opened.close().await;
}

async fn case_of_tenant(bench: &Bench, vault: &Arc<Vault>) {
    let mut case = Case::new(bench);
    case.request(vault, ErasureTarget::Tenant, &[]).await;
    case.sweep_keys(vault).await;
    let shredded = TenantShredded {
        erasure_id: case.id(),
        key_versions: vec![1],
    };
    case.log(
        vault,
        Scope::Tenant(tenant()),
        Body::TenantShredded(shredded),
        vec![],
    )
    .await;
    case.effective(vault, 0).await;
    let (_, file) = vault.certificate(&tenant(), &case.erasure, None).await.unwrap();
    let said = proven(vault, &file).certificate;
    assert_eq!(said.target.tenant_keys.0, [1]);
    assert_eq!(said.target.set_sha256, "none");
    assert_eq!(
        said.verification.objects.pending.0.len(),
        1,
        "the store still has its blob"
    );
    let label = EpochLabel {
        vault: *vault.id(),
        epoch: 1,
    };
    bench.root.destroy(label, "").await.unwrap();
    case.destroy_epoch(vault).await;
    case.finish(vault).await;
    let (stage, file) = vault.certificate(&tenant(), &case.erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Final);
    let said = proven(vault, &file).certificate;
    assert_eq!(said.verification.paths.0.len(), 1);
    let way = &said.verification.paths.0[0];
    assert_eq!((way.first_epoch, way.last_epoch), (1, 1));
}

async fn erase(vault: &Arc<Vault>, target: Target) -> ErasureId {
    let spec = ErasureSpec {
        tenant: tenant(),
        actor: "compliance".to_owned(),
        target,
        ground: Ground::A17,
        reference: "case-7".parse().unwrap(),
        grace_micros: Some(0),
        expected_set: None,
        request: None,
    };
    let erasure = vault.request_erasure(spec).await.unwrap();
    assert_eq!(erasure.state, ErasureState::Effective);
    erasure.id
}

async fn sweep(bench: &Bench, vault: &Vault) {
    bench.clock.advance(SECOND);
    let begun = vault.run_sweep("compliance", None).await.unwrap();
    let done = super::rotation::ended(vault, &begun).await;
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    bench.clock.advance(SECOND);
}

/// What replaces the tenant's index key says when it is done.
async fn traces_are_final(vault: &Vault, erasure: &ErasureId) {
    if vault
        .erasure(&tenant(), erasure)
        .await
        .unwrap()
        .traces_final
        .is_some()
    {
        return;
    }
    let body = ErasureFinal {
        erasure_id: erasure.as_bytes().to_vec().into(),
        search_traces: true,
        ..ErasureFinal::default()
    };
    let now = vault.clock().now();
    let change = vault.final_rows(&tenant(), erasure, &body, now).await.unwrap();
    let mut change = change.unwrap();
    let scope = Scope::Tenant(tenant());
    change
        .leaves
        .push(leaf::draft(scope, leaf::SYSTEM, now, Body::ErasureFinal(body)));
    vault.ledger.commit(change, Until::Shipped).await.unwrap();
}

/// What a script says that shares no code with the vault; nothing where there is no Python for it.
fn stranger_holds(vault: &Vault, file: &[u8]) {
    let can = std::process::Command::new("python3")
        .args(["-c", "import cryptography"])
        .output();
    if !can.is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: python3 has no module `cryptography`");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (certificate, keys) = (dir.path().join("certificate"), dir.path().join("keys"));
    std::fs::write(&certificate, file).unwrap();
    std::fs::write(&keys, published(vault).to_jwks()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/verify_certificate.py");
    let out = std::process::Command::new("python3")
        .arg(script)
        .arg(certificate)
        .arg(keys)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_is_certified_from_request_to_sweep_and_again_after_a_lost_index() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    bench.clock.advance(SECOND);
    let record = put(vault, "r-1", b"one").await.id;
    put(vault, "r-2", b"stays").await;
    bench.clock.advance(SECOND);
    let erasure = erase(vault, Target::Records(vec![record])).await;
    vault.purge().await.unwrap();
    let (stage, file) = vault.certificate(&tenant(), &erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Effective);
    let said = proven(vault, &file).certificate;
    assert_eq!(said.target.blobs.0[0].records[0].record, record.to_string());
    assert_eq!(said.verification.objects.gone, 1);
    stranger_holds(vault, &file);

    sweep(&bench, vault).await;
    traces_are_final(vault, &erasure).await;
    let (stage, file) = vault.certificate(&tenant(), &erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Final);
    let said = proven(vault, &file).certificate;
    assert_eq!(said.method.root_epochs_destroyed.0, [1]);
    stranger_holds(vault, &file);
    opened.close().await;

    for stage in ["effective", "final"] {
        let name = format!("certificates/dev/{erasure}-{stage}.json");
        let name = crate::blob::store::ObjectKey::parse(&name).unwrap();
        bench.store.delete(&name).await.unwrap();
    }
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let (stage, again) = opened.vault.certificate(&tenant(), &erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Final);
    let again = proven(&opened.vault, &again).certificate;
    assert_eq!(again.method, said.method);
    assert_eq!(again.verification.paths, said.verification.paths);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_erasure_is_certified_from_request_to_sweep() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    bench.clock.advance(SECOND);
    put(vault, "r-1", b"one").await;
    bench.clock.advance(SECOND);
    let erasure = erase(vault, Target::Tenant).await;
    let (stage, file) = vault.certificate(&tenant(), &erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Effective);
    assert_eq!(proven(vault, &file).certificate.target.tenant_keys.0, [1]);
    stranger_holds(vault, &file);
    sweep(&bench, vault).await;
    let (stage, file) = vault.certificate(&tenant(), &erasure, None).await.unwrap();
    assert_eq!(stage, CertificateStage::Final);
    assert_eq!(
        proven(vault, &file).certificate.method.root_epochs_destroyed.0,
        [1]
    );
    stranger_holds(vault, &file);
    opened.close().await;
}
