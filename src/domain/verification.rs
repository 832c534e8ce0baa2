//! The report that names the failing step.

use std::time::Duration;

use super::timestamp::Timestamp;

/// One step between this service and a working token, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The host name resolves to an address that may be dialled.
    Dns,
    /// The address accepts a connection.
    Connect,
    /// The certificate is trusted.
    Tls,
    /// What answers is the provider that the connection names.
    ProviderMatch,
    /// The server is not older than the supported floor.
    ServerVersion,
    /// The provider accepts the token.
    Authentication,
    /// The provider names the token's user.
    Identity,
    /// The token has the scopes that the required capabilities need.
    Scopes,
    /// Repositories can be listed.
    ListRepositories,
    /// Webhooks could be managed.
    Webhooks,
    /// The two clocks agree.
    Clock,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Works, but somebody should look.
    Warn,
    /// Does not work.
    Fail,
    /// Not tried, because an earlier step failed or it does not apply.
    Skipped,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// Which step.
    pub check: Check,
    /// How it ended.
    pub outcome: Outcome,
    /// A stable word (an `ErrorReason` or a check's own); empty for a pass.
    pub reason: String,
    /// What happened, for people; never a secret, never a provider's body.
    pub message: String,
    /// What to do about it; empty for a pass.
    pub remedy: String,
    /// The provider's status, if it answered.
    pub http_status: Option<u16>,
    /// How long it took, if it was measured by itself.
    pub duration: Option<Duration>,
}

impl CheckResult {
    /// A check that found all as it should be.
    #[must_use]
    pub fn pass(check: Check, message: impl Into<String>) -> Self {
        Self::new(check, Outcome::Pass, "", message, "")
    }

    /// A check that was not tried, and why.
    #[must_use]
    pub fn skipped(check: Check, message: impl Into<String>) -> Self {
        Self::new(check, Outcome::Skipped, "", message, "")
    }

    /// A check that found something a person should look at.
    #[must_use]
    pub fn warn(check: Check, reason: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Outcome::Warn, reason, message, remedy)
    }

    /// A check that failed.
    #[must_use]
    pub fn fail(check: Check, reason: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Outcome::Fail, reason, message, remedy)
    }

    /// The same result with the provider's status.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.http_status = Some(status);
        self
    }

    /// The same result with the time that the step took.
    #[must_use]
    pub const fn with_duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    fn new(
        check: Check,
        outcome: Outcome,
        reason: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            outcome,
            reason: reason.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
            http_status: None,
            duration: None,
        }
    }
}

/// The certificate that a server presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Who signed it, as a distinguished name.
    pub issuer: String,
    /// Whom it is for, as a distinguished name.
    pub subject: String,
    /// Until when it holds.
    pub not_after: Option<Timestamp>,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: String,
}

/// Everything that a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerificationReport {
    /// The worst outcome among the checks that were made.
    pub result: Outcome,
    /// One entry a check, in the order in which they are taken.
    pub checks: Vec<CheckResult>,
    /// The server's certificate, if TLS was reached.
    pub certificate: Option<Certificate>,
}

impl VerificationReport {
    /// A report over `checks`, sorted into the order in which the steps are taken; its result is the
    /// worst of theirs.
    #[must_use]
    pub fn new(mut checks: Vec<CheckResult>, certificate: Option<Certificate>) -> Self {
        checks.sort_by_key(|result| result.check);
        Self { result: worst(&checks), checks, certificate }
    }

    /// Puts another result in the place of that of the same check.
    pub fn replace(&mut self, result: CheckResult) {
        if let Some(old) = self.checks.iter_mut().find(|old| old.check == result.check) {
            *old = result;
        }
        self.result = worst(&self.checks);
    }
}

fn worst(checks: &[CheckResult]) -> Outcome {
    let has = |outcome| checks.iter().any(|result| result.outcome == outcome);
    if has(Outcome::Fail) {
        Outcome::Fail
    } else if has(Outcome::Warn) {
        Outcome::Warn
    } else {
        Outcome::Pass
    }
}
