//! Objects written in parts.

use bytes::Bytes;

use super::{
    super::store::{ByteRange, ObjectKey, PartReceipt, StoreError, UploadId},
    Subject, body,
};

/// An upload that a test drives.
struct Driver<'a> {
    subject: &'a Subject,
    key: ObjectKey,
    id: UploadId,
}

impl<'a> Driver<'a> {
    async fn begin(subject: &'a Subject, name: &str) -> Self {
        let key = subject.key(name);
        let id = subject.store().begin(&key).await.unwrap();
        Self { subject, key, id }
    }

    /// Bytes of part `number`; the last of a test may be shorter.
    fn part(&self, number: u32) -> Bytes {
        body(self.subject.capabilities.part_bytes, number)
    }

    fn offset(&self, number: u32) -> u64 {
        u64::from(number - 1) * self.subject.capabilities.part_bytes as u64
    }

    async fn put(&self, number: u32) -> PartReceipt {
        self.put_body(number, self.part(number)).await.unwrap()
    }

    async fn put_body(&self, number: u32, body: Bytes) -> Result<PartReceipt, StoreError> {
        self.subject
            .store()
            .put_part(&self.key, &self.id, number, self.offset(number), body)
            .await
    }

    async fn complete(&self, parts: &[PartReceipt]) -> Result<(), StoreError> {
        self.subject
            .store()
            .complete(&self.key, &self.id, parts)
            .await
            .map(drop)
    }

    /// The object is parts `1..=last`.
    async fn assert_whole(&self, last: u32) {
        let expected: Vec<u8> = (1..=last).flat_map(|number| self.part(number)).collect();
        let read = self
            .subject
            .store()
            .get(&self.key, ByteRange::Full)
            .await
            .unwrap()
            .bytes;
        assert!(read == expected, "the object is not its parts");
        assert_eq!(
            self.subject.store().head(&self.key).await.unwrap().length,
            expected.len() as u64
        );
    }
}

/// What is asked of an upload that is gone is answered so, where the store can tell.
async fn assert_gone<T: std::fmt::Debug>(
    subject: &Subject,
    asked: impl Future<Output = Result<T, StoreError>>,
) {
    if subject.capabilities.knows_uploads {
        let result = asked.await;
        assert!(matches!(result, Err(StoreError::UploadNotFound)), "{result:?}");
    }
}

fn assert_refused(result: Result<(), StoreError>) {
    assert!(matches!(result, Err(StoreError::Protocol(_))), "{result:?}");
}

/// One after the other.
pub async fn parts_in_order(subject: Subject) {
    let upload = Driver::begin(&subject, "up/in-order").await;
    let mut parts = Vec::new();
    for number in 1..=3 {
        parts.push(upload.put(number).await);
    }
    assert_eq!(parts[1].number, 2);
    assert_eq!(parts[1].length, subject.capabilities.part_bytes as u64);
    upload.complete(&parts).await.unwrap();
    upload.assert_whole(3).await;
}

/// The last first.
pub async fn parts_out_of_order(subject: Subject) {
    let upload = Driver::begin(&subject, "up/out-of-order").await;
    let mut parts = Vec::new();
    for number in [4, 2, 1, 3] {
        parts.push(upload.put(number).await);
    }
    parts.sort_by_key(|part| part.number);
    upload.complete(&parts).await.unwrap();
    upload.assert_whole(4).await;
}

/// All at once.
pub async fn parts_in_parallel(subject: Subject) {
    let upload = Driver::begin(&subject, "up/parallel").await;
    let parts = futures_util::future::join_all((1..=6).map(|number| upload.put(number))).await;
    upload.complete(&parts).await.unwrap();
    upload.assert_whole(6).await;
}

/// 20 MiB, the last part shorter than the others; read back in pieces as well.
pub async fn large_object(subject: Subject) {
    let size = subject.capabilities.part_bytes.max(6 << 20);
    let whole = body((20 << 20) + 17, 77);
    let key = subject.key("up/large");
    let id = subject.store().begin(&key).await.unwrap();
    let mut parts = Vec::new();
    for (number, offset) in (1..).zip((0..whole.len()).step_by(size)) {
        let part = whole.slice(offset..whole.len().min(offset + size));
        parts.push(
            subject
                .store()
                .put_part(&key, &id, number, offset as u64, part)
                .await
                .unwrap(),
        );
    }
    subject.store().complete(&key, &id, &parts).await.unwrap();
    assert!(subject.whole("up/large").await == whole);
    let range = ByteRange::Exact {
        offset: size as u64 - 100,
        length: 200,
    };
    assert_eq!(
        subject.store().get(&key, range).await.unwrap().bytes,
        whole[size - 100..size + 100]
    );
    let tail = subject
        .store()
        .get(&key, ByteRange::Suffix { length: 64 << 10 })
        .await
        .unwrap();
    assert_eq!(tail.bytes, whole[whole.len() - (64 << 10)..]);
}

