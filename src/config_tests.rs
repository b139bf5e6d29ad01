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

#[test]
fn a_certificate_is_listed_once() {
    let twice = format!("{SMALLEST}{}", &SMALLEST[SMALLEST.find("[[").unwrap()..]);
    assert!(refusal(&twice).contains("principals: "));
}

#[test]
fn dev_mode_is_for_loopback() {
    let dev = Config::dev(Path::new("callvault-data"), "127.0.0.1:7443".parse().unwrap()).unwrap();
    assert_eq!(dev.root, Path::new("callvault-data.root"));
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
