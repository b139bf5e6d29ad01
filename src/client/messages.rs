//! Messages, alone and many at once.

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

use super::{Client, ClientError, Refusal, retry::request_id};
use crate::proto::v1::{
    BatchGetMessagesRequest, BatchPutMessagesRequest, GetMessageRequest, GetMessageResult, Message,
    PutMessageRequest, PutMessageResult, Record, get_message_result, put_message_result,
};

/// Messages of one call.
const BATCH: usize = 1_000;
/// Bytes of one call, with room for what stands around its messages.
const BATCH_BYTES: usize = (4 << 20) - (16 << 10);
/// Bytes of one call's descriptors.
const DESCRIPTOR_BYTES: usize = 2 << 20;
/// The reason of a message that an answer has no room for: no failure, and no reason to wait.
const ANSWER_FULL: &str = "ANSWER_FULL";

impl Client {
    /// Stores a message; returns when the vault has it durably. Without a `request_id` it gets one, so that a retry stores it
    /// once.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn put_message(&self, mut request: PutMessageRequest) -> Result<Record, ClientError> {
        request.request_id = request_id(request.request_id);
        let put = || async { self.record_service().put_message(request.clone()).await };
        let answer = self.usual_patience().run(put).await?.into_inner();
        answer.record.ok_or(NO_RECORD)
    }

    /// Stores any number of messages of one tenant, and returns what became of each, in their order. Sends as few calls as may
    /// be, gives each message a `request_id` that has none, and repeats those that the vault could not take for now.
    ///
    /// # Errors
    /// If the server answers what no vault answers. What is wrong with a message, or kept it from being stored, is its own result.
    pub async fn put_messages(
        &self,
        tenant_id: &str,
        messages: Vec<PutMessageRequest>,
    ) -> Result<Vec<Result<Record, Refusal>>, ClientError> {
        let requests: Vec<_> = messages.into_iter().map(identified).collect();
        let mut outcomes: Vec<_> = requests.iter().map(|_| Err(Refusal::from(unasked()))).collect();
        let mut open: Vec<usize> = (0..requests.len()).collect();
        let mut tried = 1;
        loop {
            for batch in batches(&requests, &open) {
                let results = self.put_batch(tenant_id, &requests, batch).await?;
                for (index, result) in batch.iter().zip(results) {
                    outcomes[*index] = result;
                }
            }
            let wait =
                |outcome: &Result<_, Refusal>| self.usual_patience().wait(outcome.as_ref().err()?, tried);
            open.retain(|index| wait(&outcomes[*index]).is_some());
            match open.iter().filter_map(|index| wait(&outcomes[*index])).max() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Ok(outcomes),
            }
            tried += 1;
        }
    }

    async fn put_batch(
        &self,
        tenant_id: &str,
        requests: &[PutMessageRequest],
        batch: &[usize],
    ) -> Result<Vec<Result<Record, Refusal>>, ClientError> {
        let request = BatchPutMessagesRequest {
            tenant_id: tenant_id.to_owned(),
            requests: batch.iter().map(|index| requests[*index].clone()).collect(),
        };
        match self.record_service().batch_put_messages(request).await {
            Ok(answer) => {
                let results = answer.into_inner().results;
                check_count(results.len(), batch.len())?;
                results.into_iter().map(put_result).collect()
            }
            Err(status) => Ok(refused(&status, batch.len())),
        }
    }

    /// A message, or an artifact of at most 1 MiB, with its body.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_message(&self, tenant_id: &str, record_id: &str) -> Result<Message, ClientError> {
        let request = GetMessageRequest {
            tenant_id: tenant_id.to_owned(),
            record_id: record_id.to_owned(),
        };
        let get = || async { self.record_service().get_message(request.clone()).await };
        let answer = self.usual_patience().run(get).await?.into_inner();
        Ok(Message {
            record: Some(answer.record.ok_or(NO_RECORD)?),
            body: answer.body,
        })
    }

    /// Any number of messages with their bodies, and what became of each, in their order. Asks as often as it takes.
    ///
    /// # Errors
    /// If the server answers what no vault answers. What is wrong with one message is its own result.
    pub async fn get_messages(
        &self,
        tenant_id: &str,
        record_ids: &[String],
    ) -> Result<Vec<Result<Message, Refusal>>, ClientError> {
        let mut outcomes: Vec<_> = record_ids.iter().map(|_| Err(Refusal::from(unasked()))).collect();
        let mut open: Vec<usize> = (0..record_ids.len()).collect();
        let mut tried = 1;
        while !open.is_empty() {
            let before = open.len();
            let batch = &open[..open.len().min(BATCH)];
            let results = self.get_batch(tenant_id, record_ids, batch).await?;
            for (index, result) in batch.iter().zip(results) {
                outcomes[*index] = result;
            }
            let asked = batch.len();
            let wait =
                |outcome: &Result<_, Refusal>| self.usual_patience().wait(outcome.as_ref().err()?, tried);
            let waits = open[..asked].iter().filter_map(|index| {
                let full = is_full(&outcomes[*index]);
                wait(&outcomes[*index]).filter(|_| !full)
            });
            let longest = waits.max();
            let again = |index: &usize| is_full(&outcomes[*index]) || wait(&outcomes[*index]).is_some();
            let (mut again, rest): (Vec<usize>, Vec<usize>) = (
                open[..asked].iter().copied().filter(again).collect(),
                open[asked..].to_vec(),
            );
            again.extend(rest);
            open = again;
            if let Some(wait) = longest {
                tokio::time::sleep(wait).await;
                tried += 1;
            } else if open.len() == before {
                return Err(ClientError::Protocol("an answer without room for one message"));
            }
        }
        Ok(outcomes)
    }

    async fn get_batch(
        &self,
        tenant_id: &str,
        record_ids: &[String],
        batch: &[usize],
    ) -> Result<Vec<Result<Message, Refusal>>, ClientError> {
        let request = BatchGetMessagesRequest {
            tenant_id: tenant_id.to_owned(),
            record_ids: batch.iter().map(|index| record_ids[*index].clone()).collect(),
        };
        match self.record_service().batch_get_messages(request).await {
            Ok(answer) => {
                let results = answer.into_inner().results;
                check_count(results.len(), batch.len())?;
                results.into_iter().map(get_result).collect()
            }
            Err(status) => Ok(refused(&status, batch.len())),
        }
    }
}

