//! A changed, cut, swapped, moved, replayed or missing byte is an error, never other data and never silence.
//!
//! "Noticed" means: `verify` reports a finding, or the vault does not open, or every read of what was touched is an error.
//! What nobody reads is exempt, and named in [`unread`]; what is read must be the same as before in any case.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use callvault::{
    domain::{
        ids::TenantId,
        record::{Query, Record},
    },
    index::{Change, Index, Key, Row, memory::MemoryIndex},
    keys::file::FileRoot,
    testing::{clock::TestClock, rng::SeededRng, world::Engine, world::World},
    vault::{Kind, Name, OpenError, Opened, Order, Vault, VaultSettings},
};

use super::{bucket::Bucket, kit::*};

/// A vault in memory but for its root.
struct Glass {
    dir: tempfile::TempDir,
    settings: VaultSettings,
    bucket: Bucket,
    index: MemoryIndex,
    clock: TestClock,
    rng: SeededRng,
}

impl Glass {
    fn new(seed: u64) -> Self {
        let dir = directory();
        let world = World::new(dir.path(), Engine::Memory, seed).unwrap();
        Self {
            dir,
            settings: world.settings.clone(),
            bucket: Bucket::default(),
            index: MemoryIndex::new(),
            clock: world.clock.clone(),
            rng: world.rng.clone(),
        }
    }

    /// A copy with a bucket of its own, and an empty index if it is to be rebuilt.
    fn copy(&self, bucket: Bucket, index: MemoryIndex) -> Self {
        let dir = directory();
        callvault::testing::world::copy(&self.dir.path().join("root"), &dir.path().join("root")).unwrap();
        Self {
            dir,
            settings: self.settings.clone(),
            bucket,
            index,
            clock: self.clock.clone(),
            rng: self.rng.clone(),
        }
    }

    async fn open(&self) -> Result<Opened, OpenError> {
        let root = FileRoot::open(&self.dir.path().join("root"), Arc::new(self.rng.clone()))?;
        Vault::open(
            self.settings.clone(),
            Arc::new(self.bucket.clone()),
            Arc::new(self.index.clone()),
            Arc::new(root),
            Arc::new(self.clock.clone()),
            Arc::new(self.rng.clone()),
        )
        .await
    }
}

/// All that a vault shows of one tenant.
#[derive(Clone, PartialEq)]
struct Shown {
    records: Vec<Record>,
    contents: Vec<Vec<u8>>,
}

/// Two records, one of them corrected.
async fn small() -> (Glass, TenantId, Shown) {
    let glass = Glass::new(1);
    let opened = glass.open().await.unwrap();
    let vault = &opened.vault;
    let t = make_tenant(vault, "acme").await;
    let mut first = descriptor("a", "+5215512345678");
    first.external_id = Some("call-1".parse().unwrap());
    let mut first = spec(&t, first);
    first.request = Some("r".parse().unwrap());
    let a = put(vault, first, &content(1, 40)).await.unwrap();
    put(
        vault,
        spec(&t, descriptor("b", "+5215512345678")),
        &content(2, 33),
    )
    .await
    .unwrap();
    vault
        .update(update(
            &t,
            a.id,
            &["conversation_id"],
            descriptor("c", "+5215512345678"),
        ))
        .await
        .unwrap();
    no_findings(vault).await;
    let shown = shown(vault, &t).await.unwrap();
    opened.close().await;
    (glass, t, shown)
}

async fn shown(vault: &Arc<Vault>, t: &TenantId) -> Result<Shown, callvault::vault::Error> {
    let records = list_all(vault, t, &Query::default(), Order::OldestFirst, 10, LAWFUL).await?;
    let mut contents = Vec::new();
    for record in &records {
        contents.push(read(vault, t, record.id).await?);
    }
    Ok(Shown { records, contents })
}

