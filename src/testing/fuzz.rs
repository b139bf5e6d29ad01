//! Everything that reads what an attacker may have written, as functions of bytes: the targets in `fuzz/` call them, and so
//! do the tests here, with the seeds of `fuzz/seeds`.
//!
//! A finding is a panic.

#![allow(clippy::panic)] // a finding is a panic

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{clock::TestClock, issuer::TokenSigner, rng::SeededRng};
use crate::{
    access::{
        identity::PeerCertificate,
        token::{ClaimGrant, GrantedTenants, Issuer, IssuerSpec, Issuers, KeySet, TokenAlgorithm},
    },
    blob::format::{Footer, Tail, find_footer},
    crypto::{
        page::PageState,
        secret::ContentKey,
        stream::{ExtentBuffer, ExtentOpener, HEADER_LEN, SEGMENT_LEN},
    },
    domain::{clock::Clock, media, principal::Role},
    ledger::leaf,
};

pub use crate::{
    grpc::fuzz::request,
    vault::fuzz::{descriptor, page_token},
};

/// A target by its name, and what runs it.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("descriptor", descriptor),
    ("footer", footer),
    ("page_token", page_token),
    ("request", request),
    ("stream", stream),
    ("token", token),
];

/// A set of keys, a token, and the claims of one that its issuer did sign: whoever is let in is whoever they say.
///
/// # Panics
/// If what nobody signed lets anybody in, or claims let in whom they do not name.
pub fn token(data: &[u8]) {
    const ISSUER: &str = "https://login.example";
    static ISSUERS: OnceLock<(TokenSigner, Issuers)> = OnceLock::new();
    let (signer, issuers) = ISSUERS.get_or_init(|| {
        let signer = TokenSigner::ed25519();
        let clock = TestClock::default();
        let issuer = Issuer::new(issuer_of(ISSUER));
        if let Ok(keys) = KeySet::parse(signer.set("k").as_bytes()) {
            issuer.learn(keys, clock.now());
        }
        (signer, Issuers::new([Arc::new(issuer)], Arc::new(clock)))
    });
    let nobody = PeerCertificate::default();
    let _ = KeySet::parse(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    assert!(issuers.bearer(text, &nobody).is_err(), "nobody signed this");
    let Ok(claims) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    if let Ok(bearer) = issuers.bearer(&signer.token("k", &claims), &nobody) {
        assert!(claims["iss"] == ISSUER && claims["sub"] == bearer.principal.alias());
        assert!(claims.get("cnf").is_none_or(serde_json::Value::is_null));
    }
}

fn issuer_of(name: &str) -> IssuerSpec {
    IssuerSpec {
        issuer: name.to_owned(),
        audience: "callvault".to_owned(),
        algorithms: TokenAlgorithm::ALL.to_vec(),
        skew: Duration::ZERO,
        life: Duration::from_secs(3_600),
        must_be_bound: false,
        alias_claim: "sub".to_owned(),
        alias_prefix: String::new(),
        agent_claim: Some("ext.agent".to_owned()),
        teams_claim: Some("teams".to_owned()),
        country: None,
        grants: vec![ClaimGrant {
            claim: "roles".to_owned(),
            value: "reader".to_owned(),
            roles: [Role::Reader].into(),
            tenants: GrantedTenants::Claim("tenants".to_owned()),
        }],
        stale: Duration::from_secs(3_600),
    }
}

/// The end of a blob, a page's state, a leaf, and the start of a recording. What is taken is canonical: written again it is
/// what was read.
///
/// # Panics
/// If it is not.
pub fn footer(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let found = find_footer(&bytes, bytes.len() as u64);
    if let Ok(Tail::Whole(encoded)) = &found
        && let Ok(footer) = Footer::decode(encoded)
    {
        let again = footer.encode().map(|again| again.bytes);
        assert_eq!(
            again.ok().as_deref(),
            Some(&data[data.len() - encoded.len() - 12..])
        );
    }
    // The checksum would keep most of what a fuzzer makes from the decoder.
    if let Ok(footer) = Footer::decode(&bytes) {
        let encoded = footer.encode().map(|again| again.bytes);
        assert!(encoded.is_ok_and(|again| again.starts_with(data)));
        assert!(footer.entry_offset(footer.entries.len()) == footer.content_length());
    }
    let _ = PageState::from_bytes(data);
    let _ = leaf::parse(&bytes);
    let _ = media::sniff(data);
}

/// An extent: nothing opens but what was sealed. The first four bytes say where it is changed and how; the rest is sealed.
///
/// # Panics
/// If a changed extent opens as something else than was sealed.
pub fn stream(data: &[u8]) {
    let Ok(key) = ContentKey::from_slice(&[3; 32]) else {
        return;
    };
    forged(&key, data);
    let Some(([high, low, kind, amount], text)) = data.split_first_chunk::<4>() else {
        return;
    };
    let mut buffer = ExtentBuffer::new(0, 0);
    // Repeated, so that short inputs reach several segments.
    for _ in 0..=(usize::from(*amount) % 3) {
        let mut chunk = Bytes::copy_from_slice(text);
        buffer.fill(&mut chunk);
    }
    let Ok(sealed) = buffer.seal(&key, b"aad", &SeededRng::new(1)) else {
        return;
    };
    let place = usize::from(u16::from_be_bytes([*high, *low])) * 31 % sealed.bytes.len();
    let mut changed = sealed.bytes.clone();
    match kind % 4 {
        0 => changed[place] ^= amount.max(&1),
        1 => changed.truncate(place),
        2 => changed.extend_from_slice(&[*amount; 3]),
        _ => changed.rotate_left(place),
    }
    let before = opened(&key, &sealed.bytes);
    assert!(before.is_some(), "what was sealed does not open");
    if changed != sealed.bytes {
        assert!(opened(&key, &changed).is_none(), "a changed extent opened");
    }
}

/// Nobody seals without the key.
fn forged(key: &ContentKey, data: &[u8]) {
    if data.len() > HEADER_LEN {
        assert!(
            opened(key, &BytesMut::from(data)).is_none(),
            "a forged extent opened"
        );
    }
}

fn opened(key: &ContentKey, extent: &BytesMut) -> Option<Vec<Bytes>> {
    let header = extent.first_chunk::<HEADER_LEN>()?;
    let opener = ExtentOpener::new(key, b"aad", header).ok()?;
    let last = u32::try_from((extent.len() - 1) / SEGMENT_LEN).ok()?;
    let body = BytesMut::from(&extent[HEADER_LEN..]);
    opener
        .open_run(0, last, body)
        .ok()
        .filter(|texts| !texts.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_target_runs_on_its_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().collect();
            assert!(!files.is_empty(), "{name} has no seeds");
            for file in files {
                let seed = fs::read(file.unwrap().path()).unwrap();
                target(&seed);
                for cut in 0..seed.len().min(64) {
                    target(&seed[..cut]);
                }
            }
        }
    }

    #[test]
    fn every_target_has_its_file() {
        for (name, _) in TARGETS {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/targets/{name}.rs"));
            assert!(
                fs::read_to_string(file)
                    .unwrap()
                    .contains(&format!("fuzz::{name}(data)"))
            );
        }
    }
}
