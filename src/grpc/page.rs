//! Page tokens of lists that are ordered by an id: the last id given, opaque to callers and checked when it comes back.

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::convert::Path;
use crate::{domain::ids::InvalidId, vault::Error};

/// Longer than any token that was given.
const TOKEN_BYTES: usize = 128;

pub(super) fn token(last: Option<&str>) -> String {
    last.map(|id| URL_SAFE_NO_PAD.encode(id)).unwrap_or_default()
}

/// The id that a page begins after; `None` for the first page.
pub(super) fn after<T: FromStr<Err = InvalidId>>(token: &str) -> Result<Option<T>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let id = (token.len() <= TOKEN_BYTES)
        .then(|| URL_SAFE_NO_PAD.decode(token).ok())
        .flatten()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|id| id.parse().ok());
    match id {
        Some(id) => Ok(Some(id)),
        None => Err(Path::root("page_token").refuse("must come from the response before")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::TenantId;

    #[test]
    fn a_token_is_what_was_given_or_refused() {
        let id: TenantId = "dev".parse().unwrap();
        assert_eq!(after(&token(Some("dev"))).unwrap(), Some(id));
        assert_eq!(after::<TenantId>(&token(None)).unwrap(), None);
        for bad in ["dev!", "_w", &URL_SAFE_NO_PAD.encode("../x"), &"a".repeat(200)] {
            let error = after::<TenantId>(bad).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("page_token"), "{bad}");
        }
    }
}
