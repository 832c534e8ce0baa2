//! ReplaceCredential.

use super::audit::{difference, event, summary};
use super::once::{Done, Repeat};
use super::{Connections, Verified, check_etag, peer, replace_change, stored_endpoint, supplied};
use crate::domain::connection::ConnectionName;
use crate::domain::credential::Account;
use crate::domain::event::EventType;
use crate::domain::violation::FieldViolation;
use crate::service::draft::{self, CredentialDraft, Violations};
use crate::service::error::Error;
use crate::service::verify::{self, Verification, accounts_differ, present};
use crate::service::{Context, checked};
use crate::store::Change;

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
        let core = &*self.0;
        let mut violations = Violations::starting_with(request.violations);
        if request.credential.is_none() {
            violations.push(draft::credential_required("credential"));
        }
        let Some(name) = request.name else {
            violations.finish()?;
            return checked(None);
        };
        if let Some(done) = self.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(done));
        }
        let record = core.record(&name).await?;
        check_etag(&record.connection, &request.etag)?;
        let provider = core.provider_of(&record)?;
        let credential = request
            .credential
            .and_then(|found| draft::credential(Some(provider), found, "credential", &mut violations));
        violations.finish()?;
        let credential = checked(credential)?;
        let before = &record.connection;
        if before.disabled {
            return Err(Error::Disabled { name });
        }
        let endpoint = stored_endpoint(before)?;
        let Verification { report, inspection } = core
            .verify(
                peer(provider, before, &endpoint),
                &credential.credential,
                before.wanted_capabilities(),
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
            return Err(Error::AccountChanged { name, current: describe(old), supplied: describe(new) });
        }

        let now = core.clock.now();
        let mut connection = before.clone();
        let sealed = self.take_credential(&mut connection, &endpoint, &credential, &inspection, now)?;
        connection.conditions.retain(|condition| condition.condition_type != "CREDENTIAL_ACCOUNT_CHANGED");
        verify::apply(&mut connection, &inspection, now);
        connection.update_time = now;
        connection.generation += 1;
        let verified = Verified { connection: present(connection.clone(), now), report };
        if request.validate_only {
            return Ok(Done::Now(verified));
        }
        let (changed_before, changed_after) = difference(&summary(before), &summary(&connection));
        let event =
            event(context, EventType::CredentialReplaced, &connection, changed_before, changed_after, now);
        let change = replace_change(&record, connection, sealed);
        let outcome =
            self.commit(&name, vec![change, Change::Append(event)], repeat.as_ref(), &verified, now).await;
        self.done_or_before(&name, repeat.as_ref(), outcome.map(|()| verified)).await
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
