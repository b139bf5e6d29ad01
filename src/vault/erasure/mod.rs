//! Erasures and the evidence of them.

mod certificate;
