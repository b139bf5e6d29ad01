//! Every command does what it says, and usage errors say so.

use crate::support::{Place, Server, callvault, done, refused};

#[test]
fn the_demo_succeeds_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_callvault"))
        .arg("demo")
        .env("TMPDIR", tmp.path())
        .output()
        .unwrap();
    let said = done(&output);
    assert!(
        said.contains("no plaintext") && said.contains("rebuilds the index"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
}

#[test]
fn policies_are_tested_without_a_server() {
    let root = env!("CARGO_MANIFEST_DIR");
    let sample = format!("{root}/docs/policy-tests.toml");
    let said = done(&callvault(&["access", "test", &sample]));
    assert!(
        said.contains("ok      agents hear their own calls") && said.contains(" 0 failed; policy set "),
        "{said}"
    );
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().to_str().unwrap();
    let with = |text: &str| {
        std::fs::write(dir.path().join("own.cedar"), text).unwrap();
        callvault(&["access", "test", &sample, "--policies", policies])
    };
    let output = with(
        "@id(\"no-agents\") forbid (principal, action, resource) when { principal.roles.contains(\"agent\") };",
    );
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        said.contains("FAILED  agents hear their own calls: it is denied by no-agents"),
        "{said}"
    );
    refused(&output, 1);
    let said = refused(
        &with("@id(\"x\") permit (principal, action == Action::\"Fly\", resource);"),
        1,
    );
    assert!(said.contains("Fly"), "{said}");
    let said = refused(&callvault(&["access", "test", "/nowhere.toml"]), 1);
    assert!(said.contains("/nowhere.toml"), "{said}");
}

#[test]
fn usage_errors_exit_2() {
    for args in [
        &["put"][..],
        &["put", "x.wav"],
        &["put", "x.wav", "--conversation", "c", "--label", "nonsense"],
        &[
            "put",
            "x.wav",
            "--conversation",
            "c",
            "--label",
            "a=1",
            "--label",
            "a=2",
        ],
        &["bench", "messages", "--message-size", "2MiB"],
        &["put", "x.wav", "--conversation", "c", "--channel", "drums"],
        &["get", "id", "--offset", "1", "--from", "2s"],
        &["get", "id", "--json"],
        &["show"],
        &["update", "id", "--set", "colour=red"],
        &["serve"],
        &["serve", "--dev", "--config", "x"],
        &["retention", "class", "create", "c"],
        &["ls", "--since", "yesterday"],
        &["message", "put", "--conversation", "c"],
        &["message", "put", "x", "--text", "y", "--conversation", "c"],
        &["message", "get"],
        &["certificate", "verify", "file"],
        &["certificate", "show", "id", "--stage", "last"],
        &["fly"],
        &[],
    ] {
        let output = callvault(args);
        assert_eq!(output.status.code(), Some(2), "{args:?} {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(callvault(&["--help"]).status.code(), Some(0));
}

#[test]
fn failures_exit_1_with_one_line() {
    let place = Place::new();
    let said = refused(&place.remote(&["ls"]), 1);
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
    let said = refused(&callvault(&["serve", "--dev", "--listen", "0.0.0.0:7443"]), 1);
    assert!(said.contains("loopback"), "{said}");
}

#[test]
fn a_recording_goes_in_and_comes_back() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 300_000, 1);
    let id = place.put(
        &file,
        &[
            "--tel",
            "+52 55 1234 5678",
            "--external-id",
            "x-1",
            "--label",
            "queue=sales",
        ],
    );
    assert_eq!(place.get(&id), bytes);

    let back = place.path("back.bin");
    done(&place.remote(&["get", &id, "-o", &back]));
    assert_eq!(std::fs::read(&back).unwrap(), bytes);
    let range = place.remote(&["get", &id, "--offset", "1000", "--limit", "500"]);
    assert_eq!(range.stdout, bytes[1_000..1_500]);

    let shown = place.json(&["show", "--external-id", "x-1"]);
    assert_eq!(shown["record_id"], id.as_str());
    assert_eq!(shown["size_bytes"], "300000");
    assert_eq!(shown["descriptor"]["parties"][0]["tel"], "+525512345678");
    assert_eq!(shown["descriptor"]["retention_class"], "standard");
    assert!(done(&place.remote(&["show", &id])).contains("+525512345678"));

    for filter in [
        ["--conversation", "c-1"],
        ["--tel", "+525512345678"],
        ["--label", "queue=sales"],
    ] {
        assert_eq!(
            place.json(&["ls", filter[0], filter[1]])["records"][0]["record_id"],
            id.as_str()
        );
    }
    let none = place.json(&["ls", "--conversation", "c-2"]);
    assert_eq!(none["records"].as_array().unwrap().len(), 0);
    for _ in 0..3 {
        place.put(&file, &[]);
    }
    assert_eq!(place.json(&["ls"])["records"].as_array().unwrap().len(), 4);
    assert_eq!(
        place.json(&["ls", "--limit", "3"])["records"]
            .as_array()
            .unwrap()
            .len(),
        3
    );

    let updated = place.json(&[
        "update",
        &id,
        "--set",
        "direction=outbound",
        "--set",
        "labels=queue:care",
    ]);
    assert_eq!(updated["descriptor"]["direction"], "DIRECTION_OUTBOUND");
    assert_eq!(updated["descriptor"]["labels"]["queue"], "care");
}

