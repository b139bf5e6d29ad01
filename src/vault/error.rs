//! What went wrong below, as the one error that leaves the vault: mapped once, here.

use crate::{
    blob::{format::MalformedFooter, store::StoreError},
    crypto::CryptoError,
    domain::clock::RngFailed,
    index::IndexError,
    keys::{KeyError, store::KeyStoreError},
    ledger::{log::LogError, outbox::LedgerError},
};

pub use crate::domain::error::{Error, Kind};

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Full => Self::new(
                Kind::Exhausted,
                "STORE_FULL",
                "the store has no room; nothing was kept",
            )
            .because(error),
            StoreError::Denied(_) => Self::new(
                Kind::Unavailable,
                "STORE_DENIED",
                "the store refuses the vault; tell its operator",
            )
            .because(error),
            StoreError::Unavailable(_) => Self::new(
                Kind::Unavailable,
                "STORE_UNAVAILABLE",
                "the store cannot be reached; try again",
            )
            .because(error),
            // The index says that it is there: what is missing or shorter was lost or cut, not "not found".
            StoreError::NotFound | StoreError::OutOfRange { .. } => Self {
                source: Some(Box::new(error)),
                ..Self::corrupt("missing object")
            },
            StoreError::UploadNotFound => Self::new(
                Kind::Conflict,
                "UPLOAD_GONE",
                "the upload was ended elsewhere; begin again",
            )
            .because(error),
            StoreError::AlreadyExists | StoreError::InvalidKey | StoreError::Protocol(_) => Self::new(
                Kind::Internal,
                "STORE",
                "the store answered what it never should; report it",
            )
            .because(error),
        }
    }
}

impl From<IndexError> for Error {
    fn from(error: IndexError) -> Self {
        match &error {
            IndexError::Expectation(_) => Self::new(
                Kind::Conflict,
                "CONFLICT",
                "it was changed meanwhile; read it again and retry",
            )
            .because(error),
            IndexError::Corrupt(what) => Self::corrupt(what).because(error),
            IndexError::Full => {
                Self::new(Kind::Exhausted, "INDEX_FULL", "the index has no room").because(error)
            }
            IndexError::Locked | IndexError::Unavailable(_) => Self::new(
                Kind::Unavailable,
                "INDEX_UNAVAILABLE",
                "the index cannot be asked now; try again",
            )
            .because(error),
            IndexError::InvalidChange(_) => {
                Self::new(Kind::Internal, "INDEX", "a change could not be made; report it").because(error)
            }
        }
    }
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Index(error) => error.into(),
            LedgerError::NotShipped => Self::new(
                Kind::Unavailable,
                "NOT_SHIPPED",
                "the change is not in the bucket yet; repeat the call with the same request_id",
            ),
            LedgerError::Behind => Self::new(
                Kind::Unavailable,
                "LOG_BEHIND",
                "the bucket does not take the state log; nothing is stored until it does, try again",
            ),
            LedgerError::Leaf(error) => {
                Self::new(Kind::Internal, "LEAF", "a change could not be logged; report it").because(error)
            }
            LedgerError::Log(error) => log_failed(error),
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        log_failed(error)
    }
}

fn log_failed(error: LogError) -> Error {
    match error {
        LogError::Store(error) => error.into(),
        error => Error {
            source: Some(Box::new(error)),
            ..Error::corrupt("state log")
        },
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        match &error {
            KeyError::Unknown("tenant") => Self::not_found(),
            KeyError::Unknown(_) | KeyError::Corrupt(_) | KeyError::Store(KeyStoreError::Corrupt) => Self {
                source: Some(Box::new(error)),
                ..Self::corrupt("key material")
            },
            KeyError::Punctured => {
                Self::new(Kind::Shredded, "SHREDDED", "its key was destroyed").because(error)
            }
            KeyError::Provider(_) => Self::new(
                Kind::Unavailable,
                "ROOT_UNAVAILABLE",
                "the root provider failed; tell the vault's operator",
            )
            .because(error),
            KeyError::RootSilent => Self::new(
                Kind::Unavailable,
                "ROOT_UNAVAILABLE",
                "the root provider has not answered for too long; nothing is read or stored until it does",
            )
            .because(error),
            KeyError::Store(KeyStoreError::Unavailable(cause)) if is_full(&**cause) => {
                Self::new(Kind::Exhausted, "INDEX_FULL", "the index has no room").because(error)
            }
            KeyError::Store(KeyStoreError::Unavailable(_)) => Self::new(
                Kind::Unavailable,
                "KEYS_UNAVAILABLE",
                "keys cannot be read or written now; try again",
            )
            .because(error),
            KeyError::Store(KeyStoreError::TooOld(what)) => {
                let text = format!(
                    "what would seal this is older than `keys.wrap_for_days` allows, so nothing new is sealed under it; rotate it \
                     (`callvault keys rotate` a tenant's, `callvault root rotate` the region's) what={what}"
                );
                Self::new(Kind::WrongState, "KEY_TOO_OLD", text).because(error)
            }
            KeyError::Superseded => Self::new(
                Kind::Conflict,
                "CONFLICT",
                "it was changed meanwhile; read it again and retry",
            )
            .because(error),
            KeyError::Interrupted => {
                Self::new(Kind::Unavailable, "INTERRUPTED", "the vault is ending; try again").because(error)
            }
            KeyError::Rng(_) => RngFailed.into(),
        }
    }
}

/// Whether an index without room is what keeps keys from being written.
fn is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    let index = match cause.downcast_ref() {
        Some(LedgerError::Index(error)) => Some(error),
        _ => cause.downcast_ref(),
    };
    matches!(index, Some(IndexError::Full))
}

impl From<RngFailed> for Error {
    fn from(error: RngFailed) -> Self {
        Self::new(
            Kind::Unavailable,
            "RANDOMNESS",
            "the machine has no randomness to give; nothing is sealed",
        )
        .because(error)
    }
}

impl From<CryptoError> for Error {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::Rng(_) => RngFailed.into(),
            CryptoError::PuncturedSlot => KeyError::Punctured.into(),
            error => Self {
                source: Some(Box::new(error)),
                ..Self::corrupt("sealed data")
            },
        }
    }
}

impl From<MalformedFooter> for Error {
    fn from(error: MalformedFooter) -> Self {
        Self {
            source: Some(Box::new(error)),
            ..Self::corrupt("footer")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_room_is_told_as_such_whoever_meets_it() {
        let unavailable = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::from(KeyError::Store(KeyStoreError::Unavailable(cause)))
        };
        for error in [
            Error::from(IndexError::Full),
            unavailable(Box::new(IndexError::Full)),
            unavailable(Box::new(LedgerError::Index(IndexError::Full))),
        ] {
            assert_eq!((error.kind, error.reason), (Kind::Exhausted, "INDEX_FULL"));
        }
        let error = unavailable(Box::new(LedgerError::NotShipped));
        assert_eq!(
            (error.kind, error.reason),
            (Kind::Unavailable, "KEYS_UNAVAILABLE")
        );
    }
}
