//! VerifyConnection.

use uuid::Uuid;

use super::audit::{difference, event, summary};
use super::{Connections, new_connection, peer, replace_change, stored_endpoint};
use crate::domain::connection::{Connection, ConnectionId, ConnectionName, TenantId};
use crate::domain::event::EventType;
use crate::domain::verification::VerificationReport;
use crate::domain::violation::FieldViolation;
use crate::provider::gateway::Peer;
use crate::service::draft::{self, ConnectionDraft, Violations};
use crate::service::error::Error;
use crate::service::verify::{self, Verification, present, wanted};
use crate::service::{Context, checked};
use crate::store::{Change, StoreError};

/// A connection and what its verification found.
#[derive(Debug)]
pub struct Verified {
    /// As it is now.
    pub connection: Connection,
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
        let Verification { report, inspection } = core
            .verify(
                peer(provider, before, &endpoint),
                &credential,
                before.wanted_capabilities(),
                context.deadline,
            )
            .await;

        let now = core.clock.now();
        // Somebody may have written the connection meanwhile: the outcome still holds for the same credential.
        let mut current = record.clone();
        for _ in 0..3 {
            let mut connection = current.connection.clone();
            verify::apply(&mut connection, &inspection, now);
            connection.credential.last_use_time = Some(now);
            connection.generation += 1;
            let shown = present(connection.clone(), now);
            let mut changes = Vec::new();
            let (changed_before, changed_after) =
                difference(&summary(&current.connection), &summary(&connection));
            if !changed_after.is_empty() {
                changes.push(Change::Append(event(
                    context,
                    EventType::StateChanged,
                    &connection,
                    changed_before,
                    changed_after,
                    now,
                )));
            }
            changes.push(replace_change(&current, connection, current.sealed.clone()));
            match core.store.commit(changes).await {
                Ok(()) => return Ok(Verified { connection: shown, report }),
                Err(StoreError::Stale) => current = core.record(name).await?,
                Err(error) => return Err(Error::from_store(error, name, "")),
            }
            let same = current.connection.credential.version == before.credential.version
                && current.connection.effective_api_url == before.effective_api_url;
            if !same {
                return Ok(Verified { connection: present(current.connection.clone(), now), report });
            }
        }
        Err(Error::Stale { name: name.clone() })
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
        if draft.display_name.is_empty() {
            // A form may want to check URL and token before a name was chosen.
            draft.display_name = "unnamed".to_owned();
        }
        let draft = draft::check(&core.gateway, draft, &mut violations);
        violations.finish()?;
        let (tenant, draft) = (checked(tenant)?, checked(draft)?);
        let ca = draft.rest.ca_certificates_pem.clone();
        // Where no candidate answers, the report of the first one tells why.
        let first = checked(draft.endpoints.first().cloned())?;
        let located = core
            .locate(
                draft.provider,
                draft.endpoints.clone(),
                &ca,
                Some(&draft.credential.credential),
                context.deadline,
            )
            .await;
        let endpoint = located.unwrap_or(first);
        let uid = Uuid::now_v7().to_string();
        let peer = Peer {
            provider: draft.provider,
            api_url: &endpoint.api_url,
            ca_certificates_pem: &ca,
            account: &uid,
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
        Ok(Verified { connection: present(connection, now), report })
    }
}
