//! Gitmoor

pub mod clock;
pub mod config;
pub mod domain;
pub mod outbound;
pub mod proto;
pub mod provider;
pub mod seal;
pub mod store;
pub mod telemetry;