#[test]
fn what_is_refused_leaves_no_file() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let (file, _) = place.file("call.bin", 1_000, 1);
    let id = place.put(&file, &[]);
    let out = place.path("out.bin");
    let said = refused(&place.remote(&["get", &id, "--as", "uploader", "-o", &out]), 1);
    assert!(said.contains("(ROLE_DENIED)"), "{said}");
    let said = refused(&place.remote(&["get", &id, "--offset", "1000", "-o", &out]), 1);
    assert!(said.contains("(OFFSET_OUT_OF_RANGE) field=offset"), "{said}");
    let said = refused(&place.remote(&["get", &id, "--from", "1s", "-o", &out]), 1);
    assert!(said.contains("--offset and --limit"), "{said}");
    let names: Vec<_> = std::fs::read_dir(place.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let said = refused(
        &place.remote(&["put", &file, "--conversation", "c", "--tel", "12"]),
        1,
    );
    assert!(said.contains("field=") && said.contains("tel"), "{said}");
    let said = refused(&place.remote(&["ls", "--as", "nobody"]), 1);
    assert!(said.contains("uploader"), "{said}");
}

#[test]
fn seconds_of_a_wav_are_its_bytes() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    // Mono, 16 bits, 8 kHz, 10 s.
    let mut wav =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data".to_vec();
    wav.extend(160_000_u32.to_le_bytes());
    wav.extend((0..160_000_u32).map(|i| (i / 7) as u8));
    std::fs::write(place.path("call.wav"), &wav).unwrap();
    let id = place.put(&place.path("call.wav"), &[]);
    let slice = place.remote(&["get", &id, "--from", "2s", "--to", "3.5"]);
    assert_eq!(slice.stdout, wav[44 + 32_000..44 + 56_000]);
    let playable = place
        .remote(&["get", &id, "--from", "2s", "--to", "3.5", "--wav"])
        .stdout;
    assert_eq!(playable[44..], wav[44 + 32_000..44 + 56_000]);
    assert_eq!(playable[40..44], 24_000_u32.to_le_bytes());
    let raw = place.put(&place.path("call.wav"), &["--media-type", "audio/PCMU"]);
    assert_eq!(
        place.remote(&["get", &raw, "--from", "1s", "--to", "2s"]).stdout,
        wav[8_000..16_000]
    );
}

#[test]
fn standard_input_is_a_file_too() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 70_000, 4);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_callvault"))
        .args(["put", "-", "--conversation", "c-1", "--json"])
        .env("CALLVAULT_CLIENT", place.path("data/client.toml"))
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let record: serde_json::Value = serde_json::from_str(&done(&output)).unwrap();
    assert_eq!(place.get(record["record_id"].as_str().unwrap()), bytes);
}

#[test]
fn tenants_and_retention_classes() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let made = place.json(&[
        "tenant",
        "create",
        "acme",
        "--display-name",
        "Acme",
        "--role",
        "processor",
    ]);
    assert_eq!(
        (made["tenant_id"].as_str(), made["role"].as_str()),
        (Some("acme"), Some("TENANT_ROLE_PROCESSOR"))
    );
    let said = refused(&place.remote(&["tenant", "create", "acme"]), 1);
    assert!(said.contains("(TENANT_EXISTS)"), "{said}");
    let class = [
        "retention",
        "class",
        "create",
        "long",
        "--maximum-days",
        "3650",
        "--tenant",
        "acme",
    ];
    assert_eq!(place.json(&class)["maximum_days"], 3_650);
    let set = place.json(&["retention", "class", "set", "long", "--tenant", "acme"]);
    assert_eq!(set["default_retention_class"], "long");
    assert!(done(&place.remote(&["retention", "class", "ls", "--tenant", "acme"])).contains("3650"));
    let renamed = place.json(&["tenant", "update", "acme", "--set", "display_name=Acme Two"]);
    assert_eq!(renamed["display_name"], "Acme Two");
    assert_eq!(place.json(&["tenant", "get", "acme"]), renamed);
    let all = place.json(&["tenant", "ls"]);
    assert_eq!(all["tenants"].as_array().unwrap().len(), 2);
    let (file, bytes) = place.file("call.bin", 5_000, 2);
    let id = place.put(&file, &["--tenant", "acme"]);
    assert_eq!(place.remote(&["get", &id, "--tenant", "acme"]).stdout, bytes);
    let elsewhere = refused(&place.remote(&["get", &id]), 1);
    assert!(elsewhere.contains("(NOT_FOUND)"), "{elsewhere}");
}

