//! Where in a request something stands; written out only when it is at fault.

use std::fmt;

use crate::vault::Error;

/// A path such as `spec.descriptor.parties[1].tel`.
#[derive(Clone, Copy, Debug)]
pub(in crate::grpc) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    /// A field of the request itself.
    pub(in crate::grpc) const fn root(name: &'a str) -> Self {
        Self {
            parent: None,
            step: Step::Field(name),
        }
    }

    /// A field of what stands here.
    pub(in crate::grpc) fn field<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// An item of the list that stands here.
    pub(in crate::grpc) fn item(&self, index: usize) -> Path<'_> {
        Path {
            parent: Some(self),
            step: Step::Item(index),
        }
    }

    /// The refusal of what stands here.
    pub(in crate::grpc) fn refuse(&self, message: impl Into<String>) -> Error {
        Error::invalid(self.to_string(), message)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match (self.step, self.parent) {
            (Step::Field(name), None) => f.write_str(name),
            (Step::Field(name), Some(_)) => write!(f, ".{name}"),
            (Step::Item(index), _) => write!(f, "[{index}]"),
        }
    }
}
