//! Stub.
/// Stub.
pub struct ElectionModule;
