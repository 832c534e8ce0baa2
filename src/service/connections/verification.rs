//! VerifyConnection.

use uuid::Uuid;

use super::{Connections, ShownConnection, new_connection, peer, replace_change, stored_endpoint};
use crate::domain::connection::{Connection, ConnectionId, ConnectionName, TenantId};
use crate::domain::event::EventType;
use crate::domain::verification::{Check, CheckResult, VerificationReport};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::gateway::Peer;
use crate::service::audit::{Subject, difference, event, summary};
use crate::service::draft::{self, ConnectionDraft, Violations};
use crate::service::error::Error;
use crate::service::usage::to_the_hour;
use crate::service::verify::{self, ACCOUNT_CHANGED, Verification, accounts_differ, present, wanted};
use crate::service::{Context, account_of, checked};
use crate::store::{Change, StoreError};

/// How often an outcome is tried to be stored.
const MAX_ROUNDS: usize = 3;
/// The name of a connection that has none yet.
pub(crate) const UNNAMED: &str = "unnamed";

/// A connection and what its verification found.
#[derive(Debug)]
pub struct Verified {
    /// As it is now.
    pub connection: ShownConnection,
    /// Step by step.
    pub report: VerificationReport,
}

impl Connections {
    /// Runs all checks on a stored connection, stores the outcome, and reports each step.
    ///
    /// # Errors
    ///
    /// A failed check is no error. See [`Error`] for the rest.
    pub async fn verify_stored(&self, context: &Context, name: &ConnectionName) -> Result<Verified, Error> {
        let core = &*self.0;
        let record = core.record(name).await?;
        let before = &record.connection;
        if before.disabled {
            return Err(Error::Disabled { name: name.clone() });
        }
        let provider = core.provider_of(&record)?;
        let credential = core.credential_of(&record)?;
        let endpoint = stored_endpoint(before)?;
        let wanted = wanted(&before.required_capabilities);
        let peer = peer(provider, before, &endpoint, account_of(&before.credential));
        let Verification { mut report, inspection } =
            core.verify(peer, &credential, wanted, context.deadline).await;
        if accounts_differ(before.credential.account.as_ref(), inspection.account.as_ref()) {
            report.replace(CheckResult::warn(
                Check::Identity,
                ACCOUNT_CHANGED,
                "The token works, but it belongs to another account than the one that was stored.",
                "If that is intended, replace the credential with allow_account_change.",
            ));
        }

        let now = core.clock.now();
        let mut current = record.clone();
        // Each further round needs somebody else's write in between.
        for _ in 0..MAX_ROUNDS {
            let mut connection = current.connection.clone();
            verify::apply(&mut connection, &inspection, now);
            connection.credential.last_use_time = Some(to_the_hour(now));
            connection.generation += 1;
            let shown = core.show_connection(connection.clone(), now).await?;
            let mut changes = Vec::new();
            let (was, is) = difference(&summary(&current.connection), &summary(&connection));
            if !is.is_empty() {
                changes.push(Change::Append(event(
                    context,
                    EventType::StateChanged,
                    Subject::connection(name),
                    was,
                    is,
                    now,
                )));
            }
            changes.push(replace_change(&current, connection, current.sealed.clone()));
            match core.store.commit(changes).await {
                Ok(()) => return Ok(Verified { connection: shown, report }),
                Err(StoreError::Stale) => current = core.record(name).await?,
                Err(error) => return Err(Error::from_store(error, name, "")),
            }
            if !asks_the_same(before, &current.connection) {
                // What was found speaks of a connection that is another one by now.
                let connection = core.show_connection(current.connection.clone(), now).await?;
                return Ok(Verified { connection, report });
            }
        }
        Err(Error::Stale { name: name.to_string() })
    }

    /// Runs all checks on a connection that is not stored, with its own credential; stores nothing.
    ///
    /// # Errors
    ///
    /// A failed check is no error; fields that make no sense are.
    pub async fn verify_draft(
        &self,
        context: &Context,
        tenant: Option<TenantId>,
        mut draft: ConnectionDraft,
        found: Vec<FieldViolation>,
    ) -> Result<Verified, Error> {
        let core = &*self.0;
        let mut violations = Violations::starting_with(found);
        if draft.disabled {
            let told = "a disabled connection is not verified; leave it out";
            violations.push(FieldViolation::new("connection.disabled", FieldReason::Conflicting, told));
        }
        if draft.display_name.is_empty() {
            // A form may want to check URL and token before a name was chosen.
            UNNAMED.clone_into(&mut draft.display_name);
        }
        let draft = draft::check(&core.gateway, draft, &mut violations);
        violations.finish()?;
        let (tenant, draft) = (checked(tenant)?, checked(draft)?);
        let ca = draft.rest.ca_certificates_pem.clone();
        let uid = Uuid::now_v7().to_string();
        let account = core.secret.fingerprint(&draft.credential.credential.token);
        // Where no candidate answers, the report of the first one tells why.
        let first = checked(draft.endpoints.first().cloned())?;
        let located = core
            .locate(
                draft.provider,
                draft.endpoints.clone(),
                &ca,
                Some(&draft.credential.credential),
                &account,
                context.deadline,
            )
            .await;
        let endpoint = located.unwrap_or(first);
        let peer = Peer {
            provider: draft.provider,
            api_url: &endpoint.api_url,
            base_url: &draft.rest.base_url,
            scope: &draft.rest.scope,
            ca_certificates_pem: &ca,
            account: &account,
        };
        let wanted = wanted(&draft.rest.required_capabilities);
        let Verification { report, inspection } =
            core.verify(peer, &draft.credential.credential, wanted, context.deadline).await;
        let now = core.clock.now();
        let id = ConnectionId::parse(&uid)
            .map_err(|_| Error::Bug { problem: "an own id is malformed".to_owned() })?;
        let info = core.credential_info(&draft.credential, &inspection, 1, now);
        let mut connection = new_connection(ConnectionName { tenant, id }, uid, draft, &endpoint, info, now);
        verify::apply(&mut connection, &inspection, now);
        let connection = ShownConnection { connection: present(connection, now), linked_repositories: 0 };
        Ok(Verified { connection, report })
    }
}

/// Whether a verification of the one says the same of the other.
fn asks_the_same(one: &Connection, other: &Connection) -> bool {
    one.credential.version == other.credential.version
        && one.effective_api_url == other.effective_api_url
        && one.scope == other.scope
        && one.ca_certificates_pem == other.ca_certificates_pem
        && one.required_capabilities == other.required_capabilities
        && one.disabled == other.disabled
}
