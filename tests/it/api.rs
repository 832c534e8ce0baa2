//! The service over its real gRPC surface.

mod across;
mod between;
mod clone;
mod deliveries;
mod editing;
mod events;
mod expiry;
mod findings;
mod fixture;
mod git;
mod hostile;
mod links;
mod listing;
mod naming;
mod network;
mod refusals;
mod repositories;
mod requests;
mod switching;
mod tenancy;
mod validation;
mod watch;
mod webhooks;
