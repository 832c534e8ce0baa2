//! What a provider's headers say of its quota. Pure: the time is an argument.

use std::time::{Duration, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::domain::connection::RateLimit;
use crate::domain::timestamp::Timestamp;

/// The longest pause that a provider is believed.
const LONGEST: Duration = Duration::from_secs(3_600);
/// The pause of a provider that asks for one and does not say how long in a way that can be read.
const UNTOLD: Duration = Duration::from_secs(60);
/// Names the limit that a call met; it comes with a 403 that can have neither a pause nor an empty quota.
const LIMITED_BY: &str = "gh-limited-by";
/// Numbers from here on are seconds since 1970 (this one is in 2001), smaller ones seconds from now.
const UNIX_TIME_FROM: u64 = 1_000_000_000;

/// What one answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pushback {
    /// The quota, if the answer named one.
    pub(super) rate_limit: Option<RateLimit>,
    /// How long to send nothing more, from now.
    pub(super) pause: Option<Duration>,
    /// Whether this very call was refused for its rate.
    pub(super) refused: bool,
}

/// Reads the headers of an answer that came at `now`.
///
/// `Retry-After` counts on every status: Azure DevOps sends it with a 200 and means the next call. A 403 with an
/// empty quota, a `Retry-After` or the name of a limit is a rate limit, not a denial.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Pushback {
    let quota = quota(headers, now);
    let retry_after = headers.get(RETRY_AFTER).map(|value| pause(value.to_str().unwrap_or_default(), now));
    let is_empty = quota.is_some_and(|quota| quota.remaining <= 0);
    let until_reset = quota
        .filter(|_| is_empty)
        .and_then(|quota| quota.reset_time)
        .map(|reset| reset.since(now).min(LONGEST));
    let refused = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => is_empty || retry_after.is_some() || headers.contains_key(LIMITED_BY),
        _ => false,
    };
    let pause = retry_after.or(until_reset).or(refused.then_some(UNTOLD));
    // A refusal that asks for no time at all would be repeated at once.
    let pause = if refused { pause.map(|pause| pause.max(Duration::from_secs(1))) } else { pause };
    let rate_limit = quota.map(|quota| RateLimit {
        limit: quota.limit,
        remaining: quota.remaining.max(0),
        reset_time: quota.reset_time,
        observe_time: now,
    });
    Pushback { rate_limit, pause: pause.filter(|pause| !pause.is_zero()), refused }
}

/// The value of a `Retry-After`: seconds, or an HTTP date.
fn pause(text: &str, now: Timestamp) -> Duration {
    let text = text.trim();
    if let Some(seconds) = digits(text) {
        return Duration::from_secs(seconds).min(LONGEST);
    }
    let Ok(date) = httpdate::parse_http_date(text) else { return UNTOLD };
    let Ok(since) = date.duration_since(UNIX_EPOCH) else { return Duration::ZERO };
    Timestamp::default().saturating_add(since).since(now).min(LONGEST)
}

#[derive(Debug, Clone, Copy)]
struct Quota {
    limit: i64,
    remaining: i64,
    reset_time: Option<Timestamp>,
}

/// `RateLimit-*` (GitLab) or `X-RateLimit-*` (Azure DevOps and others); without both numbers there is none.
fn quota(headers: &HeaderMap, now: Timestamp) -> Option<Quota> {
    ["ratelimit-", "x-ratelimit-"].into_iter().find_map(|prefix| {
        let number = |name: &str| {
            let value = headers.get(format!("{prefix}{name}"))?.to_str().ok()?;
            digits(value.trim())
        };
        let small = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let reset_time = number("reset").map(|reset| {
            // Clamped, so that a clock far off closes nothing for longer than an hour.
            let at = if reset >= UNIX_TIME_FROM {
                Timestamp::from_unix_seconds(small(reset))
            } else {
                now.saturating_add(Duration::from_secs(reset))
            };
            at.clamp(now, now.saturating_add(LONGEST))
        });
        Some(Quota { limit: small(number("limit")?), remaining: small(number("remaining")?), reset_time })
    })
}

