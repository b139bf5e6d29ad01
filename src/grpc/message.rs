//! Messages, alone and in batches. Each of a batch is answered for itself.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use prost::Message as _;

use super::{
    convert,
    convert::{Path, required},
    status,
};
use crate::{
    domain::{
        ids::{RecordId, TenantId},
        judge::Reason,
        limits,
        principal::Principal,
        record::Record,
    },
    proto::v1::{
        self, BatchGetMessagesRequest, BatchPutMessagesRequest, GetMessageResult, PutMessageRequest,
        PutMessageResult, get_message_result, put_message_result,
    },
    vault::{Error, Kind, MessageSpec, Vault},
};

const REQUESTS: Path<'static> = Path::root("requests");
const RECORD_IDS: Path<'static> = Path::root("record_ids");

/// Stores one message.
pub(super) async fn put(
    vault: &Arc<Vault>,
    caller: &Principal,
    tenant: &TenantId,
    request: PutMessageRequest,
) -> Result<Record, Error> {
    let spec = convert::message_spec(request, caller)?;
    let mut outcomes = vault.put_messages(tenant, vec![spec]).await?;
    outcomes.pop().unwrap_or_else(|| {
        Err(Error::new(
            Kind::Internal,
            "NO_ANSWER",
            "the message has no answer",
        ))
    })
}

/// Stores many messages. Only what is wrong with the batch as a whole is an error of the call.
pub(super) async fn put_many(
    vault: &Arc<Vault>,
    caller: &Principal,
    tenant: &TenantId,
    batch: BatchPutMessagesRequest,
) -> Result<Vec<PutMessageResult>, Error> {
    count(batch.requests.len(), &REQUESTS)?;
    check_descriptors(&batch.requests)?;
    let specs = batch
        .requests
        .into_iter()
        .map(|request| spec_of(request, caller, tenant));
    let (sound, refused) = split(specs);
    let mut stored = VecDeque::from(vault.put_messages(tenant, sound).await?);
    let outcomes = refused
        .into_iter()
        .map(|refused| refused.map_or_else(|| stored.pop_front(), |error| Some(Err(error))));
    Ok(outcomes.flatten().map(put_result).collect())
}

/// Reads many messages.
pub(super) async fn get_many(
    vault: &Arc<Vault>,
    tenant: &TenantId,
    request: &BatchGetMessagesRequest,
    reason: Reason,
) -> Result<Vec<GetMessageResult>, Error> {
    count(request.record_ids.len(), &RECORD_IDS)?;
    let ids = request.record_ids.iter().enumerate();
    let ids = ids.map(|(index, id)| required(id, &RECORD_IDS.item(index)));
    let (sound, refused): (Vec<RecordId>, _) = split(ids);
    let mut read = VecDeque::from(vault.messages(tenant, &sound, reason).await?);
    let outcomes = refused
        .into_iter()
        .map(|refused| refused.map_or_else(|| read.pop_front(), |error| Some(Err(error))));
    Ok(outcomes.flatten().map(get_result).collect())
}

fn spec_of(request: PutMessageRequest, caller: &Principal, tenant: &TenantId) -> Result<MessageSpec, Error> {
    if !request.tenant_id.is_empty() && request.tenant_id != tenant.as_str() {
        return Err(Path::root("tenant_id").refuse("must be empty or the batch's"));
    }
    convert::message_spec(request, caller)
}

/// What is sound, and in the place of each item why it is not.
fn split<T>(items: impl Iterator<Item = Result<T, Error>>) -> (Vec<T>, Vec<Option<Error>>) {
    let mut sound = Vec::new();
    let refused = items.map(|item| match item {
        Ok(item) => {
            sound.push(item);
            None
        }
        Err(error) => Some(error),
    });
    let refused = refused.collect();
    (sound, refused)
}

fn count(items: usize, at: &Path<'_>) -> Result<(), Error> {
    if (1..=limits::BATCH_MESSAGES).contains(&items) {
        return Ok(());
    }
    Err(at.refuse(format!("must have 1 to {} items", limits::BATCH_MESSAGES)))
}

fn check_descriptors(requests: &[PutMessageRequest]) -> Result<(), Error> {
    let lengths = requests.iter().flat_map(|request| &request.descriptor);
    let total: usize = lengths.map(|descriptor| descriptor.encoded_len()).sum();
    if total <= limits::BATCH_DESCRIPTOR_BYTES {
        return Ok(());
    }
    let message = format!(
        "the descriptors of a batch are too long together; send fewer messages at once limit={} bytes",
        limits::BATCH_DESCRIPTOR_BYTES
    );
    Err(Error {
        field: Some(REQUESTS.to_string()),
        ..Error::new(Kind::Invalid, "BATCH_TOO_LONG", message)
    })
}

fn put_result(outcome: Result<Record, Error>) -> PutMessageResult {
    use put_message_result::Result as R;
    let result = match outcome {
        Ok(record) => R::Record(convert::written_to_proto(&record)),
        Err(error) => R::Error(status::of_item(error)),
    };
    PutMessageResult { result: Some(result) }
}

fn get_result(outcome: Result<(Record, Bytes), Error>) -> GetMessageResult {
    use get_message_result::Result as R;
    let result = match outcome {
        Ok((record, body)) => R::Message(v1::Message {
            record: Some(convert::record_to_proto(&record)),
            body,
        }),
        Err(error) => R::Error(status::of_item(error)),
    };
    GetMessageResult { result: Some(result) }
}
