//! Webhooks: who counts on which, and the work that keeps them as they are wanted.

pub(super) mod share;
