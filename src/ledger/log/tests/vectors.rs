//! `tests/vectors/log/*.json`: whole logs as named objects, good ones and one malformed case a file.
//!
//! `BLESS_VECTORS=1 cargo test --lib ledger` writes them; without it they are compared with what would be written.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};
use signed_note::{Note, Signature};

use super::{
    super::{Head, LogError, LogName, LogReader, LogWriter, Signer, checkpoint},
    SEED, TestKey, entries, examine, log_of, naive_root, name,
    store::TestStore,
};

type Objects = BTreeMap<String, Bytes>;

#[tokio::test]
async fn vectors_say_what_they_said() {
    let cases = cases().await;
    for (case, vector) in &cases {
        let path = directory().join(format!("{case}.json"));
        // In one order, whatever features a dependency gives serde_json.
        let mut vector = vector.clone();
        vector.sort_all_objects();
        let text = format!("{}\n", serde_json::to_string_pretty(&vector).unwrap());
        if std::env::var_os("BLESS_VECTORS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{case}");
    }
    assert_eq!(fs::read_dir(directory()).unwrap().count(), cases.len());
}

#[tokio::test]
async fn vectors_are_read_as_they_expect() {
    for file in fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let store = TestStore::new();
        for (object, body) in vector["objects"].as_object().unwrap() {
            store.set(object, Some(hex::decode(body.as_str().unwrap()).unwrap().into()));
        }
        let got = match examine(&store).await {
            Ok(entries) => json!({ "entries": entries.iter().map(hex::encode).collect::<Vec<_>>() }),
            Err(LogError::Signature) => json!({ "error": "signature" }),
            Err(LogError::Corrupt { .. }) => json!({ "error": "corrupt" }),
            Err(other) => panic!("{path:?} {other}"),
        };
        assert_eq!(got, vector["expect"], "{path:?}");
        if got.get("entries").is_some() {
            opens_for_reading_and_writing(&store, &vector).await;
        }
    }
}

async fn opens_for_reading_and_writing(store: &Arc<TestStore>, vector: &Value) {
    let head = Head {
        size: vector["size"].as_u64().unwrap(),
        root: hex::decode(vector["root"].as_str().unwrap())
            .unwrap()
            .try_into()
            .unwrap(),
    };
    let key = hex::decode(vector["public_key"].as_str().unwrap())
        .unwrap()
        .try_into()
        .unwrap();
    let reader = LogReader::open(Arc::clone(store) as _, name(), Some(key))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reader.head(), head);
    let writer = LogWriter::open(Arc::clone(store) as _, name(), TestKey::new())
        .await
        .unwrap();
    assert_eq!(writer.head(), head);
}

async fn cases() -> BTreeMap<&'static str, Value> {
    let three = log_of(&[0..1, 1..3]).await.0.paths();
    let many = log_of(&[0..3, 3..257]).await.0.paths();
    let replayed = with(
        &three,
        "checkpoint",
        &log_of(&[0..1]).await.0.paths()["checkpoint"],
    );
    let pruned = with(&many, "checkpoint", &three["checkpoint"]);
    let mut cases = BTreeMap::from([
        (
            "good-three",
            good("three entries, appended as one and two", &three, 3),
        ),
        (
            "good-257",
            good("a full bundle, a partial one and two levels of tiles", &many, 257),
        ),
        (
            "good-older-head",
            good("an older checkpoint put back: a valid older head", &replayed, 1),
        ),
        (
            "good-pruned",
            good("an older head whose partial tiles were pruned", &pruned, 3),
        ),
    ]);
    for (case, what, error, objects) in malformed(&three) {
        cases.insert(case, vector(what, &objects, json!({ "error": error })));
    }
    cases
}

