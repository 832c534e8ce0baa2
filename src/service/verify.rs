//! Asking a provider about a token, and what the answers make of a connection.

use std::time::Duration;

use tokio::time::Instant;

use super::Core;
use super::draft::CheckedCredential;
use crate::domain::connection::{Condition, ConditionStatus, Connection, Scope, State};
use crate::domain::credential::{
    Account, Capability, CapabilityType, Credential, CredentialInfo, ExpireTimeSource, obfuscate,
};
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::{Check, CheckResult, Outcome, VerificationReport};
use crate::provider::gateway::{Peer, Probe, Step};
use crate::provider::{Endpoint, Inspection, Presence, Provider, ProviderError};

/// A token that ends sooner than this makes its connection DEGRADED.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
/// Clocks that differ by more than this get a warning: expiry dates and signed webhooks are judged by them.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(120);

/// The condition, and the reason, that a token belongs to another account than before.
pub(super) const ACCOUNT_CHANGED: &str = "CREDENTIAL_ACCOUNT_CHANGED";

/// What a verification found.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) report: VerificationReport,
    pub(super) inspection: Inspection,
}

impl Core {
    /// Picks the endpoint that answers; where none is sure, the first that may. With one candidate nothing is asked.
    /// `credential` goes along only where the provider tells nothing without it.
    pub(super) async fn locate(
        &self,
        provider: &dyn Provider,
        endpoints: Vec<Endpoint>,
        ca_certificates_pem: &str,
        credential: Option<&Credential>,
        account: &str,
        deadline: Instant,
    ) -> Result<Endpoint, ProviderError> {
        let mut endpoints = endpoints.into_iter();
        let Some(first) = endpoints.next() else {
            return Err(ProviderError::garbled("the URL stands for no endpoint"));
        };
        if endpoints.len() == 0 {
            return Ok(first);
        }
        // Else no credential goes along: it is not known yet which path it belongs to.
        let credential = credential.filter(|_| provider.answers_only_with_token());
        let (mut perhaps, mut failed) = (None, None);
        for candidate in std::iter::once(first).chain(endpoints) {
            let peer = Peer {
                provider,
                api_url: &candidate.api_url,
                base_url: "",
                scope: &Scope::default(),
                ca_certificates_pem,
                account,
            };
            let api = self.gateway.api(peer, credential, deadline)?;
            match provider.answers(&api).await {
                Ok(Presence::Here) => return Ok(candidate),
                Ok(Presence::Perhaps) => perhaps = perhaps.or(Some(candidate)),
                Ok(Presence::Elsewhere) | Err(ProviderError::NotFound) => {}
                Err(error @ ProviderError::Failed { .. }) => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let nowhere = ProviderError::Mismatch { found: "no path of the URL answers like the provider's API" };
        perhaps.ok_or_else(|| failed.unwrap_or(nowhere))
    }

    /// Takes every step from name resolution to webhooks and reports each.
    pub(super) async fn verify(
        &self,
        peer: Peer<'_>,
        credential: &Credential,
        wanted: &[CapabilityType],
        deadline: Instant,
    ) -> Verification {
        let probe = self.gateway.probe(peer, deadline).await;
        let (mut checks, failure) = check_way(&probe, peer.api_url.scheme() == "https");
        if failure.is_some() {
            checks.extend(skipped_after(&checks, "An earlier step failed."));
            return Verification {
                report: VerificationReport::new(checks, probe.certificate),
                inspection: Inspection { failure, ..Inspection::default() },
            };
        }
        let inspection = match self.gateway.api(peer, Some(credential), deadline) {
            Ok(api) => peer.provider.inspect(&api, wanted).await,
            Err(error) => Inspection { failure: Some(error), ..Inspection::default() },
        };
        checks.extend(inspection.checks.iter().cloned());
        checks.push(check_clock(inspection.server_time, self.clock.now()));
        checks.extend(skipped_after(&checks, "An earlier step failed."));
        Verification { report: VerificationReport::new(checks, probe.certificate), inspection }
    }

    /// What is shown of a credential after `inspection`.
    pub(super) fn credential_info(
        &self,
        supplied: &CheckedCredential,
        inspection: &Inspection,
        version: i64,
        now: Timestamp,
    ) -> CredentialInfo {
        let declared = supplied.declared_expire_time;
        let (expire_time, expire_time_source) = merge_expiry(inspection, declared);
        CredentialInfo {
            form: supplied.credential.form.clone(),
            obfuscated_token: obfuscate(&supplied.credential.token),
            fingerprint: self.secret.fingerprint(&supplied.credential.token),
            account: inspection.account.clone(),
            granted_scopes: inspection.granted_scopes.clone(),
            missing_scopes: inspection.missing_scopes.clone(),
            capabilities: inspection.capabilities,
            expire_time,
            expire_time_source,
            version,
            create_time: now,
            expiry_told: false,
            last_use_time: None,
        }
    }
}

/// The provider's word counts before the caller's.
fn merge_expiry(
    inspection: &Inspection,
    declared: Option<Timestamp>,
) -> (Option<Timestamp>, ExpireTimeSource) {
    match (inspection.expire_time_source, declared) {
        (ExpireTimeSource::Provider, _) => (inspection.expire_time, ExpireTimeSource::Provider),
        (_, Some(time)) => (Some(time), ExpireTimeSource::Declared),
        _ => (None, ExpireTimeSource::Unknown),
    }
}

/// Writes what a verification found into the connection: facts, state, conditions.
pub(super) fn apply(connection: &mut Connection, inspection: &Inspection, now: Timestamp) {
    let previous_account = connection.credential.account.clone();
    if inspection.failure.is_none() {
        let declared = (connection.credential.expire_time_source == ExpireTimeSource::Declared)
            .then_some(connection.credential.expire_time)
            .flatten();
        let (expire_time, expire_time_source) = merge_expiry(inspection, declared);
        let credential = &mut connection.credential;
        if inspection.account.is_some() {
            credential.account.clone_from(&inspection.account);
        }
        credential.granted_scopes.clone_from(&inspection.granted_scopes);
        credential.missing_scopes.clone_from(&inspection.missing_scopes);
        credential.capabilities = inspection.capabilities;
        credential.expire_time = expire_time;
        credential.expire_time_source = expire_time_source;
        if !inspection.server_version.is_empty() {
            connection.server_version.clone_from(&inspection.server_version);
        }
    }
    if inspection.rate_limit.is_some() {
        connection.rate_limit = inspection.rate_limit;
    }
    if let Some(ProviderError::RateLimited { .. }) = inspection.failure {
        // It answered, and said nothing of the token: what was known stays.
        set_condition(connection, "REACHABLE", Finding::yes("REACHED"), now);
        return;
    }
    connection.last_verify_time = Some(now);

    // Nobody but a replacement takes the alarm back: a failed look, or a token that names nobody, says nothing of it.
    let account_changed = condition_holds(connection, ACCOUNT_CHANGED)
        || (inspection.failure.is_none()
            && accounts_differ(previous_account.as_ref(), inspection.account.as_ref()));
    let (reachable, valid) = match &inspection.failure {
        None => (Finding::yes("REACHED"), Finding::yes("ACCEPTED")),
        Some(error) => judge(error),
    };
    let missing = missing_capabilities(connection);
    let capable = match &inspection.failure {
        Some(_) => Finding::unknown("NOT_CHECKED", "The token could not be checked."),
        None => capable(&missing),
    };
    let changed = if account_changed {
        Finding {
            status: ConditionStatus::True,
            reason: ACCOUNT_CHANGED,
            message:
                "The token now belongs to another account than before. If that is intended, replace the \
                      credential with allow_account_change."
                    .to_owned(),
        }
    } else {
        Finding { status: ConditionStatus::False, reason: "SAME_ACCOUNT", message: String::new() }
    };
    connection.state = match (&reachable.status, &valid.status) {
        (ConditionStatus::False, _) => State::Unreachable,
        (_, ConditionStatus::False) => State::AuthFailed,
        _ if !missing.is_empty() || account_changed => State::Degraded,
        _ => State::Active,
    };
    set_condition(connection, "REACHABLE", reachable, now);
    set_condition(connection, "CREDENTIAL_VALID", valid, now);
    set_condition(connection, "CAPABILITIES_SATISFIED", capable, now);
    set_condition(connection, ACCOUNT_CHANGED, changed, now);
}

/// After other capabilities were required, which asks nobody: they can change the state by themselves.
pub(super) fn reconsider(connection: &mut Connection, provider: &dyn Provider, now: Timestamp) {
    connection.credential.missing_scopes = missing_scopes(connection, provider);
    if !matches!(connection.state, State::Active | State::Degraded) {
        return;
    }
    let missing = missing_capabilities(connection);
    connection.state = if missing.is_empty() && !condition_holds(connection, ACCOUNT_CHANGED) {
        State::Active
    } else {
        State::Degraded
    };
    set_condition(connection, "CAPABILITIES_SATISFIED", capable(&missing), now);
}

/// Turns a stored connection into what a reader sees now: its state ages as the end of the token comes nearer,
/// and a disabled one says so.
#[must_use]
pub fn present(connection: Connection, now: Timestamp) -> Connection {
    let mut shown = connection;
    if let Some(end) = shown.credential.expire_time {
        let (finding, state) = if end <= now {
            let state = match shown.credential.expire_time_source {
                ExpireTimeSource::Provider => State::AuthFailed,
                _ => State::Degraded,
            };
            (Some(("CREDENTIAL_EXPIRED", "The token has ended. Replace the credential.")), state)
        } else if end.since(now) < EXPIRY_WARNING {
            (
                Some((
                    "CREDENTIAL_EXPIRING",
                    "The token ends within 14 days. Replace the credential before.",
                )),
                State::Degraded,
            )
        } else {
            (None, State::Active)
        };
        if let Some((reason, message)) = finding {
            if matches!(shown.state, State::Active | State::Degraded) {
                shown.state = state;
            }
            let since = if end <= now { end } else { end.saturating_sub(EXPIRY_WARNING) };
            let finding = Finding { status: ConditionStatus::True, reason, message: message.to_owned() };
            set_condition(&mut shown, "CREDENTIAL_EXPIRING", finding, since);
            if end <= now && shown.credential.expire_time_source == ExpireTimeSource::Provider {
                set_condition(&mut shown, "CREDENTIAL_VALID", Finding::no(reason, message.to_owned()), since);
            }
        }
    }
    if shown.disabled {
        shown.state = if shown.last_verify_time.is_none() { State::Pending } else { State::Disabled };
    }
    shown
}

/// The capabilities that must be there: those required, or all.
pub(super) fn wanted(required: &[CapabilityType]) -> &[CapabilityType] {
    if required.is_empty() { &CapabilityType::ALL } else { required }
}

/// Whether both accounts are known and are not the same one. Their ids decide; where one of them was not told, their
/// logins.
pub(super) fn accounts_differ(before: Option<&Account>, now: Option<&Account>) -> bool {
    let (Some(before), Some(now)) = (before, now) else { return false };
    let differ = |before: &str, now: &str| (!before.is_empty() && !now.is_empty()).then(|| before != now);
    differ(&before.id, &now.id).or_else(|| differ(&before.login, &now.login)).unwrap_or(false)
}

struct Finding {
    status: ConditionStatus,
    reason: &'static str,
    message: String,
}

impl Finding {
    const fn yes(reason: &'static str) -> Self {
        Self { status: ConditionStatus::True, reason, message: String::new() }
    }

    const fn no(reason: &'static str, message: String) -> Self {
        Self { status: ConditionStatus::False, reason, message }
    }

    fn unknown(reason: &'static str, message: &str) -> Self {
        Self { status: ConditionStatus::Unknown, reason, message: message.to_owned() }
    }
}

fn missing_capabilities(connection: &Connection) -> Vec<&'static str> {
    let lacks = |wanted: CapabilityType| connection.credential.capabilities.of(wanted) == Capability::No;
    wanted(&connection.required_capabilities)
        .iter()
        .filter(|&&wanted| lacks(wanted))
        .map(|wanted| wanted.as_str())
        .collect()
}

/// The scopes that the wanted capabilities lack, as far as what is known of the token tells: a capability can be out
/// of reach for want of a role too, so a scope that the token is known to have is not missing.
fn missing_scopes(connection: &Connection, provider: &dyn Provider) -> Vec<String> {
    let CredentialInfo { capabilities, granted_scopes, .. } = &connection.credential;
    let needed_by = |capability: CapabilityType| {
        let found = provider.about().capability_scopes.iter().find(|(of, _)| *of == capability);
        found.map_or(&[][..], |(_, scopes)| scopes)
    };
    let held = |scope: &str| {
        granted_scopes.iter().any(|granted| provider.includes(granted, scope))
            || CapabilityType::ALL.into_iter().any(|capability| {
                capabilities.of(capability) == Capability::Yes && needed_by(capability).contains(&scope)
            })
    };
    let mut missing: Vec<String> = Vec::new();
    for &capability in wanted(&connection.required_capabilities) {
        if capabilities.of(capability) != Capability::No {
            continue;
        }
        for &scope in needed_by(capability) {
            if !held(scope) && !missing.iter().any(|known| known == scope) {
                missing.push(scope.to_owned());
            }
        }
    }
    missing
}

fn capable(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::yes("CAPABLE");
    }
    let told =
        format!("The token cannot do: {}. Give it the missing scopes or replace it.", missing.join(", "));
    Finding::no("CREDENTIAL_SCOPE_MISSING", told)
}

