//! Messages go in together: concurrent puts of a tenant share a blob, and each is acknowledged for itself.
//!
//! ```text
//! put     -> room reserved -> the tenant's lane (lane)
//! group   -> refused, answered before, or to be stored, each for itself (prepare)
//!         -> sealed one behind the other, footer (seal) -> one put -> rows and leaves, some entries to a transaction -> acks
//! ```
//!
//! A caller who goes away leaves its message in the group: it may or may not appear, never half.

mod get;
mod group;
mod lane;
mod prepare;
mod seal;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tokio::{sync::oneshot, time::Instant};

use crate::domain::{
    ids::{RequestId, TenantId},
    limits,
    record::Record,
};

use super::{
    Error, Kind, Vault,
    budget::Reservation,
    descriptor,
    put::{Claim, Draft},
};

pub(super) use lane::Lanes;

/// Bytes that a message takes in memory beside its body: descriptor, footer entry, rows.
const OVERHEAD: u64 = 2 << 10;

/// One message, before defaults.
#[derive(Clone)]
pub struct MessageSpec {
    /// Alias of who puts it.
    pub actor: String,
    /// What it is. With `derived_from` it is an artifact.
    pub draft: Draft,
    /// Makes the put idempotent.
    pub request: Option<RequestId>,
    /// What it says: 1 byte to [`limits::MESSAGE_BYTES`].
    pub body: Bytes,
}

impl fmt::Debug for MessageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSpec")
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A message that waits for its group, and for its answer.
struct Waiting {
    spec: MessageSpec,
    /// Its descriptor before defaults, encoded: what a retry is compared by.
    said: Vec<u8>,
    since: Instant,
    answer: Answer,
}

/// Who waits, and what is kept for them.
struct Answer {
    to: oneshot::Sender<Result<Record, Error>>,
    /// For all that one call brought.
    room: Arc<Reservation>,
    /// The request id and the external id, once they are claimed.
    claim: Option<Claim>,
}

impl Answer {
    /// Whoever hears it may come back at once: what was kept is free by then.
    fn give(self, answer: Result<Record, Error>) {
        let Self { to, room, claim } = self;
        drop((room, claim));
        // Nobody listens any more if the caller went away.
        let _ = to.send(answer);
    }
}

impl Vault {
    /// Stores messages of one tenant, each for itself, and returns what became of each, in their order, when those that were
    /// taken are durable in store and index.
    ///
    /// Cancel safe in this sense: if the call is dropped each message may or may not exist; a retry with the same request ids
    /// finds out.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] without room: nothing was stored. Of each message: [`Kind::NotFound`] for a tenant that is not;
    /// [`Kind::Invalid`] names a field; [`Kind::AlreadyExists`] for an external id that is taken or a request id that was used
    /// for something else; [`Kind::Conflict`] if a put with the same one is under way; what store or index answered.
    pub async fn put_messages(
        self: &Arc<Self>,
        tenant: &TenantId,
        messages: Vec<MessageSpec>,
    ) -> Result<Vec<Result<Record, Error>>, Error> {
        // The body as it came and as it is sealed.
        let cost = |message: &MessageSpec| 2 * message.body.len() as u64 + OVERHEAD;
        let room = Arc::new(self.budget.reserve(messages.iter().map(cost).sum()).await?);
        let since = Instant::now();
        let mut waiting = Vec::with_capacity(messages.len());
        let mut answers = Vec::with_capacity(messages.len());
        for spec in messages {
            let (to, answered) = oneshot::channel();
            answers.push(answered);
            let answer = Answer {
                to,
                room: Arc::clone(&room),
                claim: None,
            };
            match check_body(&spec.body) {
                Ok(()) => waiting.push(Waiting {
                    said: descriptor::to_proto(&spec.draft.descriptor).encode_to_vec(),
                    spec,
                    since,
                    answer,
                }),
                Err(error) => answer.give(Err(error)),
            }
        }
        drop(room);
        if !waiting.is_empty() {
            self.lanes.join(self, tenant, waiting);
        }
        let mut outcomes = Vec::with_capacity(answers.len());
        for answered in answers {
            outcomes.push(answered.await.unwrap_or_else(|_| Err(interrupted())));
        }
        Ok(outcomes)
    }
}

fn check_body(body: &Bytes) -> Result<(), Error> {
    let refused = |reason, message: String| {
        Err(Error {
            field: Some("body".to_owned()),
            ..Error::new(Kind::Invalid, reason, message)
        })
    };
    if body.is_empty() {
        return refused("CONTENT_EMPTY", "a message has at least one byte".to_owned());
    }
    if body.len() as u64 > limits::MESSAGE_BYTES {
        let message = format!(
            "the body is longer than it may be; upload it with PutRecording limit={} bytes",
            limits::MESSAGE_BYTES
        );
        return refused("CONTENT_TOO_LONG", message);
    }
    Ok(())
}

fn interrupted() -> Error {
    Error::new(
        Kind::Unavailable,
        "INTERRUPTED",
        "the message was interrupted; try again with the same request_id",
    )
}
