#![doc = include_str!("../README.md")]

pub mod app;
pub mod clock;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod outbound;
pub mod proto;
pub mod provider;
pub mod seal;
pub mod service;
pub mod store;
pub mod telemetry;
