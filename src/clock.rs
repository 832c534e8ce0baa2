//! Wall time, for what is written down and shown. Waits use tokio's own clock, which tests can pause.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::timestamp::Timestamp;

/// Tells the time of day. It may jump in either direction; nothing may rely on two answers being in order.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the home of clock reads")]
        let now = SystemTime::now();
        let micros = |span: std::time::Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        // A clock before 1970 is wrong, but no reason to fall over.
        Timestamp::from_unix_micros(match now.duration_since(UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_now_is_after_this_was_written() {
        assert!(SystemClock.now() > Timestamp::from_unix_seconds(1_760_000_000));
    }
}
