//! Promises of messages, a test each, named for the promise.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use callvault::{
    blob::store::BlobStore,
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        record::{Kind as RecordKind, Query, Record},
    },
    index::{Change, Index, IndexError, Key, LeafReceipt, LogId, QueuedLeaf, Row, Scan},
    testing::{
        faulty::{Failure, Operation},
        world::{Engine, World},
    },
    vault::{Draft, Error, Kind, MessageSpec, Vault},
};

use super::kit::*;

const TEL: &str = "+5215512345678";

/// The place of a message in its batch, what makes it bad, and what its caller is told.
type Bad<'a> = (usize, &'a dyn Fn(&mut MessageSpec), (Kind, &'static str));

async fn world(engine: Engine) -> (tempfile::TempDir, World, TenantId) {
    let dir = directory();
    let mut world = World::new(dir.path(), engine, 1).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault(), "acme").await;
    (dir, world, tenant)
}

pub(crate) fn message(n: usize) -> MessageSpec {
    MessageSpec {
        actor: ACTOR.to_owned(),
        draft: Draft {
            descriptor: descriptor(&format!("conversation-{}", n % 7), TEL),
            has_media_type: false,
            has_retention_class: true,
        },
        request: Some(format!("request-{n}").parse().unwrap()),
        body: body(n),
    }
}

fn body(n: usize) -> Bytes {
    content(n as u64, 1 + n * 37 % 3_000)
}

fn messages(count: usize) -> Vec<MessageSpec> {
    (0..count).map(message).collect()
}

async fn put_all(
    vault: &Arc<Vault>,
    of: &TenantId,
    messages: Vec<MessageSpec>,
) -> Vec<Result<Record, (Kind, &'static str)>> {
    let outcomes = vault.put_messages(of, messages).await.unwrap();
    outcomes.into_iter().map(|o| o.map_err(|e| told(&e))).collect()
}

async fn put_one(
    vault: &Arc<Vault>,
    of: &TenantId,
    message: MessageSpec,
) -> Result<Record, (Kind, &'static str)> {
    put_all(vault, of, vec![message]).await.remove(0)
}

async fn open(vault: &Arc<Vault>, of: &TenantId, id: RecordId) -> Result<Bytes, (Kind, &'static str)> {
    let opened = vault.message(of, id, LAWFUL).await;
    opened.map(|(_, body)| body).map_err(|e| told(&e))
}

async fn blobs(world: &World) -> usize {
    let bucket = world.bucket().await.unwrap();
    bucket
        .list("blobs/", false, None, 1_000)
        .await
        .unwrap()
        .objects
        .len()
}

async fn rebuilt(world: &mut World) -> callvault::vault::Replayed {
    world.close().await;
    world.lose_index().await.unwrap();
    world.open().await.unwrap().unwrap()
}

