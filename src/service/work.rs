//! The work that nobody waits for: links to look at, webhooks to make, repair and remove.
//!
//! What is to be done, and when, stands in the store with the record that it is for, so that a restart goes on where the
//! last process ended. Here is only who does it: one worker that takes what is due, a bounded number side by side.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Core;
use super::webhooks::keep::Pace;
use crate::domain::webhook::WebhookKey;
use crate::store::Due;

/// How often a link's repository and a webhook are compared with the provider when nothing calls for it sooner.
pub const LOOK_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// How many pieces of work are under way at a time. Each waits for its provider most of the time; what one account gets
/// at once, the outbound limits decide.
const SIDE_BY_SIDE: usize = 32;
/// How often the store is asked for work that became due by itself.
const TICK: Duration = Duration::from_secs(1);
/// How many of them for one instance, or for the links of one tenant: one provider that is slow, or one account that is held
/// up, is not everybody's wait.
const OF_ONE: usize = 8;
/// How many pieces that are due are looked at beyond those under way, so that one instance's do not hide the others'.
const LOOK_AHEAD: usize = 1_024;
/// How long one piece of work may take: its place is another tenant's wait, so a longer pause that a provider asks for is
/// spent in the store. Azure DevOps delays an answer by up to 40 s.
const WORK_LIMIT: Duration = Duration::from_secs(45);
/// The pause after the first try that failed; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Tells the worker that there is something new to do, and keeps two hands off one webhook.
#[derive(Debug, Default)]
pub struct Work {
    news: Notify,
    held: Mutex<HashSet<WebhookKey>>,
    released: Notify,
}

/// A webhook that nobody else touches until this is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    work: &'a Work,
    key: WebhookKey,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.work.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.work.released.notify_waiters();
    }
}

impl Work {
    /// Says that a commit made work due. One call is enough for any number of commits.
    pub fn wake(&self) {
        self.news.notify_one();
    }

    /// Waits until nobody else in this process works on the webhook.
    pub(super) async fn hold(&self, key: &WebhookKey) -> Held<'_> {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Registered before the look, so that no release in between is missed.
            released.as_mut().enable();
            if self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
                return Held { work: self, key: key.clone() };
            }
            released.await;
        }
    }
}

/// When to try again after `attempts` tries in a row that failed, the first one included. Spread, so that what failed
/// together does not come back together.
pub(super) fn pause_after(attempts: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(16)));
    spread(doubled.min(LONGEST_PAUSE))
}

/// Three quarters to five quarters of `span`.
pub(super) fn spread(span: Duration) -> Duration {
    let random = (RandomState::new().hash_one(()) % 1_024) as f64 / 1_024.0;
    span.mul_f64(0.75 + random / 2.0)
}

/// Does the work that is due, for as long as the service runs. Dropping it leaves each piece as a crash would: the next
/// start goes on.
pub async fn run(core: Arc<Core>) {
    let mut bench = Bench::default();
    loop {
        let now = core.clock.now();
        // What is under way, or was a moment ago, may still be due in the store: as many more are asked for.
        match core.store.due(now, LOOK_AHEAD + bench.taken.len()).await {
            Ok(due) => {
                for (_, due) in due {
                    bench.take_up(&core, due);
                }
            }
            Err(error) => tracing::warn!(%error, "the work that is due cannot be read"),
        }
        tokio::select! {
            Some(ended) = bench.running.join_next_with_id() => bench.put_down(ended),
            () = core.work.news.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        bench.taken.retain(|_, until| until.is_none_or(|until| until > Instant::now()));
    }
}

/// The pieces of work that are under way.
#[derive(Debug, Default)]
struct Bench {
    running: JoinSet<Duration>,
    pieces: HashMap<tokio::task::Id, Due>,
    /// What is not taken up now: under way (`None`), or ended so shortly ago that taking it up again could only be a
    /// circle.
    taken: HashMap<Due, Option<Instant>>,
}

impl Bench {
    fn take_up(&mut self, core: &Arc<Core>, due: Due) {
        if self.running.len() >= SIDE_BY_SIDE || self.taken.contains_key(&due) {
            return;
        }
        let of_one = self.pieces.values().filter(|piece| lane(piece) == lane(&due)).count();
        if of_one >= OF_ONE {
            return;
        }
        self.taken.insert(due.clone(), None);
        let (core, piece) = (Arc::clone(core), due.clone());
        let task = self.running.spawn(async move { do_one(&core, &piece).await });
        self.pieces.insert(task.id(), due);
    }

    fn put_down(&mut self, ended: Result<(tokio::task::Id, Duration), tokio::task::JoinError>) {
        let (id, rest) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a piece of background work ended in a defect");
                (error.id(), FIRST_PAUSE)
            }
        };
        if let Some(due) = self.pieces.remove(&id) {
            self.taken.insert(due, Some(Instant::now() + rest));
        }
    }
}

/// Whose places a piece of work takes.
fn lane(due: &Due) -> (&str, &str) {
    match due {
        Due::Webhook(key) => (key.provider.as_str(), &key.instance),
        Due::Link(name) => ("", name.tenant.as_str()),
    }
}

/// Does one piece of work. Returns how long it is not to be taken up again, whatever the store says.
async fn do_one(core: &Core, due: &Due) -> Duration {
    let limit = Instant::now() + WORK_LIMIT;
    let work = async {
        match due {
            Due::Webhook(key) => core.keep_webhook(key, Pace::background(limit)).await.map(drop),
            Due::Link(name) => core.look_at_link(name, limit).await,
        }
    };
    // A little longer than its calls may take, so that what they end with is written down.
    match tokio::time::timeout_at(limit + FIRST_PAUSE, work).await {
        Ok(Ok(())) => return TICK,
        Ok(Err(error)) => tracing::warn!(?due, %error, "background work failed; it is tried again"),
        Err(_) => tracing::warn!(?due, "background work took too long; it is tried again"),
    }
    // What failed without a word in the store would stay the longest due, before all others.
    if let Due::Webhook(key) = due
        && let Err(error) = core.put_off_webhook(key).await
    {
        tracing::warn!(%error, "background work could not be put off");
    }
    FIRST_PAUSE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        for (attempts, seconds) in [(1, 5), (2, 10), (5, 80), (20, 3_600), (u32::MAX, 3_600)] {
            let pause = pause_after(attempts).as_secs_f64();
            let wanted = f64::from(seconds);
            assert!((wanted * 0.74..wanted * 1.26).contains(&pause), "{attempts}: {pause}");
        }
    }
}
