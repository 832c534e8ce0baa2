//! The checks of a token: does it work, whose is it, what may it do.
//!
//! Neither scopes nor expiry can be read. What the token may do shows in two listings: the repositories that it may
//! read, and those of which it is an administrator.

use super::listing::slug_of;
use super::rows::{PropertiesRow, RepositoryRow, UserRow, account_named};
use super::wire::{self, PageRow, SMALL, accepted, fetch, nobody, speaks_bitbucket, user_id_of, user_of};
use super::{ADMIN, MINIMUM_VERSION, READ};
use crate::domain::credential::{Account, Capabilities, Capability, CapabilityType};
use crate::domain::verification::{Check, CheckResult};
use crate::provider::api::{Answer, Api, Call};
use crate::provider::inspection::{Heard, clean, failed, release, skip_rest, warned, warned_of_links};
use crate::provider::{Inspection, ProviderError};

/// What to do about links that name another host.
const LINKS_REMEDY: &str = "Set the base URL of the server (Administration, Server settings; `setup.baseUrl`) to the \
    URL that people use.";
/// What to do if the server answers as to a stranger.
const STRANGER_REMEDY: &str = "Copy the token again as the server showed it, or make a new one. If it is good, look \
    at what stands in front of the server: a proxy or a single sign-on can drop the header `Authorization`.";

/// Everything that was asked.
struct Interview {
    /// `application-properties`, which answers anybody.
    properties: Heard,
    /// One repository that the token may read.
    readable: Heard,
    /// One repository of which it is an administrator.
    administered: Heard,
}

/// Runs all checks. Three calls do not depend on each other and run side by side; a fourth asks for the user whom
/// they name.
pub(super) async fn inspect(api: &Api, wanted: &[CapabilityType]) -> Inspection {
    let (properties, readable, administered) = tokio::join!(
        Heard::of(wire::properties(api), accepted),
        Heard::of(one_repository(api, READ), accepted),
        Heard::of(one_repository(api, ADMIN), accepted),
    );
    let heard = Interview { properties, readable, administered };
    let mut found = Inspection::default();
    for answer in heard.answers() {
        found.server_time = answer.date().or(found.server_time);
        found.rate_limit = answer.rate_limit.or(found.rate_limit);
    }
    if let Some(error) = heard.provider_match(&mut found) {
        skip_rest(&mut found, Check::ServerVersion);
        found.failure = Some(error);
        return found;
    }
    if let Some(error) = heard.server_version(&mut found) {
        skip_rest(&mut found, Check::Authentication);
        found.failure = Some(error);
        return found;
    }
    let (user, id) = match heard.user() {
        Ok(user) => user,
        Err(error) => {
            let check = failed(Check::Authentication, &error);
            found.checks.push(if error == nobody() {
                CheckResult { remedy: STRANGER_REMEDY.to_owned(), ..check }
            } else {
                check
            });
            skip_rest(&mut found, Check::Identity);
            found.failure = Some(error);
            return found;
        }
    };
    found.checks.push(
        CheckResult::pass(Check::Authentication, "the server names the token's user")
            .with_duration(heard.properties.took),
    );
    identity(&mut found, api, &user, id).await;
    let (readable, administered) = (probe(&heard.readable), probe(&heard.administered));
    found.capabilities = capabilities(&readable, &administered);
    scopes(&mut found, wanted);
    list_check(&mut found, api, &heard, readable, wanted);
    webhook_check(&mut found, administered, wanted);
    found
}

fn one_repository<'a>(api: &'a Api, permission: &str) -> Call<'a> {
    let call = api.get(&["repos"]).query("permission", permission).query("archived", "ALL");
    call.query("limit", "1").limit(SMALL)
}

type Probe = Result<Vec<RepositoryRow>, ProviderError>;

/// What a listing shows to a token whose user is known, read as [`wire::read`] reads it: a stranger is shown nothing,
/// and words that fit a stranger and a missing right alike are about the right.
fn probe(heard: &Heard) -> Probe {
    if heard.answer.as_ref().is_ok_and(wire::is_unclear) {
        return Err(ProviderError::Forbidden);
    }
    let answer = heard.accepted()?;
    let page = answer.json::<PageRow<RepositoryRow>>()?;
    user_of(&answer).map(|_| page.values).ok_or_else(nobody)
}

impl Interview {
    fn answers(&self) -> impl Iterator<Item = &Answer> {
        let all = [&self.properties, &self.readable, &self.administered];
        all.into_iter().filter_map(|heard| heard.answer.as_ref().ok())
    }

