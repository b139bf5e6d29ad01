//! What attackers do with tokens (RFC 8725 section 2), and what operators do with keys.

use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::*;
use crate::testing::{clock::TestClock, issuer::TokenSigner};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://login.example";
const SKEW: i64 = 30;
const LIFE: i64 = 3_600;

fn set(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "callvault", "sub": "agent-7", "iat": NOW - 10, "exp": NOW + 600,
           "roles": ["call-agents", "others"], "tenant": "acme"})
}

/// The claims with one of them changed, or without it.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let all = claims.as_object_mut().unwrap();
    match value {
        Value::Null => all.remove(name),
        value => all.insert(name.to_owned(), value),
    };
    claims
}

fn spec() -> IssuerSpec {
    let grant = |value: &str, role, tenants| ClaimGrant {
        claim: "roles".to_owned(),
        value: value.to_owned(),
        roles: BTreeSet::from([role]),
        tenants,
    };
    IssuerSpec {
        issuer: ISSUER.to_owned(),
        audience: "callvault".to_owned(),
        algorithms: vec![
            TokenAlgorithm::Es256,
            TokenAlgorithm::EdDsa,
            TokenAlgorithm::Rs256,
        ],
        skew: Duration::from_secs(SKEW as u64),
        life: Duration::from_secs(LIFE as u64),
        must_be_bound: false,
        alias_claim: "sub".to_owned(),
        alias_prefix: String::new(),
        agent_claim: Some("ext.agent".to_owned()),
        teams_claim: Some("teams".to_owned()),
        country: Some("MX".parse().unwrap()),
        grants: vec![
            grant(
                "call-agents",
                Role::Agent,
                GrantedTenants::Claim("tenant".to_owned()),
            ),
            grant(
                "key-people",
                Role::KeyAdmin,
                GrantedTenants::Scope(TenantScope::All),
            ),
        ],
        stale: Duration::from_secs(3_600),
    }
}

struct Bench {
    clock: Arc<TestClock>,
    signer: TokenSigner,
    issuers: Issuers,
}

impl Bench {
    fn new() -> Self {
        Self::of(spec(), TokenSigner::p256())
    }

    fn of(spec: IssuerSpec, signer: TokenSigner) -> Self {
        let clock = Arc::new(TestClock::new(Timestamp(NOW * 1_000_000)));
        let issuer = Arc::new(Issuer::new(spec));
        issuer.learn(set(&[signer.jwk("k1")]).unwrap(), clock.now());
        Self {
            issuers: Issuers::new([issuer], Arc::clone(&clock) as _),
            clock,
            signer,
        }
    }

    fn issuer(&self) -> &Issuer {
        self.issuers.all().next().unwrap()
    }

    fn bearer(&self, token: &str) -> Result<Bearer, Error> {
        self.issuers.bearer(token, &PeerCertificate::default())
    }

    fn takes(&self, claims: &Value) -> Bearer {
        self.bearer(&self.signer.token("k1", claims)).unwrap()
    }

    /// Why a token is refused; nothing of it is told again.
    fn refusal(&self, token: &str) -> &'static str {
        let error = self.bearer(token).unwrap_err();
        let told = format!("{error} {error:?} {:?}", error.field);
        for secret in ["agent-7", "jane", token] {
            assert!(secret.is_empty() || !told.contains(secret), "{told}");
        }
        error.reason
    }

    fn refusal_of(&self, claims: &Value) -> &'static str {
        self.refusal(&self.signer.token("k1", claims))
    }
}

#[test]
fn a_token_of_a_listed_issuer_is_worth_what_its_claims_are_granted() {
    for signer in [TokenSigner::p256(), TokenSigner::ed25519()] {
        let bench = Bench::of(spec(), signer);
        let bearer = bench.takes(&claims());
        let principal = &bearer.principal;
        assert_eq!(principal.alias(), "agent-7");
        assert_eq!(principal.roles(), BTreeSet::from([Role::Agent]));
        assert!(principal.knows(&"acme".parse().unwrap()) && !principal.knows(&"other".parse().unwrap()));
        assert_eq!(principal.country().unwrap().as_str(), "MX");
        assert_eq!(principal.strength(), AuthStrength::Token);
        assert_eq!(bearer.until, Timestamp((NOW + 600 + SKEW) * 1_000_000));
    }
}

