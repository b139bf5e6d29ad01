//! The root moves by command, to a KMS in this process and back.

use std::{fs, os::unix::fs::PermissionsExt};

use callvault::testing::kms::Service;

use crate::support::{Place, Server, callvault, done, refused};

/// A configuration of the dev server's data whose root is with `provider`, and may go to the KMS at `endpoint`.
fn configure(place: &Place, provider: &str, endpoint: &str) -> String {
    let (data, root) = (place.path("data"), place.path("data.root"));
    let credentials = Service::settings(endpoint, place.dir.path())
        .credentials_file
        .unwrap();
    let text = format!(
        "data = {data:?}\n\
         region = {{ name = \"dev\", country = \"MX\" }}\n\
         store = {{ local = \"{data}/bucket\" }}\n\
         tls = {{ certificate = \"{data}/c\", key = \"{data}/k\", client_ca = \"{data}/a\" }}\n\
         principals = [{{ certificate = \"x\", alias = \"y\", roles = [\"reader\"], tenants = [\"*\"] }}]\n\
         [root]\nprovider = {provider:?}\n\
         [root.file]\ndir = {root:?}\n\
         [root.aws_kms]\nregion = \"us-east-1\"\nendpoint = {endpoint:?}\ncredentials_file = {credentials:?}\n"
    );
    let file = place.path("callvault.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_moves_the_root_with_one_command_and_is_told_what_comes_next() {
    let (place, service) = (Place::new(), Service::new());
    let endpoint = service.serve().await;
    let server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 100_000, 1);
    let id = place.put(&file, &[]);
    let config = configure(&place, "file", &endpoint);
    let migrate = |to: &str| callvault(&["root", "migrate", "--to", to, "--config", &config]);
    let said = refused(&migrate("aws_kms"), 1);
    assert!(said.contains("another process has this vault open"), "{said}");
    assert_eq!(server.stop(), Some(0));

    refused(&migrate("nowhere"), 2);
    let said = refused(&migrate("pkcs11"), 1);
    assert!(said.contains("needs the section [root.pkcs11]"), "{said}");
    assert!(done(&migrate("file")).contains("nothing to do: the root is with file already, epoch 1"));
    let told = done(&migrate("aws_kms"));
    for line in [
        "the root is with aws_kms now, from epoch 2 on",
        "root.provider = \"aws_kms\"",
        "keep [root.file]",
        "epochs 1",
        "callvault sweep run",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    assert_eq!(service.states(), ["Enabled"; 2], "an epoch and the anchor");
    assert!(done(&migrate("aws_kms")).contains("nothing to do: the root is with aws_kms already"));
    for command in ["verify", "rebuild-index"] {
        let said = refused(&callvault(&[command, "--config", &config]), 1);
        assert!(said.contains("set root.provider to aws_kms"), "{said}");
    }

    configure(&place, "aws_kms", &endpoint);
    for command in ["verify", "rebuild-index"] {
        let said = done(&callvault(&[command, "--config", &config]));
        assert!(
            said.contains("records   1") || said.contains("records  1"),
            "{said}"
        );
    }
    // And back: dev mode knows directories alone, and serves; but it cannot end what is left in KMS.
    let told = done(&migrate("file"));
    assert!(
        told.contains("the root is with file now, from epoch 3 on"),
        "{told}"
    );
    assert!(
        told.contains("keep [root.aws_kms]") && told.contains("epochs 2"),
        "{told}"
    );
    let _server = Server::start(&place.data());
    assert_eq!(place.get(&id), bytes);
    let sweep = place.json(&["sweep", "run", "--no-wait"]);
    let sweep = sweep["sweep_id"].as_str().unwrap().to_owned();
    let said = loop {
        let now = place.json(&["sweep", "status", &sweep]);
        match now["reason"].as_str() {
            Some(reason) if !reason.is_empty() => break reason.to_owned(),
            _ => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    };
    assert_eq!(said, "ROOT_NOT_CONFIGURED");
}
