//! The rules of the house, read from the sources: who imports whom, who may name which library, which promises have a test.

#![allow(clippy::unwrap_used)] // tests fail where they stand

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Which modules of the crate a module may name. `testing` is for tests and may be named by them alone.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("crypto", &["crypto", "domain"]),
    ("spool", &["spool", "crypto", "domain"]),
    ("aws.rs", &[]),
    ("keys", &["keys", "aws", "crypto", "domain", "proto"]),
    ("blob", &["blob", "aws", "crypto", "domain", "proto"]),
    ("index", &["index", "domain"]),
    ("ledger", &["ledger", "blob", "index", "domain", "proto"]),
    ("evidence", &["evidence", "ledger", "domain", "proto"]),
    ("access", &["access", "crypto", "domain"]),
    (
        "vault",
        &[
            "vault", "evidence", "ledger", "index", "blob", "keys", "spool", "crypto", "domain", "proto",
        ],
    ),
    ("grpc", &["grpc", "vault", "access", "domain", "proto"]),
    (
        "server",
        &[
            "server",
            "grpc",
            "access",
            "domain",
            "config",
            "telemetry",
            "proto",
        ],
    ),
    ("client", &["client", "proto"]),
    ("config.rs", &["access", "domain", "config"]),
    ("config", &["access", "config", "domain"]),
    ("telemetry.rs", &["config", "telemetry"]),
];

/// Which files may name a library, as prefixes below `src/`.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("sled::", &["index/sled", "testing", "app"]),
    ("tonic::", &["grpc", "server", "client", "lib.rs"]),
    ("tonic_health::", &["server"]),
    ("aes_gcm::", &["crypto"]),
    ("ring::aead", &["crypto"]),
    ("aws_sdk_s3", &["blob/s3"]),
    ("aws_sdk_kms", &["keys/aws_kms"]),
    ("cryptoki", &["keys/pkcs11"]),
    ("jsonwebtoken::", &["access/token"]),
    ("cedar_policy", &["access/policy"]),
    ("aws_config", &["aws.rs"]),
];

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let mut wrong = Vec::new();
    for (module, allowed) in MAY_IMPORT {
        for (path, text) in sources(module) {
            for named in crate_paths(&product(&path, &text)) {
                if !allowed.contains(&named.as_str()) {
                    wrong.push(format!("{} names crate::{named}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for (path, text) in sources("") {
        let below = path
            .strip_prefix(root().join("src"))
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let text = product(&path, &text);
        for (library, allowed) in MAY_NAME {
            let named = text
                .lines()
                .filter(|l| !l.trim_start().starts_with("//"))
                .any(|l| names(l, library));
            if named && !allowed.iter().any(|prefix| below.starts_with(prefix)) {
                wrong.push(format!("{below} names {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_promise_has_a_test_of_its_name() {
    let semantics = fs::read_to_string(root().join("docs/semantics.md")).unwrap();
    let promises: Vec<&str> = semantics
        .lines()
        .filter_map(|line| line.strip_prefix("- `"))
        .filter_map(|line| line.split_once('`').map(|(name, _)| name))
        .collect();
    assert!(promises.len() >= 30, "docs/semantics.md lost its promises");
    let tests: BTreeSet<String> = files(&root().join("src"))
        .chain(files(&root().join("tests")))
        .flat_map(|path| test_names(&path))
        .collect();
    let missing: Vec<_> = promises.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "no test is named {missing:#?}");
}

#[test]
fn every_call_is_named_by_a_test() {
    let calls: Vec<String> = fs::read_dir(root().join("proto/callvault/v1"))
        .unwrap()
        .flat_map(|file| {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let rpcs = text
                .lines()
                .filter_map(|l| l.trim().strip_prefix("rpc "))
                .map(|l| l.to_owned());
            rpcs.filter_map(|l| l.split_once('(').map(|(name, _)| snake(name.trim())))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(calls.len() >= 11);
    let tests: String = files(&root().join("tests"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let missing: Vec<_> = calls
        .iter()
        .filter(|call| !tests.contains(call.as_str()))
        .collect();
    assert!(missing.is_empty(), "no test calls {missing:#?}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let path = root().join("src").join(module);
    let found: Vec<PathBuf> = if path.is_file() {
        vec![path]
    } else {
        files(&path).collect()
    };
    assert!(!found.is_empty(), "no sources in {module}");
    found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

fn files(path: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(path)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path());
    Box::new(entries.flat_map(|path| -> Box<dyn Iterator<Item = PathBuf>> {
        if path.is_dir() {
            files(&path)
        } else if path.extension().is_some_and(|e| e == "rs") {
            Box::new(std::iter::once(path))
        } else {
            Box::new(std::iter::empty())
        }
    }))
}

/// The part of a file that ships: without its tests.
fn product(path: &Path, text: &str) -> String {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let in_tests = path
        .components()
        .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "suite");
    if in_tests || name.ends_with("tests") || matches!(name, "suite" | "memory" | "damage") {
        return String::new();
    }
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// Every `x` of `crate::x` and of `use crate::{x, ...}`.
fn crate_paths(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => named.extend(first_word(rest)),
            Some(group) => named.extend(top_level(group).into_iter().filter_map(|item| first_word(&item))),
        }
    }
    named
}

/// The items of a brace group, without what they nest.
fn top_level(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            c if depth == 0 => item.push(c),
            _ => {}
        }
    }
    items.push(item);
    items
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text
        .trim()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty() && word.starts_with(char::is_lowercase)).then_some(word)
}

fn names(line: &str, library: &str) -> bool {
    line.match_indices(library).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn test_names(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    // A suite's promises are functions that its macro makes a test of, for whoever is held to it.
    let in_suite = path.components().any(|c| c.as_os_str() == "suite");
    let declared = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("pub ").filter(|_| in_suite).unwrap_or(line);
        let name = line
            .strip_prefix("async fn ")
            .or_else(|| line.strip_prefix("fn "))?;
        name.split_once(['(', '<']).map(|(name, _)| name.to_owned())
    };
    text.lines().filter_map(declared).collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
