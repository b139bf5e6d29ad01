//! What is to be forgotten: looked at, asked for, taken back, swept.

use crate::support::{Place, Server, callvault, done, refused};

#[test]
fn what_is_erased_is_gone_and_what_is_taken_back_is_there_again() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 300_000, 1);
    let call = place.put(&file, &["--tel", "+525512345678", "--external-id", "x-1"]);
    let kept = place.json(&["put", &file, "--conversation", "c-2"]);
    let kept = kept["record_id"].as_str().unwrap().to_owned();
    let message = ["message", "put", "--text", "Gracias", "--conversation", "c-1"];
    let message = place.json(&message)["record_id"].as_str().unwrap().to_owned();

    let looked = place.json(&["erase", "preview", "--conversation", "c-1"]);
    assert_eq!(looked["record_count"], "2");
    let said = done(&place.remote(&["erase", "preview", "--conversation", "c-1"]));
    let digest = said
        .lines()
        .find_map(|line| line.strip_prefix("sha256"))
        .unwrap()
        .trim()
        .to_owned();
    assert!(said.contains("records") && digest.len() == 64, "{said}");

    let request = ["erase", "request", "--reference", "CASE-1", "--grace", "0"];
    let other = [&request[..], &["--conversation", "c-2", "--expect", &digest]].concat();
    let said = refused(&place.remote(&other), 1);
    assert!(said.contains("(SET_CHANGED)"), "{said}");
    let in_json = looked["set_sha256"].as_str().unwrap();
    for (round, expect) in [digest.as_str(), in_json].into_iter().enumerate() {
        let this = ["--conversation", "c-1", "--request-id", "e-1", "--expect", expect];
        let erased = place.json(&[&request[..], &this].concat());
        assert_eq!(erased["state"], "ERASURE_STATE_EFFECTIVE", "{round} {erased}");
        assert_eq!(
            (&erased["shredded_count"], &erased["record_count"]),
            (&"2".into(), &"2".into())
        );
    }
    for gone in [
        &["get", &call][..],
        &["show", &call],
        &["show", "--external-id", "x-1"],
        &["message", "get", &message],
    ] {
        let said = refused(&place.remote(gone), 1);
        assert!(said.contains("(NOT_FOUND)"), "{gone:?} {said}");
    }
    assert_eq!(place.get(&kept), bytes);

    let later = ["erase", "request", "--reference", "CASE-2", "--record", &kept];
    let pending = done(&place.remote(&later));
    assert!(
        pending.contains("pending-shred") && pending.contains("0/1"),
        "{pending}"
    );
    refused(&place.remote(&["get", &kept]), 1);
    let all = place.json(&["erase", "status"]);
    let all = all["erasures"].as_array().unwrap();
    let references: Vec<_> = all
        .iter()
        .map(|erasure| erasure["reference"].as_str().unwrap())
        .collect();
    assert_eq!(references, ["CASE-2", "CASE-1"]);
    let ids: Vec<_> = all
        .iter()
        .map(|erasure| erasure["erasure_id"].as_str().unwrap())
        .collect();
    assert!(done(&place.remote(&["erase", "cancel", ids[0]])).contains("cancelled"));
    assert_eq!(place.get(&kept), bytes);
    let said = refused(&place.remote(&["erase", "cancel", ids[1]]), 1);
    assert!(said.contains("(NOT_CANCELLABLE)"), "{said}");

    let said = done(&place.remote(&["sweep", "run"]));
    assert!(said.contains("succeeded"), "{said}");
    let said = done(&place.remote(&["erase", "status", ids[1]]));
    assert!(
        said.contains("content final") && !said.contains("not deleted yet"),
        "{said}"
    );
    assert_eq!(place.get(&kept), bytes);
    let begun = place.json(&["sweep", "run", "--no-wait", "--as", "key-admin"]);
    let sweep = begun["sweep_id"].as_str().unwrap();
    assert_eq!(place.json(&["sweep", "status", sweep])["actor"], "key-admin");
    let listed = done(&place.remote(&["erase", "status"]));
    assert!(
        listed.lines().count() == 3 && listed.contains("CASE-2"),
        "{listed}"
    );
}

#[test]
fn everything_of_a_tenant_is_asked_about_and_never_waited_for_in_a_pipe() {
    let place = Place::new();
    let server = Server::start(&place.data());
    done(&place.remote(&["tenant", "create", "acme"]));
    let (file, _) = place.file("call.bin", 1_000, 1);
    let kept = place.put(&file, &[]);
    let all = [
        "erase",
        "request",
        "--all-of-tenant",
        "--tenant",
        "acme",
        "--reference",
        "C",
        "--grace",
        "0",
    ];
    let said = refused(&place.remote(&all), 2);
    assert!(said.contains("--yes"), "{said}");
    assert!(done(&place.remote(&["tenant", "get", "acme"])).contains("active"));
    let looked = done(&place.remote(&["erase", "preview", "--all-of-tenant", "--tenant", "acme"]));
    assert!(looked.contains("records  0"), "{looked}");
    let said = done(&place.remote(&[&all[..], &["--yes"]].concat()));
    assert!(
        said.contains("effective") && said.contains("all of the tenant"),
        "{said}"
    );
    let tenants = done(&place.remote(&["tenant", "ls"]));
    assert!(tenants.contains("shredded"), "{tenants}");
    let said = refused(&place.remote(&["tenant", "create", "acme"]), 1);
    assert!(said.contains("(TENANT_EXISTS)"), "{said}");
    assert_eq!(place.get(&kept).len(), 1_000);
    done(&place.remote(&["sweep", "run"]));
    assert_eq!(server.stop(), Some(0));
    let said = done(&place.local(&["verify"]));
    assert!(said.contains("findings  0"), "{said}");
    done(&place.local(&["rebuild-index"]));
    let _server = Server::start(&place.data());
    assert_eq!(place.get(&kept).len(), 1_000);
    assert!(done(&place.remote(&["tenant", "ls"])).contains("shredded"));
}

#[test]
fn what_is_to_be_erased_is_said_in_one_way_or_exits_2() {
    let request = ["erase", "request", "--reference", "C"];
    for wrong in [
        &[][..],
        &["--record", "a", "--conversation", "c"],
        &["--all-of-tenant", "--since", "30d", "--yes"],
        &["--subject", ""],
        &["--conversation", "c", "--grace", "soon"],
        &["--conversation", "c", "--ground", "whim"],
        &["--conversation", "c", "--expect", "abc"],
        &["--label", "a=1", "--label", "a=2"],
    ] {
        let args = [&request[..], wrong].concat();
        refused(&callvault(&args), 2);
    }
    for args in [
        &["erase", "request", "--conversation", "c"][..],
        &["erase", "preview"],
        &["erase", "cancel"],
        &["sweep", "status"],
        &["sweep"],
    ] {
        refused(&callvault(args), 2);
    }
}
