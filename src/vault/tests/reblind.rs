//! Identifiers are blinded again: what is looked up is found all the time, and old copies of the index lead nowhere.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::{
    domain::{
        erasure::{ErasureState, Target},
        ids::{OperationId, RecordId},
    },
    index::{
        Change, Expect, IndexError, Key, LeafReceipt, LogId, QueuedLeaf, Row, Scan,
        key::{Blind, Number},
    },
    keys::tenant::TenantKeys,
    proto::storage::{ExternalRow, IdentifierRow},
    testing::world::{Engine, World},
    vault::terms,
};

use super::{erasure::erase, *};

const ANNA: &str = "+525511111111";
const BERT: &str = "+525522222222";
const CARA: &str = "+525533333333";

fn tenant() -> TenantId {
    "dev".parse().unwrap()
}

/// A call of some people, under its name.
async fn call(vault: &Arc<Vault>, name: &str, people: &[&str]) -> RecordId {
    let mut draft = draft(people[0]);
    draft.descriptor.parties = people
        .iter()
        .map(|tel| Party {
            tel: Some(tel.parse().unwrap()),
            ..Party::default()
        })
        .collect();
    draft.descriptor.external_id = Some(name.parse().unwrap());
    draft.descriptor.conversation_id = name.parse().unwrap();
    let spec = PutSpec { draft, ..spec(name) };
    let mut put = vault.begin_put(spec).await.unwrap();
    put.write(Bytes::from_static(b"a call")).await.unwrap();
    put.finish(Closing::default()).await.unwrap().id
}

async fn listed(vault: &Vault, query: &Query) -> BTreeSet<RecordId> {
    let tenant = tenant();
    let (mut all, mut token) = (BTreeSet::new(), None);
    loop {
        let order = Order::OldestFirst;
        let page = vault.list(&tenant, query, order, 3, token.as_deref(), Purpose::CustomerCare);
        let page = page.await.unwrap();
        all.extend(page.records.iter().map(|record| record.id));
        token = page.next;
        if token.is_none() {
            return all;
        }
    }
}

async fn with(vault: &Vault, tel: &str) -> BTreeSet<RecordId> {
    let query = Query {
        subject: Some(SubjectIdentifier::Tel(tel.parse().unwrap())),
        ..Query::default()
    };
    listed(vault, &query).await
}

/// Every record is found by everything that it is found by.
async fn found(vault: &Arc<Vault>, calls: &[(&str, RecordId, &[&str])]) {
    for (name, id, people) in calls {
        for tel in *people {
            assert!(with(vault, tel).await.contains(id), "{name} by {tel}");
        }
        let query = Query {
            conversation: Some(name.parse().unwrap()),
            ..Query::default()
        };
        assert_eq!(listed(vault, &query).await, BTreeSet::from([*id]), "{name}");
        let external = Name::External(name.parse().unwrap());
        let record = vault.record(&tenant(), &external, Purpose::CustomerCare).await;
        assert_eq!(record.unwrap().id, *id, "{name}");
    }
}

/// And nothing is wrong.
async fn whole(vault: &Arc<Vault>, calls: &[(&str, RecordId, &[&str])]) {
    found(vault, calls).await;
    vault.settle().await.unwrap();
    assert_eq!(vault.verify().await.unwrap().findings, vec![]);
}

fn operation(vault: &Vault) -> KeyOperation {
    let id = OperationId::mint(vault.clock.now(), &*vault.rng).unwrap();
    KeyOperation::sample(id, &tenant())
}

async fn stage_and_reblind(vault: &Vault) -> Reblinded {
    vault
        .stage_and_reblind(&operation(vault), &tenant())
        .await
        .unwrap()
}

async fn switch(vault: &Vault, reblinded: Reblinded) {
    vault
        .turn_tenant_key(&operation(vault), &tenant(), Some(reblinded))
        .await
        .unwrap();
}

/// All of it.
async fn replace_index_key(vault: &Vault) {
    let _pause = vault.key_work.pause().await;
    let reblinded = stage_and_reblind(vault).await;
    switch(vault, reblinded).await;
    vault.forget_old_blinds(&tenant()).await.unwrap();
}

async fn keys(vault: &Vault) -> Arc<TenantKeys> {
    vault.keys.tenant(&tenant()).await.unwrap()
}

async fn blind(vault: &Vault, tel: &str) -> Blind {
    let tel = SubjectIdentifier::Tel(tel.parse().unwrap());
    terms::subject(keys(vault).await.index_key(), &tel)
}

