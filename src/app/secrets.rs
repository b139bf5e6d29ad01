//! Planted secrets: every key that a vault makes in a life of its own is looked for where none may be, in whatever shape: in
//! logs, `Debug` output, errors and panics, in the bucket, the index and the spool.
//!
//! The life is lived in a process of its own, so that all it says can be read; [`crate::crypto::watch`] writes the keys down.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose};
use bytes::Bytes;

use super::vault::{How, OpenVault};
use crate::{
    config::Config,
    crypto::watch,
    domain::{
        clock::Timestamp,
        erasure::{Ground, Target},
        purpose::{Channel, Purpose},
        record::{Descriptor, Party},
        tenant::{RetentionAction, RetentionClass, TenantSettings},
    },
    vault::{
        BeginSpec, Closing, ContentRange, DescriptorChange, Draft, ErasureSpec, KeyOperation, MessageSpec,
        Name, OperationState, PutSpec, UpdateSpec, Vault,
    },
};

/// Where the life is lived.
const PLACE: &str = "CALLVAULT_PLACE_OF_SECRETS";
/// Says that the life is over, and that its memory was looked at.
const LIVED: &str = "lived";
const SEEN: &str = "seen";
/// Of memory, as nobody wrote to it yet.
const PAGE: [u8; 4096] = [0; 4096];
/// So many bytes of a key in a row are no chance.
const WINDOW: usize = 12;