async fn come_back(vault: &Arc<Vault>, of: &TenantId, records: &[Record]) {
    for (n, record) in records.iter().enumerate() {
        assert_eq!(open(vault, of, record.id).await, Ok(body(n)), "{n}");
        assert_eq!(read(vault, of, record.id).await.unwrap(), body(n), "{n}");
    }
    let mut ids: Vec<RecordId> = records.iter().map(|r| r.id).collect();
    let many = vault.messages(of, &ids, LAWFUL).await.unwrap();
    for (n, got) in many.into_iter().enumerate() {
        assert_eq!(got.unwrap(), (records[n].clone(), body(n)));
    }
    ids.sort();
    let found: Vec<_> = everything(vault, of).await.iter().map(|r| r.id).collect();
    assert_eq!(
        found.iter().copied().collect::<BTreeSet<_>>(),
        ids.into_iter().collect()
    );
    no_findings(vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_put_at_once_share_a_blob_and_come_back_each_for_itself() {
    for engine in [Engine::Memory, Engine::Sled] {
        let (_dir, mut world, t) = world(engine).await;
        let vault = Arc::clone(world.vault());
        let calls = (0..120).map(|n| {
            let (vault, t) = (Arc::clone(&vault), t.clone());
            tokio::spawn(async move { put_one(&vault, &t, message(n)).await.unwrap() })
        });
        let mut records = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            records.push(call.await.unwrap());
        }
        assert!(records.iter().all(|r| r.kind == RecordKind::Message));
        let shared = blobs(&world).await;
        assert!(shared < 60, "{shared} blobs for 120 messages");
        come_back(&vault, &t, &records).await;
        drop(vault);
        let replayed = rebuilt(&mut world).await;
        assert_eq!((replayed.records, replayed.adopted), (120, 0));
        come_back(world.vault(), &t, &records).await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_blob_and_few_transactions() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    world.faults.reset_counters();
    let records: Vec<_> = put_all(world.vault(), &t, messages(1_000)).await;
    let records: Vec<Record> = records.into_iter().map(Result::unwrap).collect();
    assert_eq!(blobs(&world).await, 1);
    come_back(world.vault(), &t, &records).await;
    let replayed = rebuilt(&mut world).await;
    assert_eq!((replayed.records, replayed.adopted), (1_000, 0));
    come_back(world.vault(), &t, &records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_message_holds_up_no_other_of_its_batch() {
    let (_dir, world, t) = world(Engine::Sled).await;
    let vault = world.vault();
    let mut taken = message(50);
    taken.draft.descriptor.external_id = Some("taken".parse().unwrap());
    put_one(vault, &t, taken).await.unwrap();
    let first = put_one(vault, &t, message(0)).await.unwrap();
    put_one(vault, &t, message(1)).await.unwrap();

    let mut batch = messages(20);
    let bad: [Bad<'_>; 8] = [
        (2, &|m| m.body = Bytes::new(), (Kind::Invalid, "CONTENT_EMPTY")),
        (
            3,
            &|m| m.body = content(3, (1 << 20) + 1),
            (Kind::Invalid, "CONTENT_TOO_LONG"),
        ),
        (
            4,
            &|m| m.draft.descriptor.retention_class = "none".parse().unwrap(),
            (Kind::Invalid, "INVALID_FIELD"),
        ),
        (
            5,
            &|m| {
                m.draft.descriptor.derived_from =
                    Some("01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap())
            },
            (Kind::Invalid, "INVALID_FIELD"),
        ),
        (
            6,
            &|m| m.draft.descriptor.external_id = Some("taken".parse().unwrap()),
            (Kind::AlreadyExists, "EXTERNAL_ID_EXISTS"),
        ),
        (
            1,
            &|m| m.body = content(99, 9),
            (Kind::AlreadyExists, "REQUEST_ID_REUSED"),
        ),
        (
            7,
            &|m| m.request = Some("request-8".parse().unwrap()),
            (Kind::Conflict, "never"),
        ),
        (
            9,
            &|m| m.draft.descriptor.parties = (0..65).map(|_| party(TEL)).collect(),
            (Kind::Invalid, "INVALID_FIELD"),
        ),
    ];
    for (n, change, _) in &bad {
        change(&mut batch[*n]);
    }
    let outcomes = put_all(vault, &t, batch).await;
    assert_eq!(outcomes[0], Ok(first), "it was answered before");
    // Of 7 and 8, which have one request id, the second is told that it is under way.
    for (n, outcome) in outcomes.iter().enumerate() {
        match bad.iter().find(|(bad, ..)| *bad == n) {
            _ if n == 7 => assert!(outcome.is_ok()),
            _ if n == 8 => assert_eq!(*outcome, Err((Kind::Conflict, "UPLOAD_UNDER_WAY"))),
            Some((_, _, why)) => assert_eq!(outcome.as_ref().unwrap_err(), why, "{n}"),
            None => assert!(outcome.is_ok(), "{n} {outcome:?}"),
        }
    }
    let nobody = tenant("nobody");
    let refused = put_all(vault, &nobody, messages(2)).await;
    assert_eq!(
        refused,
        [
            Err((Kind::NotFound, "NOT_FOUND")),
            Err((Kind::NotFound, "NOT_FOUND"))
        ]
    );
    no_findings(vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_message_is_the_same_record_and_other_content_is_refused() {
    let (_dir, world, t) = world(Engine::Sled).await;
    let vault = world.vault();
    let first = put_one(vault, &t, message(1)).await.unwrap();
    assert_eq!(put_one(vault, &t, message(1)).await, Ok(first.clone()));
    let reused = Err((Kind::AlreadyExists, "REQUEST_ID_REUSED"));
    let mut other = message(1);
    other.body = body(2);
    assert_eq!(put_one(vault, &t, other).await, reused);
    let mut other = message(1);
    other.draft.descriptor.source = Some("elsewhere".parse().unwrap());
    assert_eq!(put_one(vault, &t, other).await, reused);
    // A recording is no message, whatever it holds.
    let same = |request: &str| callvault::vault::PutSpec {
        draft: message(1).draft,
        request: Some(request.parse().unwrap()),
        ..spec(&t, descriptor("c", TEL))
    };
    let error = put(vault, same("request-1"), &body(1)).await.unwrap_err();
    assert_eq!(told(&error), (Kind::AlreadyExists, "REQUEST_ID_REUSED"));
    put(vault, same("request-2"), &body(1)).await.unwrap();
    let mut second = message(1);
    second.request = Some("request-2".parse().unwrap());
    assert_eq!(put_one(vault, &t, second).await, reused);
    world.clock.advance(25 * HOUR);
    let later = put_one(vault, &t, message(1)).await.unwrap();
    assert_ne!(later.id, first.id, "a request id lives for a day");
    assert_eq!(blobs(&world).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_messages_with_one_name_one_comes() {
    let (_dir, world, t) = world(Engine::Sled).await;
    for round in 0..10 {
        let calls = (0..6).map(|n| {
            let (vault, t) = (Arc::clone(world.vault()), t.clone());
            let mut message = message(round);
            if n % 2 == 0 {
                message.request = None;
                message.draft.descriptor.external_id = Some(format!("x-{round}").parse().unwrap());
            }
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(n / 2)).await;
                put_one(&vault, &t, message).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            let told = match call.await.unwrap() {
                Ok(_) => continue,
                Err((_, told)) => told,
            };
            assert!(
                ["UPLOAD_UNDER_WAY", "EXTERNAL_ID_EXISTS"].contains(&told),
                "{told}"
            );
        }
    }
    assert_eq!(everything(world.vault(), &t).await.len(), 20);
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_fails_a_whole_group_and_a_retry_stores_it_once() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    put_one(world.vault(), &t, message(99)).await.unwrap();
    for (failure, why) in [
        (Failure::Unavailable, (Kind::Unavailable, "STORE_UNAVAILABLE")),
        (Failure::Full, (Kind::Exhausted, "STORE_FULL")),
    ] {
        world
            .faults
            .on(Operation::Put)
            .below("blobs/")
            .fail_before(failure);
        let outcomes = put_all(world.vault(), &t, messages(30)).await;
        assert!(outcomes.iter().all(|o| *o == Err(why)), "{outcomes:?}");
        assert_eq!(
            everything(world.vault(), &t).await.len(),
            1,
            "nothing of it is visible"
        );
    }
    // The object is written, its ack is lost: it is found by its name.
    let lost = world
        .faults
        .on(Operation::Put)
        .below("blobs/")
        .fail_after(Failure::Unavailable);
    let outcomes = put_all(world.vault(), &t, messages(30)).await;
    assert_eq!(lost.fired(), 1);
    let records: Vec<Record> = outcomes.into_iter().map(Result::unwrap).collect();
    let again = put_all(world.vault(), &t, messages(30)).await;
    assert_eq!(again.into_iter().map(Result::unwrap).collect::<Vec<_>>(), records);
    assert_eq!(blobs(&world).await, 2);
    rebuilt(&mut world).await;
    assert_eq!(everything(world.vault(), &t).await.len(), 31);
    let full = world.settings.memory_budget;
    assert_eq!(world.vault().budget().available(), full, "the budget came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_whole_messages_or_none() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    put_one(world.vault(), &t, message(99)).await.unwrap();
    for patience in [0, 1, 2, 4, 8, 16, 40] {
        world
            .faults
            .on(Operation::Put)
            .below("blobs/")
            .delay(Duration::from_millis(8));
        let put = world.vault().put_messages(&t, messages(25));
        let _ = tokio::time::timeout(Duration::from_millis(patience), put).await;
        world.close().await;
        world.faults.clear();
        world.open().await.unwrap();
        let retried = put_all(world.vault(), &t, messages(25)).await;
        let records: Vec<Record> = retried.into_iter().map(Result::unwrap).collect();
        for (n, record) in records.iter().enumerate() {
            assert_eq!(open(world.vault(), &t, record.id).await, Ok(body(n)));
        }
        assert_eq!(everything(world.vault(), &t).await.len(), 26, "each once");
        world.clock.advance(HOUR);
    }
    no_findings(world.vault()).await;
}

/// An index that refuses some of the transactions that make records known.
#[derive(Debug)]
struct Failing {
    index: Arc<dyn Index>,
    seen: AtomicU64,
    fails: fn(u64) -> bool,
}

impl Failing {
    async fn over(world: &World, fails: fn(u64) -> bool) -> Arc<dyn Index> {
        Arc::new(Self {
            index: world.index().await.unwrap(),
            seen: AtomicU64::new(0),
            fails,
        })
    }
}

#[async_trait]
impl Index for Failing {
    async fn commit(&self, change: Change) -> Result<Vec<LeafReceipt>, IndexError> {
        let records = change.put.iter().any(|row| matches!(row.key, Key::Record(..)));
        if records && (self.fails)(self.seen.fetch_add(1, Ordering::SeqCst)) {
            return Err(IndexError::Unavailable("injected".into()));
        }
        self.index.commit(change).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.index.get_many(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Row>, IndexError> {
        self.index.scan(scan).await
    }

    async fn queued(&self, log: LogId, from: u64, limit: usize) -> Result<Vec<QueuedLeaf>, IndexError> {
        self.index.queued(log, from, limit).await
    }

    async fn shipped(&self, log: LogId, position: u64) -> Result<(), IndexError> {
        self.index.shipped(log, position).await
    }
}

/// Messages of one blob, of whose transactions some failed; what was acknowledged.
async fn put_partly(world: &mut World, t: &TenantId, fails: fn(u64) -> bool) -> Vec<Option<Record>> {
    world.close().await;
    let failing = Failing::over(world, fails).await;
    world.open_over(failing).await.unwrap();
    let before = blobs(world).await;
    let outcomes = put_all(world.vault(), t, messages(60)).await;
    assert_eq!(blobs(world).await, before + 1);
    let unavailable = Err((Kind::Unavailable, "INDEX_UNAVAILABLE"));
    assert!(outcomes.iter().any(Result::is_ok) && outcomes.contains(&unavailable));
    outcomes.into_iter().map(Result::ok).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_leaf_names_of_a_shared_blob_is_adopted_record_by_record() {
    for engine in [Engine::Memory, Engine::Sled] {
        let (_dir, mut world, t) = world(engine).await;
        let acknowledged = put_partly(&mut world, &t, |n| n % 2 == 1).await;
        let known = acknowledged.iter().flatten().count() as u64;
        // One of those that failed was stored by another try, in a blob of its own.
        let other = acknowledged.iter().position(Option::is_none).unwrap();
        world.clock.advance(1_000_000);
        world.close().await;
        world.open().await.unwrap();
        let answered = put_one(world.vault(), &t, message(other)).await.unwrap();
        world.vault().settle().await.unwrap();
        world.crash().await;
        world.lose_index().await.unwrap();
        let replayed = world.open().await.unwrap().unwrap();
        assert_eq!(replayed.broken, Vec::<String>::new());
        assert_eq!((replayed.records, replayed.adopted), (known + 1, 60 - known - 1));
        assert_eq!(everything(world.vault(), &t).await.len(), 60, "each once");
        let retried = put_all(world.vault(), &t, messages(60)).await;
        for (n, (again, before)) in retried.into_iter().zip(&acknowledged).enumerate() {
            let again = again.unwrap();
            assert!(before.as_ref().is_none_or(|before| *before == again), "{n}");
            assert_eq!(again.id == answered.id, n == other);
            assert_eq!(open(world.vault(), &t, again.id).await, Ok(body(n)));
        }
        assert_eq!(everything(world.vault(), &t).await.len(), 60);
        // Adopted once: the next rebuild finds the leaves.
        let replayed = rebuilt(&mut world).await;
        assert_eq!((replayed.records, replayed.adopted), (60, 0));
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_blob_is_no_orphan_while_one_of_its_records_lives() {
    // The blob is named for its first record: that one is missing, or another.
    for fails in [(|n| n == 0) as fn(u64) -> bool, |n| n == 1] {
        let (_dir, mut world, t) = world(Engine::Memory).await;
        let acknowledged = put_partly(&mut world, &t, fails).await;
        world.vault().settle().await.unwrap();
        let report = world.vault().verify().await.unwrap();
        assert_eq!(report.findings.len(), 1, "some of it is nobody's: {report:?}");
        let bucket = world.bucket().await.unwrap();
        let listed = bucket.list("blobs/", false, None, 9).await.unwrap().objects;
        let newest = listed.iter().map(|o| o.modified_micros).max().unwrap();
        world.clock.set(Timestamp(newest + 8 * 24 * HOUR));
        let orphans = world.vault().collect_orphans().await.unwrap();
        assert_eq!(orphans.quarantined, 0);
        for (n, record) in acknowledged.iter().enumerate() {
            if let Some(record) = record {
                assert_eq!(open(world.vault(), &t, record.id).await, Ok(body(n)));
            }
        }
        no_findings(world.vault()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_are_found_by_what_they_were_derived_from() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let call = put(
        world.vault(),
        spec(&t, descriptor("call", TEL)),
        &content(1, 5_000),
    )
    .await
    .unwrap();
    let other = put_one(world.vault(), &t, message(0)).await.unwrap();
    let mut batch = messages(5);
    for (n, message) in batch.iter_mut().enumerate() {
        message.request = None;
        let source = if n < 4 { call.id } else { other.id };
        message.draft.descriptor.derived_from = Some(source);
        message.draft.descriptor.start.0 += i64::try_from(n).unwrap();
    }
    let derived: Vec<Record> = put_all(world.vault(), &t, batch)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(derived.iter().all(|r| r.kind == RecordKind::Artifact));
    let mut large = spec(&t, descriptor("call", TEL));
    large.draft.descriptor.derived_from = Some(call.id);
    large.draft.descriptor.start.0 += 4;
    let large = put(world.vault(), large, &content(9, (1 << 20) + 1))
        .await
        .unwrap();
    let mut moved = descriptor("call", TEL);
    moved.start.0 += 5;
    let moved = world
        .vault()
        .update(update(&t, derived[0].id, &["start_time"], moved))
        .await
        .unwrap();
    let expected = [
        derived[1].clone(),
        derived[2].clone(),
        derived[3].clone(),
        large.clone(),
        moved,
    ];
    for _ in 0..2 {
        let of = |source: RecordId| Query {
            derived_from: Some(source),
            ..Query::default()
        };
        for size in [1, 2, 10] {
            let order = callvault::vault::Order::OldestFirst;
            let found = list_all(world.vault(), &t, &of(call.id), order, size, LAWFUL)
                .await
                .unwrap();
            assert_eq!(found, expected, "{size}");
        }
        let found = world
            .vault()
            .list(&t, &of(other.id), Default::default(), 10, None, LAWFUL)
            .await
            .unwrap();
        assert_eq!(found.records, [derived[4].clone()]);
        rebuilt(&mut world).await;
    }
    // A message opens whole; a recording, and an artifact longer than a message, is read as a stream.
    assert_eq!(open(world.vault(), &t, derived[2].id).await, Ok(body(2)));
    let not_a_message = Err((Kind::WrongState, "NOT_A_MESSAGE"));
    assert_eq!(open(world.vault(), &t, call.id).await, not_a_message);
    assert_eq!(open(world.vault(), &t, large.id).await, not_a_message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_many_reads_is_bounded_and_says_what_is_left() {
    let (_dir, world, t) = world(Engine::Sled).await;
    let mut batch = messages(6);
    for message in &mut batch {
        message.body = content(1, 1 << 20);
    }
    let mut ids = Vec::new();
    for half in [batch.split_off(3), batch] {
        ids.extend(
            put_all(world.vault(), &t, half)
                .await
                .into_iter()
                .map(|r| r.unwrap().id),
        );
    }
    let got: Vec<Result<_, Error>> = world.vault().messages(&t, &ids, LAWFUL).await.unwrap();
    let told: Vec<_> = got.iter().map(|g| g.as_ref().map(|_| ()).map_err(told)).collect();
    let full = Err((Kind::Exhausted, "ANSWER_FULL"));
    assert_eq!(told, [Ok(()), Ok(()), Ok(()), full, full, full]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_room_are_told_to_come_back_and_none_is_stored() {
    let (_dir, world, t) = world(Engine::Memory).await;
    let all = world.vault().budget().reserve(u64::MAX).await.unwrap();
    let mut large = messages(3);
    large[0].body = content(0, 1 << 20);
    let error = world.vault().put_messages(&t, large).await.unwrap_err();
    assert_eq!(told(&error), (Kind::Exhausted, "MEMORY_BUDGET"));
    drop(all);
    assert_eq!(everything(world.vault(), &t).await, []);
    assert!(
        put_all(world.vault(), &t, messages(3))
            .await
            .iter()
            .all(Result::is_ok)
    );
}

/// As many people as a descriptor may name: more rows than a transaction takes, beside messages with few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_among_many_people_are_found_by_each_of_them() {
    let (_dir, mut world, t) = world(Engine::Sled).await;
    let mut batch = messages(9);
    for n in [1, 2, 5] {
        let person = |p: usize| callvault::domain::record::Party {
            mailto: Some(format!("p{}@example.com", p + n * 30).parse().unwrap()),
            ..party(&format!("+52155{:08}", p + n * 30))
        };
        batch[n].draft.descriptor.parties = (0..64).map(person).collect();
    }
    let records: Vec<Record> = put_all(world.vault(), &t, batch)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for _ in 0..2 {
        come_back(world.vault(), &t, &records).await;
        assert_eq!(rebuilt(&mut world).await.adopted, 0);
    }
}