    /// Checks that it is Bitbucket that answers, and tells what ends the inspection if it is not.
    fn provider_match(&self, found: &mut Inspection) -> Option<ProviderError> {
        let check = Check::ProviderMatch;
        if self.answers().any(speaks_bitbucket) {
            let result = CheckResult::pass(check, "Bitbucket Data Center answers");
            found.checks.push(result.with_duration(self.properties.took));
            return None;
        }
        let error = match &self.properties.answer {
            Err(error) => error.clone(),
            Ok(answer) if answer.leads_elsewhere() => ProviderError::Failed {
                problem: "it redirects to another origin, which is never followed",
                status: Some(answer.status.as_u16()),
            },
            Ok(answer) if answer.is_json() && answer.status.is_success() => ProviderError::Failed {
                problem: "its answers are not those that Bitbucket Data Center documents",
                status: Some(answer.status.as_u16()),
            },
            Ok(answer) if answer.is_json() => ProviderError::Mismatch { found: "another API" },
            Ok(answer) if answer.status.is_redirection() => {
                ProviderError::Mismatch { found: "a redirect, such as to a sign-in page" }
            }
            Ok(_) => ProviderError::Mismatch { found: "a web page" },
        };
        let result = failed(check, &error);
        found.checks.push(match self.properties.status() {
            Some(status) => result.with_status(status),
            None => result,
        });
        Some(error)
    }

    /// Checks the version, and tells what ends the inspection if it is too low.
    fn server_version(&self, found: &mut Inspection) -> Option<ProviderError> {
        let check = Check::ServerVersion;
        let row = self.properties.accepted().and_then(|answer| answer.json::<PropertiesRow>());
        let version = match row {
            Ok(row) => clean(&row.version),
            Err(ProviderError::CredentialRejected { .. }) => {
                found.checks.push(CheckResult::skipped(check, "the version is not told to this token"));
                return None;
            }
            Err(error) => {
                found.checks.push(warned(check, &error));
                return None;
            }
        };
        found.server_version.clone_from(&version);
        match (release(&version), release(MINIMUM_VERSION)) {
            (Some(release), Some(minimum)) if release < minimum => {
                let error = ProviderError::VersionUnsupported { found: version, minimum: MINIMUM_VERSION };
                found.checks.push(failed(check, &error).with_status(200));
                Some(error)
            }
            (Some(_), _) => {
                let result = CheckResult::pass(check, format!("Bitbucket Data Center {version}"));
                found.checks.push(result.with_status(200).with_duration(self.properties.took));
                None
            }
            (None, _) => {
                found.checks.push(CheckResult::warn(
                    check,
                    "PROVIDER_VERSION_UNKNOWN",
                    "the version that the server tells is none",
                    format!(
                        "Make sure that the server has Bitbucket Data Center {MINIMUM_VERSION} or later."
                    ),
                ));
                None
            }
        }
    }

    /// The user whom the server took the caller for, with its number. A good status alone proves nothing: each of
    /// the three calls answers a stranger, too.
    fn user(&self) -> Result<(String, Option<String>), ProviderError> {
        if let Some(named) = self.answers().find_map(|answer| Some((user_of(answer)?, user_id_of(answer)))) {
            return Ok(named);
        }
        // A refusal says more of the token than a call that was answered as to a stranger.
        let errors =
            [&self.properties, &self.readable, &self.administered].map(|heard| heard.accepted().err());
        let is_refusal = |error: &&ProviderError| matches!(error, ProviderError::CredentialRejected { .. });
        let refusal = errors.iter().flatten().find(is_refusal);
        Err(refusal.or(errors[0].as_ref()).cloned().unwrap_or_else(nobody))
    }
}

async fn identity(found: &mut Inspection, api: &Api, user: &str, id: Option<String>) {
    let check = Check::Identity;
    let (account, result) = match account(api, user).await {
        Ok(Some(account)) => (account, CheckResult::pass(check, "the server tells of the token's user")),
        Ok(None) => (
            account_named(user),
            CheckResult::pass(check, "the server names the token's user, and tells this token no more"),
        ),
        Err(error) => (account_named(user), warned(check, &error)),
    };
    found.checks.push(result);
    // The header's number comes with every answer, so it stays the same if the rest is not told.
    found.account = Some(Account { id: id.unwrap_or_else(|| account.id.clone()), ..account });
}

