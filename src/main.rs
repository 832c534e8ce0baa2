//! Gitmoor
fn main() {}
