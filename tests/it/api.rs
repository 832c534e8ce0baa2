//! The service over its real gRPC surface.

mod editing;
mod expiry;
mod fixture;
mod listing;
mod naming;
mod refusals;
mod requests;
mod validation;