#[test]
fn a_token_that_is_not_the_issuers_is_refused() {
    let bench = Bench::new();
    let good = bench.signer.token("k1", &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let encoded = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    // Unsigned, in the ways that were taken for signed once.
    for none in ["none", "None", "NONE", "nOnE"] {
        let header = encoded(json!({"alg": none, "kid": "k1"}));
        for signature in ["", signature] {
            assert_eq!(
                bench.refusal(&format!("{header}.{payload}.{signature}")),
                "TOKEN_MALFORMED"
            );
        }
    }
    // A public key taken for a shared secret.
    let public = bench.signer.public_key();
    let confused = format!("{}.{payload}", encoded(json!({"alg": "HS256", "kid": "k1"})));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
    let tag = BASE64_URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, confused.as_bytes()));
    assert_eq!(bench.refusal(&format!("{confused}.{tag}")), "TOKEN_ALGORITHM");
    // Algorithms of other keys, and one that is not listed.
    for (other, reason) in [
        ("RS256", "TOKEN_ALGORITHM"),
        ("EdDSA", "TOKEN_ALGORITHM"),
        ("PS256", "TOKEN_ALGORITHM"),
    ] {
        let header = encoded(json!({"alg": other, "kid": "k1"}));
        assert_eq!(
            bench.refusal(&format!("{header}.{payload}.{signature}")),
            reason,
            "{other}"
        );
    }
    // Another's key, also one that the token brings along.
    let thief = TokenSigner::p256();
    assert_eq!(bench.refusal(&thief.token("k1", &claims())), "TOKEN_SIGNATURE");
    let mut jwk = thief.jwk("k1");
    jwk.as_object_mut().unwrap().remove("use");
    let brought = json!({"alg": "ES256", "kid": "k1", "jwk": jwk, "jku": "https://thief.example/keys"});
    assert_eq!(bench.refusal(&thief.sign(&brought, &claims())), "TOKEN_SIGNATURE");
    // Other claims under a signature; half of one; none.
    let changed = encoded(but("sub", json!("jane")));
    assert_eq!(
        bench.refusal(&format!("{header}.{changed}.{signature}")),
        "TOKEN_SIGNATURE"
    );
    assert_eq!(
        bench.refusal(&format!("{message}.{}", &signature[..40])),
        "TOKEN_SIGNATURE"
    );
    assert_eq!(bench.refusal(&format!("{message}.")), "TOKEN_SIGNATURE");
    bench.bearer(&good).unwrap();
}

#[test]
fn what_is_no_token_is_refused() {
    let bench = Bench::new();
    let good = bench.signer.token("k1", &claims());
    for bad in [
        "",
        ".",
        "..",
        "a.b.c",
        "jane",
        &good[1..],
        &format!("{good}.x"),
        &format!("{good}.a.b"),
    ] {
        assert_eq!(bench.refusal(bad), "TOKEN_MALFORMED", "{bad}");
    }
    let long = bench
        .signer
        .token("k1", &but("groups", json!("g".repeat(limits::TOKEN_BYTES))));
    assert_eq!(bench.refusal(&long), "TOKEN_TOO_LONG");
    for (header, reason) in [
        (
            json!({"alg": "ES256", "kid": "k1", "crit": ["exp"]}),
            "TOKEN_MALFORMED",
        ),
        (
            json!({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}),
            "TOKEN_MALFORMED",
        ),
        (
            json!({"alg": "ES256", "kid": "k1", "typ": "secevent+jwt"}),
            "TOKEN_MALFORMED",
        ),
    ] {
        assert_eq!(
            bench.refusal(&bench.signer.sign(&header, &claims())),
            reason,
            "{header}"
        );
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": typ});
        bench.bearer(&bench.signer.sign(&header, &claims())).unwrap();
    }
}

#[test]
fn a_token_for_another_or_of_another_is_refused() {
    let bench = Bench::new();
    for (claims, reason) in [
        (but("aud", json!("billing")), "TOKEN_AUDIENCE"),
        (but("aud", json!("callvault2")), "TOKEN_AUDIENCE"),
        (but("aud", json!([])), "TOKEN_AUDIENCE"),
        (but("aud", json!(["a", "b"])), "TOKEN_AUDIENCE"),
        (but("aud", json!(7)), "TOKEN_MALFORMED"),
        (but("aud", Value::Null), "TOKEN_MALFORMED"),
        (but("iss", json!("https://login.example/")), "TOKEN_ISSUER"),
        (but("iss", json!([ISSUER])), "TOKEN_MALFORMED"),
        (but("iss", Value::Null), "TOKEN_MALFORMED"),
    ] {
        assert_eq!(bench.refusal_of(&claims), reason, "{claims}");
    }
    bench.takes(&but("aud", json!(["billing", "callvault"])));
}

