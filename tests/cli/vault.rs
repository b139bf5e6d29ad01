//! One process has a vault open; what it leaves behind opens again, or says why not.

use std::{fs, io::Read};

use crate::support::{Place, Server, callvault, done, refused};

#[test]
fn a_second_process_is_refused_and_told_why() {
    let place = Place::new();
    let server = Server::start(&place.data());
    let data = place.path("data");
    for command in [
        &["serve", "--dev", "--listen", "127.0.0.1:0", "--data", &data][..],
        &["verify", "--data", &data],
        &["rebuild-index", "--data", &data],
    ] {
        let said = refused(&callvault(command), 1);
        assert!(
            said.contains("another process has this vault open (pid "),
            "{said}"
        );
    }
    let (file, bytes) = place.file("call.bin", 100_000, 1);
    let id = place.put(&file, &[]);
    assert_eq!(server.stop(), Some(0));

    let said = done(&place.local(&["verify"]));
    assert!(said.contains("findings  0"), "{said}");
    let said = done(&place.local(&["rebuild-index"]));
    assert!(
        said.contains("records  1") && said.contains("broken   0"),
        "{said}"
    );
    let _server = Server::start(&place.data());
    assert_eq!(place.get(&id), bytes);
}

#[test]
fn a_signal_drains() {
    let place = Place::new();
    let mut server = Server::start(&place.data());
    server.terminate();
    let mut rest = String::new();
    server.stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("callvault put"), "{rest}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_deleted_index_is_made_again() {
    let place = Place::new();
    let server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 9_000_000, 7);
    let id = place.put(&file, &["--tel", "+525512345678"]);
    assert_eq!(server.stop(), Some(0));
    fs::remove_dir_all(place.data().join("index")).unwrap();
    let _server = Server::start(&place.data());
    assert_eq!(place.get(&id), bytes);
    assert_eq!(
        place.json(&["ls", "--tel", "+525512345678"])["records"][0]["record_id"],
        id.as_str()
    );
}

#[test]
fn a_damaged_index_is_moved_aside_and_made_again() {
    let place = Place::new();
    let server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 50_000, 8);
    let id = place.put(&file, &[]);
    assert_eq!(server.stop(), Some(0));
    let conf = place.data().join("index/conf");
    let other = fs::read(&conf).unwrap().to_ascii_uppercase();
    fs::write(&conf, other).unwrap();
    let _server = Server::start(&place.data());
    assert_eq!(place.get(&id), bytes);
    let aside = fs::read_dir(place.data())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let aside: Vec<_> = aside
        .filter(|n| n.to_string_lossy().starts_with("index.corrupt-"))
        .collect();
    assert_eq!(aside.len(), 1);
}

#[test]
fn a_vault_without_its_root_is_not_opened() {
    let place = Place::new();
    assert_eq!(Server::start(&place.data()).stop(), Some(0));
    fs::rename(place.root(), place.path("elsewhere")).unwrap();
    for command in ["verify", "rebuild-index"] {
        let said = refused(&place.local(&[command]), 1);
        assert!(said.contains("root directory that opens it is missing"), "{said}");
    }
    let serve = [
        "serve",
        "--dev",
        "--listen",
        "127.0.0.1:0",
        "--data",
        &place.path("data"),
    ];
    let said = refused(&callvault(&serve), 1);
    assert!(said.contains("root directory that opens it is missing"), "{said}");
    assert!(!place.root().exists());
    fs::rename(place.path("elsewhere"), place.root()).unwrap();
    assert!(done(&place.local(&["verify"])).contains("findings  0"));
}

#[test]
fn where_there_is_no_vault_none_is_made() {
    let place = Place::new();
    for command in ["verify", "rebuild-index"] {
        let said = refused(&place.local(&[command]), 1);
        assert!(said.contains("there is no vault here"), "{said}");
    }
    assert!(!place.data().exists());
}

#[test]
fn a_flipped_byte_is_found() {
    let place = Place::new();
    let server = Server::start(&place.data());
    let (file, _) = place.file("call.bin", 50_000, 9);
    let id = place.put(&file, &[]);
    assert_eq!(server.stop(), Some(0));
    let blob = blobs(&place.data().join("bucket/objects/blobs")).remove(0);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20_000] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let output = place.local(&["verify"]);
    assert!(refused(&output, 1).contains("findings=1"), "{output:?}");
    let _server = Server::start(&place.data());
    let out = place.path("out.bin");
    refused(&place.remote(&["get", &id, "-o", &out]), 1);
    assert!(!std::path::Path::new(&out).exists());
}

fn blobs(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(blobs(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_doctor_warns_of_a_missing_recovery_store_while_the_server_runs() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let said = done(&place.local(&["doctor"]));
    assert!(said.contains("ok: store: "), "{said}");
    assert!(said.contains("ok: root: the root is there (file)"), "{said}");
    assert!(said.contains("warning: recovery_store: there is none"), "{said}");
    assert!(said.contains("a valid backup is blobs of any age"), "{said}");
}