/// What a failed inspection says: was the provider reached, and does it accept the token?
fn judge(error: &ProviderError) -> (Finding, Finding) {
    let message = format!("The last verification failed: {error}.");
    let reason = reason_of(error);
    match error {
        ProviderError::CredentialRejected { .. }
        | ProviderError::ScopeMissing { .. }
        | ProviderError::Forbidden
        | ProviderError::Restricted { .. } => (Finding::yes("REACHED"), Finding::no(reason, message)),
        _ => (
            Finding::no(reason, message),
            Finding::unknown("NOT_CHECKED", "The provider could not be asked."),
        ),
    }
}

/// The stable word for a provider error, as it stands in conditions and reports of a stored credential.
#[must_use]
pub const fn reason_of(error: &ProviderError) -> &'static str {
    use crate::provider::RejectionCause;
    match error {
        ProviderError::EndpointDenied { .. } => "ENDPOINT_NOT_ALLOWED",
        ProviderError::Unreachable { .. } => "PROVIDER_UNREACHABLE",
        ProviderError::TlsUntrusted { .. } => "PROVIDER_TLS_UNTRUSTED",
        ProviderError::Timeout => "PROVIDER_TIMEOUT",
        ProviderError::RateLimited { .. } => "PROVIDER_RATE_LIMITED",
        ProviderError::Failed { .. } | ProviderError::WebhookExists => "PROVIDER_ERROR",
        ProviderError::CredentialRejected { cause: RejectionCause::Expired, .. } => "CREDENTIAL_EXPIRED",
        ProviderError::CredentialRejected { .. } => "CREDENTIAL_INVALID",
        ProviderError::ScopeMissing { .. } => "CREDENTIAL_SCOPE_MISSING",
        ProviderError::Forbidden | ProviderError::Restricted { .. } | ProviderError::NotFound => {
            "REPOSITORY_NOT_ACCESSIBLE"
        }
        ProviderError::Mismatch { .. } => "PROVIDER_MISMATCH",
        ProviderError::VersionUnsupported { .. } => "PROVIDER_VERSION_UNSUPPORTED",
        ProviderError::WebhookTargetRefused { .. } => "WEBHOOK_TARGET_REFUSED",
        ProviderError::WebhookLimitReached => "WEBHOOK_LIMIT_REACHED",
        ProviderError::Unsupported => "PROVIDER_CAPABILITY_UNSUPPORTED",
    }
}

