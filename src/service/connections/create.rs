//! CreateConnection.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Connections, ShownConnection, new_connection, supplied};
use crate::domain::connection::{ConnectionId, ConnectionName, ConnectionRecord, Revision, TenantId};
use crate::domain::event::EventType;
use crate::domain::violation::FieldViolation;
use crate::provider::gateway::Peer;
use crate::provider::{Endpoint, Inspection};
use crate::service::audit::{Subject, event, summary};
use crate::service::draft::{self, CheckedDraft, ConnectionDraft, Violations};
use crate::service::error::Error;
use crate::service::once::{Done, Repeat};
use crate::service::usage::to_the_hour;
use crate::service::verify::{self, present, wanted};
use crate::service::{Context, checked, store_down};
use crate::store::Change;

/// What CreateConnection asks for.
#[derive(Debug)]
pub struct Create {
    /// Whose connection it will be.
    pub tenant: Option<TenantId>,
    /// The id that the caller chose; empty to have one made.
    pub connection_id: String,
    /// The connection.
    pub draft: ConnectionDraft,
    /// What was found wrong while the message was read.
    pub violations: Vec<FieldViolation>,
    /// Check everything, store nothing.
    pub validate_only: bool,
}

impl Connections {
    /// Verifies a new connection at its provider and stores it, the token sealed. On failure nothing is
    /// stored. A connection that is created disabled is stored without asking the provider.
    ///
    /// Dropped before the commit it leaves nothing; dropped in the commit it leaves all or nothing.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn create(
        &self,
        context: &Context,
        request: Create,
        repeat: Option<Repeat<'_, ShownConnection>>,
    ) -> Result<Done<ShownConnection>, Error> {
        let mut violations = Violations::starting_with(request.violations);
        let id = match request.connection_id.as_str() {
            "" => ConnectionId::parse(&Uuid::now_v7().to_string()),
            chosen => ConnectionId::parse_chosen(chosen),
        };
        let id = violations.take("connection_id", id);
        let draft = draft::check(&self.0.gateway, request.draft, &mut violations);
        violations.finish()?;
        let name = ConnectionName { tenant: checked(request.tenant)?, id: checked(id)? };
        let draft = checked(draft)?;

        if let Some(answer) = self.0.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(answer));
        }
        let outcome =
            self.create_checked(context, &name, draft, request.validate_only, repeat.as_ref()).await;
        self.0.done_or_before(&name.tenant, repeat.as_ref(), outcome).await
    }

    async fn create_checked(
        &self,
        context: &Context,
        name: &ConnectionName,
        draft: CheckedDraft<'_>,
        validate_only: bool,
        repeat: Option<&Repeat<'_, ShownConnection>>,
    ) -> Result<ShownConnection, Error> {
        let core = &*self.0;
        if core.store.id_taken(name).await.map_err(store_down)? {
            return Err(Error::IdTaken { name: name.to_string() });
        }
        self.check_name_free(name, draft.provider.about().id, &draft.display_name).await?;

        let uid = Uuid::now_v7().to_string();
        let (endpoint, inspection) = if draft.rest.disabled {
            (checked(draft.endpoints.first().cloned())?, None)
        } else {
            let (endpoint, inspection) = self.inspect_draft(context, &draft).await?;
            (endpoint, Some(inspection))
        };
        let now = core.clock.now();
        let info = core.credential_info(&draft.credential, &Inspection::default(), 1, now);
        let credential = draft.credential.credential.clone();
        let mut connection = new_connection(name.clone(), uid, draft, &endpoint, info, now);
        if let Some(inspection) = &inspection {
            verify::apply(&mut connection, inspection, now);
            connection.credential.last_use_time = Some(to_the_hour(now));
        }
        let shown = ShownConnection { connection: present(connection.clone(), now), linked_repositories: 0 };
        if validate_only {
            return Ok(shown);
        }
        let sealed = self.seal(&connection, &credential)?;
        let event = event(
            context,
            EventType::ConnectionCreated,
            Subject::connection(name),
            BTreeMap::new(),
            summary(&connection),
            now,
        );
        let record = ConnectionRecord { connection, sealed, revision: Revision(1) };
        self.commit(
            &shown.connection,
            vec![Change::Insert(Box::new(record)), Change::Append(event)],
            repeat,
            &shown,
            now,
        )
        .await?;
        Ok(shown)
    }

    /// Finds the endpoint and asks the provider about the supplied credential; a failure is an error.
    async fn inspect_draft(
        &self,
        context: &Context,
        draft: &CheckedDraft<'_>,
    ) -> Result<(Endpoint, Inspection), Error> {
        let core = &*self.0;
        let failed = |error| supplied(error, draft.provider, "connection.credential");
        let ca = &draft.rest.ca_certificates_pem;
        // The account is not known yet.
        let account = core.secret.fingerprint(&draft.credential.credential.token);
        let endpoint = core
            .locate(
                draft.provider,
                draft.endpoints.clone(),
                ca,
                Some(&draft.credential.credential),
                &account,
                context.deadline,
            )
            .await
            .map_err(failed)?;
        let peer = Peer {
            provider: draft.provider,
            api_url: &endpoint.api_url,
            base_url: &draft.rest.base_url,
            scope: &draft.rest.scope,
            ca_certificates_pem: ca,
            account: &account,
        };
        let credential = &draft.credential.credential;
        let api = core.gateway.api(peer, Some(credential), context.deadline).map_err(failed)?;
        let inspection = draft.provider.inspect(&api, wanted(&draft.rest.required_capabilities)).await;
        match inspection.failure {
            Some(error) => Err(failed(error)),
            None => Ok((endpoint, inspection)),
        }
    }
}
