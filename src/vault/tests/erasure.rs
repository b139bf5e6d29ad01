//! Records, people and tenants are erased, and what was erased stays so: after a restart, a lost index, an index of before.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use crate::{
    domain::{
        erasure::{ErasureState, Ground, Target},
        ids::RecordId,
        record::{Record, State},
        tenant::TenantState,
    },
    index::{Key, Range, Scan},
};

use super::{
    rotation::read,
    sweep::{Mortal, dead},
    *,
};

const DAY: i64 = 24 * 3_600 * 1_000_000;
const ALL: ContentRange = ContentRange {
    offset: 0,
    limit: None,
};

/// A recording of its own conversation, with a number of its own.
pub(super) async fn record_call(vault: &Arc<Vault>, n: u32) -> Record {
    let mut draft = draft(&format!("+52551234{n:04}"));
    draft.descriptor.conversation_id = format!("conv-{n}").parse().unwrap();
    draft.descriptor.external_id = Some(format!("call-{n}").parse().unwrap());
    let spec = PutSpec {
        draft,
        ..spec(&format!("r-{n}"))
    };
    let mut put = vault.begin_put(spec).await.unwrap();
    put.write(Bytes::from(format!("what was said in call {n}")))
        .await
        .unwrap();
    put.finish(Closing::default()).await.unwrap()
}

pub(super) fn message_spec(n: u32, derived_from: Option<RecordId>) -> MessageSpec {
    let mut draft = draft(&format!("+52559999{n:04}"));
    draft.descriptor.external_id = None;
    draft.descriptor.derived_from = derived_from;
    MessageSpec {
        actor: "uploader".into(),
        draft,
        request: Some(format!("m-{n}").parse().unwrap()),
        body: Bytes::from(format!("message {n}")),
    }
}

/// One message, alone.
async fn put_message(vault: &Arc<Vault>, tenant: &TenantId, spec: MessageSpec) -> Result<Record, Error> {
    vault.put_messages(tenant, vec![spec]).await?.remove(0)
}

pub(super) fn erase(target: Target) -> ErasureSpec {
    ErasureSpec {
        tenant: "dev".parse().unwrap(),
        actor: "compliance".into(),
        target,
        ground: Ground::A17,
        reference: "CASE-1".parse().unwrap(),
        grace_micros: Some(0),
        expected_set: None,
        request: None,
    }
}

pub(super) async fn is_there(vault: &Arc<Vault>, record: &Record) -> bool {
    let tenant = &record.tenant;
    let found = vault
        .record(tenant, &Name::Id(record.id), Purpose::LegalCompliance)
        .await;
    let read = vault
        .read(tenant, record.id, ALL, Purpose::ServiceProvision)
        .await;
    if let Err(error) = &found {
        assert_eq!(error.kind, Kind::NotFound, "{error:?}");
        assert_eq!(read.unwrap_err().kind, Kind::NotFound);
        return false;
    }
    read.is_ok()
}

/// Keys of every row of the index that belongs to a record, but what says that it is gone.
async fn rows_of(vault: &Vault, tenant: &TenantId, record: RecordId) -> Vec<Key> {
    let mut found = vault.found_by(tenant, &BTreeSet::from([record])).await.unwrap();
    let row = Key::Record(tenant.clone(), record);
    found.extend(vault.index.get(&row).await.unwrap().map(|_| row));
    found
}

async fn blobs(bench: &Bench) -> Vec<String> {
    let page = bench.store.list("blobs/", false, None, 1_000).await.unwrap();
    page.objects
        .into_iter()
        .map(|object| object.key.to_string())
        .collect()
}

