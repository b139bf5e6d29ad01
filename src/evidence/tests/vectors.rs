//! Certificates that a second implementation wrote, judged by this one and by a third.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::evidence::{keys::KeySet, verify::verify};

struct Vector {
    name: String,
    holds: bool,
    keys: String,
    certificate: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn vectors() -> Vec<Vector> {
    let mut all: Vec<_> = fs::read_dir(root().join("tests/vectors/certificate"))
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            Vector {
                name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                holds: vector["holds"].as_bool().unwrap(),
                keys: vector["keys"].to_string(),
                certificate: vector["certificate"].as_str().unwrap().to_owned(),
            }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(all.iter().filter(|vector| vector.holds).count(), 5);
    assert!(all.len() >= 65);
    all
}

#[test]
fn every_vector_of_certificates_is_taken_or_refused_as_it_should_be() {
    for vector in vectors() {
        let keys = KeySet::from_jwks(vector.keys.as_bytes()).unwrap();
        let judged = verify(vector.certificate.as_bytes(), &keys);
        let why = judged.as_ref().err().map(ToString::to_string);
        assert_eq!(judged.is_ok(), vector.holds, "{} {why:?}", vector.name);
        assert_eq!(vector.holds, !vector.name.starts_with("malformed-"));
    }
}

#[test]
fn a_stranger_judges_every_vector_of_certificates_alike() {
    let can = Command::new("python3")
        .args(["-c", "import cryptography"])
        .output();
    if !can.is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: python3 has no module `cryptography`");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let judge = |vector: &Vector| {
        let file = |what: &str, text: &str| {
            let path = dir.path().join(format!("{}.{what}", vector.name));
            fs::write(&path, text).unwrap();
            path
        };
        Command::new("python3")
            .arg(root().join("scripts/verify_certificate.py"))
            .arg(file("certificate", &vector.certificate))
            .arg(file("keys", &vector.keys))
            .output()
            .unwrap()
    };
    for vector in vectors() {
        let out = judge(&vector);
        let errors = String::from_utf8_lossy(&out.stderr);
        let expected = if vector.holds { 0 } else { 1 };
        assert_eq!(out.status.code(), Some(expected), "{} {errors}", vector.name);
        assert!(
            vector.holds || errors.starts_with("the certificate does not hold: "),
            "{errors}"
        );
    }
}