async fn number(vault: &Vault, tel: &str) -> Option<Number> {
    let blind = blind(vault, tel).await;
    terms::number(&*vault.index, &vault.rows, &tenant(), &blind)
        .await
        .unwrap()
}

/// What a shred does to what a record is found by.
async fn shred(vault: &Vault, id: RecordId) -> BTreeSet<Number> {
    let tenant = tenant();
    loop {
        let located = vault.locate(&tenant, &Name::Id(id)).await.unwrap().unwrap();
        let (record, _) = vault.open_record(&located).await.unwrap();
        let found_by = vault
            .found_by_terms(&tenant, &id, &record.descriptor)
            .await
            .unwrap();
        let led_by: BTreeSet<Number> = found_by.keys.iter().filter_map(number_in).collect();
        let row = Key::Record(tenant.clone(), id);
        let renumber = |number: &Number| Row {
            key: Key::Renumber(tenant.clone(), *number),
            value: Vec::new(),
        };
        let change = Change {
            expect: [
                found_by.expect,
                vec![Expect::Equals(row.clone(), located.value.clone())],
            ]
            .concat(),
            put: led_by.iter().map(renumber).collect(),
            delete: [found_by.keys, vec![row]].concat(),
            ..Change::default()
        };
        match vault.index.commit(change).await {
            Err(IndexError::Expectation(_)) => {}
            done => {
                done.unwrap();
                return led_by;
            }
        }
    }
}

/// Generations of the rows of blinded identifiers and external ids.
fn generations(vault: &Vault, rows: &[Row]) -> BTreeSet<u64> {
    let of = |row: &Row| match row.key {
        Key::Identifier(..) => {
            let row: IdentifierRow = vault.rows.open(&row.key, &row.value).unwrap();
            Some(row.generation)
        }
        Key::External(..) => {
            let row: ExternalRow = vault.rows.open(&row.key, &row.value).unwrap();
            Some(row.generation)
        }
        _ => None,
    };
    rows.iter().filter_map(of).collect()
}

fn number_in(key: &Key) -> Option<Number> {
    match key {
        Key::BySubject(_, number, ..) | Key::ByConversation(_, number, ..) | Key::Renumber(_, number) => {
            Some(*number)
        }
        _ => None,
    }
}

