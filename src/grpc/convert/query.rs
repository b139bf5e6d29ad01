//! What a listing looks for.

use super::{Path, descriptor::labels, optional, optional_term, required, terms, time::optional_moment};
use crate::{
    domain::{
        purpose::{Channel, Direction},
        record::{Kind, Query, State, SubjectIdentifier},
    },
    proto::v1::{self, subject_identifier::Identifier},
    vault::{Error, Order},
};

/// A query; everything when there is none.
pub(in crate::grpc) fn query(asked: Option<&v1::RecordQuery>) -> Result<Query, Error> {
    asked.map_or_else(
        || Ok(Query::default()),
        |asked| query_at(asked, &Path::root("query")),
    )
}

/// A query in its place.
pub(super) fn query_at(asked: &v1::RecordQuery, at: &Path<'_>) -> Result<Query, Error> {
    let until_path = at.field("start_time_until");
    let from = optional_moment(asked.start_time_from.as_ref(), &at.field("start_time_from"))?;
    let until = optional_moment(asked.start_time_until.as_ref(), &until_path)?;
    if let (Some(from), Some(until)) = (from, until)
        && until <= from
    {
        return Err(until_path.refuse("must be after start_time_from"));
    }
    Ok(Query {
        kinds: terms(&asked.kinds, Kind::from_number, &at.field("kinds"))?,
        from,
        until,
        conversation: optional(&asked.conversation_id, &at.field("conversation_id"))?,
        subject: asked
            .subject
            .as_ref()
            .map(|s| subject(s, &at.field("subject")))
            .transpose()?,
        agent: optional(&asked.agent_id, &at.field("agent_id"))?,
        derived_from: optional(&asked.derived_from, &at.field("derived_from"))?,
        direction: optional_term(asked.direction, Direction::from_number, &at.field("direction"))?,
        channel: optional_term(asked.channel, Channel::from_number, &at.field("channel"))?,
        labels: labels(&asked.labels, &at.field("labels"))?,
        states: terms(&asked.states, State::from_number, &at.field("states"))?,
    })
}

pub(super) fn subject(asked: &v1::SubjectIdentifier, at: &Path<'_>) -> Result<SubjectIdentifier, Error> {
    match &asked.identifier {
        Some(Identifier::Tel(tel)) => required(tel, &at.field("tel")).map(SubjectIdentifier::Tel),
        Some(Identifier::Mailto(mailto)) => {
            required(mailto, &at.field("mailto")).map(SubjectIdentifier::Mailto)
        }
        Some(Identifier::ExternalSubjectId(id)) => {
            required(id, &at.field("external_subject_id")).map(SubjectIdentifier::External)
        }
        None => Err(at.refuse("must have an identifier")),
    }
}

/// In which order.
pub(in crate::grpc) fn order(asked: v1::Order) -> Order {
    match asked {
        v1::Order::Unspecified | v1::Order::NewestFirst => Order::NewestFirst,
        v1::Order::OldestFirst => Order::OldestFirst,
    }
}