/// What the server tells of a user; `None` if it tells this token nothing. The path takes the slug, which is made of
/// the name in a way that is not documented, so the name decides, and a search follows.
async fn account(api: &Api, user: &str) -> Result<Option<Account>, ProviderError> {
    let hidden = |error: &ProviderError| matches!(error, ProviderError::NotFound | ProviderError::Forbidden);
    match fetch::<UserRow>(api, api.get(&["users", &slug_of(user)]).limit(SMALL)).await {
        Ok(row) if row.name == user => return Ok(Some(row.account())),
        Ok(_) => {}
        Err(error) if hidden(&error) => {}
        Err(error) => return Err(error),
    }
    let search = api.get(&["users"]).query("filter", user).limit(SMALL);
    match fetch::<PageRow<UserRow>>(api, search).await {
        Ok(page) => Ok(page.values.iter().find(|row| row.name == user).map(UserRow::account)),
        Err(error) if hidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the two listings show. Without any repository they show nothing.
fn capabilities(readable: &Probe, administered: &Probe) -> Capabilities {
    let list_repositories = match readable {
        Ok(_) => Capability::Yes,
        Err(ProviderError::Forbidden) => Capability::No,
        Err(_) => Capability::Unknown,
    };
    let has_some = readable.as_ref().is_ok_and(|rows| !rows.is_empty());
    Capabilities {
        list_repositories,
        // The permission that lists a repository also clones it.
        read_code: if has_some || list_repositories == Capability::No {
            list_repositories
        } else {
            Capability::Unknown
        },
        manage_webhooks: match administered {
            Ok(rows) if !rows.is_empty() => Capability::Yes,
            Ok(_) if has_some => Capability::No,
            Err(ProviderError::Forbidden) => Capability::No,
            _ => Capability::Unknown,
        },
    }
}

/// Compares what was shown with the wanted capabilities. A token that is good for none of them is of no use.
fn scopes(found: &mut Inspection, wanted: &[CapabilityType]) {
    let check = Check::Scopes;
    let needed = |capability: &CapabilityType| match capability {
        CapabilityType::ListRepositories | CapabilityType::ReadCode => READ,
        CapabilityType::ManageWebhooks => ADMIN,
    };
    let is_lacking = |capability: &&CapabilityType| found.capabilities.of(**capability) == Capability::No;
    let lacking: Vec<&CapabilityType> = wanted.iter().filter(is_lacking).collect();
    if lacking.is_empty() {
        let message = "the server does not tell the permissions of a token, and none was found missing";
        found.checks.push(CheckResult::skipped(check, message));
        return;
    }
    let mut missing: Vec<String> = lacking.iter().map(|capability| needed(capability).to_owned()).collect();
    missing.dedup();
    let needs: Vec<String> = lacking
        .iter()
        .map(|capability| format!("{} needs {}", capability.as_str(), needed(capability)))
        .collect();
    let message = format!("token and user together lack permissions: {}", needs.join("; "));
    let remedy = format!(
        "Make a token with {}, of a user who has it on the repositories, and replace this one.",
        missing.join(", ")
    );
    let reason = "CREDENTIAL_SCOPE_MISSING";
    if lacking.len() == wanted.len() {
        found.failure = Some(ProviderError::ScopeMissing { scopes: missing.clone() });
        found.checks.push(CheckResult::fail(check, reason, message, remedy));
    } else {
        found.checks.push(CheckResult::warn(check, reason, message, remedy));
    }
    found.missing_scopes = missing;
}

fn list_check(
    found: &mut Inspection,
    api: &Api,
    heard: &Interview,
    readable: Probe,
    wanted: &[CapabilityType],
) {
    let check = Check::ListRepositories;
    let is_wanted = wanted.contains(&CapabilityType::ListRepositories);
    let result = match readable {
        Ok(rows) => warned_of_links(
            &rows.iter().flat_map(RepositoryRow::link_hosts).collect::<Vec<_>>(),
            api,
            LINKS_REMEDY,
        )
        .unwrap_or_else(|| CheckResult::pass(check, "repositories can be listed"))
        .with_status(200),
        Err(error) if !is_wanted => warned(check, &error),
        Err(error) => {
            let result = failed(check, &error);
            // A missing permission was judged with the others; anything else leaves the connection without use.
            if error != ProviderError::Forbidden {
                found.failure.get_or_insert(error);
            }
            result
        }
    };
    found.checks.push(result.with_duration(heard.readable.took));
}

fn webhook_check(found: &mut Inspection, administered: Probe, wanted: &[CapabilityType]) {
    let check = Check::Webhooks;
    found.checks.push(match (found.capabilities.manage_webhooks, administered) {
        (Capability::Yes, _) => {
            CheckResult::pass(check, "webhooks can be managed where token and user are administrators")
        }
        (Capability::No, _) if !wanted.contains(&CapabilityType::ManageWebhooks) => {
            CheckResult::skipped(check, "webhooks cannot be managed, and need not")
        }
        (Capability::No, _) => CheckResult::warn(
            check,
            "WEBHOOK_PERMISSION_MISSING",
            "of no repository are both the token and its user administrators",
            "Give the user the permission Repository admin and make a token that has it, or set up webhooks by hand.",
        ),
        (Capability::Unknown, Err(error)) => warned(check, &error),
        (Capability::Unknown, Ok(_)) => {
            CheckResult::skipped(check, "no repository tells whether webhooks can be managed")
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(rows: usize) -> Probe {
        let row = r#"{"id":1,"slug":"my-repo","project":{"key":"PRJ"}}"#;
        Ok((0..rows).map(|_| serde_json::from_str(row).expect("a row")).collect())
    }

    #[test]
    fn without_a_repository_nothing_is_known() {
        let of = |readable, administered| {
            let found = capabilities(&readable, &administered);
            CapabilityType::ALL.map(|capability| found.of(capability))
        };
        use Capability::{No, Unknown, Yes};
        assert_eq!(of(probe(1), probe(1)), [Yes, Yes, Yes]);
        assert_eq!(of(probe(1), probe(0)), [Yes, Yes, No]);
        assert_eq!(of(probe(0), probe(0)), [Yes, Unknown, Unknown]);
        assert_eq!(of(Err(ProviderError::Forbidden), Err(ProviderError::Forbidden)), [No, No, No]);
        assert_eq!(of(Err(ProviderError::Timeout), probe(0)), [Unknown, Unknown, Unknown]);
    }
}
