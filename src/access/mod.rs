//! Who may do what: identity, the first gate, the declared purpose.

pub mod gate;
pub mod identity;
pub mod purpose;
pub mod token;
