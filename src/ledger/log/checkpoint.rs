//! The signed head of a log: a C2SP checkpoint in a C2SP signed note.
//!
//! ```text
//! callvault/<vault>/<kind>/<node>/<term>      origin
//! 923748                                      entries, decimal
//! nND/nri//U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=   root, base64
//!
//! — <origin> <base64 of u32be key id || Ed25519 signature of the lines above, each with its newline>
//! ```

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use signed_note::{Note, NoteError, Signature, StandardVerifier, VerifierList};
use tlog_tiles::{Checkpoint, EMPTY_HASH, Hash};

use super::LogError;

/// Signature type of C2SP signed notes: Ed25519.
const ED25519: u8 = 0x01;

/// More entries than any log will have (89,000 a second for a century), few enough that no arithmetic on them overflows.
pub(super) const MOST_ENTRIES: u64 = 1 << 48;

/// Signs with an Ed25519 key (RFC 8032) of one log.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public key.
    fn public_key(&self) -> [u8; 32];

    /// Signs a message.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// How far a log reaches and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// RFC 6962 Merkle tree hash of them.
    pub root: [u8; 32],
}

impl Head {
    /// The head of a log without entries.
    pub const EMPTY: Self = Self {
        size: 0,
        root: EMPTY_HASH.0,
    };

    /// The root as the tree library has it.
    pub(super) fn hash(&self) -> Hash {
        Hash(self.root)
    }
}

/// The C2SP text of a verifier key: `<origin>+<key id, 8 hex digits>+<base64 of 0x01 || public key>`.
///
/// Source: C2SP signed-note, "Verifier keys".
pub fn verifier_key(origin: &str, public_key: &[u8; 32]) -> String {
    let key = typed(public_key);
    let id = signed_note::key_id(origin, &key);
    format!("{origin}+{id:08x}+{}", BASE64_STANDARD.encode(key))
}

/// The head that a checkpoint of `origin` says, if `public_key` signed it: from the object's bytes alone.
///
/// # Errors
/// [`LogError::Corrupt`] if it is no checkpoint of this log; [`LogError::Signature`].
pub fn verify_checkpoint(origin: &str, object: &[u8], public_key: &[u8; 32]) -> Result<Head, LogError> {
    SignedHead::parse(origin, object)?.verify(public_key)
}

/// A checkpoint whose text is well formed and of the right log; its signature is checked by [`Self::verify`].
#[derive(Debug)]
pub(super) struct SignedHead {
    origin: String,
    note: Note,
    head: Head,
}

impl SignedHead {
    /// Reads a checkpoint object.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] unless it is a checkpoint of `origin` as this program writes them. Unknown signatures beside
    /// the log's own are allowed, as C2SP wants it.
    pub(super) fn parse(origin: &str, object: &[u8]) -> Result<Self, LogError> {
        let corrupt = LogError::Corrupt { what: "checkpoint" };
        let Ok(note) = Note::from_bytes(object) else {
            return Err(corrupt);
        };
        let Ok(text) = Checkpoint::from_bytes(note.text()) else {
            return Err(corrupt);
        };
        let head = Head {
            size: text.size(),
            root: text.hash().0,
        };
        let empty = head.size == 0 && head != Head::EMPTY;
        let foreign = text.origin() != origin || !text.extension().is_empty();
        if foreign || empty || head.size > MOST_ENTRIES {
            return Err(corrupt);
        }
        Ok(Self {
            origin: origin.to_owned(),
            note,
            head,
        })
    }

    /// The head, if `public_key` signed it.
    ///
    /// # Errors
    /// [`LogError::Signature`].
    pub(super) fn verify(&self, public_key: &[u8; 32]) -> Result<Head, LogError> {
        let verifier = StandardVerifier::new(&verifier_key(&self.origin, public_key))
            .map_err(|_| LogError::Signature)?;
        self.note
            .verify(&VerifierList::new(vec![Box::new(verifier)]))
            .map_err(|_| LogError::Signature)?;
        Ok(self.head)
    }

    /// The object, as it was read.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.note.to_bytes()
    }

    /// The head, whoever signed it.
    pub(super) fn unverified(&self) -> Head {
        self.head
    }
}

/// The checkpoint object that says `head`.
///
/// # Errors
/// [`LogError::Corrupt`] if `origin` cannot be a key's name; a [`super::LogName`]'s can.
pub(super) fn sign(origin: &str, head: Head, signer: &dyn Signer) -> Result<Bytes, LogError> {
    let invalid = LogError::Corrupt { what: "origin" };
    let Ok(text) = Checkpoint::new(origin, head.size, head.hash(), "") else {
        return Err(invalid);
    };
    match signed(origin, &text.to_bytes(), signer) {
        Ok(note) => Ok(Bytes::from(note.to_bytes())),
        Err(_) => Err(invalid),
    }
}

fn signed(origin: &str, text: &[u8], signer: &dyn Signer) -> Result<Note, NoteError> {
    let id = signed_note::key_id(origin, &typed(&signer.public_key()));
    let signature = Signature::new(origin.to_owned(), id, signer.sign(text).to_vec())?;
    Note::new(text, &[signature])
}

fn typed(public_key: &[u8; 32]) -> Vec<u8> {
    [&[ED25519], public_key.as_slice()].concat()
}
