//! Protobuf to domain and back: the only place where they meet.

mod decode;
mod encode;
mod events;
mod links;
mod webhooks;

pub(super) use decode::{credential_draft, draft, edit, min_permission, page_size, ref_type};
pub(super) use encode::{
    connection, found, git_ref, namespace, provider, report, time, warning, webhook_event,
};
pub(super) use events::connection_event;
pub(super) use links::{affected_link, check_links, link, link_draft, link_edit, migrated, switch_target};
pub(super) use webhooks::{delivery, rotated, webhook};