/// What a change of the bucket led to.
#[derive(Debug, PartialEq)]
enum Seen {
    /// Not opened, or reported, or an error where it is read.
    Noticed,
    /// Nothing said, and all is as before.
    Unnoticed,
}

/// Looks through a vault that is open over a changed bucket.
async fn look(vault: &Arc<Vault>, t: &TenantId, before: &Shown, what: &str) -> Seen {
    let found = match vault.verify().await {
        Ok(report) => !report.findings.is_empty(),
        Err(_) => true,
    };
    let now = shown(vault, t).await;
    if let Ok(now) = &now {
        // What is shown is what was stored, all of it or some of it.
        for (record, content) in now.records.iter().zip(&now.contents) {
            let at = before.records.iter().position(|r| r.id == record.id);
            let at = at.unwrap_or_else(|| panic!("{what}: a record out of nowhere"));
            assert!(before.contents[at] == *content, "{what}: other content");
            let known =
                before.records[at] == *record || (record.version < before.records[at].version && found);
            assert!(known, "{what}: another record {record:?}");
        }
        assert!(found || *now == *before, "{what}: less, and nothing said");
    }
    if found || now.is_err() {
        Seen::Noticed
    } else {
        Seen::Unnoticed
    }
}

/// Opens a changed bucket with its index as it was, and again from nothing.
async fn with_and_without_index(
    glass: &Glass,
    t: &TenantId,
    before: &Shown,
    bucket: &Bucket,
    what: &str,
) -> [Seen; 2] {
    let mut seen = [Seen::Noticed, Seen::Noticed];
    for (at, index) in [glass.index.snapshot(), MemoryIndex::new()]
        .into_iter()
        .enumerate()
    {
        let copy = glass.copy(bucket.snapshot(), index);
        let Ok(opened) = copy.open().await else { continue };
        let broken = opened.replayed.as_ref().is_some_and(|r| !r.broken.is_empty());
        let what = format!("{what}, {}", ["served", "rebuilt"][at]);
        let (vault, t) = (Arc::clone(&opened.vault), t.clone());
        if look_after(&vault, &t, before, &what, broken).await == Seen::Unnoticed {
            seen[at] = Seen::Unnoticed;
        }
        drop(vault);
        opened.crash().await;
    }
    seen
}

async fn look_after(vault: &Arc<Vault>, t: &TenantId, before: &Shown, what: &str, broken: bool) -> Seen {
    if broken && vault.tenant(t).await.is_err() {
        return Seen::Noticed;
    }
    match look(vault, t, before, what).await {
        Seen::Unnoticed if broken => Seen::Noticed,
        seen => seen,
    }
}

/// Objects of which nobody reads (all of) the bytes.
///
/// * `claims/<index id>`: only its name is read; it says who serves, and holds no data.
/// * a partial tile that a wider one has superseded: the checkpoint asks for the widest only.
fn unread(key: &str, all: &BTreeMap<String, Bytes>) -> bool {
    if key.starts_with("claims/") {
        return true;
    }
    let Some((stem, width)) = key.rsplit_once(".p/") else {
        return false;
    };
    let width: u32 = width.parse().unwrap();
    let others = all
        .keys()
        .filter_map(|k| k.strip_prefix(stem)?.strip_prefix(".p/")?.parse::<u32>().ok());
    others.into_iter().any(|other| other > width)
}

