//! Which IP addresses are not the public Internet.
