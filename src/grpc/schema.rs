//! What a request may hold: a compact table of the API's messages, and the walk that holds raw bytes against it.
//!
//! prost drops unknown fields in silence. For a vault that would mean losing, unseen, a condition that a newer client
//! set ("restrict this record"); so requests with anything unknown are refused, and the path at fault is named.

use std::{collections::HashMap, sync::OnceLock};

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use crate::proto::v1::FILE_DESCRIPTOR_SET;

/// Deepest nesting of messages. The API has no recursive type and needs far less; prost stops at 100.
const DEPTH: usize = 16;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// Why a request's bytes are refused. Holds names of the schema and numbers, nothing that was sent besides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not protobuf, or not of this type.
    #[error("malformed protobuf")]
    Malformed,
    /// A field that this server does not know; the path ends with its number.
    #[error("unknown field path={0}")]
    UnknownField(String),
    /// An enum number that this server does not know.
    #[error("unknown enum value path={0}")]
    UnknownEnumValue(String),
}

/// Every message of the API, by index.
#[derive(Debug)]
pub struct Schema {
    shapes: Vec<Shape>,
    by_name: HashMap<String, usize>,
}

/// One message: its fields in the order of their numbers.
#[derive(Debug)]
struct Shape {
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    number: u32,
    name: String,
    repeated: bool,
    wire: u8,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Scalar,
    Enum(Vec<i32>),
    Message(usize),
}

impl Schema {
    /// The API's, built once. Empty, so that every request is refused, if the compiled descriptors cannot be read.
    pub fn api() -> &'static Self {
        static API: OnceLock<Schema> = OnceLock::new();
        API.get_or_init(|| {
            let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
            Self::of(&pool)
        })
    }

    fn of(pool: &DescriptorPool) -> Self {
        let by_name: HashMap<String, usize> = pool
            .all_messages()
            .enumerate()
            .map(|(index, m)| (m.full_name().to_owned(), index))
            .collect();
        let shapes = pool
            .all_messages()
            .map(|message| shape(&message, &by_name))
            .collect();
        Self { shapes, by_name }
    }

    /// Where the message `full_name` lies.
    pub fn index(&self, full_name: &str) -> Option<usize> {
        self.by_name.get(full_name).copied()
    }

    /// Walks the tags of one encoded message; contents of scalars are skipped, never looked at.
    ///
    /// # Errors
    /// [`Refused`] at the first thing that is not of the schema.
    pub fn check(&self, message: usize, bytes: &[u8]) -> Result<(), Refused> {
        self.check_at(message, bytes, DEPTH).map_err(Fault::into_refused)
    }

    fn check_at(&self, message: usize, bytes: &[u8], depth: usize) -> Result<(), Fault> {
        let (Some(shape), Some(depth)) = (self.shapes.get(message), depth.checked_sub(1)) else {
            return Err(Fault::Malformed);
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire) = tag(&mut rest)?;
            let Some(field) = shape.field(number) else {
                return Err(Fault::unknown_field(number));
            };
            match (&field.value, wire) {
                (Value::Message(inner), LENGTH) => {
                    let here = bytes.len() - rest.len();
                    let body = delimited(&mut rest)?;
                    self.check_at(*inner, body, depth)
                        .map_err(|fault| fault.within(field, || position(bytes, here, number)))?;
                }
                (Value::Enum(known), VARINT) => {
                    known_number(known, &mut rest).map_err(|f| f.within(field, || 0))?
                }
                (Value::Enum(known), LENGTH) if field.repeated => {
                    let mut packed = delimited(&mut rest)?;
                    while !packed.is_empty() {
                        known_number(known, &mut packed).map_err(|f| f.within(field, || 0))?;
                    }
                }
                (Value::Scalar, wire) if wire == field.wire => skip(wire, &mut rest)?,
                (Value::Scalar, LENGTH) if field.repeated => skip(LENGTH, &mut rest)?,
                _ => return Err(Fault::Malformed),
            }
        }
        Ok(())
    }
}

impl Shape {
    fn field(&self, number: u32) -> Option<&Field> {
        let at = self
            .fields
            .binary_search_by_key(&number, |field| field.number)
            .ok()?;
        self.fields.get(at)
    }
}