#[test]
fn no_key_is_written_down_said_or_printed() {
    let keep = tempfile::tempdir().unwrap();
    let told = |name: &str| fs::File::create(keep.path().join(name)).unwrap();
    let mut life = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "app::secrets::a_life_of_keys",
            "--ignored",
            "--nocapture",
        ])
        .env(PLACE, keep.path())
        .stdout(told("stdout"))
        .stderr(told("stderr"))
        .spawn()
        .unwrap();
    let ended = loop {
        if keep.path().join(LIVED).exists() {
            break None;
        }
        if let Some(ended) = life.try_wait().unwrap() {
            break Some(ended);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let left = memory(life.id());
    told(SEEN);
    let status = ended.unwrap_or_else(|| life.wait().unwrap());
    let said = ["stdout", "stderr"].map(|name| fs::read(keep.path().join(name)).unwrap());
    let said = said.concat();
    let text = String::from_utf8_lossy(&said);
    assert!(status.success(), "{text}");
    for expected in [" INFO ", "panicked at", "Secret", "not authentic", "an erasure"] {
        assert!(text.contains(expected), "nothing was said of {expected:?}");
    }

    let secrets = Secrets::read(&keep.path().join("secrets"));
    assert!(secrets.many > 80, "only {}", secrets.many);
    assert_eq!(secrets.in_any_shape(&said), None);
    // What the libraries keep of a key, on a stack or in a schedule, is not ours to clear (SECURITY.md): some may be left.
    let (left, many) = (secrets.among(&left), secrets.many);
    println!("{left} of {many} secrets are left in memory");
    assert!(left * 3 < many, "{left} of {many} secrets are left in memory");
    let mut looked = 0;
    for place in ["data", "old"] {
        for file in files(&keep.path().join(place)) {
            assert_eq!(secrets.in_any_shape(&fs::read(&file).unwrap()), None, "{file:?}");
            looked += 1;
        }
    }
    assert!(looked > 10, "{looked}");
    // What holds the root holds its own keys: what is looked for can be found.
    let root = files(&keep.path().join("data.root"));
    assert!(root.iter().any(|file| secrets.raw(&fs::read(file).unwrap())));
}

#[test]
fn a_secret_is_found_in_every_shape() {
    let secret: Vec<u8> = (0..32).map(|n: u8| n.wrapping_mul(37) ^ 0x5a).collect();
    let secrets = Secrets::of(std::iter::once(secret.clone()));
    let part = &secret[5..30];
    let shapes = [
        part.to_vec(),
        hex::encode(part).into_bytes(),
        hex::encode_upper(part).into_bytes(),
        format!("key={}", general_purpose::STANDARD.encode(part)).into_bytes(),
        general_purpose::URL_SAFE_NO_PAD.encode(&secret[4..]).into_bytes(),
        format!("{part:?}").into_bytes(),
        format!("{part:#?}").into_bytes(),
        format!("{:?}", Bytes::copy_from_slice(part)).into_bytes(),
        format!("{part:02x?}").into_bytes(),
        serde_json::to_vec(part).unwrap(),
    ];
    for shape in shapes {
        let said = [&b"something before "[..], &shape, b" and behind"].concat();
        let shown = String::from_utf8_lossy(&said).into_owned();
        assert!(secrets.in_any_shape(&said).is_some(), "{shown}");
    }
    let other = hex::encode([7; 32]);
    assert_eq!(secrets.in_any_shape(other.as_bytes()), None);
}

/// Puts, reads, corrects, rotates, erases, sweeps, and meets damage, a wrong root and a panic.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run by no_key_is_written_down_said_or_printed"]
async fn a_life_of_keys() {
    let place = PathBuf::from(std::env::var(PLACE).unwrap());
    watch::write_into(&place.join("secrets"));
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .init();
    let config = Config::dev(&place.join("data"), ([127, 0, 0, 1], 0).into()).unwrap();
    let make = How {
        may_make: true,
        ..How::default()
    };
    let open = OpenVault::open(&config, make).await.unwrap();
    let vault = Arc::clone(&open.opened.vault);
    println!("{vault:?} {vault:#?} {:?}", open.opened);
    live(&vault).await;

    // Old copies say no more.
    copy(&place.join("data"), &place.join("old"));
    let target = Target::Subject(crate::domain::record::SubjectIdentifier::Tel(
        "+525512345678".parse().unwrap(),
    ));
    let erasure = vault.request_erasure(erase(target)).await.unwrap();
    let swept = vault.run_sweep("keys", None).await.unwrap();
    ended(&vault, swept).await;
    let tenant = "dev".parse().unwrap();
    let certificate = vault.certificate(&tenant, &erasure.id, None).await.unwrap();
    println!("{erasure:?} {certificate:?}");
    let pending = vault.erasures(&tenant, None, 10).await;
    println!("an erasure: {pending:?}");

    let failed = std::thread::spawn({
        let vault = Arc::clone(&vault);
        move || panic!("{vault:?}")
    });
    assert!(failed.join().is_err());
    damaged(&vault, &place).await;
    drop(vault);
    open.close().await;

    let root = place.join("data.root");
    let aside = place.join("aside.root");
    fs::rename(&root, &aside).unwrap();
    let refused = OpenVault::open(&config, make).await.unwrap_err();
    println!("{refused} {refused:?} {refused:#?}");
    let _ = fs::remove_dir_all(&root);
    fs::rename(&aside, &root).unwrap();
    let open = OpenVault::open(
        &config,
        How {
            rebuild: true,
            ..make
        },
    )
    .await
    .unwrap();
    println!("{:?}", open.opened);
    open.close().await;

    // All keys are dropped: whoever looks at the memory of this process now should find none.
    fs::write(place.join(LIVED), []).unwrap();
    while !place.join(SEEN).exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What happens every day.
async fn live(vault: &Arc<Vault>) {
    let tenant = "dev".parse().unwrap();
    vault
        .create_tenant("admin", &tenant, TenantSettings::default(), None)
        .await
        .unwrap();
    let class = RetentionClass {
        id: "standard".parse().unwrap(),
        minimum_days: 0,
        maximum_days: None,
        action: RetentionAction::Shred,
        jurisdiction: None,
        legal_ground: None,
        effective: Timestamp(0),
        created: Timestamp(0),
    };
    vault
        .create_retention_class("admin", &tenant, class, None)
        .await
        .unwrap();
    for tel in ["+525512345678", "+525587654321"] {
        let spec = PutSpec {
            tenant: tenant.clone(),
            actor: "uploader".into(),
            draft: draft(tel),
            request: Some(format!("put-{}", &tel[1..]).parse().unwrap()),
            expected_size: None,
            expected_sha256: None,
        };
        let mut put = vault.begin_put(spec).await.unwrap();
        println!("{put:?}");
        put.write(Bytes::from(vec![1; 200_000])).await.unwrap();
        let record = put.finish(Closing::default()).await.unwrap();
        let mut draft = draft(tel);
        draft.descriptor.derived_from = Some(record.id);
        let message = MessageSpec {
            actor: "uploader".into(),
            draft,
            request: Some(format!("message-{}", &tel[1..]).parse().unwrap()),
            body: Bytes::from_static(b"a transcript"),
        };
        let put = vault.put_messages(&tenant, vec![message]).await;
        println!("{put:?}");
        let change = DescriptorChange {
            fields: ["languages"].into(),
            descriptor: record.descriptor.clone(),
        };
        let corrected = vault
            .update(UpdateSpec {
                judge: None,
                tenant: tenant.clone(),
                record: record.id,
                actor: "clerk".into(),
                change,
                etag: None,
                request: Some(format!("update-{}", &tel[1..]).parse().unwrap()),
            })
            .await;
        println!("{corrected:?}");
        let all = ContentRange {
            offset: 0,
            limit: None,
        };
        let mut reading = vault
            .read(&tenant, record.id, all, Purpose::ServiceProvision)
            .await
            .unwrap();
        println!("{reading:?}");
        while reading.next().await.unwrap().is_some() {}
        let spec = BeginSpec {
            tenant: tenant.clone(),
            actor: "uploader".into(),
            draft: self::draft(tel),
            request: None,
            keep: true,
        };
        let upload = vault.begin_upload(spec).await.unwrap();
        let mut writer = vault.write_upload(&tenant, &upload.id, 0).await.unwrap();
        writer.write(Bytes::from(vec![2; 50_000])).await.unwrap();
        println!("{upload:?} {writer:?}");
        println!("{:?}", writer.finish().await);
    }
    for rotation in [
        vault.rotate_tenant_key("keys", &tenant, None).await.unwrap(),
        vault.rotate_root_epoch("keys", None).await.unwrap(),
    ] {
        ended(vault, rotation).await;
    }
    println!(
        "{:?} {:?}",
        vault.key_versions(&tenant).await,
        vault.root_epochs().await
    );
}

/// What damage makes the vault say.
async fn damaged(vault: &Arc<Vault>, place: &Path) {
    let tenant = "dev".parse().unwrap();
    let objects = files(&place.join("data/bucket")).into_iter();
    for blob in objects.filter(|path| path.to_string_lossy().contains("blobs")) {
        let mut bytes = fs::read(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&blob, bytes).unwrap();
    }
    let found = vault.verify().await.unwrap();
    println!("{found:?}");
    for finding in found.findings {
        println!("{finding:?}");
    }
    let list = vault
        .list(
            &tenant,
            &crate::domain::record::Query::default(),
            crate::vault::Order::NewestFirst,
            10,
            None,
            Purpose::ServiceProvision,
        )
        .await
        .unwrap();
    for record in list.records {
        let all = ContentRange {
            offset: 0,
            limit: None,
        };
        let read = vault
            .read(&tenant, record.id, all, Purpose::ServiceProvision)
            .await;
        let refused = match read {
            Ok(mut reading) => reading.next().await.map(drop),
            Err(error) => Err(error),
        };
        println!(
            "{refused:?} {:?}",
            vault
                .record(&tenant, &Name::Id(record.id), Purpose::LegalCompliance)
                .await
        );
        if let Err(error) = refused {
            println!("{error} {error:#?}");
        }
    }
    println!("{}", crate::crypto::CryptoError::Unauthentic);
}

async fn ended(vault: &Vault, begun: KeyOperation) {
    loop {
        let now = vault.key_operation(&begun.id, |_| true).await.unwrap();
        if now.state != OperationState::Running {
            assert_eq!(now.state, OperationState::Succeeded, "{now:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn draft(tel: &str) -> Draft {
    Draft {
        descriptor: Descriptor {
            conversation_id: "conv-1".parse().unwrap(),
            channel: Channel::Voice,
            direction: None,
            start: Timestamp(1_795_478_000_000_000),
            duration_millis: None,
            parties: vec![Party {
                tel: Some(tel.parse().unwrap()),
                ..Party::default()
            }],
            media_type: "application/octet-stream".parse().unwrap(),
            languages: vec![],
            labels: Default::default(),
            data_categories: Default::default(),
            allowed_purposes: Default::default(),
            legal_basis: None,
            notice_version: None,
            consent_ref: None,
            source: None,
            retention_class: "standard".parse().unwrap(),
            age_flag: None,
            jurisdictions: vec![],
            external_id: None,
            derived_from: None,
            incomplete: false,
        },
        has_media_type: false,
        has_retention_class: true,
    }
}

fn erase(target: Target) -> ErasureSpec {
    ErasureSpec {
        tenant: "dev".parse().unwrap(),
        actor: "compliance".into(),
        target,
        ground: Ground::A17,
        reference: "CASE-1".parse().unwrap(),
        grace_micros: Some(0),
        expected_set: None,
        request: None,
    }
}

/// What a process may write to of its memory, without pages that it never wrote to.
fn memory(process: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let mut runs = vec![Vec::new()];
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        if !rest.starts_with("rw") {
            continue;
        }
        for at in (from..to).step_by(PAGE.len()) {
            let mut page = PAGE;
            let written = memory.read_exact_at(&mut page, at).is_ok() && page != PAGE;
            match written {
                true => runs.last_mut().unwrap().extend_from_slice(&page),
                false => runs.push(Vec::new()),
            }
        }
    }
    runs
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let copy = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&file, copy).unwrap();
    }
}

/// How a secret may be written, and how that is read.
type Shape = (&'static str, fn(&[u8]) -> Vec<Vec<u8>>);

/// Secrets, as all their parts of some length.
struct Secrets {
    /// And which one each is of.
    parts: HashMap<[u8; WINDOW], usize>,
    /// First two bytes of some part: most places are no more than looked at.
    begins: Vec<bool>,
    many: usize,
}

impl Secrets {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut all = BTreeSet::new();
        while let Some((length, after)) = rest.split_first() {
            let (secret, after) = after.split_at(usize::from(*length));
            all.insert(secret.to_vec());
            rest = after;
        }
        Self::of(all.into_iter())
    }

    fn of(secrets: impl Iterator<Item = Vec<u8>>) -> Self {
        let (mut parts, mut many) = (HashMap::new(), 0);
        for secret in secrets {
            let windows = secret.windows(WINDOW);
            parts.extend(windows.map(|part| (<[u8; WINDOW]>::try_from(part).unwrap(), many)));
            many += 1;
        }
        let mut begins = vec![false; 1 << 16];
        for part in parts.keys() {
            begins[usize::from(u16::from_be_bytes([part[0], part[1]]))] = true;
        }
        Self { parts, begins, many }
    }

    /// How many of them are somewhere in these.
    fn among(&self, regions: &[Vec<u8>]) -> usize {
        let mut found: HashSet<usize> = HashSet::new();
        for region in regions {
            for part in region.windows(WINDOW) {
                if self.begins[usize::from(u16::from_be_bytes([part[0], part[1]]))] {
                    found.extend(self.parts.get(part));
                }
            }
        }
        found.len()
    }

    fn raw(&self, bytes: &[u8]) -> bool {
        bytes.windows(WINDOW).any(|part| self.parts.contains_key(part))
    }

    /// The shape in which some secret is in there.
    fn in_any_shape(&self, bytes: &[u8]) -> Option<&'static str> {
        let shapes: [Shape; 5] = [
            ("raw", |bytes| vec![bytes.to_vec()]),
            ("hex", hex_runs),
            ("base64", base64_runs),
            ("numbers", |bytes| numbers(bytes, 10)),
            ("numbers in hex", |bytes| numbers(bytes, 16)),
        ];
        let found = shapes
            .iter()
            .find(|(_, decoded)| decoded(bytes).iter().any(|run| self.raw(run)));
        found
            .map(|(shape, _)| *shape)
            .or_else(|| self.raw(&unescaped(bytes)).then_some("escaped"))
    }
}

/// Runs of characters that `is_one` takes, long enough for a part of a secret.
fn runs(bytes: &[u8], is_one: impl Fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(move |b| !is_one(*b))
        .filter(|run| run.len() >= WINDOW)
}

fn hex_runs(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut decoded = Vec::new();
    for run in runs(bytes, |b| b.is_ascii_hexdigit()) {
        for from in 0..2 {
            let even = &run[from..];
            decoded.extend(hex::decode(&even[..even.len() / 2 * 2]));
        }
    }
    decoded
}

fn base64_runs(bytes: &[u8]) -> Vec<Vec<u8>> {
    let is_one = |b: u8| b.is_ascii_alphanumeric() || b"+/-_".contains(&b);
    let mut decoded = Vec::new();
    for run in runs(bytes, is_one) {
        let standard: Vec<u8> = run
            .iter()
            .map(|b| match b {
                b'-' => b'+',
                b'_' => b'/',
                other => *other,
            })
            .collect();
        for from in 0..4.min(standard.len()) {
            let whole = &standard[from..];
            decoded.extend(general_purpose::STANDARD_NO_PAD.decode(&whole[..whole.len() / 4 * 4]));
        }
    }
    decoded
}

/// Lists of numbers, as `Debug` and JSON write them.
fn numbers(bytes: &[u8], radix: u32) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let mut lists = vec![Vec::new()];
    for word in text.split([',', ' ', '\n']).filter(|word| !word.is_empty()) {
        let number = word.trim_matches(|c| matches!(c, '[' | ']' | '(' | ')' | '{' | '}'));
        match u8::from_str_radix(number.strip_prefix("0x").unwrap_or(number), radix) {
            Ok(byte) => lists.last_mut().unwrap().push(byte),
            Err(_) => lists.push(Vec::new()),
        }
    }
    lists
}

/// Text with what `Debug` escaped as it was.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let (byte, taken) = match (first, after) {
            (b'\\', [b'x', high, low, ..]) => match hex::decode([*high, *low]) {
                Ok(byte) => (byte[0], 4),
                Err(_) => (b'\\', 1),
            },
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'0', ..]) => (0, 2),
            (b'\\', [other, ..]) => (*other, 2),
            (other, _) => (*other, 1),
        };
        out.push(byte);
        rest = &rest[taken..];
    }
    out
}
