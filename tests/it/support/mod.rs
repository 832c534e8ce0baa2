//! What the tests share.

pub(crate) mod app;
pub(crate) mod dns;
pub(crate) mod drive;
pub(crate) mod forge;
pub(crate) mod openapi;
pub(crate) mod wire;