fn thorough() -> bool {
    std::env::var("CALLVAULT_CASES").is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_byte_of_a_small_vault_is_noticed_and_never_other_data() {
    let (glass, t, before) = small().await;
    // Serving: the vault is open while its bucket is changed under it.
    let opened = glass.open().await.unwrap();
    let all = glass.bucket.objects();
    let mut missed: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (key, body) in &all {
        if unread(key, &all) && !thorough() {
            continue;
        }
        for at in 0..body.len() {
            let mut changed = body.to_vec();
            changed[at] ^= 1 << (at % 8);
            glass.bucket.set(key, changed);
            if look(&opened.vault, &t, &before, &format!("{key} byte {at}")).await == Seen::Unnoticed {
                missed.entry(key.clone()).or_default().push(at);
            }
        }
        glass.bucket.set(key, body.clone());
    }
    no_findings(&opened.vault).await;
    opened.crash().await;
    missed.retain(|key, _| !unread(key, &all));
    assert_eq!(
        missed,
        BTreeMap::new(),
        "served: key and bytes whose change nobody noticed"
    );
    // Rebuilding, from every eleventh byte or from every one.
    let step = if thorough() { 1 } else { 11 };
    for (key, body) in all.iter().filter(|(key, _)| !unread(key, &all)) {
        for at in (0..body.len()).step_by(step) {
            let mut changed = body.to_vec();
            changed[at] ^= 1 << (at % 8);
            let bucket = glass.bucket.snapshot();
            bucket.set(key, changed);
            let [served, rebuilt] =
                with_and_without_index(&glass, &t, &before, &bucket, &format!("{key} byte {at}")).await;
            if served == Seen::Unnoticed || rebuilt == Seen::Unnoticed {
                missed
                    .entry(format!("{key} {served:?} {rebuilt:?}"))
                    .or_default()
                    .push(at);
            }
        }
    }
    assert_eq!(
        missed,
        BTreeMap::new(),
        "opened: key and bytes whose change nobody noticed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_cut_object_is_never_silently_fine() {
    let (glass, t, before) = small().await;
    let objects = glass.bucket.objects();
    let mut silent = Vec::new();
    for (key, body) in objects.iter().filter(|(key, _)| !unread(key, &objects)) {
        for length in [
            None,
            Some(0),
            Some(1),
            Some(body.len() / 2),
            Some(body.len() - 1),
            Some(body.len() + 1),
        ] {
            let bucket = glass.bucket.snapshot();
            match length {
                None => drop(bucket.remove(key)),
                Some(length) => {
                    let mut body = body.to_vec();
                    body.resize(length, 0);
                    bucket.set(key, body);
                }
            }
            let seen =
                with_and_without_index(&glass, &t, &before, &bucket, &format!("{key} cut to {length:?}"))
                    .await;
            if seen != [Seen::Noticed, Seen::Noticed] {
                silent.push((key.clone(), length, seen));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_and_moved_blobs_and_footers_are_noticed() {
    let (glass, t, before) = small().await;
    let blobs: Vec<(String, Bytes)> = glass
        .bucket
        .objects()
        .into_iter()
        .filter(|(k, _)| k.starts_with("blobs/"))
        .collect();
    let [(a, of_a), (b, of_b)] = &blobs[..] else {
        panic!("two blobs")
    };
    let cut = |blob: &Bytes| {
        let length = u32::from_be_bytes(blob[blob.len() - 12..blob.len() - 8].try_into().unwrap()) as usize;
        blob.len() - 12 - length
    };
    let join = |content: &Bytes, footer: &Bytes| [&content[..cut(content)], &footer[cut(footer)..]].concat();
    let moved = a.replace("/01/01/", "/01/02/");
    let elsewhere = a.replace("/acme/", "/other/");
    assert_ne!((&moved, &elsewhere), (a, a));
    let mut cases = vec![
        (
            "swapped",
            vec![(a, Some(of_b.to_vec())), (b, Some(of_a.to_vec()))],
        ),
        ("copied over", vec![(a, Some(of_b.to_vec()))]),
        (
            "footers swapped",
            vec![(a, Some(join(of_a, of_b))), (b, Some(join(of_b, of_a)))],
        ),
        ("moved", vec![(a, None), (&moved, Some(of_a.to_vec()))]),
        (
            "moved to another tenant",
            vec![(a, None), (&elsewhere, Some(of_a.to_vec()))],
        ),
        ("copied beside", vec![(&moved, Some(of_a.to_vec()))]),
        (
            "copied to another tenant",
            vec![(&elsewhere, Some(of_a.to_vec()))],
        ),
        ("doubled", vec![(a, Some([&of_a[..], &of_a[..]].concat()))]),
    ];
    let late = b.rsplit_once('/').unwrap().0.to_owned() + "/01890a5d-ac96-774b-bcce-b302099a8057";
    cases.push(("under a new name", vec![(&late, Some(of_b.to_vec()))]));
    for (what, changes) in cases {
        let bucket = glass.bucket.snapshot();
        for (key, body) in changes {
            match body {
                Some(body) => bucket.set(key, body),
                None => drop(bucket.remove(key)),
            }
        }
        let seen = with_and_without_index(&glass, &t, &before, &bucket, what).await;
        assert_eq!(seen, [Seen::Noticed, Seen::Noticed], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_checkpoint_or_bucket_is_refused_by_the_anchor() {
    let (glass, t, _) = small().await;
    let opened = glass.open().await.unwrap();
    let old = glass.bucket.snapshot();
    put(
        &opened.vault,
        spec(&t, descriptor("z", "+5215512345678")),
        &content(3, 10),
    )
    .await
    .unwrap();
    opened.vault.settle().await.unwrap();
    let middle = glass.bucket.snapshot();
    put(
        &opened.vault,
        spec(&t, descriptor("z", "+5215512345678")),
        &content(4, 10),
    )
    .await
    .unwrap();
    opened.close().await;
    let checkpoints = |b: &Bucket| -> BTreeMap<_, _> {
        b.objects()
            .into_iter()
            .filter(|(k, _)| k.ends_with("/checkpoint"))
            .collect()
    };
    let mut replayed = 0;
    for (key, older) in checkpoints(&middle) {
        if glass.bucket.objects()[&key] == older {
            continue;
        }
        replayed += 1;
        let bucket = glass.bucket.snapshot();
        bucket.set(&key, older);
        for index in [glass.index.snapshot(), MemoryIndex::new()] {
            let outcome = glass.copy(bucket.snapshot(), index).open().await.map(drop);
            assert!(matches!(outcome, Err(OpenError::BucketBehind(_))), "{outcome:?}");
        }
    }
    assert_eq!(replayed, 1);
    // Of a log that is closed, and while the vault serves: the scrub knows how long each log was.
    let opened = glass.open().await.unwrap();
    put(
        &opened.vault,
        spec(&t, descriptor("z", "+5215512345678")),
        &content(5, 10),
    )
    .await
    .unwrap();
    no_findings(&opened.vault).await;
    for (key, older) in checkpoints(&middle) {
        let now = glass.bucket.objects();
        if now[&key] == older {
            continue;
        }
        glass.bucket.set(&key, older);
        assert!(!opened.vault.verify().await.unwrap().findings.is_empty(), "{key}");
        glass.bucket.set(&key, now[&key].clone());
        let log = key.trim_end_matches("checkpoint").to_owned();
        for gone in now.keys().filter(|k| k.starts_with(&log)) {
            glass.bucket.remove(gone);
        }
        assert!(!opened.vault.verify().await.unwrap().findings.is_empty(), "{log}");
        for (back, body) in now.into_iter().filter(|(k, _)| k.starts_with(&log)) {
            glass.bucket.set(&back, body);
        }
    }
    no_findings(&opened.vault).await;
    opened.close().await;
    for older in [old, middle] {
        for index in [glass.index.snapshot(), MemoryIndex::new()] {
            let outcome = glass.copy(older.snapshot(), index).open().await.map(drop);
            assert!(matches!(outcome, Err(OpenError::BucketBehind(_))), "{outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_vaults_bucket_is_refused() {
    let (glass, _, _) = small().await;
    let other = Glass::new(2);
    let opened = other.open().await.unwrap();
    make_tenant(&opened.vault, "acme").await;
    opened.close().await;
    let foreign = other.bucket.snapshot();
    for (index, what) in [
        (glass.index.snapshot(), "served"),
        (MemoryIndex::new(), "rebuilt"),
    ] {
        let mut copy = glass.copy(foreign.snapshot(), index);
        copy.settings.take_over = true;
        let outcome = copy.open().await.map(drop);
        assert!(
            matches!(outcome, Err(OpenError::WrongRoot | OpenError::WrongIndex)),
            "{what}: {outcome:?}"
        );
    }
    assert_eq!(
        foreign.objects(),
        other.bucket.objects(),
        "nothing was changed in it"
    );
    // Another vault's blob and log among one's own.
    let (glass, t, before) = small().await;
    let opened = other.open().await.unwrap();
    let t2 = tenant("acme");
    put(
        &opened.vault,
        spec(&t2, descriptor("b", "+5215512345678")),
        &content(2, 33),
    )
    .await
    .unwrap();
    opened.close().await;
    let bucket = glass.bucket.snapshot();
    for (key, body) in other
        .bucket
        .objects()
        .into_iter()
        .filter(|(k, _)| k.starts_with("blobs/"))
    {
        bucket.set(&key, body);
    }
    let seen = with_and_without_index(&glass, &t, &before, &bucket, "a foreign blob").await;
    assert_eq!(seen, [Seen::Noticed, Seen::Noticed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_and_extents_keep_their_places() {
    const SEGMENT: usize = 64 << 10;
    const EXTENT: usize = 128 * SEGMENT;
    let glass = Glass::new(1);
    let opened = glass.open().await.unwrap();
    let vault = &opened.vault;
    let t = make_tenant(vault, "acme").await;
    let body = content(1, 20 << 20);
    let record = put(vault, spec(&t, descriptor("a", "+5215512345678")), &body)
        .await
        .unwrap();
    no_findings(vault).await;
    let (key, blob) = glass
        .bucket
        .objects()
        .into_iter()
        .find(|(k, _)| k.starts_with("blobs/"))
        .unwrap();
    let swap = |a: usize, b: usize, length: usize| {
        let mut changed = blob.to_vec();
        let (one, two) = (blob.slice(a..a + length), blob.slice(b..b + length));
        changed[a..a + length].copy_from_slice(&two);
        changed[b..b + length].copy_from_slice(&one);
        changed
    };
    let copy = |from: usize, to: usize, length: usize| {
        let mut changed = blob.to_vec();
        changed[to..to + length].copy_from_slice(&blob[from..from + length]);
        changed
    };
    let without = |from: usize, length: usize| [&blob[..from], &blob[from + length..]].concat();
    let twice = |from: usize, length: usize| [&blob[..from + length], &blob[from..]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("segments swapped", swap(SEGMENT, 2 * SEGMENT, SEGMENT)),
        (
            "segments swapped across extents",
            swap(SEGMENT, EXTENT + SEGMENT, SEGMENT),
        ),
        (
            "a segment doubled over the next",
            copy(SEGMENT, 2 * SEGMENT, SEGMENT),
        ),
        ("extents swapped", swap(0, EXTENT, EXTENT)),
        ("an extent doubled over the next", copy(0, EXTENT, EXTENT)),
        ("headers swapped", swap(0, EXTENT, 40)),
        ("a segment removed", without(3 * SEGMENT, SEGMENT)),
        ("an extent removed", without(EXTENT, EXTENT)),
        ("a segment inserted", twice(SEGMENT, SEGMENT)),
        ("an extent inserted", twice(0, EXTENT)),
    ];
    for (what, changed) in cases {
        glass.bucket.set(&key, changed);
        let error = read(vault, &t, record.id).await.unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{what}");
        // Whatever came before the error was right.
        let range = callvault::vault::ContentRange {
            offset: 0,
            limit: None,
        };
        let mut reading = vault.read(&t, record.id, range, LAWFUL).await.unwrap();
        let mut at = 0;
        while let Ok(Some(bytes)) = reading.next().await {
            assert!(body[at..at + bytes.len()] == bytes, "{what}");
            at += bytes.len();
        }
        assert!(at < body.len(), "{what}");
        let report = vault.verify().await.unwrap();
        assert!(!report.findings.is_empty(), "{what}");
    }
    glass.bucket.set(&key, blob.clone());
    no_findings(vault).await;
    opened.close().await;
}

/// No leaf vouches for such a blob: its sealed descriptor alone does, and it vouches for every field of the footer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlogged_blob_is_adopted_only_as_it_was_written() {
    let glass = Glass::new(1);
    let opened = glass.open().await.unwrap();
    let t = make_tenant(&opened.vault, "acme").await;
    // The page's leaf is shipped, the put's is not.
    put(
        &opened.vault,
        spec(&t, descriptor("a", "+5215512345678")),
        &content(0, 10),
    )
    .await
    .unwrap();
    opened.vault.settle().await.unwrap();
    let unlogged = glass.copy(glass.bucket.snapshot(), MemoryIndex::new());
    let mut requested = spec(&t, descriptor("a", "+5215512345678"));
    requested.request = Some("r".parse().unwrap());
    let record = put(&opened.vault, requested, &content(1, 20)).await.unwrap();
    opened.crash().await;
    let objects = glass.bucket.objects();
    let (key, blob) = objects
        .iter()
        .find(|(k, _)| k.ends_with(&record.id.to_string()))
        .unwrap();
    let footer = u32::from_be_bytes(blob[blob.len() - 12..blob.len() - 8].try_into().unwrap()) as usize;
    let start = blob.len() - 12 - footer;
    let adopted = async |blob: Vec<u8>| {
        let bucket = unlogged.bucket.snapshot();
        bucket.set(key, blob);
        let copy = unlogged.copy(bucket, MemoryIndex::new());
        let opened = copy.open().await.unwrap();
        let adopted = opened.replayed.as_ref().unwrap().adopted;
        let found = opened.vault.record(&t, &Name::Id(record.id), LAWFUL).await;
        assert_eq!(found.is_ok(), adopted == 1);
        opened.crash().await;
        adopted
    };
    assert_eq!(adopted(blob.to_vec()).await, 1);
    for at in start..start + footer {
        let mut changed = blob.to_vec();
        changed[at] ^= 1 << (at % 8);
        let sum = crc32c::crc32c(&changed[start..blob.len() - 8]);
        changed[blob.len() - 8..blob.len() - 4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(adopted(changed).await, 0, "byte {} of the footer", at - start);
    }
}

/// Rows whose values carry no MAC, and what a change of them can do.
///
/// | row | what a change does |
/// |---|---|
/// | `Meta("vault")` | the index is refused (`WrongIndex`) |
/// | `Epoch` | read before there is a key to check it; authenticates itself by opening: refused |
/// | `Log`, `LogNext`, `Sequence` | counters: replayed again, refused as inconsistent, or numbers jump; no data, no keys |
/// | `ByTime`, `ByConversation`, `BySubject` | have no value; a forged key finds a record that the query then filters out |
fn has_mac(key: &Key) -> bool {
    !matches!(
        key,
        Key::Meta("vault")
            | Key::Epoch(_)
            | Key::Log(_)
            | Key::LogNext(_)
            | Key::Sequence(_)
            | Key::ByTime(..)
            | Key::ByConversation(..)
            | Key::BySubject(..)
    )
}

async fn set_row(index: &MemoryIndex, key: &Key, value: Vec<u8>) {
    let row = Row {
        key: key.clone(),
        value,
    };
    index
        .commit(Change {
            put: vec![row],
            ..Change::default()
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_index_row_is_an_error_and_never_data() {
    let (glass, t, before) = small().await;
    let opened = glass.open().await.unwrap();
    let vault = &opened.vault;
    let page = callvault::domain::ids::RecordId::from_slice(before.records[0].id.as_bytes()).unwrap();
    let mut touched = BTreeMap::new();
    for Row { key, value } in glass.index.rows() {
        let table = format!("{key:?}")
            .split('(')
            .next()
            .unwrap_or_default()
            .to_owned();
        *touched.entry(table).or_insert(0) += 1;
        for at in (0..value.len()).step_by(if thorough() { 1 } else { 3 }) {
            let mut changed = value.clone();
            changed[at] ^= 1 << (at % 8);
            set_row(&glass.index, &key, changed).await;
            let what = format!("{key:?} byte {at}");
            let named = vault
                .record(&t, &Name::External("call-1".parse().unwrap()), LAWFUL)
                .await;
            if matches!(key, Key::External(..)) {
                assert_eq!(named.unwrap_err().kind, Kind::Corrupt, "{what}");
            } else if let Ok(named) = named {
                assert!(before.records.contains(&named), "{what}");
            }
            let by_tel = Query {
                subject: Some(callvault::domain::record::SubjectIdentifier::Tel(
                    "+5215512345678".parse().unwrap(),
                )),
                ..Query::default()
            };
            if let Ok(found) = list_all(vault, &t, &by_tel, Order::OldestFirst, 9, LAWFUL).await {
                assert!(found == before.records, "{what}");
            }
            let now = shown(vault, &t).await;
            match (&key, &now) {
                (Key::Record(..) | Key::Tenant(_), Ok(_)) => panic!("{what}: not noticed"),
                (_, Ok(now)) => assert!(*now == before, "{what}: other data"),
                (key, Err(error)) => {
                    assert!(has_mac(key), "{what}: {error:?}");
                    assert_eq!(error.kind, Kind::Corrupt, "{what}");
                }
            }
            if matches!(key, Key::Request(..)) {
                let mut again = descriptor("a", "+5215512345678");
                again.external_id = Some("call-1".parse().unwrap());
                let mut again = spec(&t, again);
                again.request = Some("r".parse().unwrap());
                let error = put(vault, again, &content(1, 40)).await.unwrap_err();
                assert_eq!(error.kind, Kind::Corrupt, "{what}");
            }
        }
        set_row(&glass.index, &key, value).await;
    }
    for table in [
        "Record",
        "Tenant",
        "TenantKey",
        "Page",
        "RegionPage",
        "External",
        "Request",
        "Identifier",
        "RetentionClass",
    ] {
        assert!(
            touched.contains_key(table),
            "{table} was there to be changed: {touched:?}"
        );
    }
    // One row's value under another row's key.
    let rows = glass.index.rows();
    let record = |id: &callvault::domain::ids::RecordId| {
        let key = Key::Record(t.clone(), *id);
        rows.iter().find(|r| r.key == key).unwrap().clone()
    };
    let (one, two) = (record(&page), record(&before.records[1].id));
    set_row(&glass.index, &one.key, two.value).await;
    assert_eq!(shown(vault, &t).await.map(drop).unwrap_err().kind, Kind::Corrupt);
    set_row(&glass.index, &one.key, one.value).await;
    no_findings(vault).await;
    opened.close().await;
}

/// What the table above says of rows without a MAC, at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_without_a_mac_is_refused_or_harmless_at_the_next_start() {
    let (glass, t, before) = small().await;
    for Row { key, value } in glass.index.rows() {
        if has_mac(&key) {
            continue;
        }
        for at in 0..value.len() {
            let index = glass.index.snapshot();
            let mut changed = value.clone();
            changed[at] ^= 1 << (at % 8);
            set_row(&index, &key, changed).await;
            let copy = glass.copy(glass.bucket.snapshot(), index);
            if let Ok(opened) = copy.open().await {
                let what = format!("{key:?} byte {at}");
                assert!(!matches!(key, Key::Meta(_)), "{what}");
                look(&opened.vault, &t, &before, &what).await;
                opened.crash().await;
            }
        }
    }
}