fn condition_holds(connection: &Connection, condition_type: &str) -> bool {
    connection.conditions.iter().any(|condition| {
        condition.condition_type == condition_type && condition.status == ConditionStatus::True
    })
}

fn set_condition(connection: &mut Connection, condition_type: &str, finding: Finding, now: Timestamp) {
    let Finding { status, reason, message } = finding;
    let known = connection.conditions.iter().position(|condition| condition.condition_type == condition_type);
    let since = match known.map(|at| &connection.conditions[at]) {
        Some(condition) if condition.status == status => condition.last_transition_time,
        _ => now,
    };
    let condition = Condition {
        condition_type: condition_type.to_owned(),
        status,
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
    };
    match known {
        Some(at) => connection.conditions[at] = condition,
        None => connection.conditions.push(condition),
    }
}

/// The results of the three steps below HTTP, and the error that they end with.
fn check_way(probe: &Probe, encrypted: bool) -> (Vec<CheckResult>, Option<ProviderError>) {
    let mut failure = None;
    let mut checks = Vec::new();
    for (check, step, done) in [
        (Check::Dns, &probe.dns, "The host name resolves to an address that may be dialled."),
        (Check::Connect, &probe.connect, "The server accepts connections."),
        (Check::Tls, &probe.tls, "The certificate is trusted."),
    ] {
        match step {
            Step::Done(duration) => checks.push(CheckResult::pass(check, done).with_duration(*duration)),
            Step::NotReached if check == Check::Tls && !encrypted && failure.is_none() => {
                checks.push(CheckResult::skipped(check, "The operator admits this origin in plain text."));
            }
            Step::NotReached => {}
            Step::Failed(error) => {
                let error = ProviderError::from(error.clone());
                checks.push(CheckResult::fail(
                    check,
                    reason_of(&error),
                    format!("{}.", capitalised(&error.to_string())),
                    way_remedy(check, &error),
                ));
                failure = Some(error);
            }
        }
    }
    (checks, failure)
}