fn shape(message: &MessageDescriptor, by_name: &HashMap<String, usize>) -> Shape {
    let mut fields: Vec<Field> = message.fields().map(|field| field_of(&field, by_name)).collect();
    fields.sort_by_key(|field| field.number);
    Shape { fields }
}

fn field_of(field: &FieldDescriptor, by_name: &HashMap<String, usize>) -> Field {
    let (wire, value) = match field.kind() {
        Kind::Message(inner) => match by_name.get(inner.full_name()) {
            Some(index) => (LENGTH, Value::Message(*index)),
            None => (LENGTH, Value::Scalar),
        },
        Kind::Enum(known) => (
            VARINT,
            Value::Enum(known.values().map(|value| value.number()).collect()),
        ),
        Kind::String | Kind::Bytes => (LENGTH, Value::Scalar),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => (FIXED64, Value::Scalar),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => (FIXED32, Value::Scalar),
        _ => (VARINT, Value::Scalar),
    };
    Field {
        number: field.number(),
        name: field.name().to_owned(),
        // A map is a repeated message on the wire; its entries have no order, so they are not counted.
        repeated: field.is_list(),
        wire,
        value,
    }
}

/// A refusal on its way up, collecting the path from the inside out.
enum Fault {
    Malformed,
    Field(Vec<String>),
    Enum(Vec<String>),
}

impl Fault {
    fn unknown_field(number: u32) -> Self {
        Self::Field(vec![format!("field {number}")])
    }

    /// Adds the field around it; `position` is asked for only in a repeated message's case.
    fn within(mut self, field: &Field, position: impl FnOnce() -> usize) -> Self {
        if let Self::Field(path) | Self::Enum(path) = &mut self {
            path.push(match (&field.value, field.repeated) {
                (Value::Message(_), true) => format!("{}[{}]", field.name, position()),
                _ => field.name.clone(),
            });
        }
        self
    }

    fn into_refused(self) -> Refused {
        let join = |mut path: Vec<String>| {
            path.reverse();
            path.join(".")
        };
        match self {
            Self::Malformed => Refused::Malformed,
            Self::Field(path) => Refused::UnknownField(join(path)),
            Self::Enum(path) => Refused::UnknownEnumValue(join(path)),
        }
    }
}

/// How many occurrences of field `number` lie before offset `end`; walked again only to word a refusal.
fn position(bytes: &[u8], end: usize, number: u32) -> usize {
    let mut rest = bytes;
    let mut count = 0;
    loop {
        let Ok((this, wire)) = tag(&mut rest) else {
            return count;
        };
        if bytes.len() - rest.len() >= end || skip(wire, &mut rest).is_err() {
            return count;
        }
        count += usize::from(this == number);
    }
}

fn known_number(known: &[i32], rest: &mut &[u8]) -> Result<(), Fault> {
    // An enum is an int32: the low 32 bits of its varint, as every decoder takes it.
    #[allow(clippy::cast_possible_truncation)]
    let number = varint(rest)? as i32;
    if known.contains(&number) {
        Ok(())
    } else {
        Err(Fault::Enum(Vec::new()))
    }
}

fn tag(rest: &mut &[u8]) -> Result<(u32, u8), Fault> {
    let tag = u32::try_from(varint(rest)?).map_err(|_| Fault::Malformed)?;
    let wire = u8::try_from(tag & 7).map_err(|_| Fault::Malformed)?;
    match tag >> 3 {
        0 => Err(Fault::Malformed),
        number => Ok((number, wire)),
    }
}

fn skip(wire: u8, rest: &mut &[u8]) -> Result<(), Fault> {
    match wire {
        VARINT => varint(rest).map(drop),
        FIXED64 => take(8, rest).map(drop),
        LENGTH => delimited(rest).map(drop),
        FIXED32 => take(4, rest).map(drop),
        _ => Err(Fault::Malformed),
    }
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let len = usize::try_from(varint(rest)?).map_err(|_| Fault::Malformed)?;
    take(len, rest)
}

fn take<'a>(len: usize, rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let (taken, left) = rest.split_at_checked(len).ok_or(Fault::Malformed)?;
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    prost::encoding::decode_varint(rest).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