/// Waits until everything that was to be deleted is.
pub(super) async fn purged(vault: &Vault) {
    for _ in 0..2_000 {
        let scan = Scan {
            range: Range::Purges,
            reverse: false,
            after: None,
            limit: 1,
        };
        if vault.index.scan(&scan).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("something is never deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_gone_when_the_call_returns_and_stays_gone_whatever_becomes_of_the_index() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let (kept, gone) = (record_call(vault, 1).await, record_call(vault, 2).await);
    opened.close().await;
    let old = index.snapshot();

    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let erasure = vault
        .request_erasure(erase(Target::Records(vec![gone.id])))
        .await
        .unwrap();
    assert_eq!(erasure.state, ErasureState::Effective);
    assert_eq!((erasure.records, erasure.shredded, erasure.waiting), (1, 1, 0));
    assert!(!is_there(vault, &gone).await);
    assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
    assert_eq!(rows_of(vault, &tenant, gone.id).await, vec![]);
    let external = Name::External("call-2".parse().unwrap());
    let found = vault.record(&tenant, &external, Purpose::LegalCompliance).await;
    assert_eq!(found.unwrap_err().kind, Kind::NotFound);
    // Its slot is gone from the page as it is now.
    let slots = vault.tombstone(&tenant, &gone.id).await.unwrap().unwrap();
    let page = crate::domain::ids::PageId::from_slice(&slots.page_id).unwrap();
    assert!(matches!(
        vault.keys.slot_key(&tenant, &page, slots.slot as u16).await,
        Err(crate::keys::KeyError::Punctured)
    ));
    purged(vault).await;
    assert_eq!(blobs(&bench).await.len(), 1);
    // A repeated upload does not bring it back.
    let mut again = draft("+525512340002");
    again.descriptor.conversation_id = "conv-2".parse().unwrap();
    again.descriptor.external_id = Some("call-2".parse().unwrap());
    let again = vault
        .begin_put(PutSpec {
            draft: again,
            ..spec("r-2")
        })
        .await;
    let refused = match again {
        Ok(mut put) => {
            put.write(Bytes::from("what was said in call 2")).await.unwrap();
            put.finish(Closing::default()).await.unwrap_err()
        }
        Err(error) => error,
    };
    assert_eq!((refused.kind, refused.reason), (Kind::Shredded, "SHREDDED"));
    assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    opened.close().await;

    for index in [index, old, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        let vault = &opened.vault;
        assert!(!is_there(vault, &gone).await);
        assert_eq!(rows_of(vault, &tenant, gone.id).await, vec![]);
        assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
        let now = vault.erasure(&tenant, &erasure.id).await.unwrap();
        assert_eq!((now.state, now.shredded), (ErasureState::Effective, 1));
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_a_shared_blob_dies_alone_and_the_blob_with_the_last() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let specs = (0..3).map(|n| message_spec(n, None)).collect();
    let stored = vault.put_messages(&tenant, specs).await.unwrap();
    let ids: Vec<RecordId> = stored.into_iter().map(|stored| stored.unwrap().id).collect();
    assert_eq!(blobs(&bench).await.len(), 1);
    for (dead, id) in ids.iter().enumerate() {
        let erasure = vault
            .request_erasure(erase(Target::Records(vec![*id])))
            .await
            .unwrap();
        assert_eq!(erasure.state, ErasureState::Effective);
        purged(vault).await;
        assert_eq!(blobs(&bench).await.len(), usize::from(dead < 2));
        for (n, id) in ids.iter().enumerate() {
            let found = vault.message(&tenant, *id, Purpose::ServiceProvision).await;
            assert_eq!(found.is_ok(), n > dead, "{n} after {dead}");
        }
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    }
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    for id in &ids {
        let found = opened
            .vault
            .message(&tenant, *id, Purpose::ServiceProvision)
            .await;
        assert_eq!(found.unwrap_err().kind, Kind::NotFound);
    }
    assert_eq!(opened.vault.verify().await.unwrap().findings, vec![]);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_derived_goes_with_its_source_and_nothing_is_derived_from_the_dead() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let source = record_call(vault, 1).await;
    let transcript = put_message(vault, &tenant, message_spec(1, Some(source.id)))
        .await
        .unwrap();
    let summary = put_message(vault, &tenant, message_spec(2, Some(transcript.id)))
        .await
        .unwrap();
    let preview = vault
        .preview_erasure(&tenant, &Target::Records(vec![source.id]), Ground::A17)
        .await
        .unwrap();
    assert_eq!((preview.records, preview.artifacts), (3, 2));
    let spec = ErasureSpec {
        expected_set: Some(preview.set_sha256[..].try_into().unwrap()),
        ..erase(Target::Conversation("conv-1".parse().unwrap()))
    };
    let erasure = vault.request_erasure(spec).await.unwrap();
    assert_eq!((erasure.records, erasure.shredded), (3, 3));
    for record in [&source, &transcript, &summary] {
        assert!(!is_there(vault, record).await);
    }
    let orphan = put_message(vault, &tenant, message_spec(3, Some(source.id))).await;
    assert_eq!(orphan.unwrap_err().kind, Kind::Invalid);
    // Nor from one that dies while it is put.
    let second = record_call(vault, 2).await;
    let mut late = draft("+525599990009");
    late.descriptor.external_id = None;
    late.descriptor.derived_from = Some(second.id);
    let late = PutSpec {
        draft: late,
        ..super::spec("r-late")
    };
    let mut put = vault.begin_put(late).await.unwrap();
    put.write(Bytes::from_static(b"what was said of it"))
        .await
        .unwrap();
    vault
        .request_erasure(erase(Target::Records(vec![second.id])))
        .await
        .unwrap();
    let refused = put.finish(Closing::default()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotFound);
    assert_eq!(refused.field.as_deref(), Some("descriptor.derived_from"));
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn within_its_grace_nothing_can_be_read_and_all_can_be_taken_back() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let record = record_call(vault, 1).await;
    let subject = Target::Subject(SubjectIdentifier::Tel("+525512340001".parse().unwrap()));
    let with_grace = ErasureSpec {
        grace_micros: Some(7 * DAY),
        ..erase(subject)
    };
    let erasure = vault.request_erasure(with_grace.clone()).await.unwrap();
    assert_eq!(erasure.state, ErasureState::PendingShred);
    opened.close().await;
    for lost in [index.clone(), MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(lost)).await;
        let vault = &opened.vault;
        let read = vault
            .read(&tenant, record.id, ALL, Purpose::ServiceProvision)
            .await;
        assert_eq!(read.unwrap_err().kind, Kind::NotFound);
        let seen = vault
            .record(&tenant, &Name::Id(record.id), Purpose::CustomerCare)
            .await;
        assert_eq!(seen.unwrap_err().kind, Kind::NotFound);
        let by_law = vault
            .record(&tenant, &Name::Id(record.id), Purpose::RightsFulfilment)
            .await;
        assert_eq!(by_law.unwrap().state, State::PendingShred);
        opened.close().await;
    }
    // Two cases cover it: taking one back leaves the other.
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let other = vault.request_erasure(with_grace).await.unwrap();
    let back = vault
        .cancel_erasure("compliance", &tenant, &erasure.id)
        .await
        .unwrap();
    assert_eq!(back.state, ErasureState::Cancelled);
    assert!(
        vault
            .read(&tenant, record.id, ALL, Purpose::ServiceProvision)
            .await
            .is_err()
    );
    vault
        .cancel_erasure("compliance", &tenant, &other.id)
        .await
        .unwrap();
    assert_eq!(
        super::rotation::read(vault, record.id).await,
        b"what was said in call 1"
    );
    opened.close().await;
    for index in [index, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        assert_eq!(read(&opened.vault, record.id).await, b"what was said in call 1");
        assert_eq!(opened.vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_grace_has_passed_it_is_shredded_and_there_is_no_way_back() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let record = record_call(vault, 1).await;
    let spec = ErasureSpec {
        grace_micros: Some(DAY),
        ..erase(Target::Records(vec![record.id]))
    };
    let erasure = vault.request_erasure(spec).await.unwrap();
    assert_eq!(vault.carry_out_due().await.unwrap(), 0);
    bench.clock.advance(DAY);
    let late = vault.cancel_erasure("compliance", &tenant, &erasure.id).await;
    assert_eq!(late.unwrap_err().reason, "NOT_CANCELLABLE");
    assert_eq!(vault.carry_out_due().await.unwrap(), 1);
    let now = vault.erasure(&tenant, &erasure.id).await.unwrap();
    assert_eq!(now.state, ErasureState::Effective);
    assert!(!is_there(vault, &record).await);
    assert_eq!(vault.carry_out_due().await.unwrap(), 0);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimum_retention_defers_an_erasure_and_mandatory_destruction_does_not_wait() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let class = RetentionClass {
        id: "statutory".parse().unwrap(),
        minimum_days: 10,
        maximum_days: None,
        action: RetentionAction::Shred,
        jurisdiction: None,
        legal_ground: None,
        effective: Timestamp(0),
        created: Timestamp(0),
    };
    vault
        .create_retention_class("admin", &tenant, class, None)
        .await
        .unwrap();
    let mut records = Vec::new();
    for n in 1..=2 {
        let mut draft = draft(&format!("+52551234{n:04}"));
        draft.descriptor.retention_class = "statutory".parse().unwrap();
        draft.descriptor.external_id = None;
        let spec = PutSpec {
            draft,
            ..spec(&format!("r-{n}"))
        };
        let mut put = vault.begin_put(spec).await.unwrap();
        put.write(Bytes::from_static(b"kept by law")).await.unwrap();
        records.push(put.finish(Closing::default()).await.unwrap());
    }
    let waits = vault
        .request_erasure(erase(Target::Records(vec![records[0].id])))
        .await
        .unwrap();
    assert_eq!(waits.state, ErasureState::PendingShred);
    assert_eq!(
        (waits.waiting, waits.obstacle.as_deref()),
        (1, Some("MINIMUM_RETENTION"))
    );
    let read = vault
        .read(&tenant, records[0].id, ALL, Purpose::ServiceProvision)
        .await;
    assert_eq!(read.unwrap_err().kind, Kind::NotFound);
    let mandatory = ErasureSpec {
        ground: Ground::MandatoryDestruction,
        grace_micros: None,
        ..erase(Target::Records(vec![records[1].id]))
    };
    let done = vault.request_erasure(mandatory).await.unwrap();
    assert_eq!(done.state, ErasureState::Effective);
    bench.clock.advance(10 * DAY);
    assert_eq!(vault.carry_out_due().await.unwrap(), 1);
    let now = vault.erasure(&tenant, &waits.id).await.unwrap();
    assert_eq!((now.state, now.waiting), (ErasureState::Effective, 0));
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_cut_by_one_row_and_its_neighbours_do_not_notice() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let other: TenantId = "acme".parse().unwrap();
    vault
        .create_tenant("admin", &other, TenantSettings::default(), None)
        .await
        .unwrap();
    let record = record_call(vault, 1).await;
    opened.close().await;
    let old = index.snapshot();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let grace = ErasureSpec {
        grace_micros: Some(DAY),
        ..erase(Target::Tenant)
    };
    let pending = vault.request_erasure(grace).await.unwrap();
    assert_eq!(pending.state, ErasureState::PendingShred);
    assert!(!is_there(vault, &record).await);
    vault
        .cancel_erasure("compliance", &tenant, &pending.id)
        .await
        .unwrap();
    assert!(is_there(vault, &record).await);
    let request: Option<crate::domain::ids::RequestId> = Some("erase-1".parse().unwrap());
    let now = ErasureSpec {
        request: request.clone(),
        ..erase(Target::Tenant)
    };
    let erasure = vault.request_erasure(now.clone()).await.unwrap();
    assert_eq!(
        (erasure.state, erasure.whole_tenant),
        (ErasureState::Effective, true)
    );
    // A retry after its keys are gone is answered all the same.
    assert_eq!(vault.request_erasure(now).await.unwrap().id, erasure.id);
    assert!(!is_there(vault, &record).await);
    purged(vault).await;
    assert_eq!(blobs(&bench).await, Vec::<String>::new());
    let again = vault
        .create_tenant("admin", &tenant, TenantSettings::default(), None)
        .await;
    assert_eq!(again.unwrap_err().reason, "TENANT_EXISTS");
    let listed = vault.tenants(None, 10, |_| true).await.unwrap().items;
    let states: Vec<_> = listed.iter().map(|t| (t.id.as_str(), t.state)).collect();
    assert_eq!(
        states,
        [("acme", TenantState::Active), ("dev", TenantState::Shredded)]
    );
    assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    opened.close().await;
    for index in [index, old, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        let vault = &opened.vault;
        assert!(!is_there(vault, &record).await);
        purged(vault).await;
        assert_eq!(rows_of(vault, &tenant, record.id).await, vec![]);
        assert!(vault.tenant(&other).await.is_ok());
        assert_eq!(
            vault.erasure(&tenant, &erasure.id).await.unwrap().state,
            ErasureState::Effective
        );
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_waits_behind_a_tenants_shred_brings_nothing_back() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    record_call(vault, 1).await;
    // Both come to the region's gate, the rotation first; then the shred has the tenant's before it.
    let gate = vault.keys.region_gate().await;
    let begun = vault.rotate_tenant_key("keys", &tenant, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let erasing = Arc::clone(vault);
    let erasing = tokio::spawn(async move { erasing.request_erasure(erase(Target::Tenant)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(gate);
    let erasure = erasing.await.unwrap().unwrap();
    assert_eq!(erasure.state, ErasureState::Effective);
    super::rotation::ended(vault, &begun).await;
    for version in vault.key_versions(&tenant).await.unwrap() {
        assert_eq!(version.state, KeyState::Destroyed, "{}", version.version);
    }
    assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_is_cut_with_its_record() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let mut put = vault.begin_put(spec("r-1")).await.unwrap();
    put.write(Bytes::from(vec![7; 3 << 20])).await.unwrap();
    let record = put.finish(Closing::default()).await.unwrap();
    let other = record_call(vault, 2).await;
    let mut reading = vault
        .read(&tenant, record.id, ALL, Purpose::ServiceProvision)
        .await
        .unwrap();
    let mut unharmed = vault
        .read(&tenant, other.id, ALL, Purpose::ServiceProvision)
        .await
        .unwrap();
    assert!(reading.next().await.unwrap().is_some());
    let cut = reading.cut();
    assert!(cut.reason().is_none());
    vault
        .request_erasure(erase(Target::Records(vec![record.id])))
        .await
        .unwrap();
    assert_eq!(cut.happened().await.kind, Kind::NotFound);
    assert_eq!(reading.next().await.unwrap_err().kind, Kind::NotFound);
    assert!(unharmed.next().await.unwrap().is_some());
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_does_not_delete_is_there_to_be_seen_and_goes_later() {
    use crate::testing::{
        faulty::{Failure, Operation},
        world::{Engine, World},
    };
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 21).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault()).await;
    let record = record_call(world.vault(), 1).await;
    world
        .faults
        .on(Operation::Delete)
        .below("blobs/")
        .times(u64::MAX)
        .fail_before(Failure::Denied);
    let erasure = world
        .vault()
        .request_erasure(erase(Target::Records(vec![record.id])))
        .await
        .unwrap();
    assert_eq!(erasure.state, ErasureState::Effective);
    let pending = loop {
        let pending = world
            .vault()
            .pending_deletions(&tenant, &erasure.id)
            .await
            .unwrap();
        assert_eq!(pending.len(), 1);
        if pending[0].tries > 0 {
            break pending;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(pending[0].reason.as_deref(), Some("STORE_DENIED"));
    assert!(pending[0].object.starts_with("blobs/dev/"));
    // Whoever made a mistake with the index finds out from what stays of the record that the object is to go.
    for lose in [false, true] {
        world.close().await;
        if lose {
            world.lose_index().await.unwrap();
        }
        world.open().await.unwrap();
        let pending = world
            .vault()
            .pending_deletions(&tenant, &erasure.id)
            .await
            .unwrap();
        assert_eq!(pending.len(), 1, "{lose}");
    }
    world.faults.clear();
    while world.vault().purge().await.unwrap() > 0 {}
    let bucket = world.bucket().await.unwrap();
    let left = bucket.list("blobs/", false, None, 10).await.unwrap();
    assert_eq!(left.objects.len(), 0);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_more_rows_than_a_transaction_has_is_shredded_all_the_same() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let mut draft = draft("+525512345678");
    draft.descriptor.parties = (0..64)
        .map(|n| Party {
            tel: Some(format!("+52551234{n:04}").parse().unwrap()),
            mailto: Some(format!("p{n}@example.com").parse().unwrap()),
            external_subject_id: Some(format!("subject-{n}").parse().unwrap()),
            ..Party::default()
        })
        .collect();
    let spec = PutSpec { draft, ..spec("r-1") };
    let mut put = vault.begin_put(spec).await.unwrap();
    put.write(Bytes::from_static(b"a crowd")).await.unwrap();
    let record = put.finish(Closing::default()).await.unwrap();
    let erasure = vault
        .request_erasure(erase(Target::Records(vec![record.id])))
        .await
        .unwrap();
    assert_eq!(erasure.state, ErasureState::Effective);
    assert_eq!(rows_of(vault, &tenant, record.id).await, vec![]);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_one_person_and_no_other() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let records = [record_call(vault, 1).await, record_call(vault, 2).await];
    let of = |tel: &str| ErasureSpec {
        request: Some("same-id".parse().unwrap()),
        ..erase(Target::Subject(SubjectIdentifier::Tel(tel.parse().unwrap())))
    };
    let first = vault.request_erasure(of("+525512340001")).await.unwrap();
    let again = vault.request_erasure(of("+525512340001")).await.unwrap();
    assert_eq!(first.id, again.id);
    let other = vault.request_erasure(of("+525512340002")).await.unwrap_err();
    assert_eq!(other.reason, "REQUEST_ID_REUSED");
    assert!(!is_there(vault, &records[0]).await && is_there(vault, &records[1]).await);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_refused_when_it_is_empty_unbounded_or_another_than_was_previewed() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let record = record_call(vault, 1).await;
    let nobody = Target::Subject(SubjectIdentifier::Tel("+525500000000".parse().unwrap()));
    let refused = vault.request_erasure(erase(nobody)).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::WrongState, "NOTHING_TO_ERASE")
    );
    let refused = vault
        .request_erasure(erase(Target::Query(Box::default())))
        .await
        .unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("target.query"));
    let spec = ErasureSpec {
        expected_set: Some([7; 32]),
        ..erase(Target::Records(vec![record.id]))
    };
    let refused = vault.request_erasure(spec).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason), (Kind::Conflict, "SET_CHANGED"));
    for grace in [-1, 14 * DAY + 1] {
        let spec = ErasureSpec {
            grace_micros: Some(grace),
            ..erase(Target::Records(vec![record.id]))
        };
        assert_eq!(
            vault.request_erasure(spec).await.unwrap_err().field.as_deref(),
            Some("grace")
        );
    }
    assert!(is_there(vault, &record).await);
    opened.close().await;
}

/// An index of before learns of a shred, and dies before each of its changes. What is left to be forgotten is forgotten by the
/// next start, though the row that said so is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_that_is_cut_short_anywhere_leaves_nothing_that_leads_to_the_dead() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let tenant = make_tenant(&opened.vault).await;
    let (kept, gone) = (
        record_call(&opened.vault, 1).await,
        record_call(&opened.vault, 2).await,
    );
    opened.close().await;
    let old = index.snapshot();
    let opened = bench.open(&Arc::new(index)).await;
    let erased = erase(Target::Records(vec![gone.id]));
    opened.vault.request_erasure(erased).await.unwrap();
    opened.close().await;
    let (mut deaths, mut half) = (0, 0);
    for n in 0.. {
        let copy = old.snapshot();
        let left = Arc::new(AtomicI64::new(n));
        let mortal = Mortal {
            index: copy.clone(),
            left: Arc::clone(&left),
        };
        let root: Arc<dyn RootProvider> = Arc::clone(&bench.root) as _;
        tokio::select! {
            opened = bench.open_over(Arc::new(mortal), root) => opened.crash().await,
            () = dead(&left) => {}
        }
        let died = left.load(Ordering::Acquire) < 0;
        deaths += u32::from(died);
        let row = Key::Record(tenant.clone(), gone.id);
        half += u32::from(died && copy.get(&row).await.unwrap().is_none());
        let opened = bench.open(&Arc::new(copy)).await;
        let vault = &opened.vault;
        assert_eq!(rows_of(vault, &tenant, gone.id).await, vec![], "{n}");
        assert!(!is_there(vault, &gone).await, "{n}");
        // What led to it must lead nowhere else either: it waits for another number.
        let renumbered = vault.all_rows(Range::Renumbers(tenant.clone())).await.unwrap();
        assert_eq!(renumbered.len(), 2, "{n}: its conversation and its person");
        assert_eq!(read(vault, kept.id).await, b"what was said in call 1", "{n}");
        assert_eq!(vault.verify().await.unwrap().findings, vec![], "{n}");
        opened.close().await;
        if !died {
            break;
        }
    }
    assert!(deaths > 5 && half > 1, "{deaths} {half}");
}

/// An index of before a cancellation: the records of the case that was taken back are another's, which was there then or not.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_index_gives_nothing_back_that_another_case_covers() {
    for knows_both in [false, true] {
        let bench = Bench::new().await;
        let index = MemoryIndex::default();
        let opened = bench.open(&Arc::new(index.clone())).await;
        let vault = &opened.vault;
        let tenant = make_tenant(vault).await;
        let (both, one) = (record_call(vault, 1).await, record_call(vault, 2).await);
        let case = |records: &[&Record]| ErasureSpec {
            grace_micros: Some(7 * DAY),
            ..erase(Target::Records(records.iter().map(|record| record.id).collect()))
        };
        let first = vault.request_erasure(case(&[&both, &one])).await.unwrap();
        let second = if knows_both {
            Some(vault.request_erasure(case(&[&both])).await.unwrap())
        } else {
            None
        };
        opened.close().await;
        let old = index.snapshot();
        let opened = bench.open(&Arc::new(index)).await;
        let vault = &opened.vault;
        let second = match second {
            Some(second) => second,
            None => vault.request_erasure(case(&[&both])).await.unwrap(),
        };
        vault
            .cancel_erasure("compliance", &tenant, &first.id)
            .await
            .unwrap();
        opened.close().await;

        let opened = bench.open(&Arc::new(old)).await;
        let vault = &opened.vault;
        let again = vault.read(&tenant, both.id, ALL, Purpose::ServiceProvision).await;
        assert_eq!(again.unwrap_err().kind, Kind::NotFound, "{knows_both}");
        assert_eq!(
            read(vault, one.id).await,
            b"what was said in call 2",
            "{knows_both}"
        );
        assert_eq!(vault.verify().await.unwrap().findings, vec![], "{knows_both}");
        bench.clock.advance(8 * DAY);
        vault.carry_out_due().await.unwrap();
        let now = vault.erasure(&tenant, &second.id).await.unwrap();
        assert_eq!(now.state, ErasureState::Effective, "{knows_both}");
        assert!(!is_there(vault, &both).await, "{knows_both}");
        assert_eq!(
            read(vault, one.id).await,
            b"what was said in call 2",
            "{knows_both}"
        );
        opened.close().await;
    }
}
