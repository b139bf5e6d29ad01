//! Certificates are checked from files alone, and keys are published by a server.

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{Place, Server, callvault, done, refused};

/// A certificate and keys that a second implementation wrote, as files.
fn vector(place: &Place, name: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/certificate/{name}.json"));
    let vector: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (certificate, keys) = (place.path("certificate.json"), place.path("keys.json"));
    fs::write(&certificate, vector["certificate"].as_str().unwrap()).unwrap();
    fs::write(&keys, vector["keys"].to_string()).unwrap();
    (certificate, keys)
}

#[test]
fn a_certificate_is_checked_without_a_server() {
    let place = Place::new();
    let (certificate, keys) = vector(&place, "records-final");
    let check = |more: &[&str]| {
        callvault(&[&["certificate", "verify", &certificate, "--keys", &keys], more].concat())
    };
    let said = done(&check(&[]));
    assert!(said.contains("2 records in 1 objects are shredded"), "{said}");
    assert!(said.trim_end().ends_with("FINAL"), "{said}");
    let document: Value = serde_json::from_str(&done(&check(&["--json"]))).unwrap();
    assert_eq!(document["identity"]["stage"], "FINAL");

    let mut bytes = fs::read(&certificate).unwrap();
    let last = bytes.len() / 2;
    bytes[last] ^= 1;
    fs::write(&certificate, bytes).unwrap();
    assert!(refused(&check(&[]), 1).contains("does not hold"));
    vector(&place, "malformed-epoch-alive");
    assert!(refused(&check(&[]), 1).contains("does not hold"));
    fs::write(&keys, "{}").unwrap();
    assert!(refused(&check(&[]), 1).contains("not a set of a vault's keys"));
    fs::remove_file(&keys).unwrap();
    assert!(refused(&check(&[]), 1).contains("path="));
}

#[test]
fn keys_are_published_as_a_set_and_an_unknown_erasure_has_no_certificate() {
    let place = Place::new();
    let server = Server::start(&place.data());
    let keys = place.path("keys.json");
    done(&place.remote(&["certificate", "keys", "-o", &keys]));
    let set: Value = serde_json::from_slice(&fs::read(&keys).unwrap()).unwrap();
    let uses: Vec<_> = set["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["callvault_use"])
        .collect();
    assert_eq!(uses, ["certificate", "log-checkpoint"]);
    let listed: Value =
        serde_json::from_str(&done(&place.remote(&["certificate", "keys", "--json"]))).unwrap();
    assert_eq!(listed["signing_keys"][0]["kid"], set["keys"][0]["kid"]);
    assert_eq!(listed["signing_keys"][0]["use"], "SIGNING_KEY_USE_CERTIFICATE");
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let output = place.remote(&["certificate", "show", unknown]);
    assert!(refused(&output, 1).contains("NOT_FOUND"));
    drop(server);
}
