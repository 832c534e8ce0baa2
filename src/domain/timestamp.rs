//! Moments in time, to the microsecond.

use std::time::Duration;

/// A moment, in microseconds since 1970-01-01T00:00:00Z (leap seconds not counted).
///
/// Covers about 292,000 years to either side, so that no provider's date can overflow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` microseconds after 1970-01-01T00:00:00Z; negative values lie before it.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The moment `seconds` seconds after 1970-01-01T00:00:00Z, at the edge of the range if it lies beyond.
    #[must_use]
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded towards the past.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The part of a second behind [`Self::unix_seconds`], in nanoseconds (0 to 999,999,000).
    #[must_use]
    pub const fn subsecond_nanos(self) -> i32 {
        // Below 1,000,000 by construction, so the cast loses nothing.
        #[expect(clippy::cast_possible_truncation, reason = "rem_euclid keeps it below 1,000,000")]
        let micros = self.0.rem_euclid(1_000_000) as i32;
        micros * 1_000
    }

    /// This moment plus `span`, at the edge of the range if it lies beyond.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This moment minus `span`, at the edge of the range if it lies beyond.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this moment is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_1970_round_towards_the_past() {
        let moment = Timestamp::from_unix_micros(-1);
        assert_eq!(moment.unix_seconds(), -1);
        assert_eq!(moment.subsecond_nanos(), 999_999_000);
    }

    #[test]
    fn o10_a_moment_beyond_the_range_stays_at_its_edge() {
        let edge = Timestamp::from_unix_seconds(i64::MAX);
        assert_eq!(edge.saturating_add(Duration::MAX), edge);
        assert_eq!(Timestamp::default().since(edge), Duration::ZERO);
    }
}
