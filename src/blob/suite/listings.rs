//! Listings.

use super::{
    super::store::{Listing, ObjectVersion},
    Subject,
};

/// In the order of their bytes: `-` and `.` come before `/`, `_` and letters after.
const NAMES: [&str; 12] = [
    "a", "b-c", "b.c", "b/c", "b/c-d", "b/d/e", "b/d.e", "b/d/f/g", "b0", "b_c", "bb/a", "c/x",
];

async fn list(subject: &Subject, prefix: &str, delimited: bool, next: Option<&str>, limit: usize) -> Listing {
    let prefix = format!("{}{prefix}", subject.prefix);
    subject
        .store()
        .list(&prefix, delimited, next, limit)
        .await
        .unwrap()
}

/// Names of objects and folded prefixes, without the subject's prefix.
fn names(subject: &Subject, listing: &Listing) -> (Vec<String>, Vec<String>) {
    let relative = |name: &str| name.strip_prefix(&subject.prefix).unwrap().to_owned();
    let objects = listing.objects.iter().map(|o| relative(o.key.as_str())).collect();
    (objects, listing.prefixes.iter().map(|p| relative(p)).collect())
}

async fn assert_lists(subject: &Subject, prefix: &str, delimited: bool, objects: &[&str], prefixes: &[&str]) {
    let listing = list(subject, prefix, delimited, None, 1_000).await;
    let (found, folded) = names(subject, &listing);
    assert_eq!(
        (found.as_slice(), folded.as_slice()),
        (&owned(objects)[..], &owned(prefixes)[..]),
        "prefix {prefix:?}"
    );
    assert_eq!(listing.next, None);
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names = owned(names);
    names.sort();
    names
}

/// Reads all pages of `limit` and checks each.
async fn pages(subject: &Subject, delimited: bool, limit: usize) -> (Vec<String>, Vec<String>) {
    let (mut objects, mut prefixes, mut next) = (Vec::new(), Vec::new(), None::<String>);
    for _ in 0..50 {
        let listing = list(subject, "", delimited, next.as_deref(), limit).await;
        let (found, folded) = names(subject, &listing);
        let size = found.len() + folded.len();
        assert!(size <= limit, "a page of {size} where {limit} were asked for");
        assert!(
            size == limit || listing.next.is_none(),
            "a short page that is not the last"
        );
        objects.extend(found);
        prefixes.extend(folded);
        next = listing.next;
        if next.is_none() {
            return (objects, prefixes);
        }
    }
    panic!("pages without end")
}

/// Nothing, listed.
pub async fn empty_listing(subject: Subject) {
    for delimited in [false, true] {
        assert_lists(&subject, "", delimited, &[], &[]).await;
        assert_lists(&subject, "no/such/place/", delimited, &[], &[]).await;
    }
}

/// Everything, in the order of whole keys rather than of directories.
pub async fn all_in_byte_order(subject: Subject) {
    subject.put_all(&NAMES).await;
    let listing = list(&subject, "", false, None, 1_000).await;
    assert_eq!(names(&subject, &listing).0, sorted(&NAMES));
}

/// A prefix may end anywhere in a name.
pub async fn prefix_need_not_be_a_directory(subject: Subject) {
    subject.put_all(&NAMES).await;
    for prefix in [
        "a", "b", "b/", "b/d", "b/d/", "b/d/f/g", "b/d/f/g/", "bb", "c/xx", "z",
    ] {
        let expected: Vec<_> = NAMES
            .into_iter()
            .filter(|name| name.starts_with(prefix))
            .collect();
        let listing = list(&subject, prefix, false, None, 1_000).await;
        assert_eq!(
            names(&subject, &listing).0,
            sorted(&expected),
            "prefix {prefix:?}"
        );
    }
}

/// With a delimiter, what lies deeper shows as one prefix.
pub async fn delimiter_folds(subject: Subject) {
    subject.put_all(&NAMES).await;
    assert_lists(
        &subject,
        "",
        true,
        &["a", "b-c", "b.c", "b0", "b_c"],
        &["b/", "bb/", "c/"],
    )
    .await;
    assert_lists(&subject, "b/", true, &["b/c", "b/c-d", "b/d.e"], &["b/d/"]).await;
}

/// A prefix that stops short of `/` folds up to it.
pub async fn delimiter_without_slash(subject: Subject) {
    subject.put_all(&NAMES).await;
    assert_lists(&subject, "b", true, &["b-c", "b.c", "b0", "b_c"], &["b/", "bb/"]).await;
    assert_lists(&subject, "b/d", true, &["b/d.e"], &["b/d/"]).await;
    assert_lists(&subject, "c", true, &[], &["c/"]).await;
}

/// Pages of one miss nothing and repeat nothing.
pub async fn pages_of_one(subject: Subject) {
    subject.put_all(&NAMES).await;
    assert_eq!(pages(&subject, false, 1).await.0, sorted(&NAMES));
}

/// Nor do pages of two.
pub async fn pages_of_two(subject: Subject) {
    subject.put_all(&NAMES).await;
    assert_eq!(pages(&subject, false, 2).await.0, sorted(&NAMES));
}

/// Folded prefixes count, and come once, however the pages fall.
pub async fn delimited_pages(subject: Subject) {
    subject.put_all(&NAMES).await;
    for limit in 1..=9 {
        let (objects, prefixes) = pages(&subject, true, limit).await;
        assert_eq!(objects, owned(&["a", "b-c", "b.c", "b0", "b_c"]), "limit {limit}");
        assert_eq!(prefixes, owned(&["b/", "bb/", "c/"]), "limit {limit}");
    }
}

/// A page that holds exactly what is left is the last.
pub async fn last_page_has_no_next(subject: Subject) {
    subject.put_all(&NAMES).await;
    assert_eq!(list(&subject, "", false, None, NAMES.len()).await.next, None);
    assert!(
        list(&subject, "", false, None, NAMES.len() - 1)
            .await
            .next
            .is_some()
    );
}

/// A listing says what `head` says, but for the version.
pub async fn listing_tells_lengths(subject: Subject) {
    subject.put_all(&["l/one", "l/three"]).await;
    for info in list(&subject, "l/", false, None, 10).await.objects {
        let mut head = subject.store().head(&info.key).await.unwrap();
        head.version = ObjectVersion::default();
        assert_eq!(head, info);
    }
}

/// A prefix is compared with keys and is never a path.
pub async fn hostile_prefixes_list_nothing(subject: Subject) {
    subject.put_all(&["in"]).await;
    for prefix in ["../", "..", "/", "./", "a/../../", "//", "A/", "a\0/", "in/"] {
        let listing = subject.store().list(prefix, false, None, 10).await.unwrap();
        assert!(
            listing.objects.is_empty() && listing.next.is_none(),
            "prefix {prefix:?} gave {listing:?}"
        );
    }
}

/// Where the last object went, no prefix stays.
pub async fn deleted_objects_leave_no_prefix(subject: Subject) {
    subject.put_all(&["x/y/z", "x/y/w"]).await;
    subject.store().delete(&subject.key("x/y/z")).await.unwrap();
    assert_lists(&subject, "", true, &[], &["x/"]).await;
    subject.store().delete(&subject.key("x/y/w")).await.unwrap();
    assert_lists(&subject, "", true, &[], &[]).await;
}
