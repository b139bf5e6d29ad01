//! Protobuf JSON with proto field names, by reflection: a field that the API gains shows without a change here.

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use crate::{cli::CliError, proto::v1::FILE_DESCRIPTOR_SET};

/// The API's descriptors.
pub(super) fn pool() -> Result<DescriptorPool, CliError> {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(broken)
}

/// What a message is made of.
pub(super) fn describe<M: Name>() -> Result<MessageDescriptor, CliError> {
    let name = M::full_name();
    pool()?
        .get_message_by_name(&name)
        .ok_or_else(|| CliError::failed(format!("the API has no message {name}")))
}

/// A message as JSON.
pub(super) fn to_json<M: Message + Name>(message: &M) -> Result<serde_json::Value, CliError> {
    let mut dynamic = DynamicMessage::new(describe::<M>()?);
    dynamic.transcode_from(message).map_err(broken)?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(broken)
}

/// A message as indented JSON text.
pub(super) fn to_text<M: Message + Name>(message: &M) -> Result<String, CliError> {
    serde_json::to_string_pretty(&to_json(message)?).map_err(broken)
}

/// A message from JSON.
///
/// # Errors
/// [`CliError::Usage`] with what is wrong with it.
pub(super) fn from_json<M: Message + Name + Default>(json: serde_json::Value) -> Result<M, CliError> {
    let dynamic = DynamicMessage::deserialize(describe::<M>()?, json)
        .map_err(|error| CliError::usage(error.to_string()))?;
    dynamic.transcode_to().map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> CliError {
    CliError::failed(format!("the API's own descriptors do not fit: {error}"))
}
