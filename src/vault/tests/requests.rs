//! Retries: what was asked of a record is compared under a key of the record's own, whatever became of the keys above it.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicI64, Ordering},
};

use crate::{
    domain::{
        erasure::Target,
        ids::RecordId,
        purpose::AgeFlag,
        record::{Record, State},
    },
    index::{Change, Key},
    proto::storage::RecordRow,
};

use super::{
    erasure::{erase, message_spec, purged},
    rotation::{rotate, turn},
    sweep::{Mortal, dead, sweep},
    *,
};

const HOUR: i64 = 3_600 * 1_000_000;

fn tenant() -> TenantId {
    "dev".parse().unwrap()
}

fn nameless() -> Draft {
    let mut draft = draft("+525512345678");
    draft.descriptor.external_id = None;
    draft
}

async fn put(vault: &Arc<Vault>, draft: Draft, request: &str, said: &'static str) -> Result<Record, Error> {
    let mut put = vault
        .begin_put(PutSpec {
            draft,
            ..spec(request)
        })
        .await?;
    put.write(Bytes::from_static(said.as_bytes())).await?;
    put.finish(Closing::default()).await
}

async fn call(vault: &Arc<Vault>, request: &str, said: &'static str) -> Result<Record, Error> {
    put(vault, nameless(), request, said).await
}

fn message(request: &str, body: &'static str) -> MessageSpec {
    MessageSpec {
        request: Some(request.parse().unwrap()),
        body: Bytes::from_static(body.as_bytes()),
        ..message_spec(1, None)
    }
}

async fn say(vault: &Arc<Vault>, request: &str, body: &'static str) -> Result<Record, Error> {
    let messages = vec![message(request, body)];
    vault.put_messages(&tenant(), messages).await?.remove(0)
}

async fn correct(vault: &Vault, record: RecordId, request: &str, queue: &str) -> Result<Record, Error> {
    let mut descriptor = nameless().descriptor;
    descriptor.labels = [("queue".parse().unwrap(), queue.to_owned())].into();
    let update = UpdateSpec {
        judge: None,
        tenant: tenant(),
        record,
        actor: "uploader".into(),
        change: DescriptorChange {
            fields: BTreeSet::from(["labels"]),
            descriptor,
        },
        etag: None,
        request: Some(request.parse().unwrap()),
    };
    vault.update(update).await
}

async fn begin(vault: &Arc<Vault>, request: &str, keep: bool) -> Result<UploadStatus, Error> {
    let spec = BeginSpec {
        tenant: tenant(),
        actor: "uploader".into(),
        draft: nameless(),
        request: Some(request.parse().unwrap()),
        keep,
    };
    vault.begin_upload(spec).await
}

async fn commit(vault: &Arc<Vault>, id: RecordId, duration: Option<i64>) -> Result<Record, Error> {
    let spec = CommitSpec {
        tenant: tenant(),
        id,
        size: 5,
        closing: Closing {
            duration_millis: duration,
            parties: Vec::new(),
        },
        expected_crc: None,
    };
    vault.commit_upload(spec).await
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Error>) -> &'static str {
    answer.unwrap_err().reason
}

/// One of each kind of request about a record.
struct Told {
    call: RecordId,
    message: RecordId,
    upload: RecordId,
}

impl Told {
    async fn to(vault: &Arc<Vault>) -> Self {
        let call = call(vault, "call", "hello").await.unwrap().id;
        let message = say(vault, "message", "good day").await.unwrap().id;
        correct(vault, call, "correction", "sales").await.unwrap();
        let upload = begin(vault, "upload", false).await.unwrap().id;
        let mut writer = vault.write_upload(&tenant(), &upload, 0).await.unwrap();
        writer.write(Bytes::from_static(b"hello")).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(begin(vault, "upload", false).await.unwrap().id, upload);
        assert_eq!(reason(begin(vault, "upload", true).await), "REQUEST_ID_REUSED");
        commit(vault, upload, None).await.unwrap();
        Self {
            call,
            message,
            upload,
        }
    }

