//! Objects read in part.

use super::{
    super::store::{ByteRange, StoreError},
    Subject, body,
};

const LENGTH: u64 = 70_001;

async fn with_object(subject: &Subject) {
    subject
        .store()
        .put(&subject.key("r"), body(70_001, 4))
        .await
        .unwrap();
}

fn exact(offset: u64, length: u64) -> ByteRange {
    ByteRange::Exact { offset, length }
}

async fn assert_reads(subject: &Subject, range: ByteRange, from: u64, to: u64) {
    let read = subject.store().get(&subject.key("r"), range).await.unwrap();
    let whole = body(70_001, 4);
    assert_eq!(
        read.bytes,
        whole[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()],
        "{range:?}"
    );
    assert_eq!(read.object_length, LENGTH, "{range:?}");
}

async fn assert_outside(subject: &Subject, name: &str, range: ByteRange, length: u64) {
    let read = subject.store().get(&subject.key(name), range).await;
    assert!(
        matches!(read, Err(StoreError::OutOfRange { object_length }) if object_length == length),
        "{range:?} gave {read:?}"
    );
}

/// First, last, middle and all bytes by exact range.
pub async fn exact_ranges(subject: Subject) {
    with_object(&subject).await;
    for (offset, length) in [
        (0, 1),
        (0, LENGTH),
        (1, LENGTH - 1),
        (LENGTH - 1, 1),
        (65_535, 2),
        (12_345, 6_789),
    ] {
        assert_reads(&subject, exact(offset, length), offset, offset + length).await;
    }
}

/// An exact range gives all of its bytes or none, and tells the object's length.
pub async fn exact_range_beyond_the_end(subject: Subject) {
    with_object(&subject).await;
    for (offset, length) in [
        (0, LENGTH + 1),
        (LENGTH - 1, 2),
        (LENGTH, 1),
        (LENGTH + 9, 9),
        (u64::MAX, u64::MAX),
    ] {
        assert_outside(&subject, "r", exact(offset, length), LENGTH).await;
    }
}

/// The last bytes; all when more are asked for.
pub async fn suffix_ranges(subject: Subject) {
    with_object(&subject).await;
    for length in [1, 8, LENGTH - 1, LENGTH, LENGTH + 1, u64::MAX >> 1] {
        assert_reads(
            &subject,
            ByteRange::Suffix { length },
            LENGTH.saturating_sub(length),
            LENGTH,
        )
        .await;
    }
}

/// An empty object has no byte to give, and a whole that is shorter than any suffix.
pub async fn ranges_of_an_empty_object(subject: Subject) {
    subject.store().put(&subject.key("e"), body(0, 0)).await.unwrap();
    assert_outside(&subject, "e", exact(0, 1), 0).await;
    let read = subject
        .store()
        .get(&subject.key("e"), ByteRange::Suffix { length: 9 })
        .await
        .unwrap();
    assert!(read.bytes.is_empty() && read.object_length == 0);
}

/// A missing object is missing, whatever the range.
pub async fn range_of_a_missing_object(subject: Subject) {
    for range in [ByteRange::Full, exact(0, 1), ByteRange::Suffix { length: 1 }] {
        let read = subject.store().get(&subject.key("none"), range).await;
        assert!(
            matches!(read, Err(StoreError::NotFound)),
            "{range:?} gave {read:?}"
        );
    }
}
