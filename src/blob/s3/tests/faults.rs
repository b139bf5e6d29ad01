//! What a network and a troubled store do, and what the store makes of it.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    bucket::{self, Ways},
    wire::{Answer, Request, Wire, refusal, said},
    *,
};

const LENGTH: usize = 10_000;

/// A rule for the first request, or the first few; the others are forwarded.
fn first(times: usize, answer: impl Fn() -> Answer) -> impl Fn(&Request, usize) -> Answer {
    move |_, before| if before < times { answer() } else { Answer::Forward }
}

/// An object put past the script, to be read through it.
async fn with_object(rule: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Wire {
    let wire = Wire::with(Ways::default(), impatient, rule).await;
    let whole: &'static [u8] = Box::leak(body(LENGTH).to_vec().into_boxed_slice());
    wire.bucket.plant("x", whole, std::time::UNIX_EPOCH);
    wire
}

fn impatient(settings: &mut Settings) {
    settings.patience.read = Duration::from_millis(300);
    settings.patience.operation = Duration::from_millis(1_500);
}

fn range(offset: u64, length: u64) -> ByteRange {
    ByteRange::Exact { offset, length }
}

fn assert_unavailable(result: Result<impl std::fmt::Debug, StoreError>) {
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
}

fn assert_denied(result: Result<impl std::fmt::Debug, StoreError>) {
    assert!(matches!(result, Err(StoreError::Denied(_))), "{result:?}");
}

#[tokio::test]
async fn a_busy_store_is_asked_again() {
    for (status, code) in [
        (503, "SlowDown"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
    ] {
        let wire = Wire::new(Ways::default(), first(2, move || refusal(status, code))).await;
        wire.store.put(&key("x"), body(LENGTH)).await.unwrap();
        assert_eq!(wire.seen().len(), 3, "{code}");
        let read = wire.store.get(&key("x"), ByteRange::Full).await.unwrap();
        assert_eq!(read.bytes, body(LENGTH));
    }
}

#[tokio::test]
async fn a_store_that_stays_busy_is_unavailable() {
    let wire = Wire::new(Ways::default(), |_, _| refusal(503, "SlowDown")).await;
    assert_unavailable(wire.store.put(&key("x"), body(10)).await);
    assert_eq!(wire.seen().len(), 3, "as often as configured");
}

#[tokio::test]
async fn a_full_store_is_full_and_not_asked_again() {
    for (status, code) in [(507, "InsufficientStorage"), (403, "QuotaExceeded")] {
        let wire = Wire::new(Ways::default(), move |_, _| refusal(status, code)).await;
        let refused = wire.store.put(&key("x"), body(10)).await;
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        assert_eq!(wire.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_reset_connection_is_made_again() {
    let wire = Wire::new(Ways::default(), first(2, || Answer::HangUp)).await;
    wire.store.put(&key("x"), body(LENGTH)).await.unwrap();
    let wire = with_object(first(2, || Answer::HangUp)).await;
    assert_eq!(wire.store.head(&key("x")).await.unwrap().length, LENGTH as u64);
}

/// The first `sent` bytes of an object, said to be all of it.
fn cut(sent: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
    [head.as_bytes(), &body(LENGTH)[..sent]].concat()
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_again() {
    let wire = with_object(first(2, || Answer::Say(cut(LENGTH / 2)))).await;
    let read = wire.store.get(&key("x"), ByteRange::Full).await.unwrap();
    assert_eq!(read.bytes, body(LENGTH));
    assert_eq!(wire.seen().len(), 3);
    let wire = with_object(|_, _| Answer::Say(cut(LENGTH - 1))).await;
    assert_unavailable(wire.store.get(&key("x"), ByteRange::Full).await);
}

#[tokio::test]
async fn a_body_that_stalls_is_read_again_and_ends_in_time() {
    let wire = with_object(first(1, || Answer::Stall(cut(100)))).await;
    let read = wire.store.get(&key("x"), ByteRange::Full).await.unwrap();
    assert_eq!(read.bytes, body(LENGTH));
    let wire = with_object(|_, _| Answer::Stall(cut(100))).await;
    let begun = Instant::now();
    assert_unavailable(wire.store.get(&key("x"), ByteRange::Full).await);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_store_that_says_nothing_is_given_up_in_time() {
    let wire = Wire::with(Ways::default(), impatient, |_, _| Answer::Stall(Vec::new())).await;
    let begun = Instant::now();
    assert_unavailable(wire.store.put(&key("x"), body(10)).await);
    assert_unavailable(wire.store.head(&key("x")).await);
    assert_unavailable(wire.store.list("", false, None, 10).await);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// A part of an object, with whatever length and range the headers claim.
fn part(headers: &str, sent: &[u8]) -> Answer {
    said(206, headers, sent)
}

#[tokio::test]
async fn lengths_that_do_not_agree_are_never_taken_for_data() {
    let ten = body(10);
    let cases: [(&str, Answer); 5] = [
        (
            "fewer bytes",
            part("content-range: bytes 0-9/10000\r\n", &ten[..9]),
        ),
        (
            "more bytes",
            part("content-range: bytes 0-9/10000\r\n", &body(11)),
        ),
        ("another place", part("content-range: bytes 1-10/10000\r\n", &ten)),
        (
            "a range that is none",
            part("content-range: bytes */10000\r\n", &ten),
        ),
        ("all of it", said(200, "", &body(LENGTH))),
    ];
    for (case, answer) in cases {
        let answer = Mutex::new(Some(answer));
        let wire = with_object(move |_, _| answer.lock().unwrap().take().unwrap_or(Answer::HangUp)).await;
        let read = wire.store.get(&key("x"), range(0, 10)).await;
        assert!(
            matches!(read, Err(StoreError::Protocol(_) | StoreError::OutOfRange { .. })),
            "{case} gave {read:?}"
        );
    }
}

#[tokio::test]
async fn a_body_of_unsaid_length_is_counted() {
    let chunked = |length: usize| {
        let head = "HTTP/1.1 206 OK\r\ntransfer-encoding: chunked\r\ncontent-range: bytes 0-9/10000\r\n\r\n";
        let chunk = format!("{length:x}\r\n");
        Answer::Say([head.as_bytes(), chunk.as_bytes(), &body(length), b"\r\n0\r\n\r\n"].concat())
    };
    let wire = with_object(move |_, _| chunked(10)).await;
    assert_eq!(
        wire.store.get(&key("x"), range(0, 10)).await.unwrap().bytes,
        body(10)
    );
    let wire = with_object(move |_, _| chunked(11)).await;
    let longer = wire.store.get(&key("x"), range(0, 10)).await;
    assert!(matches!(longer, Err(StoreError::Protocol(_))), "{longer:?}");
    let wire = with_object(move |_, _| chunked(9)).await;
    assert_unavailable(wire.store.get(&key("x"), range(0, 10)).await);
}

#[tokio::test]
async fn a_lost_ack_of_a_put_is_a_put() {
    for versions in [false, true] {
        let ways = Ways {
            versions,
            ..Ways::default()
        };
        let wire = Wire::new(ways, first(1, || Answer::Lose)).await;
        let version = wire.store.put(&key("x"), body(LENGTH)).await.unwrap();
        assert_eq!(wire.bucket.kept()["x"], if versions { 2 } else { 1 });
        let head = wire.store.head(&key("x")).await.unwrap();
        assert_eq!((head.length, head.version), (LENGTH as u64, version));
    }
}

#[tokio::test]
async fn a_lost_ack_of_a_completion_is_an_upload_that_is_gone_and_an_object_that_is_there() {
    let ways = Ways {
        versions: true,
        ..Ways::default()
    };
    let is_completion = |request: &Request| request.is("POST") && request.head.contains("?uploadId=");
    let wire = Wire::new(ways, move |request, before| match before {
        0..=2 if is_completion(request) => Answer::Lose,
        _ => Answer::Forward,
    })
    .await;
    let upload = wire.store.begin(&key("x")).await.unwrap();
    let part = wire
        .store
        .put_part(&key("x"), &upload, 1, 0, body(LENGTH))
        .await
        .unwrap();
    let again = wire.store.complete(&key("x"), &upload, &[part]).await;
    assert!(matches!(again, Err(StoreError::UploadNotFound)), "{again:?}");
    let head = wire.store.head(&key("x")).await.unwrap();
    assert_eq!(head.length, LENGTH as u64);
    assert!(!head.version.0.is_empty());
}

#[tokio::test]
async fn an_error_in_a_completion_that_began_well_is_an_error() {
    let error = b"<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>later</Message></Error>";
    let rule = move |request: &Request, before| match (request.is("POST"), before) {
        (true, 2) => said(200, "content-type: application/xml\r\n", error),
        _ => Answer::Forward,
    };
    let wire = Wire::new(Ways::default(), rule).await;
    let upload = wire.store.begin(&key("x")).await.unwrap();
    let part = wire
        .store
        .put_part(&key("x"), &upload, 1, 0, body(LENGTH))
        .await
        .unwrap();
    match wire.store.complete(&key("x"), &upload, &[part]).await {
        Ok(_) => assert_eq!(wire.store.head(&key("x")).await.unwrap().length, LENGTH as u64),
        Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}"),
    }
    assert_eq!(
        wire.bucket.uploads_under_way(),
        usize::from(wire.bucket.kept().is_empty())
    );
}

#[tokio::test]
async fn a_completion_whose_answer_is_garbled_is_what_the_object_says() {
    for done in [true, false] {
        let rule = move |request: &Request, before| match (request.is("POST"), before) {
            (true, 2) if done => Answer::Garble,
            (true, 2) => said(200, "content-type: application/xml\r\n", b"<What/>"),
            _ => Answer::Forward,
        };
        let wire = Wire::new(Ways::default(), rule).await;
        let upload = wire.store.begin(&key("x")).await.unwrap();
        let part = wire
            .store
            .put_part(&key("x"), &upload, 1, 0, body(LENGTH))
            .await
            .unwrap();
        let completed = wire.store.complete(&key("x"), &upload, &[part]).await;
        assert_eq!(completed.is_ok(), done, "{completed:?}");
    }
}

/// Refuses whoever still comes with the first key.
fn expired(request: &Request, _: usize) -> Answer {
    let by = request.header("authorization").unwrap_or_default();
    match by.contains(bucket::ACCESS_KEY) {
        true if request.is("HEAD") => said(400, "", b""),
        true => refusal(400, "ExpiredToken"),
        false => Answer::Forward,
    }
}

#[tokio::test]
async fn expired_credentials_are_looked_up_again() {
    for call in ["put", "head", "list"] {
        let wire = Wire::new(Ways::default(), expired).await;
        wire.bucket.plant("x", b"there", std::time::UNIX_EPOCH);
        credentials(&wire.keep, bucket::NEWER_ACCESS_KEY, bucket::SECRET_KEY);
        match call {
            "put" => drop(wire.store.put(&key("y"), body(10)).await.unwrap()),
            "head" => assert_eq!(wire.store.head(&key("x")).await.unwrap().length, 5),
            _ => drop(wire.store.list("", false, None, 10).await.unwrap()),
        }
        let last = wire.seen().pop().unwrap();
        assert!(
            last.header("authorization")
                .unwrap()
                .contains(bucket::NEWER_ACCESS_KEY),
            "{call}"
        );
    }
}

#[tokio::test]
async fn credentials_that_stay_expired_are_denied() {
    let wire = Wire::new(Ways::default(), expired).await;
    assert_denied(wire.store.put(&key("x"), body(10)).await);
    assert_eq!(
        wire.seen().len(),
        2,
        "once with the old, once with what was found"
    );
    assert_denied(wire.store.put(&key("x"), body(10)).await);
    assert_eq!(
        wire.seen().len(),
        3,
        "nobody is asked for credentials all the time"
    );
}

#[tokio::test]
async fn a_bucket_that_is_gone_for_a_while_is_unavailable_and_nothing_is_not_found() {
    let Rig {
        store,
        bucket,
        keep: _keep,
    } = Rig::new(Ways::default()).await;
    store.put(&key("x"), body(10)).await.unwrap();
    let upload = store.begin(&key("y")).await.unwrap();
    let part = store.put_part(&key("y"), &upload, 1, 0, body(10)).await.unwrap();
    bucket.change(|ways| ways.gone = true);
    assert_unavailable(store.get(&key("x"), ByteRange::Full).await);
    assert_unavailable(store.get(&key("x"), range(20, 1)).await);
    assert_unavailable(store.head(&key("x")).await);
    assert_unavailable(store.head(&key("never")).await);
    assert_unavailable(store.list("", false, None, 10).await);
    assert_unavailable(store.uploads("").await);
    assert_unavailable(store.put(&key("z"), body(10)).await);
    assert_unavailable(store.overwrite(&key("x"), body(11)).await);
    assert_unavailable(store.delete(&key("x")).await);
    assert_unavailable(store.begin(&key("z")).await);
    assert_unavailable(store.put_part(&key("y"), &upload, 2, 10, body(10)).await);
    assert_unavailable(
        store
            .complete(&key("y"), &upload, std::slice::from_ref(&part))
            .await,
    );
    assert_unavailable(store.abort(&key("y"), &upload).await);
    bucket.change(|ways| ways.gone = false);
    assert_eq!(store.head(&key("x")).await.unwrap().length, 10);
    store.complete(&key("y"), &upload, &[part]).await.unwrap();
}

#[tokio::test]
async fn what_access_rules_forbid_is_denied() {
    let Rig {
        store,
        bucket,
        keep: _keep,
    } = Rig::new(Ways::default()).await;
    bucket.change(|ways| ways.forbidden = ["PutObject", "GetObject", "HeadObject"].into());
    for refused in [
        store.put(&key("x"), body(1)).await.map(drop),
        store.get(&key("x"), ByteRange::Full).await.map(drop),
        store.head(&key("x")).await.map(drop),
    ] {
        assert_denied(refused);
    }
}

#[tokio::test]
async fn over_tls_bodies_are_not_signed_and_carry_their_crc32c() {
    let wire = Wire::over_tls(true, |_, _| Answer::Forward).await.unwrap();
    let upload = wire.store.begin(&key("y")).await.unwrap();
    let part = wire
        .store
        .put_part(&key("y"), &upload, 1, 0, body(LENGTH))
        .await
        .unwrap();
    wire.store.complete(&key("y"), &upload, &[part]).await.unwrap();
    wire.store.put(&key("x"), body(LENGTH)).await.unwrap();
    let expected = STANDARD.encode(crc32c::crc32c(&body(LENGTH)).to_be_bytes());
    let puts: Vec<_> = wire
        .seen()
        .into_iter()
        .filter(|request| request.is("PUT"))
        .collect();
    assert_eq!(puts.len(), 2);
    for put in puts {
        assert_eq!(put.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
        assert_eq!(put.header("x-amz-checksum-crc32c"), Some(expected.as_str()));
        assert_eq!(
            put.header("content-length"),
            Some("10000"),
            "no chunks, no trailers"
        );
        assert_eq!(put.header("if-none-match"), None);
    }
    let read = wire.store.get(&key("x"), ByteRange::Full).await.unwrap();
    assert_eq!(read.bytes, body(LENGTH));
}

/// The certificate must be that of the host whose name the bucket is a part of.
#[tokio::test]
async fn a_bucket_as_a_host_is_asked_by_that_name_over_tls() {
    let as_host = |settings: &mut Settings| settings.path_style = false;
    let wire = Wire::over_tls_with(true, as_host, |_, _| Answer::Forward)
        .await
        .unwrap();
    wire.store.put(&key("a/b"), body(10)).await.unwrap();
    let put = wire.seen().pop().unwrap();
    assert!(put.head.starts_with("PUT /a/b?"), "{}", put.head);
    assert!(put.header("host").unwrap().starts_with("calls.localhost:"));
    assert_eq!(put.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    let elsewhere = |settings: &mut Settings| {
        settings.path_style = false;
        settings.bucket = "another".to_owned();
    };
    let refused = Wire::over_tls_with(true, elsewhere, |_, _| Answer::Forward).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("ca_file"), "{refused}");
}

#[tokio::test]
async fn an_authority_that_nobody_named_is_not_trusted() {
    let refused = Wire::over_tls(false, |_, _| Answer::Forward)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("ca_file"), "{refused}");
}

#[tokio::test]
async fn in_plain_bodies_are_signed_and_a_checksum_may_be_left_out() {
    let none = |settings: &mut Settings| settings.checksum = Checksum::None;
    let wire = Wire::with(Ways::default(), none, |_, _| Answer::Forward).await;
    wire.store.put(&key("x"), body(10)).await.unwrap();
    let put = wire.seen().pop().unwrap();
    assert_eq!(put.header("x-amz-content-sha256").unwrap().len(), 64, "a SHA-256");
    assert!(!put.head.contains("checksum"), "{}", put.head);
    let upload = wire.store.begin(&key("y")).await.unwrap();
    let part = wire
        .store
        .put_part(&key("y"), &upload, 1, 0, body(10))
        .await
        .unwrap();
    wire.store.complete(&key("y"), &upload, &[part]).await.unwrap();
    let part = wire
        .seen()
        .into_iter()
        .rfind(|request| request.is("PUT"))
        .unwrap();
    assert_eq!(
        part.header("x-amz-content-sha256").unwrap().len(),
        64,
        "a SHA-256"
    );
}

#[tokio::test]
async fn a_body_that_changed_on_its_way_is_refused_by_its_crc32c() {
    let corrupt_once = first(1, || Answer::Corrupt);
    let wire = Wire::over_tls(true, corrupt_once).await.unwrap();
    assert_unavailable(wire.store.put(&key("x"), body(LENGTH)).await);
    assert!(wire.bucket.kept().is_empty(), "{:?}", wire.bucket.kept());
    wire.store.put(&key("x"), body(LENGTH)).await.unwrap();
}
