//! The few calls that no crate offers safely. Nothing else in the library may use `unsafe`.

pub mod packet;
