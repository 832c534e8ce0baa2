//! ReplaceCredential.

use super::{Connections, Next, Verified, check_etag, peer, stored_endpoint, supplied};
use crate::domain::connection::ConnectionName;
use crate::domain::credential::Account;
use crate::domain::event::EventType;
use crate::domain::violation::FieldViolation;
use crate::service::audit::{Subject, difference, event, summary};
use crate::service::draft::{self, CredentialDraft, Violations};
use crate::service::error::Error;
use crate::service::once::{Done, Repeat};
use crate::service::usage::to_the_hour;
use crate::service::verify::{self, ACCOUNT_CHANGED, Verification, accounts_differ, wanted};
use crate::service::{Context, checked};

/// What ReplaceCredential asks for.
#[derive(Debug)]
pub struct Replace {
    /// Which connection.
    pub name: Option<ConnectionName>,
    /// The new credential; `None` if the message had none.
    pub credential: Option<CredentialDraft>,
    /// Whether it may be of another account.
    pub allow_account_change: bool,
    /// The etag that the caller read; empty for none.
    pub etag: String,
    /// What was found wrong while the message was read.
    pub violations: Vec<FieldViolation>,
    /// Check everything, store nothing.
    pub validate_only: bool,
}

impl Connections {
    /// Gives a connection another credential after proving that it works. The old one stays if a check fails.
    ///
    /// # Errors
    ///
    /// [`Error::AccountChanged`] if it is of another account and that was not allowed; see [`Error`].
    pub async fn replace_credential(
        &self,
        context: &Context,
        request: Replace,
        repeat: Option<Repeat<'_, Verified>>,
    ) -> Result<Done<Verified>, Error> {
        let mut violations = Violations::starting_with(request.violations.clone());
        if request.credential.is_none() {
            violations.push(draft::credential_required("credential"));
        }
        let Some(name) = request.name.clone() else {
            violations.finish()?;
            return checked(None);
        };
        if let Some(done) = self.0.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(done));
        }
        let outcome = self.replace_once(context, &name, request, violations, repeat.as_ref()).await;
        self.0.done_or_before(&name.tenant, repeat.as_ref(), outcome).await
    }

    async fn replace_once(
        &self,
        context: &Context,
        name: &ConnectionName,
        request: Replace,
        mut violations: Violations,
        repeat: Option<&Repeat<'_, Verified>>,
    ) -> Result<Verified, Error> {
        let core = &*self.0;
        let record = core.record(name).await?;
        check_etag(&record.connection, &request.etag)?;
        let provider = core.provider_of(&record)?;
        let credential = request
            .credential
            .and_then(|found| draft::credential(Some(provider), found, "credential", &mut violations));
        violations.finish()?;
        let credential = checked(credential)?;
        let before = &record.connection;
        if before.disabled {
            return Err(Error::Disabled { name: name.clone() });
        }
        let endpoint = stored_endpoint(before)?;
        // The account is not known yet.
        let account = core.secret.fingerprint(&credential.credential.token);
        let Verification { report, inspection } = core
            .verify(
                peer(provider, before, &endpoint, &account),
                &credential.credential,
                wanted(&before.required_capabilities),
                context.deadline,
            )
            .await;
        if let Some(error) = inspection.failure {
            return Err(supplied(error, provider, "credential"));
        }
        let (old, new) = (before.credential.account.as_ref(), inspection.account.as_ref());
        // A token that may not name its account could be anybody's.
        let changed = accounts_differ(old, new) || (old.is_some() && new.is_none());
        if changed && !request.allow_account_change {
            let name = name.clone();
            return Err(Error::AccountChanged { name, current: describe(old), supplied: describe(new) });
        }

        let now = core.clock.now();
        let mut next = Next { connection: before.clone(), sealed: record.sealed.clone() };
        next.sealed = self.take_credential(&mut next.connection, &endpoint, &credential, &inspection, now)?;
        next.connection.conditions.retain(|condition| condition.condition_type != ACCOUNT_CHANGED);
        verify::apply(&mut next.connection, &inspection, now);
        next.connection.credential.last_use_time = Some(to_the_hour(now));
        next.connection.update_time = now;
        next.connection.generation += 1;
        let verified =
            Verified { connection: core.show_connection(next.connection.clone(), now).await?, report };
        if request.validate_only {
            return Ok(verified);
        }
        let (was, is) = difference(&summary(before), &summary(&next.connection));
        let event = event(context, EventType::CredentialReplaced, Subject::connection(name), was, is, now);
        self.replace(&record, next, event, repeat, &verified, now).await?;
        Ok(verified)
    }
}

fn describe(account: Option<&Account>) -> String {
    match account {
        Some(account) if !account.login.is_empty() => account.login.clone(),
        Some(account) if !account.display_name.is_empty() => account.display_name.clone(),
        Some(account) => account.id.clone(),
        None => "an account that the token may not name".to_owned(),
    }
}
