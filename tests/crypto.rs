//! The stored formats, against others' code: Tink's own implementation, and vectors that were written by a second
//! implementation of `docs/format.md` (`tests/vectors/generate.py`).

#![allow(clippy::unwrap_used, clippy::panic)] // helpers fail the test that calls them

use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};
use callvault::{
    crypto::{
        CryptoError, blind, context, kdf,
        page::PageState,
        rng::SystemRng,
        secret::{ContentKey, Dek, EpochKey, IndexKey, RequestKey, RowMacKey, Secret, SlotKey, TenantKey},
        stream::{self, ExtentBuffer, ExtentOpener, TagsDigest, map_range},
    },
    domain::{clock::Timestamp, ids::*},
};
use proptest::prelude::*;
use serde_json::Value;
use tink_core::StreamingAead;
use tink_streaming_aead::subtle::AesGcmHkdf;

// --- Tink ---

fn tink(key: &[u8; 32]) -> AesGcmHkdf {
    AesGcmHkdf::new(key, tink_proto::HashType::Sha256, 32, stream::SEGMENT_LEN, 0).unwrap()
}

/// A writer that can be looked into after Tink has taken it.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tink_seals(key: &[u8; 32], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let sink = Sink::default();
    let mut writer = tink(key)
        .new_encrypting_writer(Box::new(sink.clone()), aad)
        .unwrap();
    writer.write_all(plaintext).unwrap();
    writer.close().unwrap();
    drop(writer);
    sink.0.lock().unwrap().clone()
}

fn tink_opens(key: &[u8; 32], aad: &[u8], sealed: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let source = Box::new(std::io::Cursor::new(sealed));
    let mut plaintext = Vec::new();
    let mut reader = tink(key).new_decrypting_reader(source, aad).unwrap();
    reader.read_to_end(&mut plaintext).map(|_| plaintext)
}

fn we_seal(key: &[u8; 32], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = ExtentBuffer::new(0, 0);
    buffer.fill(&mut Bytes::copy_from_slice(plaintext));
    let sealed = buffer
        .seal(&ContentKey::from_bytes(*key), aad, &SystemRng::new())
        .unwrap();
    sealed.bytes.to_vec()
}