const NO_RECORD: ClientError = ClientError::Protocol("an answer without a record");

fn identified(mut request: PutMessageRequest) -> PutMessageRequest {
    request.request_id = request_id(request.request_id);
    request
}

/// Runs of messages that fit into one call each.
fn batches<'a>(requests: &[PutMessageRequest], mut open: &'a [usize]) -> Vec<&'a [usize]> {
    let mut batches = Vec::new();
    while !open.is_empty() {
        let (mut bytes, mut descriptors) = (0, 0);
        let fits = |index: &&usize| {
            let request = &requests[**index];
            // A length-delimited field: its tag and at most four bytes of length.
            bytes += request.encoded_len() + 5;
            descriptors += request.descriptor.as_ref().map_or(0, prost::Message::encoded_len);
            bytes <= BATCH_BYTES && descriptors <= DESCRIPTOR_BYTES
        };
        let fitting = open.iter().take(BATCH).take_while(fits).count();
        // One that fits into no call is the vault's to refuse.
        let (batch, rest) = open.split_at(fitting.max(1));
        batches.push(batch);
        open = rest;
    }
    batches
}

fn put_result(result: PutMessageResult) -> Result<Result<Record, Refusal>, ClientError> {
    use put_message_result::Result as R;
    match result.result {
        Some(R::Record(record)) => Ok(Ok(record)),
        Some(R::Error(error)) => Ok(Err(refusal(&error))),
        None => Err(ClientError::Protocol("a result without an outcome")),
    }
}

fn get_result(result: GetMessageResult) -> Result<Result<Message, Refusal>, ClientError> {
    use get_message_result::Result as R;
    match result.result {
        Some(R::Message(message)) => Ok(Ok(message)),
        Some(R::Error(error)) => Ok(Err(refusal(&error))),
        None => Err(ClientError::Protocol("a result without an outcome")),
    }
}

/// What is wrong with one item, as if it had been asked for alone.
fn refusal(error: &pb::Status) -> Refusal {
    let details = error.encode_to_vec().into();
    Status::with_details(Code::from_i32(error.code), error.message.as_str(), details).into()
}

fn refused<T>(status: &Status, count: usize) -> Vec<Result<T, Refusal>> {
    let refusal = Refusal::from(status.clone());
    (0..count).map(|_| Err(refusal.clone())).collect()
}

fn check_count(have: usize, asked: usize) -> Result<(), ClientError> {
    if have == asked {
        Ok(())
    } else {
        Err(ClientError::Protocol("not one result for each request"))
    }
}

fn is_full<T>(outcome: &Result<T, Refusal>) -> bool {
    matches!(outcome, Err(refusal) if refusal.reason == ANSWER_FULL)
}

fn unasked() -> Status {
    Status::cancelled("not asked yet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Descriptor;

    fn message(body: usize, conversation: usize) -> PutMessageRequest {
        PutMessageRequest {
            body: vec![7; body].into(),
            descriptor: Some(Descriptor {
                conversation_id: "c".repeat(conversation),
                ..Descriptor::default()
            }),
            ..PutMessageRequest::default()
        }
    }

    #[test]
    fn batches_stay_within_their_limits_and_lose_nobody() {
        for (requests, sizes) in [
            (vec![message(1, 1); 2_500], &[1_000, 1_000, 500][..]),
            (vec![message(1 << 20, 1); 7], &[3, 3, 1]),
            (vec![message(1, 30 << 10); 100], &[68, 32]),
            (
                vec![message(5 << 20, 1), message(1, 1), message(5 << 20, 1)],
                &[1, 1, 1],
            ),
        ] {
            let open: Vec<usize> = (0..requests.len()).collect();
            let batches = batches(&requests, &open);
            assert_eq!(batches.iter().map(|b| b.len()).collect::<Vec<_>>(), sizes);
            assert_eq!(batches.concat(), open);
        }
    }
}
