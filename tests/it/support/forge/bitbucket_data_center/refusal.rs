//! How Bitbucket Data Center says no, and how it pages.

use serde_json::{Value, json};

use super::super::wire::{Query, Reply};

fn error(status: u16, message: &str, exception: Option<&str>) -> Reply {
    let body = json!({"errors": [{"context": null, "message": message, "exceptionName": exception}]});
    Reply::new(status, "application/json;charset=UTF-8", body.to_string())
}

fn named(status: u16, message: &str, exception: &str) -> Reply {
    error(status, message, Some(&format!("com.atlassian.bitbucket.{exception}")))
}

pub(super) fn bad_credentials() -> Reply {
    named(
        401,
        "Authentication failed. Please check your credentials and try again.",
        "auth.IncorrectPasswordAuthenticationException",
    )
}

pub(super) fn captcha() -> Reply {
    let text = "CAPTCHA required. Your account has been marked as requiring a CAPTCHA.";
    named(401, text, "auth.CaptchaRequiredAuthenticationException")
}

/// The same words for a stranger and for a user without the right.
pub(super) fn not_permitted() -> Reply {
    named(401, "You are not permitted to access this resource", "AuthorisationException")
}

/// The one error without a list of errors.
pub(super) fn basic_disabled() -> Reply {
    let body = json!({"message": "Basic Authentication has been disabled on this instance."});
    Reply::new(403, "application/json;charset=UTF-8", body.to_string())
}

pub(super) fn no_project(key: &str) -> Reply {
    named(404, &format!("Project {key} does not exist."), "project.NoSuchProjectException")
}

pub(super) fn no_repository(key: &str, slug: &str) -> Reply {
    let text = format!("Repository {key}/{slug} does not exist.");
    named(404, &text, "repository.NoSuchRepositoryException")
}

pub(super) fn no_default_branch() -> Reply {
    let text = "The default branch is not configured or does not exist.";
    named(404, text, "repository.NoDefaultBranchException")
}

pub(super) fn no_webhook(id: &str) -> Reply {
    let text = format!("The webhook {id} does not exist.");
    error(404, &text, Some("com.atlassian.webhooks.NoSuchWebhookException"))
}

/// The words are not documented.
pub(super) fn archived() -> Reply {
    error(409, "The repository is archived.", None)
}

/// What a change gets that could come from a page in a browser.
pub(super) fn xsrf() -> Reply {
    Reply::new(403, "text/plain;charset=UTF-8", "XSRF check failed")
}

pub(super) fn no_user(slug: &str) -> Reply {
    named(404, &format!("No user exists with the slug '{slug}'"), "user.NoSuchUserException")
}

pub(super) fn invalid(context: &str, message: &str) -> Reply {
    let body = json!({"errors": [{"context": context, "message": message, "exceptionName": null}]});
    Reply::new(400, "application/json;charset=UTF-8", body.to_string())
}

/// What a personal repository that has moved answers with (BSERV-11763).
pub(super) fn broken() -> Reply {
    named(500, "An unexpected error occurred.", "ServiceException")
}

pub(in super::super) fn limited() -> Reply {
    error(429, "You have been rate limited", None)
        .header("x-ratelimit-limit", 60)
        .header("x-ratelimit-remaining", 0)
        .header("x-ratelimit-fillrate", 5)
        .header("x-ratelimit-interval-seconds", 1)
}

pub(in super::super) fn failed() -> Reply {
    error(500, "An error occurred while processing the request.", None)
}

/// Which page is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageOf {
    pub(super) start: usize,
    pub(super) limit: usize,
}

impl PageOf {
    /// 25 rows unless asked otherwise, and no more than `cap`.
    pub(super) fn read(query: &Query, cap: usize) -> Result<Self, Reply> {
        let number = |name: &str, default: usize| match query.first(name).map(str::parse::<i32>) {
            None => Ok(default),
            Some(Ok(value)) => usize::try_from(value).map_err(|_| invalid(name, "must not be negative")),
            Some(Err(_)) => Err(invalid(name, "is no number")),
        };
        let (start, limit) = (number("start", 0)?, number("limit", 25)?);
        Ok(Self { start, limit: limit.clamp(1, cap) })
    }

    /// A page of what `rows` yields: place and row of all that is visible from `start` on.
    pub(super) fn reply(self, rows: impl Iterator<Item = (usize, String)>) -> Reply {
        let mut rows = rows.peekable();
        let (mut values, mut size) = (String::new(), 0);
        while size < self.limit
            && let Some((_, row)) = rows.next()
        {
            if size > 0 {
                values.push(',');
            }
            values.push_str(&row);
            size += 1;
        }
        // Hidden rows count as places, so the starts of pages are not contiguous.
        let next = rows.peek().map(|(place, _)| *place);
        let body = format!(
            "{{\"size\":{size},\"limit\":{},\"isLastPage\":{},\"values\":[{values}],\"start\":{},\"nextPageStart\":{}}}",
            self.limit,
            next.is_none(),
            self.start,
            next.map_or_else(|| "null".to_owned(), |next| next.to_string()),
        );
        Reply::new(200, "application/json;charset=UTF-8", body)
    }
}

/// Where the next page of an answer starts.
pub(in super::super) fn next_start(reply: &Reply) -> Option<String> {
    let body = std::str::from_utf8(&reply.body).ok()?;
    let (_, next) = body.rsplit_once("\"nextPageStart\":")?;
    Some(next.trim_end_matches('}').to_owned()).filter(|next| next != "null")
}

/// Makes an answer tell another start of the next page.
pub(in super::super) fn set_next_start(reply: &mut Reply, next: &str) {
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    let Some((before, _)) = body.rsplit_once("\"nextPageStart\":") else { return };
    let before = before.replacen("\"isLastPage\":true", "\"isLastPage\":false", 1);
    // As JSON if it is some, else as a string.
    let next =
        serde_json::from_str::<Value>(next).map_or_else(|_| json!(next).to_string(), |_| next.to_owned());
    reply.body = format!("{before}\"nextPageStart\":{next}}}").into();
}
