//! Gitmoor

pub mod domain;
pub mod outbound;
pub mod proto;
pub mod provider;
