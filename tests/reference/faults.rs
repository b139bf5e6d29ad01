//! Promises under faults, a test each, named for the promise.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use callvault::{
    blob::{
        format::{self, Footer, Tail},
        store::{BlobStore, ByteRange, ObjectKey},
    },
    domain::{
        clock::{Clock, Timestamp},
        ids::{PageId, RecordId, TenantId},
        record::{Query, SubjectIdentifier},
        tenant::TenantSettings,
    },
    index::{Change, Index, Key, Row},
    testing::{
        faulty::{Failure, Operation},
        world::{Engine, World, copy},
    },
    vault::{Closing, Kind, OpenError, Order, PutSpec, TenantChange, Vault},
};

use super::kit::*;

pub(super) const TEL: &str = "+5215512345678";
/// Crosses from the first extent into the second.
pub(super) const TWO_EXTENTS: usize = 8_800_000;

pub(super) async fn world(engine: Engine) -> (tempfile::TempDir, World, TenantId) {
    let dir = directory();
    let mut world = World::new(dir.path(), engine, 1).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault(), "acme").await;
    (dir, world, tenant)
}

pub(super) fn a_call(of: &TenantId) -> PutSpec {
    spec(of, descriptor("call", TEL))
}

pub(super) fn requested(of: &TenantId, request: &str) -> PutSpec {
    PutSpec {
        request: Some(request.parse().unwrap()),
        ..a_call(of)
    }
}

pub(super) async fn objects(world: &World, prefix: &str) -> Vec<ObjectKey> {
    let bucket = world.bucket().await.unwrap();
    let listed = bucket.list(prefix, false, None, 1_000).await.unwrap();
    listed.objects.into_iter().map(|o| o.key).collect()
}

pub(super) async fn uploads(world: &World) -> usize {
    world
        .bucket()
        .await
        .unwrap()
        .uploads("blobs/")
        .await
        .unwrap()
        .len()
}

/// Page and slot of every record in the bucket, indexed or not.
async fn slots(world: &World) -> Vec<(PageId, u16)> {
    let bucket = world.bucket().await.unwrap();
    let mut slots = Vec::new();
    for key in objects(world, "blobs/").await {
        let object = bucket.get(&key, ByteRange::Full).await.unwrap();
        let Tail::Whole(footer) = format::find_footer(&object.bytes, object.object_length).unwrap() else {
            panic!("the whole object holds its footer");
        };
        let footer = Footer::decode(&footer).unwrap();
        slots.extend(footer.entries.iter().map(|e| (e.page, e.slot)));
    }
    slots
}

pub(super) async fn slots_are_used_once(world: &World) {
    let slots = slots(world).await;
    let once: BTreeSet<_> = slots.iter().map(|(p, s)| (*p.as_bytes(), *s)).collect();
    assert_eq!(once.len(), slots.len(), "a slot wraps one thing");
}

pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}

