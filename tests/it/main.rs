//! One test binary: acceptance, conformance and the checks of the test support itself.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test has the clock and the environment that it was started with"
)]

mod support;

mod api;
mod audit;
mod azure_devops;
mod bitbucket_cloud;
mod bitbucket_data_center;
mod cli;
mod forge;
mod gitea;
mod github;
mod gitlab;
mod layering;
mod outbound;
mod provider;
mod readme;
mod store;
mod watch;