/// An upload may be one part of any size.
pub async fn single_small_part(subject: Subject) {
    let upload = Driver::begin(&subject, "up/small").await;
    let part = upload.put_body(1, body(3, 9)).await.unwrap();
    upload.complete(&[part]).await.unwrap();
    assert_eq!(subject.whole("up/small").await, body(3, 9));
}

/// Until it is complete, nothing is there.
pub async fn invisible_before_complete(subject: Subject) {
    let upload = Driver::begin(&subject, "up/hidden").await;
    subject.assert_absent("up/hidden").await;
    let part = upload.put(1).await;
    subject.assert_absent("up/hidden").await;
    upload.complete(&[part]).await.unwrap();
    upload.assert_whole(1).await;
}

/// After an abort there is neither object nor upload.
pub async fn abort_forgets(subject: Subject) {
    let upload = Driver::begin(&subject, "up/aborted").await;
    let part = upload.put(1).await;
    subject.store().abort(&upload.key, &upload.id).await.unwrap();
    subject.assert_absent("up/aborted").await;
    assert_gone(&subject, upload.put_body(2, body(5, 5))).await;
    assert_gone(&subject, upload.complete(&[part])).await;
}

/// Aborting twice, or what never was, or what was completed, harms nothing.
pub async fn abort_is_idempotent(subject: Subject) {
    let upload = Driver::begin(&subject, "up/abort").await;
    for _ in 0..2 {
        subject.store().abort(&upload.key, &upload.id).await.unwrap();
    }
    let done = Driver::begin(&subject, "up/done").await;
    let part = done.put(1).await;
    done.complete(&[part]).await.unwrap();
    subject.store().abort(&done.key, &done.id).await.unwrap();
    done.assert_whole(1).await;
}

/// The second completion does nothing: it says that the upload is gone, or that all is well.
pub async fn complete_twice(subject: Subject) {
    let upload = Driver::begin(&subject, "up/twice").await;
    let part = upload.put(1).await;
    upload.complete(std::slice::from_ref(&part)).await.unwrap();
    let again = upload.complete(&[part]).await;
    assert!(
        matches!(again, Ok(()) | Err(StoreError::UploadNotFound)),
        "{again:?}"
    );
    upload.assert_whole(1).await;
}

/// A part that was never put is missed, and can still be put.
pub async fn missing_part(subject: Subject) {
    let upload = Driver::begin(&subject, "up/missing").await;
    let first = upload.put(1).await;
    let forged = PartReceipt {
        number: 2,
        ..first.clone()
    };
    assert_refused(upload.complete(&[first.clone(), forged]).await);
    subject.assert_absent("up/missing").await;
    let second = upload.put(2).await;
    upload.complete(&[first, second]).await.unwrap();
    upload.assert_whole(2).await;
}

/// An object has parts.
pub async fn no_parts(subject: Subject) {
    let upload = Driver::begin(&subject, "up/none").await;
    assert_refused(upload.complete(&[]).await);
    subject.assert_absent("up/none").await;
}

/// A receipt for other bytes is refused.
pub async fn wrong_etag(subject: Subject) {
    let upload = Driver::begin(&subject, "up/etag").await;
    let first = upload.put(1).await;
    let second = upload.put(2).await;
    let forged = PartReceipt {
        number: 1,
        ..second.clone()
    };
    assert_refused(upload.complete(&[forged, second]).await);
    subject.assert_absent("up/etag").await;
    assert!(!first.etag.is_empty());
}

/// Parts with a hole, or over each other, where the store looks at offsets.
pub async fn parts_that_do_not_adjoin(subject: Subject) {
    if !subject.capabilities.checks_offsets {
        return;
    }
    let upload = Driver::begin(&subject, "up/hole").await;
    let parts = [upload.put(1).await, upload.put(3).await];
    assert_refused(upload.complete(&parts).await);
    let over = subject
        .store()
        .put_part(&upload.key, &upload.id, 2, upload.offset(2) - 1, upload.part(2))
        .await;
    assert_refused(over.map(drop));
    subject.assert_absent("up/hole").await;
}

/// The later of two parts of the same number counts, and only its receipt.
pub async fn part_put_again_replaces(subject: Subject) {
    let upload = Driver::begin(&subject, "up/again").await;
    let stale = upload
        .put_body(1, body(subject.capabilities.part_bytes, 99))
        .await
        .unwrap();
    let second = upload.put(2).await;
    let first = upload.put(1).await;
    assert_ne!(stale.etag, first.etag);
    assert_refused(upload.complete(&[stale, second.clone()]).await);
    upload.complete(&[first, second]).await.unwrap();
    upload.assert_whole(2).await;
}