fn way_remedy(check: Check, error: &ProviderError) -> &'static str {
    match (check, error) {
        (_, ProviderError::EndpointDenied { .. }) => {
            "An operator can admit the host or network with --egress-allow, if it is one of your own."
        }
        (Check::Dns, _) => "Check the host name in base_url, and that this service's DNS server knows it.",
        (Check::Connect, _) => "Check the port in base_url, firewalls on the way, and that the server runs.",
        (_, ProviderError::TlsUntrusted { certificate: Some(_) }) => {
            "If the certificate shown is the right one, put the issuing CA into tls.ca_certificates_pem; if it has \
             expired or names another host, have it renewed."
        }
        _ => "Have the server offer TLS 1.2 or 1.3.",
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn check_clock(server: Option<Timestamp>, now: Timestamp) -> CheckResult {
    let Some(server) = server else {
        return CheckResult::skipped(Check::Clock, "The provider did not tell its time.");
    };
    let apart = server.since(now).max(now.since(server));
    if apart <= CLOCK_TOLERANCE {
        return CheckResult::pass(Check::Clock, "The clocks agree.");
    }
    CheckResult::warn(
        Check::Clock,
        "CLOCK_SKEW",
        format!("The provider's clock and this service's differ by {} s.", apart.as_secs()),
        "Synchronise both clocks (NTP): the end of tokens is judged by them.",
    )
}

/// A SKIPPED result for each check that has none.
fn skipped_after(checks: &[CheckResult], why: &str) -> Vec<CheckResult> {
    const ALL: [Check; 11] = [
        Check::Dns,
        Check::Connect,
        Check::Tls,
        Check::ProviderMatch,
        Check::ServerVersion,
        Check::Authentication,
        Check::Identity,
        Check::Scopes,
        Check::ListRepositories,
        Check::Webhooks,
        Check::Clock,
    ];
    let failed = checks.iter().any(|result| result.outcome == Outcome::Fail);
    let why = if failed { why } else { "Not applicable." };
    ALL.into_iter()
        .filter(|check| !checks.iter().any(|result| result.check == *check))
        .map(|check| CheckResult::skipped(check, why))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ac_40_accounts_are_told_apart_by_id_or_else_by_login() {
        let differ = |before: (&str, &str), now: (&str, &str)| {
            let account = |(id, login): (&str, &str)| Account {
                id: id.to_owned(),
                login: login.to_owned(),
                ..Account::default()
            };
            accounts_differ(Some(&account(before)), Some(&account(now)))
        };
        assert!(differ(("1", "sam"), ("2", "sam")) && !differ(("1", "sam"), ("1", "renamed")));
        // Not every server tells the number of every user.
        assert!(differ(("", "sam"), ("", "eve")) && differ(("1", "sam"), ("", "eve")));
        assert!(!differ(("1", "sam"), ("", "sam")) && !differ(("", ""), ("2", "eve")));
        assert!(!accounts_differ(None, Some(&Account::default())));
    }
}
