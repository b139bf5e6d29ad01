//! Words of the field as types: pure, without I/O.

pub mod clock;
pub mod erasure;
pub mod error;
pub mod fair;
pub mod ids;
pub mod judge;
pub mod limits;
pub mod media;
pub mod principal;
pub mod purpose;
pub mod record;
pub mod tenant;
pub mod text;
