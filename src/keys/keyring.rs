//! Keyrings as they are sealed: messages of `leaf.proto`, written by hand because they hold keys. They zeroise when dropped and
//! print nothing.

use prost::Message;
use zeroize::Zeroize;

/// A tenant's: what is sealed under one version of its key. `leaf.proto` says what is what.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct TenantKeyring {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) index_key: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(crate) index_key_generation: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) request_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) next_index_key: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub(crate) next_index_key_generation: u64,
}

/// The region's: what is sealed under an epoch.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct RegionKeyring {
    #[prost(message, repeated, tag = "1")]
    pub(crate) signing_keys: Vec<SigningKey>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) row_mac_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) manifest_sha256: Vec<u8>,
}

/// What signs checkpoints.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct SigningKey {
    #[prost(string, tag = "1")]
    pub(crate) kid: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) seed: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) created_micros: i64,
}

macro_rules! zeroise {
    ($($message:ident: $($secret:ident),+;)+) => {$(
        impl Drop for $message {
            fn drop(&mut self) {
                $(self.$secret.zeroize();)+
            }
        }

        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )+};
}

zeroise! {
    TenantKeyring: index_key, request_key, next_index_key;
    RegionKeyring: row_mac_key;
    SigningKey: seed;
}