#[test]
fn a_token_counts_between_its_beginning_and_its_end() {
    let bench = Bench::new();
    for (claims, reason) in [
        (but("exp", json!(NOW - SKEW)), "TOKEN_EXPIRED"),
        (but("exp", json!(0)), "TOKEN_EXPIRED"),
        (but("exp", json!(-1e300)), "TOKEN_EXPIRED"),
        (but("exp", json!((NOW + 600).to_string())), "TOKEN_MALFORMED"),
        (but("exp", Value::Null), "TOKEN_MALFORMED"),
        (but("exp", json!(1e300)), "TOKEN_LIFE"),
        (but("exp", json!(NOW + LIFE + SKEW + 1)), "TOKEN_LIFE"),
        (but("iat", json!(NOW - LIFE)), "TOKEN_LIFE"),
        (but("nbf", json!(NOW + SKEW + 1)), "TOKEN_NOT_YET"),
        (but("iat", json!(NOW + SKEW + 1)), "TOKEN_NOT_YET"),
        (but("nbf", json!("0")), "TOKEN_MALFORMED"),
    ] {
        assert_eq!(bench.refusal_of(&claims), reason, "{claims}");
    }
    bench.takes(&but("exp", json!(NOW - SKEW + 1)));
    bench.takes(&but("nbf", json!(NOW + SKEW)));
    bench.takes(&but("iat", Value::Null));
    // Also one that was taken before.
    let token = bench.signer.token("k1", &claims());
    bench.bearer(&token).unwrap();
    bench.clock.advance((600 + SKEW) * 1_000_000);
    assert_eq!(bench.refusal(&token), "TOKEN_EXPIRED");
}

#[test]
fn keys_are_replaced_and_tokens_of_old_ones_refused_from_then_on() {
    let bench = Bench::new();
    let old = bench.signer.token("k1", &claims());
    bench.bearer(&old).unwrap();
    let next = TokenSigner::ed25519();
    let new = next.token("k2", &claims());
    // The first who comes with a key that is not known has the issuer asked; whoever makes one up has not.
    assert_eq!(bench.refusal(&new), "ISSUER_UNAVAILABLE");
    assert_eq!(bench.refusal(&new), "ISSUER_UNAVAILABLE", "it is being asked");
    bench.clock.advance(1);
    bench.issuer().looked_in_vain(bench.clock.now());
    assert_eq!(bench.refusal(&new), "TOKEN_KEY");
    bench
        .issuer()
        .learn(set(&[next.jwk("k2")]).unwrap(), bench.clock.now());
    bench.bearer(&new).unwrap();
    assert_eq!(bench.refusal(&old), "TOKEN_KEY");
    // A thief's key under a known name.
    bench
        .issuer()
        .learn(set(&[TokenSigner::p256().jwk("k1")]).unwrap(), bench.clock.now());
    assert_eq!(bench.refusal(&old), "TOKEN_SIGNATURE");
    bench.clock.advance(31 * 1_000_000);
    assert_eq!(bench.refusal(&new), "ISSUER_UNAVAILABLE", "it may have it by now");
}

#[test]
fn keys_that_nobody_has_seen_for_long_are_used_no_more() {
    let bench = Bench::new();
    bench.clock.advance(3_600 * 1_000_000);
    let claims = but("exp", json!(NOW + 2 * 3_600));
    let claims = &{
        let mut claims = claims;
        claims["iat"] = json!(NOW + 3_600);
        claims
    };
    bench.takes(claims);
    bench.clock.advance(1);
    assert_eq!(bench.refusal_of(claims), "ISSUER_UNAVAILABLE");
    bench.issuer().confirm(bench.clock.now());
    bench.takes(claims);
    let nobody = Issuers::new([Arc::new(Issuer::new(spec()))], Arc::clone(&bench.clock) as _);
    let refused = nobody.bearer(&bench.signer.token("k1", claims), &PeerCertificate::default());
    assert_eq!(refused.unwrap_err().reason, "ISSUER_UNAVAILABLE");
}

#[test]
fn a_bound_token_is_its_certificates_alone() {
    let bench = Bench::new();
    let peer = |name: &[u8]| PeerCertificate::from_chain(&[CertificateDer::from_slice(name)]);
    let (mine, other) = (peer(b"mine"), peer(b"other"));
    let print = BASE64_URL_SAFE_NO_PAD.encode(mine.sha256());
    let token = bench.signer.token("k1", &but("cnf", json!({"x5t#S256": print})));
    let bearer = bench.issuers.bearer(&token, &mine).unwrap();
    assert_eq!(bearer.principal.strength(), AuthStrength::BoundToken);
    for thief in [&other, &PeerCertificate::default()] {
        // Also after it was seen over the right one.
        assert_eq!(
            bench.issuers.bearer(&token, thief).unwrap_err().reason,
            "TOKEN_BINDING"
        );
    }
    let nothing = BASE64_URL_SAFE_NO_PAD.encode([0; 32]);
    for cnf in [
        json!({"jkt": "a key that proves possession elsewhere"}),
        json!({"x5t#S256": print, "jkt": "both"}),
        json!({"x5t#S256": nothing}),
        json!({}),
    ] {
        assert_eq!(
            bench.refusal_of(&but("cnf", cnf.clone())),
            "TOKEN_BINDING",
            "{cnf}"
        );
    }
    let strict = Bench::of(
        IssuerSpec {
            must_be_bound: true,
            ..spec()
        },
        TokenSigner::p256(),
    );
    assert_eq!(strict.refusal_of(&claims()), "TOKEN_BINDING");
    let token = strict.signer.token("k1", &but("cnf", json!({"x5t#S256": print})));
    strict.issuers.bearer(&token, &mine).unwrap();
}