/// A plain decimal number, at the edge of the range if it lies beyond.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Pushback {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        read(StatusCode::from_u16(status).expect("a status"), &headers, NOW)
    }

    fn retry_after(value: &str) -> Option<u64> {
        answer(429, &[("retry-after", value)]).pause.map(|pause| pause.as_secs())
    }

    #[test]
    fn h36_a_retry_after_is_believed_up_to_an_hour() {
        let nested = format!("Mon, 21 Sep 2026 {}{}", "(".repeat(5_000), ")".repeat(5_000));
        for (value, seconds) in [
            ("3", 3),
            (" 3 ", 3),
            ("0", 1),
            ("-5", 60),
            ("1000000000000", 3_600),
            ("99999999999999999999999999", 3_600),
            ("abc", 60),
            ("", 60),
            ("1.5", 60),
            (&nested, 60),
            ("Mon, 21 Sep 2026 14:13:50 GMT", 30),
            ("Tue, 22 Sep 2099 14:13:50 GMT", 3_600),
            ("Mon, 21 Sep 2020 14:13:50 GMT", 1),
        ] {
            assert_eq!(retry_after(value), Some(seconds), "{value:.40}");
        }
        assert_eq!(answer(429, &[]).pause, Some(UNTOLD));
    }

    #[test]
    fn h34_a_403_with_a_pause_or_an_empty_quota_is_a_rate_limit() {
        assert!(
            answer(403, &[("retry-after", "5"), ("x-ratelimit-limit", "9"), ("x-ratelimit-remaining", "4")])
                .refused
        );
        assert!(answer(403, &[("x-ratelimit-limit", "9"), ("x-ratelimit-remaining", "0")]).refused);
        let named = answer(403, &[("gh-limited-by", "search"), ("x-ratelimit-remaining", "4")]);
        assert_eq!((named.refused, named.pause), (true, Some(UNTOLD)));
        assert!(!answer(403, &[("x-ratelimit-limit", "9"), ("x-ratelimit-remaining", "4")]).refused);
        assert!(!answer(403, &[]).refused);
        assert!(answer(429, &[]).refused);
    }

    #[test]
    fn h37_a_reset_far_off_is_clamped() {
        let pause = |reset: &str| {
            answer(
                200,
                &[("ratelimit-limit", "600"), ("ratelimit-remaining", "0"), ("ratelimit-reset", reset)],
            )
            .pause
            .map(|pause| pause.as_secs())
        };
        assert_eq!(pause("1790000030"), Some(30));
        assert_eq!(pause("30"), Some(30));
        assert_eq!(pause("1000000001"), None);
        assert_eq!(pause("9999999999"), Some(3_600));
        assert_eq!(pause("99999999999999999999"), Some(3_600));
        assert_eq!(pause("soon"), None);
    }

    #[test]
    fn a_200_with_a_pause_is_no_refusal() {
        let delayed = answer(200, &[("retry-after", "7"), ("x-ratelimit-delay", "6.5")]);
        assert_eq!(
            delayed,
            Pushback { rate_limit: None, pause: Some(Duration::from_secs(7)), refused: false }
        );
        assert_eq!(answer(200, &[]), Pushback { rate_limit: None, pause: None, refused: false });
    }

    #[test]
    fn the_quota_is_kept() {
        let quota = answer(
            200,
            &[("ratelimit-limit", "600"), ("ratelimit-remaining", "599"), ("ratelimit-reset", "1790000060")],
        );
        assert_eq!(
            quota.rate_limit,
            Some(RateLimit {
                limit: 600,
                remaining: 599,
                reset_time: Some(Timestamp::from_unix_seconds(1_790_000_060)),
                observe_time: NOW,
            })
        );
        assert_eq!(quota.pause, None);
        assert_eq!(answer(200, &[("ratelimit-limit", "600")]).rate_limit, None);
        assert_eq!(answer(200, &[("ratelimit-limit", "-1"), ("ratelimit-remaining", "x")]).rate_limit, None);
    }

    proptest! {
        #[test]
        fn no_header_asks_for_more_than_an_hour(
            status in prop::sample::select(vec![200_u16, 403, 429, 503]),
            values in prop::collection::vec("[ -~]{0,40}", 4),
        ) {
            let names = ["retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
            let headers: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
            let read = answer(status, &headers);
            prop_assert!(read.pause.is_none_or(|pause| pause <= LONGEST));
            prop_assert!(!read.refused || read.pause.is_some());
        }
    }
}
