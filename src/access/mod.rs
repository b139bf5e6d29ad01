//! Who may do what: identity, the first gate, the declared purpose.

pub mod gate;
pub mod identity;
pub mod policy;
pub mod purpose;
pub mod session;
pub mod token;
