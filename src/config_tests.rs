use super::*;

const EXAMPLE: &str = include_str!("../callvault.example.toml");

const SMALLEST: &str = r#"
data = "/d"
root = "/r"
region = { name = "mx", country = "MX" }
store = { local = "/s" }
tls = { certificate = "c", key = "k", client_ca = "ca" }
[[principals]]
certificate = "spiffe://x/y"
alias = "y"
roles = ["reader"]
tenants = ["*"]
"#;

fn refusal(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

fn with(from: &str, to: &str) -> String {
    assert!(SMALLEST.contains(from), "{from}");
    refusal(&SMALLEST.replace(from, to))
}

#[test]
fn the_example_holds_the_defaults() {
    let example = Config::parse(EXAMPLE).unwrap();
    let smallest = Config::parse(SMALLEST).unwrap();
    assert_eq!(example.limits, Limits::default());
    assert_eq!(example.limits, smallest.limits);
    assert_eq!(example.log, smallest.log);
    assert_eq!(example.index, smallest.index);
    assert_eq!(example.keys, smallest.keys);
    assert_eq!(example.listen, smallest.listen);
    assert_eq!(example.ops_listen, smallest.ops_listen);
}

#[test]
fn the_example_names_every_key() {
    let example: toml::Table = EXAMPLE.parse().unwrap();
    let whole = toml::Table::try_from(Config::parse(EXAMPLE).unwrap()).unwrap();
    for (key, value) in &whole {
        let written = example.get(key).unwrap_or_else(|| panic!("{key}"));
        if let (Some(written), Some(table)) = (written.as_table(), value.as_table()) {
            let missing: Vec<_> = table.keys().filter(|k| !written.contains_key(*k)).collect();
            assert!(missing.is_empty(), "{key}: {missing:?}");
        }
    }
}

#[test]
fn unknown_keys_are_named() {
    assert!(refusal(&format!("colour = 1\n{SMALLEST}")).contains("colour"));
    assert!(refusal(&format!("{SMALLEST}\n[limits]\nconnexions = 1")).contains("connexions"));
    assert!(with("alias =", "name =").contains("name"));
}

#[test]
fn every_refusal_names_its_key() {
    for (from, to, key) in [
        ("data = \"/d\"\n", "", "data"),
        ("\"/r\"", "\"/d/root\"", "root: "),
        ("\"/r\"", "\"/s/root\"", "root: "),
        ("\"mx\"", "\"M X\"", "region.name: "),
        ("\"MX\"", "\"Mexico\"", "region.country: "),
        ("alias = \"y\"", "alias = \"y@z\"", "principals[0].alias: "),
        ("\"reader\"", "\"root\"", "principals[0].roles: "),
        ("[\"reader\"]", "[]", "principals[0].roles: "),
        ("\"reader\"", "\"reader\", \"key-admin\"", "principals[0].roles: "),
        ("[\"*\"]", "[]", "principals[0].tenants: "),
        ("[\"*\"]", "[\"*\", \"one\"]", "principals[0].tenants: "),
        ("[\"*\"]", "[\"One\"]", "principals[0].tenants: "),
        ("tls = {", "#", "tls: "),
    ] {
        let message = with(from, to);
        assert!(message.contains(key), "{to} -> {message}");
    }
    for (line, key) in [
        ("memory_budget_bytes = 1", "limits.memory_budget_bytes: "),
        ("handshakes = 1", "limits.handshakes: "),
        ("connection_window_bytes = 1", "limits.connection_window_bytes: "),
        (
            "connection_window_bytes = 2147483648",
            "limits.connection_window_bytes: ",
        ),
    ] {
        let message = refusal(&format!("{SMALLEST}\n[limits]\n{line}"));
        assert!(message.contains(key), "{message}");
    }
    let message = refusal(&format!("ops_listen = \"0.0.0.0:7443\"\n{SMALLEST}"));
    assert!(message.contains("ops_listen: "), "{message}");
}

const ISSUER: &str = r#"
[[issuers]]
issuer = "https://login"
audience = "callvault"
alias_prefix = "idp-"
jwks_file = "/k"
[[issuers.grants]]
claim = "groups"
value = "agents"
roles = ["agent"]
tenants = ["*"]
"#;

#[test]
fn an_issuer_has_the_defaults_of_the_example() {
    let smallest = Config::parse(&format!("{SMALLEST}{ISSUER}")).unwrap();
    let example = Config::parse(EXAMPLE).unwrap();
    let (smallest, example) = (&smallest.issuers[0], &example.issuers[0]);
    assert_eq!(smallest.algorithms, example.algorithms);
    let numbers = |issuer: &Issuer| {
        (
            issuer.skew_seconds,
            issuer.life_seconds,
            issuer.refresh_seconds,
            issuer.stale_seconds,
        )
    };
    assert_eq!(numbers(smallest), numbers(example));
    assert_eq!(
        (smallest.bound, &smallest.alias_claim),
        (example.bound, &example.alias_claim)
    );
}

#[test]
fn every_refusal_of_an_issuer_names_its_key() {
    let text = format!("{SMALLEST}{ISSUER}");
    for (from, to, key) in [
        ("jwks_file = \"/k\"", "", "issuers[0].jwks_url: "),
        (
            "jwks_file = \"/k\"",
            "jwks_url = \"http://login/keys\"",
            "issuers[0].jwks_url: ",
        ),
        (
            "jwks_file = \"/k\"",
            "jwks_file = \"/k\"\njwks_url = \"https://login\"",
            "issuers[0].jwks_url: ",
        ),
        (
            "audience = \"callvault\"",
            "audience = \"\"",
            "issuers[0].audience: ",
        ),
        (
            "audience =",
            "algorithms = [\"HS256\"]\naudience =",
            "issuers[0].algorithms: ",
        ),
        (
            "audience =",
            "algorithms = [\"none\"]\naudience =",
            "issuers[0].algorithms: ",
        ),
        (
            "audience =",
            "algorithms = []\naudience =",
            "issuers[0].algorithms: ",
        ),
        (
            "audience =",
            "life_seconds = 86401\naudience =",
            "issuers[0].life_seconds: ",
        ),
        (
            "audience =",
            "skew_seconds = 301\naudience =",
            "issuers[0].skew_seconds: ",
        ),
        (
            "audience =",
            "refresh_seconds = 1\naudience =",
            "issuers[0].refresh_seconds: ",
        ),
        (
            "audience =",
            "stale_seconds = 60\naudience =",
            "issuers[0].stale_seconds: ",
        ),
        (
            "audience =",
            "country = \"Mexico\"\naudience =",
            "issuers[0].country: ",
        ),
        (
            "roles = [\"agent\"]",
            "roles = [\"boss\"]",
            "issuers[0].grants[0].roles: ",
        ),
        (
            "roles = [\"agent\"]",
            "roles = []",
            "issuers[0].grants[0].roles: ",
        ),
        (
            "roles = [\"agent\"]",
            "roles = [\"agent\", \"dpo\"]",
            "issuers[0].grants[0].roles: ",
        ),
    ] {
        let start = text.find("[[issuers]]").unwrap();
        let changed = format!("{}{}", &text[..start], text[start..].replacen(from, to, 1));
        assert!(changed != text, "{from}");
        let message = refusal(&changed);
        assert!(message.contains(key), "{to} -> {message}");
    }
    let nobody = text.replace("[[issuers.grants]]\nclaim = \"groups\"\nvalue = \"agents\"\nroles = [\"agent\"]\ntenants = [\"*\"]\n", "");
    assert!(refusal(&nobody).contains("issuers[0].grants: "));
    let both = format!("{text}tenants_claim = \"tenant\"\n");
    assert!(refusal(&both).contains("issuers[0].grants[0].tenants_claim: "));
    assert!(refusal(&format!("{text}{ISSUER}")).contains("issuers[1].issuer: "));
    let optional = SMALLEST.replace(
        "client_ca = \"ca\"",
        "client_ca = \"ca\", client_certificates = \"optional\"",
    );
    assert!(refusal(&optional).contains("tls.client_certificates: "));
    Config::parse(&format!("{optional}{ISSUER}")).unwrap();
    let tokens_alone = text.split("[[principals]]").next().unwrap().to_owned() + ISSUER;
    Config::parse(&tokens_alone).unwrap();
}

/// The commented lines of the example between its two marks.
fn example_with_s3() -> String {
    let (before, rest) = EXAMPLE
        .split_once("local = \"/var/lib/callvault/store\"\n")
        .unwrap();
    let (s3, after) = rest.split_once("# (end of store.s3)\n").unwrap();
    let s3: Vec<_> = s3.lines().filter_map(|line| line.strip_prefix("#: ")).collect();
    format!("{before}{}\n{after}", s3.join("\n"))
}

#[test]
fn the_commented_bucket_of_the_example_is_every_key_of_s3() {
    let example = Config::parse(&example_with_s3()).unwrap();
    let Store::S3(s3) = &example.store else {
        panic!("{:?}", example.store)
    };
    let smallest: S3 = toml::from_str("bucket = \"callvault-mx\"").unwrap();
    assert_eq!(
        (
            s3.attempts,
            s3.connect_seconds,
            s3.read_seconds,
            s3.operation_seconds
        ),
        (
            smallest.attempts,
            smallest.connect_seconds,
            smallest.read_seconds,
            smallest.operation_seconds
        )
    );
    assert_eq!(
        (s3.checksum, s3.allow_http),
        (smallest.checksum, smallest.allow_http)
    );
    let whole = toml::Table::try_from(s3).unwrap();
    assert_eq!(
        whole.len(),
        14,
        "a key of store.s3 is missing in the example: {whole:?}"
    );
}

/// The commented lines of the example, in the place of `root = "DIR"`.
fn example_with_root(provider: &str) -> String {
    let (_, rest) = EXAMPLE.split_once("# (root elsewhere)\n").unwrap();
    let (root, _) = rest.split_once("# (end of root)\n").unwrap();
    let root: Vec<_> = root.lines().filter_map(|line| line.strip_prefix("#: ")).collect();
    let root = root.join("\n").replace("\"pkcs11\"", &format!("\"{provider}\""));
    let line = "root = \"/var/lib/callvault/root\"\n";
    assert!(EXAMPLE.contains(line));
    EXAMPLE.replace(line, "") + "\n" + &root
}

#[test]
fn the_commented_roots_of_the_example_are_every_key_of_each_provider() {
    let example = Config::parse(&example_with_root("pkcs11")).unwrap();
    assert_eq!(example.root.provider, RootKind::Pkcs11);
    let (token, kms) = (example.root.pkcs11.unwrap(), example.root.aws_kms.unwrap());
    let smallest: RootPkcs11 = toml::from_str("module = \"m\"\ntoken = \"t\"\npin_file = \"p\"").unwrap();
    assert_eq!(
        (&token.name, token.call_seconds),
        (&smallest.name, smallest.call_seconds)
    );
    let smallest: RootAwsKms = toml::from_str("region = \"mx-central-1\"").unwrap();
    let unset = RootAwsKms {
        endpoint: None,
        ca_file: None,
        profile: None,
        credentials_file: None,
        ..*kms.clone()
    };
    assert_eq!(unset, smallest);
    let keys = |value: toml::Table| value.len();
    assert_eq!(
        keys(toml::Table::try_from(&token).unwrap()) + 1,
        6,
        "pin_env is said in words"
    );
    assert_eq!(keys(toml::Table::try_from(&*kms).unwrap()), 12);
    for provider in ["file", "aws_kms"] {
        let example = Config::parse(&example_with_root(provider)).unwrap();
        assert_eq!(example.root.provider.to_string(), provider);
    }
}

#[test]
fn a_root_is_a_directory_or_names_a_provider() {
    let table = |table: &str| Config::parse(&format!("{}\n{table}", SMALLEST.replace("root = \"/r\"\n", "")));
    let short = Config::parse(SMALLEST).unwrap();
    let long = table("[root]\nprovider = \"file\"\nfile = { dir = \"/r\" }").unwrap();
    assert_eq!(short.root, long.root);
    assert_eq!(short.root.dir(), Some(Path::new("/r")));
    let token = "pkcs11 = { module = \"m\", token = \"t\"";
    let kms = "aws_kms = { region = \"us-east-1\"";
    for (lines, key) in [
        ("provider = \"vault\"".to_owned(), "vault"),
        ("file = { dir = \"/r\" }".to_owned(), "provider"),
        (
            "provider = \"pkcs11\"\nfile = { dir = \"/r\" }".to_owned(),
            "root.pkcs11: ",
        ),
        ("provider = \"aws_kms\"".to_owned(), "root.aws_kms: "),
        (
            "provider = \"file\"\nfile = { dir = \"/d/root\" }".to_owned(),
            "root: ",
        ),
        (
            format!("provider = \"pkcs11\"\n{token} }}"),
            "root.pkcs11.pin_file: ",
        ),
        (
            format!("provider = \"pkcs11\"\n{token}, pin_file = \"p\", pin_env = \"P\" }}"),
            "root.pkcs11.pin_file: ",
        ),
        (
            format!("provider = \"pkcs11\"\n{token}, pin_env = \"P=1\" }}"),
            "root.pkcs11.pin_env: ",
        ),
        (
            format!("provider = \"pkcs11\"\n{token}, pin = \"4711\" }}"),
            "pin",
        ),
        (
            format!("provider = \"pkcs11\"\n{token}, pin_env = \"P\", name = \"a/b\" }}"),
            "root.pkcs11.name: ",
        ),
        (
            format!("provider = \"pkcs11\"\n{token}, pin_env = \"P\", call_seconds = 61 }}"),
            "root.pkcs11.call_seconds: ",
        ),
        (
            "provider = \"pkcs11\"\npkcs11 = { module = \"m\", token = \"\", pin_env = \"P\" }".to_owned(),
            "root.pkcs11.token: ",
        ),
        (
            format!("provider = \"aws_kms\"\n{kms}, deletion_days = 6 }}"),
            "root.aws_kms.deletion_days: ",
        ),
        (
            format!("provider = \"aws_kms\"\n{kms}, deletion_days = 31 }}"),
            "root.aws_kms.deletion_days: ",
        ),
        (
            format!("provider = \"aws_kms\"\n{kms}, name = \"aws-x\" }}"),
            "root.aws_kms.name: ",
        ),
        (
            format!("provider = \"aws_kms\"\n{kms}, endpoint = \"http://kms.example.com\" }}"),
            "root.aws_kms.endpoint: ",
        ),
        (
            format!("provider = \"aws_kms\"\n{kms}, ca_file = \"/ca\" }}"),
            "root.aws_kms.ca_file: ",
        ),
        (
            format!("provider = \"aws_kms\"\n{kms}, secret = \"x\" }}"),
            "secret",
        ),
    ] {
        let refused = table(&format!("[root]\n{lines}")).unwrap_err().to_string();
        assert!(refused.contains(key), "{lines} -> {refused}");
        assert!(
            !refused.contains("is not valid") || !key.ends_with(": "),
            "{refused}"
        );
    }
}

/// Epochs from before the root moved are destroyed where they are, in the time that it takes there.
#[test]
fn the_window_of_a_provider_that_is_not_in_use_counts() {
    let with_hours = |root: &str, hours: u32| {
        let text = SMALLEST.replace("root = \"/r\"\n", "");
        Config::parse(&format!(
            "{text}\n[keys]\nsweep_every_hours = {hours}\n[root]\n{root}"
        ))
    };
    let file = "provider = \"file\"\nfile = { dir = \"/r\" }";
    with_hours(file, 384).unwrap();
    let moved = format!("{file}\naws_kms = {{ region = \"us-east-1\", deletion_days = 10 }}");
    with_hours(&moved, 144).unwrap();
    let refused = with_hours(&moved, 145).unwrap_err().to_string();
    assert!(
        refused.starts_with("keys.sweep_every_hours: must be 1 to 144"),
        "{refused}"
    );
}

#[test]
fn a_vault_serves_without_its_root_for_a_bounded_time() {
    for seconds in [0, 299, 604_801] {
        let refused = refusal(&format!(
            "{SMALLEST}\n[keys]\nserve_without_root_seconds = {seconds}"
        ));
        assert!(
            refused.starts_with("keys.serve_without_root_seconds: "),
            "{refused}"
        );
    }
}

#[test]
fn the_configuration_of_the_tour_is_good() {
    let tour = Config::parse(include_str!("../examples/s3.toml")).unwrap();
    assert!(matches!(tour.store, Store::S3(_)));
}

#[test]
fn every_refusal_of_a_bucket_names_its_key() {
    let parse = |lines: &str| {
        let store = format!("[store.s3]\n{lines}");
        let text = SMALLEST.replace("store = { local = \"/s\" }\n", "");
        Config::parse(&format!("{text}\n{store}"))
    };
    for good in [
        "bucket = \"calls\"",
        "bucket = \"calls\"\nendpoint = \"https://s3.example.com\"",
        "bucket = \"calls\"\nendpoint = \"https://s3.example.com:9000/\"\nca_file = \"/ca.pem\"",
        "bucket = \"calls\"\nendpoint = \"http://127.0.0.1:9000\"",
        "bucket = \"calls\"\nendpoint = \"http://[::1]:9000\"",
        "bucket = \"calls\"\nendpoint = \"http://localhost:9000\"",
        "bucket = \"calls\"\nendpoint = \"http://10.0.0.1\"\nallow_http = true",
    ] {
        parse(good).unwrap();
    }
    for (lines, key) in [
        ("bucket = \"c\"", "bucket"),
        ("bucket = \"a/b/c\"", "bucket"),
        ("region = \"\"", "region"),
        ("endpoint = \"s3.example.com\"", "endpoint"),
        ("endpoint = \"ftp://s3.example.com\"", "endpoint"),
        ("endpoint = \"https://s3.example.com/path\"", "endpoint"),
        ("endpoint = \"https://me:secret@s3.example.com\"", "endpoint"),
        ("endpoint = \"http://s3.example.com\"", "endpoint"),
        ("endpoint = \"http://localhost.example.com\"", "endpoint"),
        ("ca_file = \"/ca.pem\"", "ca_file"),
        (
            "endpoint = \"http://127.0.0.1\"\nca_file = \"/ca.pem\"",
            "ca_file",
        ),
        ("attempts = 0", "attempts"),
        ("attempts = 11", "attempts"),
        ("connect_seconds = 0", "connect_seconds"),
        ("read_seconds = 0", "read_seconds"),
        ("operation_seconds = 29", "operation_seconds"),
        ("operation_seconds = 3601", "operation_seconds"),
        ("tags = { \"aws:x\" = \"y\" }", "tags"),
        ("tags = { x = \"caf\u{e9}\" }", "tags"),
        (
            "tags = { a = \"\", b = \"\", c = \"\", d = \"\", e = \"\", f = \"\" }",
            "tags",
        ),
    ] {
        let bucket = if lines.contains("bucket =") {
            ""
        } else {
            "bucket = \"calls\"\n"
        };
        let refused = parse(&format!("{bucket}{lines}")).unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("store.s3.{key}: ")),
            "{lines} -> {refused}"
        );
        assert!(!refused.contains("secret"), "{refused}");
    }
    let refused = parse("bucket = \"calls\"\nsecret_access_key = \"x\"").unwrap_err();
    assert!(refused.to_string().contains("secret_access_key"), "{refused}");
}