/// Opens a whole extent, as the only one of an entry that is said to have `len` bytes of plaintext.
fn we_open(key: &[u8; 32], aad: &[u8], len: u64, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let (header, segments) = sealed.split_first_chunk().ok_or(CryptoError::Unauthentic)?;
    let opener = ExtentOpener::new(&ContentKey::from_bytes(*key), aad, header)?;
    let whole = map_range(len, 0, len)?.next().ok_or(CryptoError::Unauthentic)?;
    Ok(whole.open(&opener, BytesMut::from(segments))?.concat())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn both_ways(len: usize) {
    let (key, aad, plaintext) = ([0x42; 32], b"context".as_slice(), pattern(len));
    let ours = we_seal(&key, aad, &plaintext);
    assert!(
        tink_opens(&key, aad, ours.clone()).unwrap() == plaintext,
        "tink opens ours len={len}"
    );
    assert!(
        tink_opens(&key, b"other", ours).is_err(),
        "tink opens ours under another context len={len}"
    );
    let theirs = tink_seals(&key, aad, &plaintext);
    assert!(
        we_open(&key, aad, len as u64, &theirs).unwrap() == plaintext,
        "we open tink's len={len}"
    );
    assert!(
        we_open(&key, b"other", len as u64, &theirs).is_err(),
        "we open tink's under another context len={len}"
    );
}

#[test]
fn tink_and_we_open_each_others_extents_at_the_edges() {
    for len in [1, 65_479, 65_480, 65_481, 131_000, 131_001] {
        both_ways(len);
    }
    both_ways(stream::extent_capacity(0) as usize);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn tink_and_we_open_each_others_extents(len in prop_oneof![1..300usize, 65_000..66_000usize, 1..400_000usize]) {
        both_ways(len);
    }
}

// --- vectors ---

struct Vector {
    name: String,
    value: Value,
}

impl Vector {
    fn read(area: &str, name: &str) -> Self {
        let path = folder(area).join(format!("{name}.json"));
        let value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        Self {
            name: name.to_owned(),
            value,
        }
    }

    fn text(&self, field: &str) -> &str {
        self.value[field]
            .as_str()
            .unwrap_or_else(|| panic!("vector={} field={field}", self.name))
    }

    fn hex(&self, field: &str) -> Vec<u8> {
        hex::decode(self.text(field)).unwrap()
    }

    fn key(&self, field: &str) -> [u8; 32] {
        self.hex(field).try_into().unwrap()
    }

    /// Text of the error that the vector asks for.
    fn error(&self) -> Option<String> {
        match self.value["error"].as_str()? {
            "unauthentic" => Some(CryptoError::Unauthentic.to_string()),
            what => Some(format!("malformed what={what}")),
        }
    }
}

fn refusal<T>(outcome: Result<T, CryptoError>) -> Option<String> {
    outcome.err().map(|error| error.to_string())
}

fn folder(area: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", area]
        .iter()
        .collect()
}

/// All vectors of an area; `at_least` guards against an empty folder.
fn vectors(area: &str, at_least: usize) -> Vec<Vector> {
    let names = fs::read_dir(folder(area))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let read: Vec<Vector> = names
        .map(|path| Vector::read(area, path.file_stem().unwrap().to_str().unwrap()))
        .collect();
    assert!(read.len() >= at_least, "vectors of area={area} are missing");
    read
}

/// What the generator's fixed inputs are called here.
struct Fixed {
    vault: VaultId,
    tenant: TenantId,
    record: RecordId,
    page: PageId,
    region: RegionName,
}

fn fixed() -> Fixed {
    Fixed {
        vault: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
        tenant: "acme".parse().unwrap(),
        record: "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap(),
        page: "01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap(),
        region: "eu-west".parse().unwrap(),
    }
}

fn binding_fields<'a>(page: &'a PageId, wrapped_dek: &'a [u8]) -> context::BindingFields<'a> {
    context::BindingFields {
        node: 7,
        page,
        slot: 4_095,
        wrapped_dek,
        commitment: &[0xc0; 32],
        request_mac: &[],
        request_fingerprint: &[],
        tags_digest: &[0xd0; 32],
    }
}

fn typed_context(name: &str) -> Vec<u8> {
    let Fixed {
        vault,
        tenant,
        record,
        page,
        region,
    } = &fixed();
    match name {
        "extent" => context::extent(tenant, record, 1, region, 5_000),
        "wrapped-dek" => context::wrapped_dek(vault, tenant, page, 4_095, record.as_bytes()),
        "wrapped-tenant-key" => context::wrapped_tenant_key(vault, tenant, 3, "region", page, 17),
        "tenant-keyring" => context::tenant_keyring(vault, tenant, 3),
        "region-keyring" => context::region_keyring(vault, region, 9),
        "tenant-page-state" => context::tenant_page_state(vault, tenant, page, 2, 3),
        "region-page-state" => context::region_page_state(vault, region, page, 2, 9),
        "epoch-key" => context::epoch_key(vault, 9),
        "spool-record" => context::spool_record(&spool_log(1), 7),
        "spool-mark" => context::spool_mark(&spool_log(0)),
        "payload" => context::payload(vault, tenant, "settings", (1 << 40) + 1),
        "descriptor" => {
            let wrapped: Vec<u8> = (0..60).collect();
            context::descriptor(&context::DescriptorContext {
                vault,
                tenant,
                record,
                kind: 1,
                region,
                created_at: Timestamp(1_795_478_400_000_001),
                object_key: "blobs/acme/2026/11/24/x",
                entry_index: 0,
                entry_count: 1,
                extent_count: 2,
                last_extent_length: 57,
                plaintext_length: 8_386_521,
                descriptor_version: 1,
                binding: &context::binding_digest(&binding_fields(page, &wrapped)),
            })
        }
        other => panic!("no function for the context vector={other}"),
    }
}

fn spool_log(log: u32) -> context::SpoolLog {
    let fixed = fixed();
    context::SpoolLog {
        vault: fixed.vault,
        tenant: fixed.tenant,
        record: fixed.record,
        log,
        head: [0xe0; 32],
    }
}

#[test]
fn context_vectors_are_spelt_by_their_functions() {
    for vector in vectors("context", 13) {
        if vector.name == "binding" {
            let (wrapped, page): (Vec<u8>, _) = ((0..60).collect(), fixed().page);
            let digest = context::binding_digest(&binding_fields(&page, &wrapped));
            assert_eq!(digest, vector.key("sha256"));
        } else {
            assert_eq!(
                typed_context(&vector.name),
                vector.hex("encoded"),
                "vector={}",
                vector.name
            );
        }
    }
}

#[test]
fn kdf_vectors_are_derived_by_their_functions() {
    for vector in vectors("kdf", 11) {
        let key = vector.key("key");
        let (dek, tenant, epoch) = (
            Dek::from_bytes(key),
            TenantKey::from_bytes(key),
            EpochKey::from_bytes(key),
        );
        let derived = match vector.name.as_str() {
            "content" => *kdf::DekKeys::derive(&dek).content.expose(),
            "descriptor" => *kdf::DekKeys::derive(&dek).descriptor.expose(),
            "payload" => *kdf::payload_key(&dek).expose(),
            "spool" => *kdf::spool_key(&dek).expose(),
            "fingerprint" => *kdf::fingerprint_key(&dek).expose(),
            "commitment" => {
                assert_eq!(dek.commitment(), tenant.commitment());
                dek.commitment()
            }
            "tenant-page" => *kdf::tenant_page_key(&tenant).expose(),
            "tenant-keyring" => *kdf::tenant_keyring_key(&tenant).expose(),
            "region-page" => *kdf::region_page_key(&epoch).expose(),
            "region-keyring" => *kdf::region_keyring_key(&epoch).expose(),
            "certificate-signing" => *kdf::certificate_seed(&Secret::from_bytes(key)).expose(),
            other => panic!("no function for the kdf vector={other}"),
        };
        assert_eq!(derived, vector.key("derived"), "vector={}", vector.name);
    }
}

#[test]
fn blind_vectors_are_computed_by_their_functions() {
    for vector in vectors("blind", 6) {
        let key = vector.key("key");
        let (index, request) = (IndexKey::from_bytes(key), RequestKey::from_bytes(key));
        let mac = match vector.name.as_str() {
            "identifier-tel" => blind::blind(&index, blind::IdentifierKind::Tel, "+43123456789").to_vec(),
            "identifier-external-record" => {
                blind::blind(&index, blind::IdentifierKind::ExternalRecord, "call-ä").to_vec()
            }
            "request" => blind::request_mac(&request, &fixed().tenant, &"req-1".parse().unwrap()).to_vec(),
            "request-fingerprint" => blind::request_fingerprint(&request, &[b"ab", b"", b"c"]).to_vec(),
            "record-fingerprint" => {
                let of_record = kdf::fingerprint_key(&Dek::from_bytes(vector.key("dek")));
                assert_eq!(*of_record.expose(), key);
                let asked = hex::decode(vector.value["fields"][0]["bytes"].as_str().unwrap()).unwrap();
                blind::record_fingerprint(&of_record, &[&asked]).to_vec()
            }
            "row" => blind::row_mac(&RowMacKey::from_bytes(key), b"\x01key", b"value").to_vec(),
            other => panic!("no function for the blind vector={other}"),
        };
        assert_eq!(mac, vector.hex("mac"), "vector={}", vector.name);
    }
}

#[test]
fn page_vectors_are_recomputed_or_refused() {
    for vector in vectors("page", 18) {
        match vector.error() {
            Some(error) => {
                assert_eq!(
                    refusal(PageState::from_bytes(&vector.hex("state"))),
                    Some(error),
                    "vector={}",
                    vector.name
                );
            }
            None => recompute_page(&vector),
        }
    }
}

fn recompute_page(vector: &Vector) {
    let fresh = [&[1, 0, 1, 0, 0, 0], vector.key("root").as_slice()].concat();
    let mut page = PageState::from_bytes(&fresh).unwrap();
    let punctured = vector.value["punctured"].as_array().unwrap();
    let punctured: Vec<u16> = punctured
        .iter()
        .map(|slot| slot.as_u64().unwrap() as u16)
        .collect();
    for slot in &punctured {
        page.puncture(*slot).unwrap();
    }
    assert!(
        page.to_bytes().expose() == vector.hex("state"),
        "vector={}",
        vector.name
    );
    assert!(
        punctured.iter().all(|slot| page.is_punctured(*slot)),
        "vector={}",
        vector.name
    );
    for (slot, key) in vector.value["slot_keys"].as_object().unwrap() {
        let derived = page.slot_key(slot.parse().unwrap()).unwrap();
        assert_eq!(
            hex::encode(derived.expose()),
            key.as_str().unwrap(),
            "vector={} slot={slot}",
            vector.name
        );
    }
}

#[test]
fn wrap_vectors_open_or_are_refused() {
    for vector in vectors("wrap", 13) {
        let slot_key = SlotKey::from_bytes(vector.key("slot_key"));
        let (wrapped, aad, commitment) = (vector.hex("wrapped"), vector.hex("aad"), vector.hex("commitment"));
        let opened = kdf::open_dek(&slot_key, &wrapped, &aad, &commitment);
        match vector.error() {
            Some(error) => assert_eq!(refusal(opened), Some(error), "vector={}", vector.name),
            None => assert_eq!(
                *opened.unwrap().expose(),
                vector.key("dek"),
                "vector={}",
                vector.name
            ),
        }
    }
}

#[test]
fn extent_vectors_open_or_are_refused() {
    for vector in vectors("extent", 25) {
        let (sealed, len) = (
            sealed(&vector),
            vector.value["plaintext_length"].as_u64().unwrap(),
        );
        let opened = we_open(&vector.key("content_key"), &vector.hex("aad"), len, &sealed);
        match vector.error() {
            Some(error) => assert_eq!(refusal(opened), Some(error), "vector={}", vector.name),
            None => {
                assert!(opened.unwrap() == pattern(len as usize), "vector={}", vector.name);
                assert_eq!(
                    sealed.len() as u64,
                    stream::ciphertext_len(len),
                    "vector={}",
                    vector.name
                );
                assert_eq!(
                    tags_digest(&sealed),
                    vector.key("tags_digest"),
                    "vector={}",
                    vector.name
                );
            }
        }
    }
}

/// The ciphertext of a vector: spelt out, or ranges of another's.
fn sealed(vector: &Vector) -> Vec<u8> {
    let from = &vector.value["sealed_from"];
    let Some(file) = from["file"].as_str() else {
        return vector.hex("sealed");
    };
    let whole = Vector::read("extent", file.trim_end_matches(".json")).hex("sealed");
    let ranges = from["ranges"].as_array().unwrap().iter();
    ranges
        .flat_map(|range| {
            let [start, end] = [0, 1].map(|at| range[at].as_u64().unwrap() as usize);
            whole[start..end].to_vec()
        })
        .collect()
}

fn tags_digest(sealed: &[u8]) -> [u8; 32] {
    let mut digest = TagsDigest::new();
    for segment in sealed.chunks(stream::SEGMENT_LEN) {
        digest.update(&segment[segment.len() - stream::TAG_LEN..]);
    }
    digest.finish()
}
