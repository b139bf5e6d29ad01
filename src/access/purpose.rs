//! The purpose that a call declares in its metadata.

use crate::domain::{
    error::{Error, Kind},
    purpose::Purpose,
};

/// The metadata key.
pub const PURPOSE_KEY: &str = "callvault-purpose";

/// The purpose that the metadata value declares; `None` stands for a call without the key.
///
/// # Errors
/// `Invalid`: `PURPOSE_REQUIRED` without a value, `INVALID_FIELD` for anything but a term of the vocabulary. What was
/// sent is not repeated: it may be anything.
pub fn required(declared: Option<&str>) -> Result<Purpose, Error> {
    optional(declared)?.ok_or_else(|| Error {
        field: Some(PURPOSE_KEY.to_owned()),
        ..Error::new(
            Kind::Invalid,
            "PURPOSE_REQUIRED",
            "this call must declare why: set the metadata key callvault-purpose to a term such as ServiceProvision",
        )
    })
}

/// The same where a purpose may be left out.
///
/// # Errors
/// `Invalid` for anything but a term of the vocabulary.
pub fn optional(declared: Option<&str>) -> Result<Option<Purpose>, Error> {
    declared
        .map(|term| {
            term.parse().map_err(|invalid: crate::domain::ids::InvalidId| {
                Error::invalid(PURPOSE_KEY, invalid.to_string())
            })
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_of_the_vocabulary_is_a_purpose() {
        assert_eq!(required(Some("CustomerCare")).unwrap(), Purpose::CustomerCare);
        assert_eq!(optional(None).unwrap(), None);
    }

    #[test]
    fn no_purpose_is_named_as_such() {
        let err = required(None).unwrap_err();
        assert_eq!((err.kind, err.reason), (Kind::Invalid, "PURPOSE_REQUIRED"));
        assert_eq!(err.field.as_deref(), Some(PURPOSE_KEY));
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for bad in ["", "customercare", "dpv:CustomerCare", "jane@example.com"] {
            let err = required(Some(bad)).unwrap_err();
            assert_eq!((err.kind, err.reason), (Kind::Invalid, "INVALID_FIELD"), "{bad}");
            assert!(bad.is_empty() || !err.message.contains("jane"));
        }
    }
}