pub(super) async fn rebuilt(world: &mut World) -> callvault::vault::Replayed {
    world.close().await;
    world.lose_index().await.unwrap();
    world.open().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_survives_the_loss_of_the_index() {
    for engine in [Engine::Memory, Engine::Sled] {
        let (_dir, mut world, t) = world(engine).await;
        let body = content(1, 100_000);
        let a = put(world.vault(), a_call(&t), &body).await.unwrap();
        let mut new = descriptor("d", "+5215500000000");
        new.start.0 += HOUR;
        let b = world
            .vault()
            .update(update(&t, a.id, &["parties", "start_time"], new))
            .await
            .unwrap();
        no_findings(world.vault()).await;
        let replayed = rebuilt(&mut world).await;
        assert_eq!((replayed.records, replayed.adopted), (1, 0));
        assert_eq!(everything(world.vault(), &t).await, [b]);
        assert_eq!(read(world.vault(), &t, a.id).await.unwrap(), body);
        no_findings(world.vault()).await;
        world.close().await;
    }
}

/// As many people as a descriptor may name, each with all that somebody is found by.
fn a_crowd() -> Vec<callvault::domain::record::Party> {
    let person = |n: usize| callvault::domain::record::Party {
        mailto: Some(format!("p{n}@example.com").parse().unwrap()),
        external_subject_id: Some(format!("s-{n}").parse().unwrap()),
        agent_id: Some(format!("a-{n}").parse().unwrap()),
        ..party(&format!("+52155{n:08}"))
    };
    (0..callvault::domain::limits::PARTIES).map(person).collect()
}

async fn found_by_tel(world: &World, t: &TenantId, tel: &str) -> Vec<RecordId> {
    let query = Query {
        subject: Some(SubjectIdentifier::Tel(tel.parse().unwrap())),
        ..Query::default()
    };
    let listed = list_all(world.vault(), t, &query, Order::OldestFirst, 7, LAWFUL).await;
    listed.unwrap().into_iter().map(|record| record.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_as_many_people_as_may_be_is_corrected_and_found_by_each() {
    let (first, last) = ("+5215500000000", "+5215500000063");
    for engine in [Engine::Memory, Engine::Sled] {
        let (_dir, mut world, t) = world(engine).await;
        let mut crowd = descriptor("call", TEL);
        crowd.parties = a_crowd();
        let id = put(world.vault(), spec(&t, crowd.clone()), &content(1, 9))
            .await
            .unwrap()
            .id;
        crowd.start.0 += HOUR;
        let vault = world.vault();
        vault
            .update(update(&t, id, &["start_time"], crowd.clone()))
            .await
            .unwrap();
        assert_eq!(found_by_tel(&world, &t, first).await, [id]);
        assert_eq!(found_by_tel(&world, &t, last).await, [id]);
        let alone = vault
            .update(update(&t, id, &["parties"], descriptor("call", first)))
            .await;
        assert_eq!(found_by_tel(&world, &t, first).await, [id]);
        assert_eq!(found_by_tel(&world, &t, last).await, []);
        no_findings(vault).await;
        rebuilt(&mut world).await;
        assert_eq!(everything(world.vault(), &t).await, [alone.unwrap()]);
        let again = world.vault().update(update(&t, id, &["parties"], crowd)).await;
        assert_eq!(found_by_tel(&world, &t, last).await, [id]);
        no_findings(world.vault()).await;
        rebuilt(&mut world).await;
        assert_eq!(found_by_tel(&world, &t, last).await, [id]);
        assert_eq!(everything(world.vault(), &t).await, [again.unwrap()]);
        world.close().await;
    }
}

/// What was put back is authentic: only the logs and the other rows can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_sees_rows_that_were_put_back_or_taken_away() {
    let (_dir, world, t) = world(Engine::Memory).await;
    let mut about = descriptor("call", TEL);
    about.external_id = Some("call-1".parse().unwrap());
    let id = put(world.vault(), spec(&t, about), &content(1, 9))
        .await
        .unwrap()
        .id;
    let before = world.memory_index().rows();
    let vault = world.vault();
    let new = descriptor("call", "+5215500000000");
    vault.update(update(&t, id, &["parties"], new)).await.unwrap();
    let change = TenantChange {
        fields: ["display_name"].into(),
        settings: TenantSettings {
            display_name: Some("New".parse().unwrap()),
            ..TenantSettings::default()
        },
    };
    vault.update_tenant(ACTOR, &t, &change, None, None).await.unwrap();
    no_findings(vault).await;
    let index = world.memory_index().clone();
    let put_back = before
        .into_iter()
        .filter(|row| matches!(row.key, Key::Record(..) | Key::Tenant(_)))
        .map(|row| (row.key, Some(row.value)));
    let taken = index.rows().into_iter().filter_map(|row| match row.key {
        Key::ByTime(..) | Key::ByConversation(..) | Key::BySubject(..) | Key::External(..) => {
            Some((row.key, None))
        }
        _ => None,
    });
    let damages: Vec<_> = put_back.chain(taken).collect();
    assert_eq!(damages.len(), 6, "{damages:?}");
    for (key, damaged) in damages {
        let good = index.get(&key).await.unwrap();
        assert_ne!(good, damaged, "{key:?}");
        index.commit(set(&key, damaged)).await.unwrap();
        let report = world.vault().verify().await.unwrap();
        assert_eq!(report.findings.len(), 1, "{key:?} {:?}", report.findings);
        index.commit(set(&key, good)).await.unwrap();
    }
    no_findings(world.vault()).await;
}

fn set(key: &Key, value: Option<Vec<u8>>) -> Change {
    match value {
        Some(value) => Change {
            put: vec![Row {
                key: key.clone(),
                value,
            }],
            ..Change::default()
        },
        None => Change {
            delete: vec![key.clone()],
            ..Change::default()
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_may_be_opened_and_closed_without_a_change_in_between() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    for _ in 0..4 {
        world.close().await;
        assert_eq!(world.open().await.unwrap(), None);
    }
    put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_may_fail_anywhere_and_be_repeated() {
    for n in 1..40 {
        let dir = directory();
        let mut world = World::new(dir.path(), Engine::Memory, n).unwrap();
        let fault = if n % 2 == 0 {
            world.faults.on_all().nth(n / 2).fail_before(Failure::Unavailable)
        } else {
            world
                .faults
                .on_all()
                .nth(n / 2 + 1)
                .fail_after(Failure::Unavailable)
        };
        if world.open().await.is_err() {
            world.crash().await;
            assert_eq!(fault.fired(), 1);
            world.open().await.unwrap();
        }
        world.faults.clear();
        let t = make_tenant(world.vault(), "acme").await;
        put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
        rebuilt(&mut world).await;
        assert_eq!(everything(world.vault(), &t).await.len(), 1, "n={n}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_ack_of_the_store_leaves_one_record_that_a_retry_finds() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    for (n, (operation, length)) in [(Operation::Put, 1_000), (Operation::Complete, TWO_EXTENTS)]
        .into_iter()
        .enumerate()
    {
        let request = format!("r{n}");
        let body = content(n as u64, length);
        let lost = world
            .faults
            .on(operation)
            .below("blobs/")
            .fail_after(Failure::Unavailable);
        let record = put(world.vault(), requested(&t, &request), &body).await.unwrap();
        assert_eq!(lost.fired(), 1);
        let again = put(world.vault(), requested(&t, &request), &body).await.unwrap();
        assert_eq!(again, record);
        assert_eq!(everything(world.vault(), &t).await.len(), n + 1);
        assert_eq!(read(world.vault(), &t, record.id).await.unwrap(), body);
    }
    assert_eq!(uploads(&world).await, 0);
    no_findings(world.vault()).await;
    rebuilt(&mut world).await;
    assert_eq!(everything(world.vault(), &t).await.len(), 2);
}

/// The object is there, but nobody can tell: the put fails.
async fn put_in_vain(world: &World, spec: PutSpec, body: &Bytes) {
    world
        .faults
        .on(Operation::Put)
        .below("blobs/")
        .fail_after(Failure::Unavailable);
    world
        .faults
        .on(Operation::Head)
        .below("blobs/")
        .always()
        .fail_before(Failure::Unavailable);
    let error = put(world.vault(), spec, body).await.unwrap_err();
    assert_eq!(told(&error), (Kind::Unavailable, "STORE_UNAVAILABLE"));
    world.faults.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unacknowledged_put_may_appear_after_a_rebuild_and_the_retry_finds_it() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let body = content(1, 5_000);
    put_in_vain(&world, requested(&t, "r"), &body).await;
    assert_eq!(
        everything(world.vault(), &t).await,
        [],
        "nothing unacknowledged is visible"
    );
    let replayed = rebuilt(&mut world).await;
    assert_eq!(replayed.adopted, 1);
    let found = put(world.vault(), requested(&t, "r"), &body).await.unwrap();
    assert_eq!(everything(world.vault(), &t).await, [found]);
    no_findings(world.vault()).await;
    // Adopted once: the next rebuild finds its leaf.
    assert_eq!(rebuilt(&mut world).await.adopted, 0);
    let found = put(world.vault(), requested(&t, "r"), &body).await.unwrap();
    assert_eq!(everything(world.vault(), &t).await, [found]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_answered_by_another_try_never_has_two_records() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let body = content(1, 5_000);
    put_in_vain(&world, requested(&t, "r"), &body).await;
    world.clock.advance(1_000_000);
    let answered = put(world.vault(), requested(&t, "r"), &body).await.unwrap();
    assert_eq!(rebuilt(&mut world).await.adopted, 0);
    assert_eq!(
        everything(world.vault(), &t).await,
        std::slice::from_ref(&answered)
    );
    let again = put(world.vault(), requested(&t, "r"), &body).await.unwrap();
    assert_eq!(again, answered);
    let report = world.vault().verify().await.unwrap();
    assert_eq!(report.findings.len(), 1, "the other try is an orphan: {report:?}");
}

/// Two tries of one call, neither logged: only the later one can have been acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_tries_that_no_log_names_the_acknowledged_one_is_adopted() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let body = content(1, 5_000);
    let mut named = a_call(&t);
    named.draft.descriptor.external_id = Some("call-1".parse().unwrap());
    let mut acknowledged = BTreeSet::new();
    for call in [named, requested(&t, "r")] {
        put_in_vain(&world, call.clone(), &body).await;
        world.clock.advance(1_000_000);
        world
            .faults
            .on_all()
            .below("log/")
            .always()
            .fail_before(Failure::Unavailable);
        acknowledged.insert(put(world.vault(), call, &body).await.unwrap().id);
    }
    world.crash().await;
    world.faults.clear();
    world.lose_index().await.unwrap();
    world.open().await.unwrap();
    let found: BTreeSet<_> = everything(world.vault(), &t).await.iter().map(|r| r.id).collect();
    assert_eq!(found, acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_used_again_after_its_life_finds_the_latest_after_a_rebuild() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let mut latest = None;
    for n in 0..20 {
        let body = content(n, 100);
        latest = Some((put(world.vault(), requested(&t, "r"), &body).await.unwrap(), body));
        world.clock.advance(25 * HOUR);
    }
    world.clock.advance(-2 * HOUR);
    let (record, body) = latest.unwrap();
    for _ in 0..3 {
        rebuilt(&mut world).await;
        let again = put(world.vault(), requested(&t, "r"), &body).await.unwrap();
        assert_eq!(again, record);
    }
    assert_eq!(everything(world.vault(), &t).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_exhausted_and_nothing_becomes_visible() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    for (operation, length) in [
        (Operation::Put, 1_000),
        (Operation::Begin, TWO_EXTENTS),
        (Operation::PutPart, TWO_EXTENTS),
        (Operation::Complete, TWO_EXTENTS),
    ] {
        let full = world
            .faults
            .on(operation)
            .below("blobs/")
            .always()
            .fail_before(Failure::Full);
        let error = put(world.vault(), a_call(&t), &content(1, length))
            .await
            .unwrap_err();
        assert!(full.fired() > 0);
        assert_eq!(told(&error), (Kind::Exhausted, "STORE_FULL"), "{operation}");
        world.faults.clear();
        assert_eq!(everything(world.vault(), &t).await, []);
        assert_eq!(objects(&world, "blobs/").await, []);
        eventually("the upload is aborted", async || uploads(&world).await == 0).await;
    }
    rebuilt(&mut world).await;
    assert_eq!(everything(world.vault(), &t).await, []);
    put(world.vault(), a_call(&t), &content(1, 1_000)).await.unwrap();
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_bucket_does_not_take_is_not_acknowledged_and_shipped_later() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let record = put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    // Only the log is down: the payload gets through, the leaf does not.
    let new = descriptor("other", TEL);
    let mut change = update(&t, record.id, &["conversation_id"], new.clone());
    change.request = Some("u".parse().unwrap());
    let down = |world: &World| {
        world
            .faults
            .on_all()
            .below("log/")
            .always()
            .fail_before(Failure::Unavailable)
    };
    down(&world);
    let error = world.vault().update(change.clone()).await.unwrap_err();
    assert_eq!(told(&error), (Kind::Unavailable, "NOT_SHIPPED"));
    let error = world.vault().update(change.clone()).await.unwrap_err();
    assert_eq!(
        error.kind,
        Kind::Unavailable,
        "a repeated answer waits for the bucket as well"
    );
    world.crash().await;
    world.faults.clear();
    world.open().await.unwrap();
    let repeated = world.vault().update(change.clone()).await.unwrap();
    assert_eq!(
        (repeated.version, repeated.descriptor.conversation_id.as_str()),
        (2, "other")
    );
    // Without a restart.
    down(&world);
    change.request = Some("v".parse().unwrap());
    let vault = Arc::clone(world.vault());
    let waiting = tokio::spawn(async move { vault.update(change).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    world.faults.clear();
    let updated = waiting.await.unwrap().unwrap();
    assert_eq!(updated.version, 3);
    world.faults.take_down();
    let error = world
        .vault()
        .update(update(&t, record.id, &["conversation_id"], new))
        .await
        .unwrap_err();
    assert_eq!(
        told(&error),
        (Kind::Unavailable, "STORE_UNAVAILABLE"),
        "the payload comes first"
    );
    world.faults.clear();
    rebuilt(&mut world).await;
    assert_eq!(everything(world.vault(), &t).await, [updated]);
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_when_the_process_died_is_shipped_by_the_next() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    put(world.vault(), a_call(&t), &content(0, 9)).await.unwrap();
    world.vault().settle().await.unwrap();
    let logs = objects(&world, "log/").await;
    world
        .faults
        .on_all()
        .below("log/")
        .always()
        .fail_before(Failure::Unavailable);
    let record = put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    world.crash().await;
    world.faults.clear();
    assert_eq!(objects(&world, "log/").await, logs, "nothing was shipped");
    let anchor = std::fs::read(world.root_path().join("anchor")).unwrap();
    world.open().await.unwrap();
    assert_ne!(objects(&world, "log/").await, logs);
    assert_ne!(std::fs::read(world.root_path().join("anchor")).unwrap(), anchor);
    no_findings(world.vault()).await;
    assert_eq!(rebuilt(&mut world).await.adopted, 0, "its leaf is there");
    assert!(everything(world.vault(), &t).await.contains(&record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_died_between_tiles_and_checkpoint_blocks_nobody() {
    for lose in [false, true] {
        let (_dir, mut world, t) = world(Engine::Sled).await;
        world.close().await;
        world.open().await.unwrap();
        let cut = world
            .faults
            .on(Operation::Overwrite)
            .below("log/")
            .always()
            .fail_before(Failure::Unavailable);
        let waiting = tokio::spawn(put_task(world.vault(), a_call(&t), content(1, 9)));
        eventually("tiles are written, the checkpoint is not", async || {
            cut.fired() > 0
        })
        .await;
        waiting.abort();
        let _ = waiting.await;
        world.crash().await;
        world.faults.clear();
        if lose {
            world.lose_index().await.unwrap();
        }
        world.open().await.unwrap();
        make_tenant(world.vault(), "next").await;
        put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
        no_findings(world.vault()).await;
        rebuilt(&mut world).await;
        assert_eq!(everything(world.vault(), &t).await.len(), 1);
    }
}

/// The tail of the log is lost with the index; what lies of it in the bucket is under no checkpoint, and cannot be continued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_short_with_the_index_lost_is_left_and_nothing_is_lost() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    put(world.vault(), a_call(&t), &content(0, 9)).await.unwrap();
    world.vault().settle().await.unwrap();
    let cut = world
        .faults
        .on(Operation::Overwrite)
        .below("log/")
        .always()
        .fail_before(Failure::Unavailable);
    put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    eventually("tiles are written, the checkpoint is not", async || {
        cut.fired() > 0
    })
    .await;
    world.crash().await;
    world.faults.clear();
    world.lose_index().await.unwrap();
    let replayed = world.open().await.unwrap().unwrap();
    assert_eq!((replayed.records, replayed.adopted), (1, 1));
    for _ in 0..2 {
        put(world.vault(), a_call(&t), &content(2, 9)).await.unwrap();
        no_findings(world.vault()).await;
        world.close().await;
        assert_eq!(world.open().await.unwrap(), None);
        rebuilt(&mut world).await;
    }
    assert_eq!(everything(world.vault(), &t).await.len(), 4);
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_behind_the_bucket_replays_and_uses_no_slot_again() {
    for engine in [Engine::Memory, Engine::Sled] {
        let (_dir, mut world, t) = world(engine).await;
        for n in 0..3 {
            put(world.vault(), a_call(&t), &content(n, 100)).await.unwrap();
        }
        world.close().await;
        let old = world.snapshot_index().await.unwrap();
        world.open().await.unwrap();
        for n in 3..6 {
            put(world.vault(), requested(&t, &format!("r{n}")), &content(n, 100))
                .await
                .unwrap();
        }
        let first = everything(world.vault(), &t).await[0].id;
        world
            .vault()
            .update(update(
                &t,
                first,
                &["channel", "parties"],
                descriptor("x", "+5219999999999"),
            ))
            .await
            .unwrap();
        make_tenant(world.vault(), "later").await;
        let before = everything(world.vault(), &t).await;
        world.close().await;
        world.restore_index(&old).await.unwrap();
        let replayed = world.open().await.unwrap().unwrap();
        assert_eq!(
            (replayed.records, replayed.adopted, replayed.broken),
            (3, 0, Vec::new())
        );
        assert_eq!(everything(world.vault(), &t).await, before);
        for n in 6..12 {
            put(world.vault(), a_call(&t), &content(n, 100)).await.unwrap();
        }
        slots_are_used_once(&world).await;
        no_findings(world.vault()).await;
    }
}

async fn put_unlogged(world: &World, t: &TenantId) -> RecordId {
    world
        .faults
        .on_all()
        .below("log/")
        .always()
        .fail_before(Failure::Unavailable);
    put(world.vault(), a_call(t), &content(1, 100)).await.unwrap().id
}

async fn nothing_was_lost(world: &World, t: &TenantId, ids: &[RecordId]) {
    let found: BTreeSet<RecordId> = everything(world.vault(), t).await.iter().map(|r| r.id).collect();
    assert_eq!(found, ids.iter().copied().collect());
    slots_are_used_once(world).await;
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_restored_to_before_an_unlogged_put_adopts_it_and_uses_no_slot_again() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let mut ids = vec![put(world.vault(), a_call(&t), &content(0, 100)).await.unwrap().id];
    world.close().await;
    let old = world.snapshot_index().await.unwrap();
    world.open().await.unwrap();
    ids.push(put(world.vault(), a_call(&t), &content(0, 100)).await.unwrap().id);
    ids.push(put_unlogged(&world, &t).await);
    world.crash().await;
    world.faults.clear();
    world.restore_index(&old).await.unwrap();
    let replayed = world.open().await.unwrap().unwrap();
    assert!(replayed.adopted > 0, "{replayed:?}");
    for n in 0..70 {
        ids.push(put(world.vault(), a_call(&t), &content(n, 100)).await.unwrap().id);
    }
    nothing_was_lost(&world, &t, &ids).await;
    rebuilt(&mut world).await;
    nothing_was_lost(&world, &t, &ids).await;
}

/// No log tells that such an index is old, and a start does not list blobs: until the next rebuild the record is an orphan,
/// which `verify` shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_copied_in_flight_and_restored_uses_no_slot_again_and_shows_the_orphan() {
    let (_dir, mut world, t) = world(Engine::Memory).await;
    let mut ids = vec![put(world.vault(), a_call(&t), &content(0, 100)).await.unwrap().id];
    world.vault().settle().await.unwrap();
    let old = world.snapshot_index().await.unwrap();
    // Beyond the slots that the copy holds reserved.
    let mut unlogged = BTreeSet::new();
    for _ in 0..70 {
        unlogged.insert(put_unlogged(&world, &t).await);
    }
    world.crash().await;
    world.faults.clear();
    world.restore_index(&old).await.unwrap();
    assert_eq!(world.open().await.unwrap(), None);
    ids.push(put(world.vault(), a_call(&t), &content(2, 100)).await.unwrap().id);
    slots_are_used_once(&world).await;
    world.vault().settle().await.unwrap();
    let report = world.vault().verify().await.unwrap();
    assert_eq!(report.findings.len(), 70);
    for finding in &report.findings {
        let (_, id) = finding.subject.rsplit_once('/').unwrap();
        assert!(unlogged.contains(&id.parse().unwrap()), "{finding:?}");
    }
    assert_eq!(rebuilt(&mut world).await.adopted, 70);
    ids.extend(unlogged);
    nothing_was_lost(&world, &t, &ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_index_is_refused_until_it_takes_over() {
    let (dir, mut world, t) = world(Engine::Memory).await;
    let record = put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    world.close().await;
    let mut second = World::new(dir.path(), Engine::Memory, 2).unwrap();
    let Err(OpenError::Claimed(by)) = second.open().await else {
        panic!("refused");
    };
    assert_eq!(by, world.settings.index_id.to_string());
    second.settings.take_over = true;
    second.open().await.unwrap();
    assert_eq!(everything(second.vault(), &t).await, [record]);
    assert!(
        matches!(world.open().await, Err(OpenError::Claimed(_))),
        "the first is refused from now on"
    );
    second.close().await;
    second.settings.take_over = false;
    second.open().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_rolled_back_is_refused() {
    for lose in [false, true] {
        let (dir, mut world, t) = world(Engine::Sled).await;
        put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
        world.close().await;
        let old = dir.path().join("old");
        copy(&world.bucket_path(), &old).unwrap();
        world.open().await.unwrap();
        put(world.vault(), a_call(&t), &content(2, 9)).await.unwrap();
        world.close().await;
        let new = dir.path().join("new");
        std::fs::rename(world.bucket_path(), &new).unwrap();
        copy(&old, &world.bucket_path()).unwrap();
        if lose {
            world.lose_index().await.unwrap();
        }
        assert!(matches!(world.open().await, Err(OpenError::BucketBehind(_))));
        std::fs::remove_dir_all(world.bucket_path()).unwrap();
        assert!(
            matches!(world.open().await, Err(OpenError::BucketBehind(_))),
            "so is an empty one"
        );
        std::fs::remove_dir_all(world.bucket_path()).unwrap();
        std::fs::rename(&new, world.bucket_path()).unwrap();
        world.open().await.unwrap();
        assert_eq!(everything(world.vault(), &t).await.len(), 2);
        no_findings(world.vault()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_vault_is_refused() {
    let (dir, mut world, _) = world(Engine::Sled).await;
    world.close().await;
    let other_dir = directory();
    let mut other = World::new(other_dir.path(), Engine::Sled, 2).unwrap();
    other.open().await.unwrap();
    other.close().await;

    world.settings.region = "test-2".parse().unwrap();
    assert!(matches!(world.open().await, Err(OpenError::WrongRegion(r)) if r == "test-1"));
    world.settings.region = "test-1".parse().unwrap();

    let (own, aside) = (world.root_path(), dir.path().join("aside"));
    std::fs::rename(&own, &aside).unwrap();
    assert!(
        matches!(world.open().await, Err(OpenError::Provider(_))),
        "a root without this vault's epoch"
    );
    std::fs::remove_dir_all(&own).unwrap();
    copy(&other.root_path(), &own).unwrap();
    assert!(matches!(world.open().await, Err(OpenError::WrongRoot)));
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(&aside, &own).unwrap();

    std::fs::rename(world.index_path(), &aside).unwrap();
    copy(&other.index_path(), &world.index_path()).unwrap();
    assert!(matches!(world.open().await, Err(OpenError::WrongIndex)));
    std::fs::remove_dir_all(world.index_path()).unwrap();
    std::fs::rename(&aside, world.index_path()).unwrap();

    std::fs::rename(world.bucket_path(), &aside).unwrap();
    copy(&other.bucket_path(), &world.bucket_path()).unwrap();
    let foreign = world.open().await;
    assert!(
        matches!(foreign, Err(OpenError::WrongIndex | OpenError::WrongRoot)),
        "{foreign:?}"
    );
    world.lose_index().await.unwrap();
    let foreign = world.open().await;
    assert!(matches!(foreign, Err(OpenError::WrongRoot)), "{foreign:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_put_leaves_no_object_and_no_upload() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let full = world.vault().budget().available();
    for length in [0, 1_000, TWO_EXTENTS, 2 * TWO_EXTENTS] {
        let mut dropped = world.vault().begin_put(requested(&t, "r")).await.unwrap();
        if length > 0 {
            dropped.write(content(1, length)).await.unwrap();
        }
        drop(dropped);
        eventually("nothing is left", async || {
            uploads(&world).await == 0 && world.vault().budget().available() == full
        })
        .await;
        assert_eq!(objects(&world, "blobs/").await, []);
    }
    let error = put(world.vault(), requested(&t, "r"), &Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(told(&error), (Kind::Invalid, "CONTENT_EMPTY"));
    put(world.vault(), requested(&t, "r"), &content(1, 10))
        .await
        .unwrap();
    no_findings(world.vault()).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_budget_bounds_uploads_and_comes_back() {
    let dir = directory();
    let mut world = World::new(dir.path(), Engine::Memory, 1).unwrap();
    world.settings.memory_budget = 10 << 20;
    world.open().await.unwrap();
    let t = make_tenant(world.vault(), "acme").await;
    let full = world.vault().budget().available();
    let mut first = world.vault().begin_put(a_call(&t)).await.unwrap();
    first.write(content(1, TWO_EXTENTS / 4)).await.unwrap();
    let error = put(world.vault(), a_call(&t), &content(2, TWO_EXTENTS / 4))
        .await
        .unwrap_err();
    assert_eq!(told(&error), (Kind::Exhausted, "MEMORY_BUDGET"));
    first.finish(Closing::default()).await.unwrap();
    let record = put(world.vault(), a_call(&t), &content(3, 3 * TWO_EXTENTS))
        .await
        .unwrap();
    assert_eq!(
        read(world.vault(), &t, record.id).await.unwrap(),
        content(3, 3 * TWO_EXTENTS)
    );
    // Abandoned in the middle.
    let range = callvault::vault::ContentRange {
        offset: 5,
        limit: None,
    };
    let mut reading = world.vault().read(&t, record.id, range, LAWFUL).await.unwrap();
    reading.next().await.unwrap();
    drop(reading);
    eventually("the budget is full again", async || {
        world.vault().budget().available() == full
    })
    .await;
    no_findings(world.vault()).await;
    assert_eq!(world.vault().budget().available(), full);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_is_quarantined_after_seven_days_and_nothing_else_is() {
    const DAY: i64 = 24 * HOUR;
    let (_dir, world, t) = world(Engine::Sled).await;
    let live = put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    put_in_vain(&world, a_call(&t), &content(2, 9)).await;
    let mut open = world.vault().begin_put(a_call(&t)).await.unwrap();
    open.write(content(3, TWO_EXTENTS)).await.unwrap();
    let bucket = world.bucket().await.unwrap();
    let listed = bucket.list("blobs/", false, None, 9).await.unwrap().objects;
    let newest = listed
        .iter()
        .map(|o| o.modified_micros)
        .max()
        .unwrap()
        .max(world.clock.now().0);
    assert_eq!(listed.len(), 2);

    world.clock.set(Timestamp(newest + 7 * DAY - HOUR));
    let done = world.vault().collect_orphans().await.unwrap();
    assert_eq!(done.quarantined, 0);
    assert_eq!(objects(&world, "quarantine/").await, []);

    world.clock.set(Timestamp(newest + 7 * DAY + HOUR));
    let done = world.vault().collect_orphans().await.unwrap();
    assert_eq!(done.quarantined, 1);
    assert_eq!(objects(&world, "blobs/").await.len(), 1);
    assert_eq!(objects(&world, "quarantine/").await.len(), 1);
    assert_eq!(read(world.vault(), &t, live.id).await.unwrap(), content(1, 9));
    assert_eq!(uploads(&world).await, 0, "an upload that old is aborted as well");
    assert_eq!(world.vault().collect_orphans().await.unwrap().quarantined, 0);
    drop(open);
    no_findings(world.vault()).await;
}

async fn all<T: Send + 'static>(tasks: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

fn put_task(
    vault: &Arc<Vault>,
    spec: PutSpec,
    body: Bytes,
) -> impl Future<Output = Result<callvault::domain::record::Record, callvault::vault::Error>> + use<> {
    let vault = Arc::clone(vault);
    async move { put(&vault, spec, &body).await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_puts_of_the_same_people_are_all_found_by_number() {
    for engine in [Engine::Memory, Engine::Sled] {
        let dir = directory();
        let mut world = World::new(dir.path(), engine, 1).unwrap();
        world.settings.memory_budget = 1 << 30;
        world.open().await.unwrap();
        let t = make_tenant(world.vault(), "acme").await;
        let tels: Vec<String> = (0..4).map(|n| format!("+521551234567{n}")).collect();
        let tasks = (0..32_usize).map(|n| {
            let mut described = descriptor(&format!("c{}", n % 3), &tels[n % 4]);
            described.parties.push(party(&tels[(n / 4) % 4]));
            put_task(world.vault(), spec(&t, described), content(n as u64, 2_000))
        });
        let records = all(tasks.collect()).await;
        assert!(records.iter().all(Result::is_ok), "{records:?}");
        for check in 0..2 {
            for tel in &tels {
                let query = Query {
                    subject: Some(SubjectIdentifier::Tel(tel.parse().unwrap())),
                    ..Query::default()
                };
                let found = list_all(world.vault(), &t, &query, Order::NewestFirst, 5, LAWFUL)
                    .await
                    .unwrap();
                let expected = records.iter().flatten().filter(|r| query.matches(r)).count();
                assert_eq!(found.len(), expected, "check {check}");
            }
            no_findings(world.vault()).await;
            if check == 0 {
                rebuilt(&mut world).await;
            }
        }
        slots_are_used_once(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_puts_with_one_external_id_exactly_one_wins() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    for n in 0..4 {
        let external = format!("call-{n}");
        let tasks = (0..8).map(|i| {
            let mut described = descriptor("c", TEL);
            described.external_id = Some(external.parse().unwrap());
            put_task(world.vault(), spec(&t, described), content(i, 500))
        });
        let outcomes = all(tasks.collect()).await;
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
        for error in outcomes.iter().filter_map(|o| o.as_ref().err()) {
            assert!(
                matches!(error.reason, "UPLOAD_UNDER_WAY" | "EXTERNAL_ID_EXISTS"),
                "{error:?}"
            );
        }
    }
    no_findings(world.vault()).await;
    rebuilt(&mut world).await;
    assert_eq!(everything(world.vault(), &t).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_puts_with_one_request_id_one_record_comes() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let tasks = (0..8).map(|_| put_task(world.vault(), requested(&t, "r"), content(1, 500)));
    let outcomes = all(tasks.collect()).await;
    let made: BTreeSet<_> = outcomes.iter().flatten().map(|r| r.id).collect();
    assert_eq!(made.len(), 1);
    for error in outcomes.iter().filter_map(|o| o.as_ref().err()) {
        assert_eq!(told(error), (Kind::Conflict, "UPLOAD_UNDER_WAY"));
    }
    assert_eq!(
        put(world.vault(), requested(&t, "r"), &content(1, 500))
            .await
            .unwrap()
            .id,
        *made.first().unwrap()
    );
    rebuilt(&mut world).await;
    assert_eq!(everything(world.vault(), &t).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_tenants_of_one_id_are_one() {
    let (_dir, mut world, _) = world(Engine::Sled).await;
    let tasks = (0..6).map(|_| {
        let vault = Arc::clone(world.vault());
        async move {
            vault
                .create_tenant(ACTOR, &tenant("twin"), TenantSettings::default(), None)
                .await
        }
    });
    let outcomes = all(tasks.collect()).await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
    rebuilt(&mut world).await;
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_tokens_are_bound_to_their_query_and_vault() {
    let (_dir, world, t) = world(Engine::Memory).await;
    for n in 0..3 {
        put(world.vault(), a_call(&t), &content(n, 9)).await.unwrap();
    }
    let all = Query::default();
    let page = world
        .vault()
        .list(&t, &all, Order::NewestFirst, 1, None, LAWFUL)
        .await
        .unwrap();
    let token = page.next.unwrap();
    let by_call = Query {
        conversation: Some("call".parse().unwrap()),
        ..Query::default()
    };
    let mut bad = vec![
        String::new(),
        "x".repeat(10_000),
        "AAAA".to_owned(),
        format!("{token}A"),
    ];
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'Q' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        if changed != token {
            bad.push(changed);
        }
    }
    let of = |query, order, token| world.vault().list(&t, query, order, 1, Some(token), LAWFUL);
    for token in &bad {
        let error = of(&all, Order::NewestFirst, token).await.unwrap_err();
        assert_eq!(
            (error.kind, error.field.as_deref()),
            (Kind::Invalid, Some("page_token"))
        );
    }
    assert!(of(&all, Order::OldestFirst, &token).await.is_err());
    assert!(of(&by_call, Order::NewestFirst, &token).await.is_err());
    assert_eq!(
        of(&all, Order::NewestFirst, &token).await.unwrap().records.len(),
        1
    );
}