#[test]
fn configuration_and_completions() {
    let place = Place::new();
    let said = refused(&callvault(&["config", "check", "callvault.example.toml"]), 1);
    assert!(said.contains("/etc/callvault"), "{said}");
    std::fs::write(place.path("bad.toml"), "listen = 'nowhere'").unwrap();
    refused(&callvault(&["config", "check", &place.path("bad.toml")]), 1);
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            done(&callvault(&["completions", shell])).contains("callvault"),
            "{shell}"
        );
    }
}

#[test]
fn a_message_and_a_transcript_go_in_and_come_back() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let (file, _) = place.file("call.bin", 1_000, 1);
    let call = place.put(&file, &[]);
    let text = [
        "message",
        "put",
        "--text",
        "Gracias, quedó",
        "--conversation",
        "c-1",
    ];
    let said = place.json(&[&text[..], &["--tel", "+525512345678"]].concat());
    assert_eq!(said["kind"], "RECORD_KIND_MESSAGE");
    assert_eq!(said["descriptor"]["channel"], "CHANNEL_CHAT");
    let id = said["record_id"].as_str().unwrap();
    assert_eq!(
        place.remote(&["message", "get", id]).stdout,
        "Gracias, quedó".as_bytes()
    );
    let whole = place.json(&["message", "get", id]);
    assert_eq!(whole["body"], "R3JhY2lhcywgcXVlZMOz");
    assert_eq!(whole["record"]["record_id"], id);
    let back = place.path("back.txt");
    done(&place.remote(&["message", "get", id, "-o", &back]));
    assert_eq!(std::fs::read(&back).unwrap(), "Gracias, quedó".as_bytes());

    let transcript = [
        "message",
        "put",
        &back,
        "--conversation",
        "c-1",
        "--derived-from",
        &call,
    ];
    let transcript = place.json(&transcript);
    assert_eq!(transcript["kind"], "RECORD_KIND_ARTIFACT");
    let derived = place.json(&["ls", "--derived-from", &call]);
    assert_eq!(derived["records"].as_array().unwrap().len(), 1);
    assert_eq!(derived["records"][0]["record_id"], transcript["record_id"]);
    let long = place.put(&file, &["--derived-from", &call]);
    assert!(done(&place.remote(&["show", &long])).contains("artifact"));
    let listed = done(&place.remote(&["ls"]));
    for kind in ["KIND", "recording", "message", "artifact"] {
        assert!(listed.contains(kind), "{listed}");
    }
    let said = refused(&place.remote(&["message", "get", &call]), 1);
    assert!(said.contains("ReadRecording"), "{said}");
    let (large, _) = place.file("large.bin", (1 << 20) + 1, 2);
    let said = refused(
        &place.remote(&["message", "put", &large, "--conversation", "c"]),
        1,
    );
    assert!(said.contains("1 MiB"), "{said}");
}

#[test]
fn keys_are_rotated_listed_and_destroyed() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 1_000, 1);
    let id = place.put(&file, &[]);
    let said = done(&place.remote(&["keys", "rotate"]));
    assert!(said.contains("succeeded"), "{said}");
    let said = done(&place.remote(&["root", "rotate"]));
    assert!(said.contains("succeeded"), "{said}");
    let said = done(&place.remote(&["keys", "list"]));
    assert!(said.contains("retired") && said.contains("enabled"), "{said}");
    let said = done(&place.remote(&["root", "list", "--json"]));
    assert!(said.contains("KEY_STATE_RETIRED"), "{said}");
    let said = done(&place.remote(&["keys", "destroy", "1"]));
    assert!(said.contains("destroyed"), "{said}");
    let said = refused(&place.remote(&["keys", "destroy", "2"]), 1);
    assert!(said.contains("KEY_IN_USE"), "{said}");
    assert_eq!(done(&place.remote(&["keys", "operations"])).lines().count(), 3);
    assert_eq!(place.get(&id), bytes);
}

#[test]
fn what_is_no_file_is_written_to_and_what_was_begun_is_removed() {
    let place = Place::new();
    let _server = Server::start(&place.data());
    let (file, bytes) = place.file("call.bin", 3_000_000, 5);
    let id = place.put(&file, &[]);
    let pipe = place.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let reading = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap()
    });
    done(&place.remote(&["get", &id, "-o", &pipe]));
    assert_eq!(reading.join().unwrap(), bytes);
    let (target, link) = (place.path("target.bin"), place.path("link.bin"));
    std::fs::write(&target, "before").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    done(&place.remote(&["get", &id, "-o", &link]));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), bytes);
    let said = refused(
        &place.remote(&["put", &file, "--conversation", "c", "--start", "2h", "--resume"]),
        2,
    );
    assert!(said.contains("--start"), "{said}");
    let (empty, _) = place.file("empty.bin", 0, 1);
    let said = refused(
        &place.remote(&["put", &empty, "--conversation", "c", "--resume"]),
        1,
    );
    assert!(said.contains("is empty"), "{said}");
}

#[test]
fn a_crash_writes_no_memory_to_disk() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new();
    let mut server = Server::start(&place.data());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "{core}");
    let pid = i32::try_from(server.child.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let status = server.child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}
