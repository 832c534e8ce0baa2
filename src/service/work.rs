//! The work that nobody waits for: links to look at, webhooks to make, repair and remove.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::sync::Notify;

/// How often the repository of a link is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// Tells the worker that there is something new to do.
#[derive(Debug, Default)]
pub struct Work {
    news: Notify,
}

impl Work {
    /// Says that a commit made work due. One call is enough for any number of commits.
    pub fn wake(&self) {
        self.news.notify_one();
    }
}

/// Three quarters to all of `span`, so that what was made together does not come due together.
pub(super) fn spread(span: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 1_024;
    span - span.mul_f64(0.25 * random as f64 / 1_024.0)
}