    /// Every request is known again, and another one under its id is not taken for it.
    async fn is_known(&self, vault: &Arc<Vault>) {
        const REUSED: &str = "REQUEST_ID_REUSED";
        assert_eq!(call(vault, "call", "hello").await.unwrap().id, self.call);
        assert_eq!(reason(call(vault, "call", "hullo").await), REUSED);
        assert_eq!(say(vault, "message", "good day").await.unwrap().id, self.message);
        assert_eq!(reason(say(vault, "message", "good dax").await), REUSED);
        let corrected = correct(vault, self.call, "correction", "sales").await.unwrap();
        assert_eq!((corrected.id, corrected.version), (self.call, 2));
        let other = correct(vault, self.call, "correction", "support").await;
        assert_eq!(reason(other), REUSED);
        let of_other = correct(vault, self.message, "correction", "sales").await;
        assert_eq!(reason(of_other), REUSED);
        assert_eq!(begin(vault, "upload", false).await.unwrap().id, self.upload);
        assert_eq!(reason(begin(vault, "upload", true).await), REUSED);
        assert_eq!(commit(vault, self.upload, None).await.unwrap().id, self.upload);
        assert_eq!(
            reason(commit(vault, self.upload, Some(1)).await),
            "UPLOAD_COMMITTED"
        );
    }
}

async fn records(vault: &Vault) -> usize {
    let (tenant, all) = (tenant(), Query::default());
    let page = vault.list(
        &tenant,
        &all,
        Order::NewestFirst,
        100,
        None,
        Purpose::LegalCompliance,
    );
    page.await.unwrap().records.len()
}

/// The DEK lies under another generation of its page, under another version of the tenant's key, under another epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_known_again_when_every_key_above_its_record_has_changed() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let told = Told::to(vault).await;
    let gone = call(vault, "gone", "goodbye").await.unwrap();
    told.is_known(vault).await;
    rotate(vault).await;
    told.is_known(vault).await;
    turn(vault).await;
    vault
        .request_erasure(erase(Target::Records(vec![gone.id])))
        .await
        .unwrap();
    told.is_known(vault).await;
    assert_eq!(sweep(vault).await.state, OperationState::Succeeded);
    told.is_known(vault).await;
    assert_eq!(records(vault).await, 3, "a retry stores nothing");
    opened.close().await;

    // After a restart, and after a rebuild: the fingerprints are those of footers and leaves.
    for index in [index, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        told.is_known(&opened.vault).await;
        assert_eq!(records(&opened.vault).await, 3);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_a_shredded_record_is_not_known_any_more() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let told = Told::to(vault).await;
    let all = vec![told.call, told.message, told.upload];
    let within_grace = ErasureSpec {
        grace_micros: Some(HOUR),
        ..erase(Target::Records(all))
    };
    vault.request_erasure(within_grace).await.unwrap();
    // Cut off, they still have their keys: a retry finds what it made, and nobody reads it.
    let again = call(vault, "call", "hello").await.unwrap();
    assert_eq!((again.id, again.state), (told.call, State::PendingShred));
    told.is_known(vault).await;
    bench.clock.advance(2 * HOUR);
    vault.carry_out_due().await.unwrap();
    assert_eq!(reason(commit(vault, told.upload, None).await), "SHREDDED");
    shredded(vault, &told).await;
    assert_eq!(sweep(vault).await.state, OperationState::Succeeded);
    shredded(vault, &told).await;
    opened.close().await;

    // An index that is made anew has only what the logs tell of the requests.
    for index in [index, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        shredded(&opened.vault, &told).await;
        assert_eq!(records(&opened.vault).await, 0);
        opened.close().await;
    }
}

