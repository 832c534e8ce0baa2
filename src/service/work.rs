//! The work that nobody waits for: links to look at, webhooks to make, repair and remove.

use tokio::sync::Notify;

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
