//! ReplaceCredential.

use std::sync::Arc;

use super::affected::{Affected, CheckLinks, LinkCheck};
use super::{Connections, Next, Verified, check_etag, peer, stored_endpoint, supplied};
use crate::domain::connection::ConnectionName;
use crate::domain::credential::Account;
use crate::domain::event::EventType;
use crate::domain::link::LinkRecord;
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
    /// Which linked repositories it must reach.
    pub check_links: CheckLinks,
    /// The etag that the caller read; empty for none.
    pub etag: String,
    /// What was found wrong while the message was read.
    pub violations: Vec<FieldViolation>,
    /// Check everything, store nothing.
    pub validate_only: bool,
}

/// A connection, what the checks of its new credential found, and what that means for its links.
#[derive(Debug)]
pub struct Replaced {
    /// The connection and the report.
    pub verified: Verified,
    /// The live links, in the order of their ids.
    pub affected: Vec<Affected>,
}

/// How often links are looked for that were made while the others were looked up.
const MAX_LOOKS: usize = 3;

impl Connections {
    /// Gives a connection another credential after proving that it works, and that it reaches the linked repositories
    /// if that is wanted. The old one stays if a check fails. Then the links and their webhooks are looked at anew.
    ///
    /// A repository that is linked after the last look at the links, in the moment of the commit, is not checked.
    ///
    /// # Errors
    ///
    /// [`Error::AccountChanged`] if it is of another account and that was not allowed; [`Error::NotAccessible`] if it
    /// loses links, and [`Error::Provider`] if that could not be found out, unless it is a dry run; see [`Error`].
    pub async fn replace_credential(
        &self,
        context: &Context,
        request: Replace,
        repeat: Option<Repeat<'_, Replaced>>,
    ) -> Result<Done<Replaced>, Error> {
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
        repeat: Option<&Repeat<'_, Replaced>>,
    ) -> Result<Replaced, Error> {
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
        let affected = match request.check_links {
            CheckLinks::None => {
                self.live_links(name).await?.iter().map(|link| Affected::unasked(link)).collect()
            }
            CheckLinks::All => {
                let peer = peer(provider, before, &endpoint, &account);
                let api = core.gateway.api(peer, Some(&credential.credential), context.deadline);
                let api = api.map_err(|error| supplied(error, provider, "credential"))?;
                let check = LinkCheck::new(provider, api, "credential");
                self.check_links(name, check, request.validate_only).await?
            }
        };

        let now = core.clock.now();
        let mut next = Next { connection: before.clone(), sealed: record.sealed.clone(), also: Vec::new() };
        next.sealed = self.take_credential(&mut next.connection, &endpoint, &credential, &inspection, now)?;
        next.connection.conditions.retain(|condition| condition.condition_type != ACCOUNT_CHANGED);
        verify::apply(&mut next.connection, &inspection, now);
        next.connection.credential.last_use_time = Some(to_the_hour(now));
        next.connection.update_time = now;
        next.connection.generation += 1;
        let connection = core.show_connection(next.connection.clone(), now).await?;
        let replaced = Replaced { verified: Verified { connection, report }, affected };
        if request.validate_only {
            return Ok(replaced);
        }
        let (was, is) = difference(&summary(before), &summary(&next.connection));
        let event = event(context, EventType::CredentialReplaced, Subject::connection(name), was, is, now);
        self.replace(&record, next, event, repeat, &replaced, now).await?;
        core.rouse(name).await;
        Ok(replaced)
    }

    /// Looks up the linked repositories until there is none that was not looked up.
    async fn check_links(
        &self,
        name: &ConnectionName,
        mut check: LinkCheck<'_>,
        validate_only: bool,
    ) -> Result<Vec<Affected>, Error> {
        let mut links = self.live_links(name).await?;
        for _ in 0..MAX_LOOKS {
            if !check.look(&links).await {
                break;
            }
            // The looks took their time: others may have been linked meanwhile, and some unlinked.
            links = self.live_links(name).await?;
        }
        if !validate_only {
            check.refuse_losses(name, &links)?;
        }
        Ok(check.affected(&links))
    }

    async fn live_links(&self, name: &ConnectionName) -> Result<Vec<Arc<LinkRecord>>, Error> {
        let mut links = self.0.links_of(name).await?;
        links.retain(|record| record.link.is_live());
        Ok(links)
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
