//! Gitmoor

pub mod domain;
pub mod outbound;
pub mod provider;