/// Numbers in the keys of rows.
fn numbers(rows: &[Row]) -> BTreeSet<Number> {
    rows.iter().filter_map(|row| number_in(&row.key)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_up_is_found_before_during_and_after_a_new_index_key() {
    for engine in [Engine::Memory, Engine::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), engine, 21).unwrap();
        world.open().await.unwrap();
        let vault = world.vault();
        make_tenant(vault).await;
        let mut calls: Vec<(&str, RecordId, &[&str])> = Vec::new();
        calls.push(("c-1", call(vault, "c-1", &[ANNA, BERT]).await, &[ANNA, BERT]));
        calls.push(("c-2", call(vault, "c-2", &[BERT]).await, &[BERT]));
        whole(vault, &calls).await;
        let before = keys(vault).await;
        let generation = vault.stage_index_key("sweep", &tenant()).await.unwrap();
        assert_eq!(
            (before.blinding(), keys(vault).await.blinding()),
            ((1, 0), (1, 2))
        );
        whole(vault, &calls).await;
        calls.push(("c-3", call(vault, "c-3", &[ANNA, CARA]).await, &[ANNA, CARA]));
        whole(vault, &calls).await;
        let reblinded = vault.reblind(&tenant(), generation, |_| {}).await.unwrap();
        whole(vault, &calls).await;
        calls.push(("c-4", call(vault, "c-4", &[CARA]).await, &[CARA]));
        whole(vault, &calls).await;
        switch(vault, reblinded).await;
        assert_ne!(
            before.index_key().expose(),
            keys(vault).await.index_key().expose()
        );
        whole(vault, &calls).await;
        calls.push(("c-5", call(vault, "c-5", &[ANNA]).await, &[ANNA]));
        vault.forget_old_blinds(&tenant()).await.unwrap();
        whole(vault, &calls).await;
        assert_eq!(keys(vault).await.blinding(), (2, 0));
        replace_index_key(vault).await;
        whole(vault, &calls).await;
        if engine == Engine::Memory {
            let rows = world.memory_index().rows();
            assert_eq!(generations(vault, &rows), BTreeSet::from([3]));
        }
        world.close().await;
        for lost in [false, true] {
            if lost {
                world.lose_index().await.unwrap();
            }
            world.open().await.unwrap();
            whole(world.vault(), &calls).await;
            world.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_index_and_the_new_key_lead_to_nobody_that_a_shredded_record_was_with() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let gone = call(vault, "gone", &[ANNA, BERT]).await;
    let kept = call(vault, "kept", &[BERT, CARA]).await;
    let old = index.rows();
    let before = [number(vault, BERT).await, number(vault, CARA).await];
    let replaced = shred(vault, gone).await;
    assert_eq!(replaced.len(), 3, "of the conversation and of two people");
    replace_index_key(vault).await;

    let calls: [(&str, RecordId, &[&str]); 1] = [("kept", kept, &[BERT, CARA])];
    found(vault, &calls).await;
    assert_eq!(with(vault, BERT).await, BTreeSet::from([kept]));
    let new = index.rows();
    assert_eq!(generations(vault, &new), BTreeSet::from([2]));
    // Nothing of the old copy is reached from the new key, and no new row has a number that the record was found by.
    for tel in [ANNA, BERT, CARA] {
        let key = Key::Identifier(tenant(), blind(vault, tel).await);
        assert!(!old.iter().any(|row| row.key == key), "{tel}");
    }
    assert_eq!(number(vault, ANNA).await, None);
    let after = number(vault, BERT).await;
    assert!(!numbers(&old).contains(&after.unwrap()));
    assert_eq!(
        number(vault, CARA).await,
        before[1],
        "no shredded record was with her"
    );
    assert_eq!(numbers(&new).intersection(&replaced).count(), 0);
    let blinds = |rows: &[Row]| -> BTreeSet<Key> {
        let keys = rows.iter().map(|row| row.key.clone());
        keys.filter(|key| matches!(key, Key::Identifier(..) | Key::External(..)))
            .collect()
    };
    assert_eq!(blinds(&old).intersection(&blinds(&new)).count(), 0);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_shredded_during_a_reblinding_is_left_to_the_next() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let first = call(vault, "first", &[ANNA, BERT]).await;
    let second = call(vault, "second", &[BERT]).await;
    let kept = call(vault, "kept", &[BERT]).await;
    shred(vault, first).await;
    let pause = vault.key_work.pause().await;
    let reblinded = stage_and_reblind(vault).await;
    let of_second = shred(vault, second).await;
    assert_eq!(of_second.len(), 3, "of the conversation, and both of the person");
    switch(vault, reblinded).await;
    vault.forget_old_blinds(&tenant()).await.unwrap();
    drop(pause);
    assert_eq!(with(vault, BERT).await, BTreeSet::from([kept]));
    let between = number(vault, BERT).await.unwrap();
    assert!(of_second.contains(&between));
    replace_index_key(vault).await;
    assert_eq!(with(vault, BERT).await, BTreeSet::from([kept]));
    assert_ne!(number(vault, BERT).await, Some(between));
    assert_eq!(numbers(&index.rows()).intersection(&of_second).count(), 0);
    let calls: [(&str, RecordId, &[&str]); 1] = [("kept", kept, &[BERT])];
    found(vault, &calls).await;
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_the_index_key_is_replaced() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = Arc::clone(&opened.vault);
    make_tenant(&vault).await;
    let stop = Arc::new(AtomicBool::new(false));
    let replacing = tokio::spawn({
        let (vault, stop) = (Arc::clone(&vault), Arc::clone(&stop));
        async move {
            let mut replaced = 0;
            while !stop.load(Ordering::Acquire) {
                replace_index_key(&vault).await;
                replaced += 1;
            }
            replaced
        }
    });
    let gone = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let listing = tokio::spawn({
        let (vault, stop, gone) = (Arc::clone(&vault), Arc::clone(&stop), Arc::clone(&gone));
        async move {
            let mut before = BTreeSet::new();
            while !stop.load(Ordering::Acquire) {
                let now = with(&vault, ANNA).await;
                let missing: BTreeSet<RecordId> = before.difference(&now).copied().collect();
                assert!(missing.is_subset(&gone.lock().unwrap()));
                before = now;
            }
        }
    });
    let mut here = Vec::new();
    for n in 0..30 {
        let name = format!("c-{n}");
        let id = call(&vault, &name, &[ANNA, BERT]).await;
        here.push(id);
        assert!(with(&vault, ANNA).await.contains(&id), "{n}");
        if n % 3 == 0 {
            let other = draft(CARA).descriptor;
            let change = DescriptorChange {
                fields: ["parties"].into(),
                descriptor: Descriptor {
                    parties: [draft(ANNA), draft(CARA)]
                        .into_iter()
                        .flat_map(|draft| draft.descriptor.parties)
                        .collect(),
                    ..other
                },
            };
            let spec = UpdateSpec {
                judge: None,
                tenant: tenant(),
                record: id,
                actor: "clerk".into(),
                change,
                etag: None,
                request: None,
            };
            vault.update(spec).await.unwrap();
            assert!(with(&vault, CARA).await.contains(&id), "{n}");
            assert!(!with(&vault, BERT).await.contains(&id), "{n}");
        }
        if n % 5 == 4 {
            let id = here.remove(n / 5);
            gone.lock().unwrap().insert(id);
            shred(&vault, id).await;
        }
    }
    stop.store(true, Ordering::Release);
    assert!(replacing.await.unwrap() > 1);
    listing.await.unwrap();
    replace_index_key(&vault).await;
    assert_eq!(with(&vault, ANNA).await, here.iter().copied().collect());
    assert_eq!(generations(&vault, &index.rows()).len(), 1);
    for record in &here {
        vault
            .record(&tenant(), &Name::Id(*record), Purpose::CustomerCare)
            .await
            .unwrap();
    }
    drop(vault);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_key_is_replaced_whatever_dies_in_between() {
    for (step, lost) in (0..5).flat_map(|step| [(step, false), (step, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), Engine::Memory, 22).unwrap();
        world.open().await.unwrap();
        let vault = world.vault();
        make_tenant(vault).await;
        let mut calls: Vec<(&str, RecordId, &[&str])> = Vec::new();
        calls.push(("c-1", call(vault, "c-1", &[ANNA, BERT]).await, &[ANNA, BERT]));
        calls.push(("c-2", call(vault, "c-2", &[BERT]).await, &[BERT]));
        if step > 0 {
            let generation = vault.stage_index_key("sweep", &tenant()).await.unwrap();
            calls.push(("c-3", call(vault, "c-3", &[CARA]).await, &[CARA]));
            if step > 1 {
                let reblinded = vault.reblind(&tenant(), generation, |_| {}).await.unwrap();
                calls.push(("c-4", call(vault, "c-4", &[CARA]).await, &[CARA]));
                if step > 2 {
                    switch(vault, reblinded).await;
                    calls.push(("c-5", call(vault, "c-5", &[CARA]).await, &[CARA]));
                }
                if step > 3 {
                    vault.forget_old_blinds(&tenant()).await.unwrap();
                }
            }
        }
        let blinding = keys(vault).await.blinding();
        world.crash().await;
        if lost {
            world.lose_index().await.unwrap();
        }
        world.open().await.unwrap();
        let vault = world.vault();
        assert_eq!(keys(vault).await.blinding(), blinding, "{step} {lost}");
        calls.push(("c-6", call(vault, "c-6", &[ANNA]).await, &[ANNA]));
        whole(vault, &calls).await;
        replace_index_key(vault).await;
        whole(vault, &calls).await;
        let generation = keys(vault).await.blinding().0;
        assert_eq!(
            generations(vault, &world.memory_index().rows()),
            BTreeSet::from([generation])
        );
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_index_from_before_a_new_index_key_is_blinded_anew() {
    for staged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), Engine::Memory, 23).unwrap();
        world.open().await.unwrap();
        make_tenant(world.vault()).await;
        let mut calls: Vec<(&str, RecordId, &[&str])> = Vec::new();
        let id = call(world.vault(), "c-1", &[ANNA, BERT]).await;
        calls.push(("c-1", id, &[ANNA, BERT]));
        if staged {
            let done = world.vault().stage_index_key("sweep", &tenant()).await;
            done.unwrap();
        }
        world.close().await;
        let copy = world.snapshot_index().await.unwrap();
        let before = numbers(&world.memory_index().rows());
        world.open().await.unwrap();
        replace_index_key(world.vault()).await;
        calls.push(("c-2", call(world.vault(), "c-2", &[BERT]).await, &[BERT]));
        world.close().await;
        world.restore_index(&copy).await.unwrap();
        world.open().await.unwrap();
        whole(world.vault(), &calls).await;
        let rows = world.memory_index().rows();
        let current = keys(world.vault()).await.blinding().0;
        assert_eq!(generations(world.vault(), &rows), BTreeSet::from([current]));
        assert_eq!(numbers(&rows).intersection(&before).count(), 0);
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_alone_gives_up_an_index_key_that_is_staged() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let mut calls: Vec<(&str, RecordId, &[&str])> = Vec::new();
    calls.push(("c-1", call(vault, "c-1", &[ANNA]).await, &[ANNA]));
    let first = keys(vault).await;
    let reblinded = stage_and_reblind(vault).await;
    vault
        .turn_tenant_key(&operation(vault), &tenant(), None)
        .await
        .unwrap();
    let now = keys(vault).await;
    assert_eq!((now.version(), now.blinding()), (2, (1, 0)));
    assert_eq!(now.index_key().expose(), first.index_key().expose());
    assert!(now.next_index_key().is_none());
    calls.push(("c-2", call(vault, "c-2", &[ANNA]).await, &[ANNA]));
    whole(vault, &calls).await;
    // What was blinded under the key that is given up lets no other take over.
    let refused = vault
        .turn_tenant_key(&operation(vault), &tenant(), Some(reblinded))
        .await;
    assert_eq!(refused.unwrap_err().kind, Kind::Conflict);
    let other = stage_and_reblind(vault).await;
    assert_eq!(keys(vault).await.blinding(), (1, 3), "no generation comes twice");
    let again = stage_and_reblind(vault).await;
    assert_eq!(generations(vault, &index.rows()), BTreeSet::from([1, 4]));
    let refused = vault
        .turn_tenant_key(&operation(vault), &tenant(), Some(other))
        .await;
    assert_eq!(refused.unwrap_err().kind, Kind::Conflict);
    switch(vault, again).await;
    vault.forget_old_blinds(&tenant()).await.unwrap();
    whole(vault, &calls).await;
    opened.close().await;
    for index in [index, Arc::new(MemoryIndex::default())] {
        let opened = bench.open(&index).await;
        assert_eq!(keys(&opened.vault).await.blinding(), (4, 0));
        whole(&opened.vault, &calls).await;
        opened.close().await;
    }
}

/// An index that holds back the next change of a record, until it is let go.
#[derive(Debug)]
struct Holding {
    index: MemoryIndex,
    armed: AtomicBool,
    arrived: Semaphore,
    go: Semaphore,
}

#[async_trait]
impl Index for Holding {
    async fn commit(&self, change: Change) -> Result<Vec<LeafReceipt>, IndexError> {
        let of_record = change.put.iter().any(|row| matches!(row.key, Key::Record(..)));
        if of_record && self.armed.swap(false, Ordering::AcqRel) {
            self.arrived.add_permits(1);
            self.go.acquire().await.unwrap().forget();
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

#[tokio::test(flavor = "multi_thread")]
async fn what_raced_a_new_index_key_looks_again_and_is_found() {
    // Held back over: the staging, staging and scan, the scan and the switch, all of it.
    for (from, to) in [(0, 1), (0, 2), (1, 3), (0, 4), (2, 4)] {
        for correction in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut world = World::new(dir.path(), Engine::Memory, 24).unwrap();
            let index = Arc::new(Holding {
                index: MemoryIndex::new(),
                armed: AtomicBool::new(false),
                arrived: Semaphore::new(0),
                go: Semaphore::new(0),
            });
            world.open_over(Arc::clone(&index) as _).await.unwrap();
            let vault = Arc::clone(world.vault());
            make_tenant(&vault).await;
            let first = call(&vault, "first", &[ANNA]).await;
            let (mut generation, mut reblinded) = (0, None);
            let mut late = None;
            for step in 0..=4 {
                if step == from {
                    index.armed.store(true, Ordering::Release);
                    let vault = Arc::clone(&vault);
                    late = Some(tokio::spawn(async move {
                        if !correction {
                            return call(&vault, "late", &[ANNA, BERT]).await;
                        }
                        let change = DescriptorChange {
                            fields: ["parties"].into(),
                            descriptor: Descriptor {
                                parties: [draft(ANNA), draft(BERT)]
                                    .into_iter()
                                    .flat_map(|draft| draft.descriptor.parties)
                                    .collect(),
                                ..draft(ANNA).descriptor
                            },
                        };
                        let spec = UpdateSpec {
                            judge: None,
                            tenant: tenant(),
                            record: first,
                            actor: "clerk".into(),
                            change,
                            etag: None,
                            request: None,
                        };
                        vault.update(spec).await.unwrap().id
                    }));
                    index.arrived.acquire().await.unwrap().forget();
                }
                if step == to {
                    index.go.add_permits(1);
                    let late = late.take().unwrap();
                    let id = tokio::time::timeout(Duration::from_secs(20), late).await;
                    let id = id.unwrap().unwrap();
                    assert!(with(&vault, BERT).await.contains(&id), "{from} {to} {correction}");
                }
                match step {
                    0 => generation = vault.stage_index_key("sweep", &tenant()).await.unwrap(),
                    1 => reblinded = Some(vault.reblind(&tenant(), generation, |_| {}).await.unwrap()),
                    2 => switch(&vault, reblinded.take().unwrap()).await,
                    3 => vault.forget_old_blinds(&tenant()).await.unwrap(),
                    _ => {}
                }
            }
            let expected = if correction { 1 } else { 2 };
            assert_eq!(with(&vault, ANNA).await.len(), expected);
            assert_eq!(with(&vault, BERT).await.len(), 1);
            vault.settle().await.unwrap();
            assert_eq!(vault.verify().await.unwrap().findings, vec![]);
            assert_eq!(generations(&vault, &index.index.rows()), BTreeSet::from([2]));
            drop(vault);
            world.close().await;
        }
    }
}

/// Of a crowd that two records share, more than a transaction has room for, with two rows each while an index key is staged.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_records_of_a_crowd_is_shredded_while_an_index_key_is_staged() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let people: Vec<String> = (0..64).map(|n| format!("+52551234{n:04}")).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    let gone = call(vault, "gone", &people).await;
    let kept = call(vault, "kept", &people).await;
    let before = numbers(&index.rows());
    let pause = vault.key_work.pause().await;
    let reblinded = stage_and_reblind(vault).await;
    let spec = erase(Target::Records(vec![gone]));
    let erasure = vault.request_erasure(spec).await.unwrap();
    assert_eq!(erasure.state, ErasureState::Effective);
    let left = vault.found_by(&tenant(), &BTreeSet::from([gone])).await.unwrap();
    assert_eq!(left, vec![], "nothing leads to it, under either key");
    let renumbered = vault.all_rows(crate::index::Range::Renumbers(tenant()));
    let renumbered = renumbered.await.unwrap().len();
    assert!(renumbered > 64, "{renumbered}");
    switch(vault, reblinded).await;
    vault.forget_old_blinds(&tenant()).await.unwrap();
    drop(pause);
    let calls: [(&str, RecordId, &[&str]); 1] = [("kept", kept, &people)];
    whole(vault, &calls).await;
    // What is to have another number has it after the next.
    replace_index_key(vault).await;
    whole(vault, &calls).await;
    let stay = numbers(&index.rows()).intersection(&before).count();
    assert_eq!(stay, 1, "of its own conversation");
    opened.close().await;
}

/// An index of before learns of a shred when it catches up: the next index key gives who stays another number all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_shred_that_an_older_index_learns_of_gives_who_stays_another_number() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    make_tenant(&opened.vault).await;
    let gone = call(&opened.vault, "gone", &[ANNA, BERT]).await;
    let kept = call(&opened.vault, "kept", &[BERT, CARA]).await;
    opened.close().await;
    let old = index.snapshot();
    let opened = bench.open(&Arc::new(index)).await;
    let spec = erase(Target::Records(vec![gone]));
    opened.vault.request_erasure(spec).await.unwrap();
    opened.close().await;
    let opened = bench.open(&Arc::new(old.clone())).await;
    let vault = &opened.vault;
    let before = [number(vault, BERT).await, number(vault, CARA).await];
    let waiting = vault.all_rows(crate::index::Range::Renumbers(tenant()));
    let waiting = numbers(&waiting.await.unwrap());
    assert_eq!(waiting.len(), 3, "of the conversation and of two people");
    assert!(waiting.contains(&before[0].unwrap()) && !waiting.contains(&before[1].unwrap()));
    replace_index_key(vault).await;
    assert_ne!(number(vault, BERT).await, before[0]);
    assert_eq!(number(vault, ANNA).await, None);
    assert_eq!(numbers(&old.rows()).intersection(&waiting).count(), 0);
    whole(vault, &[("kept", kept, &[BERT, CARA])]).await;
    opened.close().await;
}