#[test]
fn whoever_calls_has_one_opaque_name() {
    let bench = Bench::new();
    for sub in [json!("jane@example.com"), json!("Jane"), json!(""), Value::Null] {
        assert_eq!(bench.refusal_of(&but("sub", sub.clone())), "TOKEN_ALIAS", "{sub}");
    }
    let spec = IssuerSpec {
        alias_claim: "ext.oid".to_owned(),
        alias_prefix: "crm-".to_owned(),
        ..spec()
    };
    let bench = Bench::of(spec, TokenSigner::p256());
    let bearer = bench.takes(&but("ext", json!({"oid": "0b7c"})));
    assert_eq!(bearer.principal.alias(), "crm-0b7c");
}

#[test]
fn claims_are_worth_what_is_granted_for_them_and_nothing_else() {
    let bench = Bench::new();
    let forbidden = |claims: &Value, reason| {
        let error = bench.bearer(&bench.signer.token("k1", claims)).unwrap_err();
        assert_eq!((error.kind, error.reason), (Kind::Forbidden, reason), "{claims}");
    };
    for roles in [
        json!(["others"]),
        json!("call-agents2"),
        json!({"call-agents": true}),
        Value::Null,
    ] {
        forbidden(&but("roles", roles), "NO_ROLE");
    }
    // No tenant, or none that could be one: the roles are for nobody.
    for tenant in [json!("*"), json!("Not A Tenant"), json!([]), Value::Null] {
        forbidden(&but("tenant", tenant), "NO_ROLE");
    }
    forbidden(
        &but("roles", json!(["call-agents", "key-people"])),
        "CONFLICTING_ROLES",
    );
    let bearer = bench.takes(&but("tenant", json!(["acme", "*", "other"])));
    let grants = bearer.principal.grants();
    assert!(matches!(&grants[0].scope, TenantScope::Some(tenants) if tenants.len() == 2));
}

#[test]
fn a_set_has_keys_that_verify_and_can_be_told_apart() {
    let (one, two) = (TokenSigner::p256(), TokenSigner::ed25519());
    let with = |mut key: Value, name: &str, value: Value| {
        key[name] = value;
        key
    };
    let secret = json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"});
    let unknown = json!({"kty": "ML-DSA", "kid": "q"});
    let for_encryption = with(one.jwk("e"), "use", json!("enc"));
    let useless = [
        secret,
        unknown,
        for_encryption,
        with(one.jwk("x"), "alg", json!("RS256")),
    ];
    assert_eq!(set(&useless).unwrap_err(), KeySetError::Empty);
    assert!(set(&[]).unwrap().find(None).is_none(), "all were withdrawn");
    let some = [&useless[..], &[one.jwk("a"), two.jwk("b")]].concat();
    let some = set(&some).unwrap();
    assert!(some.find(Some("a")).is_some() && some.find(Some("b")).is_some());
    for nobody in [Some("s"), Some("e"), Some("x"), None] {
        assert!(some.find(nobody).is_none(), "{nobody:?}");
    }
    assert_eq!(
        set(&[one.jwk("a"), two.jwk("a")]).unwrap_err(),
        KeySetError::Ambiguous
    );
    let nameless = |signer: &TokenSigner| with(signer.jwk("a"), "kid", Value::Null);
    assert!(set(&[nameless(&one)]).unwrap().find(None).is_some());
    assert_eq!(
        set(&[nameless(&one), two.jwk("b")]).unwrap_err(),
        KeySetError::Ambiguous
    );
    let many = vec![one.jwk("a"); 65];
    assert_eq!(set(&many).unwrap_err(), KeySetError::TooLarge);
    let long = vec![b' '; SET_BYTES + 1];
    assert_eq!(KeySet::parse(&long).unwrap_err(), KeySetError::TooLarge);
    for bad in ["", "[]", "{}", r#"{"keys": 7}"#] {
        assert_eq!(
            KeySet::parse(bad.as_bytes()).unwrap_err(),
            KeySetError::Malformed,
            "{bad}"
        );
    }
}

#[test]
fn every_algorithm_has_a_public_key_and_is_verified_by_ours() {
    for algorithm in TokenAlgorithm::ALL {
        let ours = provider::algorithm(algorithm.theirs()).unwrap();
        let name = format!("{ours:?}").to_ascii_uppercase();
        assert_eq!(name, algorithm.name().to_ascii_uppercase());
    }
}
