//! What was written beside the call: messages of the same conversation, and a transcript of what was said.

use super::{
    steps::{Steps, must},
    story::{Callers, found_by},
};
use crate::{
    app::DEV_TENANT,
    cli::CliError,
    client::ClientError,
    proto::v1::{Channel, Descriptor, PutMessageRequest, Record, RecordQuery},
};

/// What the customer and the agent wrote.
pub(super) const CHAT: [&str; 3] = [
    "My invoice of March is wrong again, and nobody answers the telephone.",
    "I am sorry, Mrs. Hernandez. May we call you on +52 55 1234 5678?",
    "Yes. The account ends in 4417.",
];
/// What was said, as a machine heard it.
pub(super) const TRANSCRIPT: &str =
    "agent: how may I help you? customer: it is about the invoice of the account that ends in 4417.";

/// What there is beside the call.
pub(super) struct Written {
    messages: Vec<Record>,
    transcript: Record,
}

/// Puts both, `about` being the descriptor of the call.
pub(super) async fn put(
    callers: &Callers,
    about: &Descriptor,
    call: &Record,
    steps: &mut Steps,
) -> Result<Written, CliError> {
    let chat = Descriptor {
        channel: Channel::Whatsapp as i32,
        external_id: String::new(),
        ..about.clone()
    };
    let message = |body: &str| PutMessageRequest {
        tenant_id: DEV_TENANT.to_owned(),
        descriptor: Some(chat.clone()),
        body: body.as_bytes().to_vec().into(),
        ..PutMessageRequest::default()
    };
    let answers = callers
        .uploader
        .put_messages(DEV_TENANT, CHAT.iter().map(|body| message(body)).collect())
        .await?;
    let messages = answers
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(|refusal| ClientError::Refused(Box::new(refusal)))?;
    steps.done(
        "messages of the conversation go in together, a key each",
        &format!("{} messages", messages.len()),
    )?;
    let derived = Descriptor {
        derived_from: call.record_id.clone(),
        ..chat.clone()
    };
    let transcript = PutMessageRequest {
        descriptor: Some(derived),
        ..message(TRANSCRIPT)
    };
    let transcript = callers.uploader.put_message(transcript).await?;
    steps.done("a transcript is derived from the call", "")?;
    Ok(Written { messages, transcript })
}

impl Written {
    /// Every body is what was written, and the transcript is found by its call.
    pub(super) async fn read_back(
        &self,
        callers: &Callers,
        call: &Record,
        steps: &mut Steps,
    ) -> Result<(), CliError> {
        let ids: Vec<String> = self
            .messages
            .iter()
            .map(|record| record.record_id.clone())
            .collect();
        let answers = callers.reader.get_messages(DEV_TENANT, &ids).await?;
        must(answers.len() == CHAT.len(), "a message is missing")?;
        for (answer, sent) in answers.into_iter().zip(CHAT) {
            let message = answer.map_err(|refusal| ClientError::Refused(Box::new(refusal)))?;
            must(message.body == sent.as_bytes(), "a message came back changed")?;
        }
        let id = &self.transcript.record_id;
        let transcript = callers.reader.get_message(DEV_TENANT, id).await?;
        must(
            transcript.body == TRANSCRIPT.as_bytes(),
            "the transcript came back changed",
        )?;
        let derived = RecordQuery {
            derived_from: call.record_id.clone(),
            ..RecordQuery::default()
        };
        found_by(&callers.reader, derived, &self.transcript).await?;
        steps.done("messages and transcript come back; it is found by its call", "")
    }
}