#[test]
fn a_certificate_is_listed_once() {
    let twice = format!("{SMALLEST}{}", &SMALLEST[SMALLEST.find("[[").unwrap()..]);
    assert!(refusal(&twice).contains("principals: "));
}

#[test]
fn dev_mode_is_for_loopback() {
    let dev = Config::dev(Path::new("callvault-data"), "127.0.0.1:7443".parse().unwrap()).unwrap();
    assert_eq!(dev.root.dir(), Some(Path::new("callvault-data.root")));
    assert_eq!(dev.ops_listen, None);
    assert!(Config::dev(Path::new("d"), "[::1]:0".parse().unwrap()).is_ok());
    let refused = Config::dev(Path::new("d"), "0.0.0.0:7443".parse().unwrap()).unwrap_err();
    assert!(refused.to_string().starts_with("listen: "));
}

#[test]
fn a_missing_file_is_named() {
    let err = Config::load(Path::new("/nowhere/callvault.toml")).unwrap_err();
    assert!(err.to_string().contains("/nowhere/callvault.toml"));
}

#[test]
fn a_recovery_store_is_another_place_than_the_store() {
    let parse = |store: &str, copies: &str| {
        let text = SMALLEST.replace("{ local = \"/s\" }", store);
        Config::parse(&format!("recovery_store = {copies}\n{text}"))
    };
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
    let local = |path: &Path| format!("{{ local = {path:?} }}");
    let (s, c) = ("{ local = \"/s\" }", "{ local = \"/c\" }");
    let calls = "{ s3 = { bucket = \"calls\" } }";
    let other = "{ s3 = { bucket = \"copies\", region = \"eu-south-2\" } }";
    let here = "{ s3 = { bucket = \"calls\", endpoint = \"https://s3.example.com\" } }";
    for (store, copies) in [(s, c), (s, calls), (calls, c), (calls, other), (calls, here)] {
        let config = parse(store, copies).unwrap();
        assert!(config.recovery_store.is_some());
    }
    let again = "{ s3 = { bucket = \"calls\", region = \"eu-south-2\", attempts = 2 } }";
    let slash = "{ s3 = { bucket = \"calls\", endpoint = \"https://S3.example.com/\" } }";
    for (store, copies, key) in [
        (s, s, "local"),
        (s, "{ local = \"/s/copies\" }", "local"),
        ("{ local = \"/s/bucket\" }", s, "local"),
        (s, "{ local = \"/c/../s/.\" }", "local"),
        (
            &local(&real.join("s")),
            &local(&dir.path().join("link/s")),
            "local",
        ),
        (calls, again, "s3.bucket"),
        (here, slash, "s3.bucket"),
        (s, "{ s3 = { bucket = \"c\" } }", "s3.bucket"),
        (s, "{ s3 = { bucket = \"calls\", attempts = 0 } }", "s3.attempts"),
    ] {
        let refused = parse(store, copies).unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("recovery_store.{key}: ")),
            "{copies} -> {refused}"
        );
    }
    let refused = parse(s, "{ local = \"/\" }").unwrap_err().to_string();
    assert!(
        refused.starts_with("root: must lie outside recovery_store.local"),
        "{refused}"
    );
}
