//! Parts of `ErasureService`.

pub(super) mod certificate;
