//! The gRPC surface: decode, call the service, encode.

pub mod connections;
pub mod convert;
pub mod git;
pub mod layers;
pub mod links;
pub mod names;
mod repeat;
pub mod repositories;
pub mod status;
mod watch;
pub mod webhooks;

use tonic::{Extensions, Request};

use crate::service::Context;
use crate::service::error::Error;

/// What the inbound layers know of a call; a defect if they did not run.
fn context(extensions: &Extensions) -> Result<Context, Error> {
    let found = extensions.get::<Context>().cloned();
    found.ok_or_else(|| Error::Bug { problem: "a request came past the inbound layers".to_owned() })
}

/// The message of a request and what the inbound layers know of the call.
fn open<T>(request: Request<T>) -> Result<(Context, T), Error> {
    let (_, extensions, message) = request.into_parts();
    Ok((context(&extensions)?, message))
}
