//! Gitmoor
