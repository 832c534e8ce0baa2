//! Gitmoor

pub mod domain;