/// A last part put again shorter leaves no tail of the longer one; parts that are not named are dropped.
pub async fn last_part_may_shrink(subject: Subject) {
    let upload = Driver::begin(&subject, "up/shrink").await;
    let first = upload.put(1).await;
    upload.put(2).await;
    upload.put(3).await;
    let second = upload.put_body(2, body(7, 7)).await.unwrap();
    upload.complete(&[first, second]).await.unwrap();
    let read = subject.whole("up/shrink").await;
    assert!(
        read == [upload.part(1), body(7, 7)].concat(),
        "{} bytes",
        read.len()
    );
}

/// A part that comes late changes nothing.
pub async fn part_after_the_end(subject: Subject) {
    let upload = Driver::begin(&subject, "up/late").await;
    let part = upload.put(1).await;
    upload.complete(&[part]).await.unwrap();
    assert_gone(&subject, upload.put_body(1, body(10, 1))).await;
    upload.assert_whole(1).await;
}

/// Uploads that never were; names that could lead elsewhere.
pub async fn unknown_upload(subject: Subject) {
    let key = subject.key("up/unknown");
    for id in ["", "x", "../../etc", "0123456789abcdef0123456789abcdef"] {
        let id = UploadId(id.to_owned());
        assert_gone(&subject, subject.store().put_part(&key, &id, 1, 0, body(5, 5))).await;
        let part = PartReceipt {
            number: 1,
            etag: "00000000".to_owned(),
            length: 5,
        };
        assert_gone(&subject, subject.store().complete(&key, &id, &[part])).await;
        subject.store().abort(&key, &id).await.unwrap();
    }
}

/// An upload belongs to its key.
pub async fn upload_of_another_key(subject: Subject) {
    if !subject.capabilities.knows_uploads {
        return;
    }
    let upload = Driver::begin(&subject, "up/mine").await;
    let part = upload.put(1).await;
    let other = subject.key("up/other");
    let (store, id) = (subject.store(), &upload.id);
    assert_gone(
        &subject,
        store.put_part(&other, id, 2, upload.offset(2), body(5, 5)),
    )
    .await;
    assert_gone(&subject, store.complete(&other, id, std::slice::from_ref(&part))).await;
    subject.store().abort(&other, &upload.id).await.unwrap();
    upload.complete(&[part]).await.unwrap();
    upload.assert_whole(1).await;
}

/// A completion does not replace either, where the store can tell.
pub async fn completion_refuses_to_replace(subject: Subject) {
    if !subject.capabilities.no_overwrite {
        return;
    }
    let upload = Driver::begin(&subject, "up/taken").await;
    let part = upload.put(1).await;
    subject.store().put(&upload.key, body(10, 1)).await.unwrap();
    let refused = upload.complete(&[part]).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists)), "{refused:?}");
    assert_eq!(subject.whole("up/taken").await, body(10, 1));
}

/// Uploads of one key do not see each other's parts.
pub async fn two_uploads_of_one_key(subject: Subject) {
    let one = Driver::begin(&subject, "up/same").await;
    let two = Driver::begin(&subject, "up/same").await;
    assert_ne!(one.id, two.id);
    let part = one.put(1).await;
    let other = two.put_body(1, body(100, 100)).await.unwrap();
    subject.store().abort(&two.key, &two.id).await.unwrap();
    assert_gone(&subject, two.complete(&[other])).await;
    one.complete(&[part]).await.unwrap();
    one.assert_whole(1).await;
}

/// Uploads under way are listed by prefix until they end.
pub async fn uploads_are_listed(subject: Subject) {
    if !subject.capabilities.lists_uploads {
        return;
    }
    let listed = async |prefix: &str| {
        let uploads = subject
            .store()
            .uploads(subject.key(prefix).as_str())
            .await
            .unwrap();
        uploads
            .into_iter()
            .map(|(key, id, _)| (key, id))
            .collect::<Vec<_>>()
    };
    let one = Driver::begin(&subject, "list/one").await;
    let two = Driver::begin(&subject, "list/two").await;
    let part = two.put(1).await;
    let named = |upload: &Driver<'_>| (upload.key.clone(), upload.id.clone());
    assert_eq!(listed("list").await, [named(&one), named(&two)]);
    assert_eq!(listed("list/tw").await, [named(&two)]);
    assert!(listed("other").await.is_empty());
    subject.store().abort(&one.key, &one.id).await.unwrap();
    two.complete(&[part]).await.unwrap();
    assert!(listed("list").await.is_empty());
}
