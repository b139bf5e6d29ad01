use prost_types::{Duration, FieldMask, Timestamp};

use super::{time::*, *};

const AT: Path<'static> = Path::root("at");

#[test]
fn a_path_is_written_as_the_request_is_nested() {
    let (spec, parties) = (Path::root("spec"), "parties");
    let list = spec.field(parties);
    assert_eq!(list.item(1).field("tel").to_string(), "spec.parties[1].tel");
}

#[test]
fn pages_have_a_default_and_a_greatest_size() {
    assert_eq!(page_size(0).unwrap(), 50);
    assert_eq!(page_size(1000).unwrap(), 1000);
    assert!(page_size(1001).is_err() && page_size(-1).is_err());
}

#[test]
fn times_keep_their_microsecond_on_both_sides_of_the_epoch() {
    for (seconds, nanos) in [
        (0, 0),
        (-1, 999_999_000),
        (-62_135_596_800, 0),
        (253_402_300_799, 999_999_000),
    ] {
        let given = Timestamp { seconds, nanos };
        assert_eq!(moment_to_proto(moment(Some(&given), &AT).unwrap()), given);
    }
    let fine = Timestamp {
        seconds: 1,
        nanos: 1_999,
    };
    assert_eq!(moment(Some(&fine), &AT).unwrap().micros(), 1_000_001);
    let given = Duration {
        seconds: 61,
        nanos: 5_000_000,
    };
    let millis = optional_millis(Some(&given), &AT).unwrap().unwrap();
    assert_eq!((millis, millis_to_proto(millis)), (61_005, given));
}

#[test]
fn a_mask_names_known_fields_only() {
    let mask = |paths: &[&str]| FieldMask {
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
    };
    let masked = |paths: &[&str]| masked(Some(&mask(paths)), &["a", "b"], &["c"]);
    assert_eq!(masked(&["b", "a", "b"]).unwrap().len(), 2);
    let unknown = masked(&["a", "x"]).unwrap_err();
    assert_eq!(unknown.field.as_deref(), Some("update_mask.paths[1]"));
    assert!(unknown.message.ends_with("path=x"));
    let hostile = masked(&["Jane Doe"]).unwrap_err();
    assert!(!hostile.message.contains("Jane"));
    assert!(
        masked(&["c"])
            .unwrap_err()
            .message
            .starts_with("cannot be changed")
    );
}