fn malformed(three: &Objects) -> Vec<(&'static str, &'static str, &'static str, Objects)> {
    let (bundle, tile) = ("tile/entries/000.p/3", "tile/0/000.p/3");
    let text = String::from_utf8(three["checkpoint"].to_vec()).unwrap();
    let said = |text: String| with(three, "checkpoint", &Bytes::from(text));
    let signed = |text: &str| with(three, "checkpoint", &resigned(text));
    let body = text.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let origin = name().origin();
    let other = LogName {
        log: crate::index::LogId {
            term: 8,
            ..name().log
        },
        ..name()
    }
    .origin();
    let stranger = TestKey::from_seed(&[1; 32]);
    let head = Head {
        size: 3,
        root: naive_root(&entries(0..3)),
    };
    let foreign = checkpoint::sign(&origin, head, stranger.as_ref()).unwrap();
    let elsewhere = checkpoint::sign(&other, head, TestKey::new().as_ref()).unwrap();
    let forged = Head {
        root: naive_root(&entries(1..4)),
        ..head
    };
    let forged = checkpoint::sign(&origin, forged, TestKey::new().as_ref()).unwrap();
    let reordered = [&three[bundle][9..18], &three[bundle][..9], &three[bundle][18..]].concat();
    let changed = String::from_utf8(three[bundle].to_vec())
        .unwrap()
        .replacen("entry 1", "entry 7", 1);
    let longer = [&three[bundle][..], &[0, 1, 120]].concat();
    let swapped = [&three[tile][32..64], &three[tile][..32], &three[tile][64..]].concat();
    vec![
        (
            "bad-checkpoint-size",
            "a size that was not signed",
            "signature",
            said(text.replacen("\n3\n", "\n1\n", 1)),
        ),
        (
            "bad-checkpoint-stranger",
            "signed by another key",
            "signature",
            with(three, "checkpoint", &foreign),
        ),
        (
            "bad-checkpoint-unsigned",
            "no signature",
            "corrupt",
            said(body.clone() + "\n"),
        ),
        (
            "bad-checkpoint-origin",
            "of another log, well signed",
            "corrupt",
            with(three, "checkpoint", &elsewhere),
        ),
        (
            "bad-checkpoint-root",
            "another root, well signed",
            "corrupt",
            with(three, "checkpoint", &forged),
        ),
        (
            "bad-checkpoint-extension",
            "an extension line, well signed",
            "corrupt",
            signed(&(body.clone() + "more\n")),
        ),
        (
            "bad-checkpoint-zero",
            "a size of 03, well signed",
            "corrupt",
            signed(&body.replacen("\n3\n", "\n03\n", 1)),
        ),
        (
            "bad-checkpoint-huge",
            "a size of 2^64-1, well signed",
            "corrupt",
            signed(&body.replacen("\n3\n", "\n18446744073709551615\n", 1)),
        ),
        (
            "bad-bundle-changed",
            "an entry was changed",
            "corrupt",
            with(three, bundle, &changed.into()),
        ),
        (
            "bad-bundle-reordered",
            "two entries changed places",
            "corrupt",
            with(three, bundle, &reordered.into()),
        ),
        (
            "bad-bundle-short",
            "the last byte is missing",
            "corrupt",
            with(three, bundle, &three[bundle].slice(..26)),
        ),
        (
            "bad-bundle-long",
            "an entry too many",
            "corrupt",
            with(three, bundle, &longer.into()),
        ),
        (
            "bad-bundle-missing",
            "no entry bundle",
            "corrupt",
            without(three, bundle),
        ),
        (
            "bad-tile-reordered",
            "two hashes changed places",
            "corrupt",
            with(three, tile, &swapped.into()),
        ),
        (
            "bad-tile-missing",
            "no hash tile",
            "corrupt",
            without(three, tile),
        ),
    ]
}

fn good(what: &str, objects: &Objects, size: u64) -> Value {
    let all = entries(0..size);
    let expect = json!({ "entries": all.iter().map(hex::encode).collect::<Vec<_>>() });
    let mut vector = vector(what, objects, expect);
    vector["size"] = json!(size);
    vector["root"] = json!(hex::encode(naive_root(&all)));
    vector
}

fn vector(what: &str, objects: &Objects, expect: Value) -> Value {
    let objects: BTreeMap<_, _> = objects
        .iter()
        .map(|(name, body)| (name, hex::encode(body)))
        .collect();
    json!({
        "what": what,
        "origin": name().origin(),
        "prefix": name().prefix(),
        "seed": SEED,
        "public_key": hex::encode(TestKey::new().public_key()),
        "verifier_key": checkpoint::verifier_key(&name().origin(), &TestKey::new().public_key()),
        "objects": objects,
        "expect": expect,
    })
}

/// A note of any text, signed by the log's own key.
fn resigned(text: &str) -> Bytes {
    let (origin, key) = (name().origin(), TestKey::new());
    let id = signed_note::key_id(&origin, &[&[1], key.public_key().as_slice()].concat());
    let signature = Signature::new(origin, id, key.sign(text.as_bytes()).to_vec()).unwrap();
    Note::new(text.as_bytes(), &[signature])
        .unwrap()
        .to_bytes()
        .into()
}

fn with(objects: &Objects, name: &str, body: &Bytes) -> Objects {
    let mut objects = objects.clone();
    objects.insert(name.to_owned(), body.clone());
    objects
}

fn without(objects: &Objects, name: &str) -> Objects {
    let mut objects = objects.clone();
    objects.remove(name).unwrap();
    objects
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/log")
}
