//! Plain data: what the product speaks of, parsed once so that inner code never re-checks.
//!
//! Nothing here waits, reads a file, or knows an encoding.

pub mod address;
pub mod base_url;
pub mod connection;
pub mod credential;
pub mod delivery;
pub mod event;
pub mod link;
pub mod page;
pub mod refs;
pub mod repository;
pub mod timestamp;
pub mod verification;
pub mod violation;
pub mod webhook;
pub mod webhook_target;