/// The answer is the same whatever is asked.
async fn shredded(vault: &Arc<Vault>, told: &Told) {
    for said in ["hello", "hullo"] {
        assert_eq!(reason(call(vault, "call", said).await), "SHREDDED");
        assert_eq!(reason(say(vault, "message", said).await), "SHREDDED");
        let corrected = correct(vault, told.call, "correction", said).await;
        assert_eq!(reason(corrected), "NOT_FOUND");
    }
    for keep in [false, true] {
        assert_eq!(reason(begin(vault, "upload", keep).await), "SHREDDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_about_a_record_that_may_not_be_read_is_known_again() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let of_child = || {
        let mut draft = nameless();
        draft.descriptor.age_flag = Some(AgeFlag::Child);
        draft
    };
    let first = put(vault, of_child(), "child", "hello").await.unwrap();
    assert_eq!(first.state, State::Restricted);
    let again = put(vault, of_child(), "child", "hello").await.unwrap();
    assert_eq!(again, first);
    assert_eq!(
        reason(put(vault, of_child(), "child", "hullo").await),
        "REQUEST_ID_REUSED"
    );
    opened.close().await;
}

/// Messages that go together are each compared with a record of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_old_other_and_new_requests_tells_them_apart() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let batch = |bodies: [(&str, &'static str); 4]| {
        let specs = bodies.map(|(request, body)| message(request, body)).into();
        vault.put_messages(&tenant, specs)
    };
    let answers = batch([("a", "one"), ("b", "two"), ("a", "one"), ("c", "one")]).await;
    let mut first = answers.unwrap();
    // The second of two at once waits for the first.
    assert_eq!(reason(first.remove(2)), "UPLOAD_UNDER_WAY");
    let first: Vec<RecordId> = first.into_iter().map(|put| put.unwrap().id).collect();
    let answers = batch([("a", "one"), ("b", "one"), ("d", "one"), ("c", "one")]).await;
    let mut second = answers.unwrap();
    assert_eq!(reason(second.remove(1)), "REQUEST_ID_REUSED");
    let second: Vec<RecordId> = second.into_iter().map(|put| put.unwrap().id).collect();
    assert_eq!((second[0], second[2]), (first[0], first[2]));
    assert!(!first.contains(&second[1]));
    assert_eq!(records(vault).await, 4);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_one_kind_of_request() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let first = call(vault, "same-id", "hello").await.unwrap();
    let class = |id: &str, request: &str| {
        let class = RetentionClass {
            id: id.parse().unwrap(),
            minimum_days: 0,
            maximum_days: None,
            action: RetentionAction::Shred,
            jurisdiction: None,
            legal_ground: None,
            effective: Timestamp(0),
            created: Timestamp(0),
        };
        let request = request.parse().unwrap();
        let tenant = tenant.clone();
        async move {
            vault
                .create_retention_class("admin", &tenant, class, Some(&request))
                .await
        }
    };
    class("short", "of-class").await.unwrap();
    let answers = [
        say(vault, "same-id", "hello").await.map(drop),
        correct(vault, first.id, "same-id", "hello").await.map(drop),
        begin(vault, "same-id", false).await.map(drop),
        class("long", "same-id").await.map(drop),
        call(vault, "of-class", "hello").await.map(drop),
        say(vault, "of-class", "hello").await.map(drop),
        correct(vault, first.id, "of-class", "hello").await.map(drop),
        begin(vault, "of-class", false).await.map(drop),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(reason(answer), "REQUEST_ID_REUSED", "{n}");
    }
    assert_eq!(call(vault, "same-id", "hello").await.unwrap(), first);
    opened.close().await;
}

