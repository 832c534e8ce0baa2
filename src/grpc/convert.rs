//! Protobuf to domain and back: the only place where they meet.

mod decode;
mod encode;

pub(super) use decode::{credential_draft, draft, edit, min_permission, page_size};
pub(super) use encode::{connection, namespace, provider, report, repository, time, warning};
