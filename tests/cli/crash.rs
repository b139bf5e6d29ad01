//! The real process is killed under uploads, again and again: what was acknowledged is there, byte for byte.
//!
//! `CALLVAULT_KILLS` says how often; 10 when it does not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::{Place, Server, done};

const UPLOADERS: u64 = 3;

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let kills: u64 = std::env::var("CALLVAULT_KILLS").map_or(10, |n| n.parse().unwrap());
    let place = Arc::new(Place::new());
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let mut server = Server::start(&place.data());
    for round in 0..kills {
        let stop = Arc::new(AtomicBool::new(false));
        let uploaders: Vec<_> = (0..UPLOADERS)
            .map(|n| {
                let (place, acknowledged, stop) =
                    (Arc::clone(&place), Arc::clone(&acknowledged), Arc::clone(&stop));
                thread::spawn(move || upload_until(&place, round * 1_000 + n * 100, &stop, &acknowledged))
            })
            .collect();
        // Spread over a range of moments, the same every time.
        thread::sleep(Duration::from_millis(80 + round * 7_919 % 400));
        server.kill();
        stop.store(true, Ordering::Release);
        for uploader in uploaders {
            uploader.join().unwrap();
        }
        server = Server::start(&place.data());
    }
    let acknowledged = acknowledged.lock().unwrap();
    assert!(
        acknowledged.len() as u64 >= kills,
        "only {} were acknowledged",
        acknowledged.len()
    );
    for (id, bytes) in acknowledged.iter() {
        assert!(&place.get(id) == bytes, "{id} came back changed");
    }
    let listed = place.json(&["ls"])["records"].as_array().unwrap().len();
    assert!(listed >= acknowledged.len());
    assert_eq!(server.stop(), Some(0));
    // A blob whose upload was cut before its row is an orphan: its rule collects it, and nothing else may be found.
    let report = String::from_utf8(place.local(&["verify"]).stdout).unwrap();
    let findings = report
        .lines()
        .skip_while(|line| !line.starts_with("findings"))
        .skip(1);
    assert!(
        findings
            .clone()
            .all(|line| line.contains("no record names this blob")),
        "{report}"
    );
    println!(
        "{kills} kills, {} acknowledged, {listed} listed",
        acknowledged.len()
    );
}

/// Uploads one after the other; what is acknowledged is remembered, what fails is not.
fn upload_until(
    place: &Place,
    seed: u64,
    stop: &AtomicBool,
    acknowledged: &Mutex<BTreeMap<String, Vec<u8>>>,
) {
    for at in seed.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let size = usize::try_from(1_000 + at * 7_919 % 200_000).unwrap();
        let (file, bytes) = place.file(&format!("{seed}.bin"), size, at);
        let output = place.remote(&["put", &file, "--conversation", "c-1", "--json"]);
        if !output.status.success() {
            // Nobody listens, or nobody listens any more.
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        let record: serde_json::Value = serde_json::from_str(&done(&output)).unwrap();
        let id = record["record_id"].as_str().unwrap().to_owned();
        acknowledged.lock().unwrap().insert(id, bytes);
    }
}