/// Without the record's key there is nothing to compare with, and nothing is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_refused_when_its_records_key_does_not_open() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let told = Told::to(vault).await;
    for record in [told.call, told.message] {
        let key = Key::Record(tenant.clone(), record);
        let value = vault.index.get(&key).await.unwrap().unwrap();
        let mut row: RecordRow = vault.rows.open(&key, &value).unwrap();
        row.commitment = vec![7; 32].into();
        let change = Change {
            put: vec![vault.rows.row(key, &row)],
            ..Change::default()
        };
        vault.index.commit(change).await.unwrap();
    }
    for said in ["hello", "hullo"] {
        for refused in [
            call(vault, "call", said).await,
            say(vault, "message", said).await,
            correct(vault, told.call, "correction", said).await,
        ] {
            assert_eq!(refused.unwrap_err().kind, Kind::Corrupt);
        }
    }
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_that_was_used_twice_stands_for_what_it_last_stored_also_in_an_index_made_anew() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    // After a day an id may be used again.
    let first = call(vault, "twice", "one").await.unwrap().id;
    bench.clock.advance(25 * HOUR);
    let second = call(vault, "twice", "two").await.unwrap().id;
    let third = call(vault, "once", "three").await.unwrap().id;
    bench.clock.advance(HOUR);
    let gone = erase(Target::Records(vec![first, third]));
    vault.request_erasure(gone).await.unwrap();
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    assert_eq!(call(vault, "twice", "two").await.unwrap().id, second);
    assert_eq!(reason(call(vault, "once", "three").await), "SHREDDED");
    vault
        .request_erasure(erase(Target::Records(vec![second])))
        .await
        .unwrap();
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    assert_eq!(reason(call(&opened.vault, "twice", "two").await), "SHREDDED");
    bench.clock.advance(25 * HOUR);
    let next = call(&opened.vault, "twice", "four").await.unwrap().id;
    assert!(next != first && next != second);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_records_of_one_request_id_are_erased_in_one_leaf_and_the_index_is_made_anew() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let first = call(vault, "twice", "one").await.unwrap().id;
    bench.clock.advance(25 * HOUR);
    let second = call(vault, "twice", "two").await.unwrap().id;
    let both = erase(Target::Records(vec![first, second]));
    vault.request_erasure(both).await.unwrap();
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    assert_eq!(reason(call(&opened.vault, "twice", "two").await), "SHREDDED");
    assert_eq!(records(&opened.vault).await, 0);
    opened.close().await;
}

/// The first try's blob is whole when its process dies; the second try is acknowledged, and erased after its request is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_was_cut_short_does_not_bring_back_what_is_shredded() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let mortal = Mortal {
        index: index.clone(),
        left: Arc::clone(&left),
    };
    let opened = bench
        .open_over(Arc::new(mortal), Arc::clone(&bench.root) as _)
        .await;
    make_tenant(&opened.vault).await;
    let spec = PutSpec {
        draft: nameless(),
        ..spec("call")
    };
    let mut put = opened.vault.begin_put(spec).await.unwrap();
    put.write(Bytes::from_static(b"hello")).await.unwrap();
    left.store(0, Ordering::Release);
    tokio::select! {
        done = put.finish(Closing::default()) => panic!("{done:?}"),
        () = dead(&left) => {}
    }
    opened.crash().await;
    let blobs = bench.store.list("blobs/", false, None, 10).await.unwrap().objects;
    assert_eq!(blobs.len(), 1, "the blob of the first try");

    bench.clock.advance(HOUR);
    let opened = bench.open(&Arc::new(index)).await;
    let second = call(&opened.vault, "call", "hello").await.unwrap().id;
    bench.clock.advance(30 * HOUR);
    opened
        .vault
        .request_erasure(erase(Target::Records(vec![second])))
        .await
        .unwrap();
    purged(&opened.vault).await;
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    assert_eq!(records(&opened.vault).await, 0);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_more_than_a_day_is_known_again_for_a_day_after_it_was_committed() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let upload = begin(vault, "slow", false).await.unwrap().id;
    let mut writer = vault.write_upload(&tenant(), &upload, 0).await.unwrap();
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    writer.finish().await.unwrap();
    bench.clock.advance(30 * HOUR);
    commit(vault, upload, None).await.unwrap();
    bench.clock.advance(23 * HOUR);
    assert_eq!(begin(vault, "slow", false).await.unwrap().id, upload);
    assert_eq!(records(vault).await, 1);
    opened.close().await;
}
