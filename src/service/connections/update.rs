//! UpdateConnection.

use std::collections::BTreeMap;

use super::{Connections, Next, ShownConnection, api_url_text, check_etag, forget_findings, stored_endpoint};
use crate::domain::connection::{Connection, ConnectionName, ConnectionRecord, DisplayName, Scope};
use crate::domain::credential::CapabilityType;
use crate::domain::event::EventType;
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::api::Api;
use crate::provider::gateway::Peer;
use crate::provider::{Endpoint, Inspection, Provider};
use crate::service::audit::{Subject, difference, event, summary};
use crate::service::draft::{self, CheckedCredential, ConnectionDraft, CredentialDraft, Violations};
use crate::service::error::{CredentialOrigin, Error};
use crate::service::once::{Done, Repeat};
use crate::service::verify::{self, wanted};
use crate::service::{Context, account_of, checked};

/// What UpdateConnection asks for.
#[derive(Debug)]
pub struct Update {
    /// Which connection.
    pub name: Option<ConnectionName>,
    /// The etag that the caller read; empty for none.
    pub etag: String,
    /// Changes a draft of the stored connection into the wanted one.
    pub edit: Edit,
    /// What was found wrong while the message was read.
    pub violations: Vec<FieldViolation>,
    /// Check everything, store nothing.
    pub validate_only: bool,
}

/// The fields that an update sets; `None` leaves one as it is.
#[derive(Debug, Default)]
pub struct Edit {
    /// See `Connection.display_name`.
    pub display_name: Option<String>,
    /// Must be what it is.
    pub provider: Option<String>,
    /// See `Connection.base_url`.
    pub base_url: Option<String>,
    /// See `Connection.scope`.
    pub organization: Option<String>,
    /// See `Connection.scope`.
    pub collection: Option<String>,
    /// See `Connection.scope`.
    pub projects: Option<Vec<String>>,
    /// See `Connection.scope`.
    pub workspaces: Option<Vec<String>>,
    /// Only together with another instance.
    pub credential: Option<CredentialDraft>,
    /// See `Connection.tls`.
    pub ca_certificates_pem: Option<String>,
    /// See `Connection.required_capabilities`.
    pub required_capabilities: Option<Vec<CapabilityType>>,
    /// See `Connection.disabled`.
    pub disabled: Option<bool>,
    /// See `Connection.labels`.
    pub labels: Option<BTreeMap<String, String>>,
    /// See `Connection.annotations`.
    pub annotations: Option<BTreeMap<String, String>>,
    /// See `Connection.owner`.
    pub owner: Option<String>,
}

impl Connections {
    /// Changes a connection. Another URL, scope or set of certificates is verified at the provider first;
    /// other fields never call it. Another instance needs its credential in the same call: a stored token
    /// never goes there.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn update(
        &self,
        context: &Context,
        request: Update,
        repeat: Option<Repeat<'_, ShownConnection>>,
    ) -> Result<Done<ShownConnection>, Error> {
        let Some(name) = request.name.clone() else {
            return Err(Error::Invalid(request.violations));
        };
        if let Some(done) = self.0.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(done));
        }
        let outcome = self.update_once(context, &name, request, repeat.as_ref()).await;
        self.0.done_or_before(&name.tenant, repeat.as_ref(), outcome).await
    }

    async fn update_once(
        &self,
        context: &Context,
        name: &ConnectionName,
        request: Update,
        repeat: Option<&Repeat<'_, ShownConnection>>,
    ) -> Result<ShownConnection, Error> {
        let core = &*self.0;
        let record = core.record(name).await?;
        check_etag(&record.connection, &request.etag)?;
        let provider = core.provider_of(&record)?;
        let before = &record.connection;
        let edit = request.edit;

        let mut violations = Violations::starting_with(request.violations);
        if edit.provider.as_deref().is_some_and(|provider| provider != before.provider.as_str()) {
            violations.push(FieldViolation::new(
                "connection.provider",
                FieldReason::Immutable,
                "the provider of a connection cannot change; create another connection",
            ));
        }
        let wished = apply_edit(before, &edit);
        let display_name = draft::display_name(&wished.display_name, &mut violations);
        draft::check_rest(&core.gateway, &wished, &mut violations);
        let moves = wished.base_url != before.base_url || wished.scope != before.scope;
        let endpoints = if moves {
            draft::endpoints(&core.gateway, provider, &wished.base_url, &wished.scope, &mut violations)
        } else {
            Vec::new()
        };
        let supplied = edit.credential.and_then(|found| {
            draft::credential(Some(provider), found, "connection.credential", &mut violations)
        });
        let stays = endpoints.iter().any(|endpoint| api_url_text(endpoint) == before.effective_api_url);
        if supplied.is_some() && !moves {
            violations.push(use_replace_credential());
        }
        if !endpoints.is_empty() && !stays && supplied.is_none() {
            violations.push(new_host_needs_credential());
        }
        violations.finish()?;
        let display_name = checked(display_name)?;
        if display_name.fold() != before.display_name.fold() {
            self.check_name_free(name, before.provider.as_str(), &display_name).await?;
        }

        let now = core.clock.now();
        let mut next = Next {
            connection: edited(before, &wished, display_name),
            sealed: record.sealed.clone(),
            also: Vec::new(),
        };
        let mut api = None;
        let retrusts = wished.ca_certificates_pem != before.ca_certificates_pem;
        if (moves || retrusts) && wished.disabled {
            let endpoint =
                if moves { checked(endpoints.into_iter().next())? } else { stored_endpoint(before)? };
            self.move_unverified(&mut next, &endpoint, supplied.as_ref(), now)?;
        } else if moves || retrusts {
            let endpoints = if moves { endpoints } else { vec![stored_endpoint(before)?] };
            let moved = self
                .move_verified(context, &record, &mut next, provider, endpoints, supplied.as_ref())
                .await?;
            api = Some(moved);
        } else if wished.required_capabilities != before.required_capabilities {
            verify::reconsider(&mut next.connection, provider, now);
        }

        if next.connection == *before {
            let shown = core.show_connection(before.clone(), now).await?;
            if repeat.is_some() && !request.validate_only {
                self.commit(before, Vec::new(), repeat, &shown, now).await?;
            }
            return Ok(shown);
        }
        if next.connection.effective_api_url != before.effective_api_url {
            next.also = self.relocated(context, &record, &next, provider, api, now).await?;
        }
        let enabled = before.disabled && !next.connection.disabled;
        next.connection.update_time = now;
        next.connection.generation += 1;
        let shown = core.show_connection(next.connection.clone(), now).await?;
        if request.validate_only {
            return Ok(shown);
        }
        let (was, is) = difference(&summary(before), &summary(&next.connection));
        let event = event(context, EventType::ConnectionUpdated, Subject::connection(name), was, is, now);
        self.replace(&record, next, event, repeat, &shown, now).await?;
        if enabled {
            core.rouse(name).await;
        }
        core.work.wake();
        Ok(shown)
    }

    /// Proves that the connection works where the update would have it, and seals a credential that came along. Answers
    /// the way there.
    async fn move_verified(
        &self,
        context: &Context,
        record: &ConnectionRecord,
        next: &mut Next,
        provider: &dyn Provider,
        endpoints: Vec<Endpoint>,
        supplied: Option<&CheckedCredential>,
    ) -> Result<Api, Error> {
        let core = &*self.0;
        let origin = if supplied.is_some() {
            CredentialOrigin::Supplied { field: "connection.credential" }
        } else {
            CredentialOrigin::Stored { expire_time: record.connection.credential.expire_time }
        };
        let failed = |error| Error::Provider { error, credential: origin, provider: provider.about().title };
        let ca = next.connection.ca_certificates_pem.clone();
        // Where a stranger is told nothing and no credential came along, a URL that can stand for the stored
        // instance does.
        let asks_nobody = supplied.is_none() && provider.answers_only_with_token();
        let stays = |endpoint: &&Endpoint| {
            asks_nobody && api_url_text(endpoint) == record.connection.effective_api_url
        };
        let endpoints = match endpoints.iter().find(stays).cloned() {
            Some(same) => vec![same],
            None => endpoints,
        };
        let credential = supplied.map(|supplied| &supplied.credential);
        let account = match credential {
            Some(credential) => core.secret.fingerprint(&credential.token),
            None => account_of(&record.connection.credential).to_owned(),
        };
        let endpoint = core
            .locate(provider, endpoints, &ca, credential, &account, context.deadline)
            .await
            .map_err(failed)?;
        let same_instance = api_url_text(&endpoint) == record.connection.effective_api_url;
        let credential = match (supplied, same_instance) {
            (Some(_), true) => return Err(Error::invalid(use_replace_credential())),
            (Some(supplied), false) => supplied.credential.clone(),
            (None, true) => core.credential_of(record)?,
            (None, false) => return Err(Error::invalid(new_host_needs_credential())),
        };
        let peer = Peer {
            provider,
            api_url: &endpoint.api_url,
            base_url: &next.connection.base_url,
            scope: &next.connection.scope,
            ca_certificates_pem: &ca,
            account: &account,
        };
        let api = core.gateway.api(peer, Some(&credential), context.deadline).map_err(failed)?;
        let inspection = provider.inspect(&api, wanted(&next.connection.required_capabilities)).await;
        if let Some(error) = inspection.failure {
            return Err(failed(error));
        }
        let now = core.clock.now();
        if let Some(supplied) = supplied {
            next.sealed =
                self.take_credential(&mut next.connection, &endpoint, supplied, &inspection, now)?;
        }
        verify::apply(&mut next.connection, &inspection, now);
        Ok(api)
    }

    /// Moves a disabled connection without asking anybody: no call reaches the provider of one, so it counts as never
    /// verified from now on. A stored token stays with its instance.
    fn move_unverified(
        &self,
        next: &mut Next,
        endpoint: &Endpoint,
        supplied: Option<&CheckedCredential>,
        now: Timestamp,
    ) -> Result<(), Error> {
        match (supplied, api_url_text(endpoint) == next.connection.effective_api_url) {
            (Some(_), true) => return Err(Error::invalid(use_replace_credential())),
            (None, false) => return Err(Error::invalid(new_host_needs_credential())),
            (None, true) => {}
            (Some(supplied), false) => {
                let unknown = Inspection::default();
                next.sealed =
                    self.take_credential(&mut next.connection, endpoint, supplied, &unknown, now)?;
            }
        }
        forget_findings(&mut next.connection);
        Ok(())
    }
}

fn new_host_needs_credential() -> FieldViolation {
    FieldViolation::new(
        "connection.base_url",
        FieldReason::CredentialRequiredForNewHost,
        "this URL is another instance, and a stored token never goes there; send `credential` in the same call",
    )
}

fn use_replace_credential() -> FieldViolation {
    FieldViolation::new(
        "connection.credential",
        FieldReason::Conflicting,
        "a credential is accepted here only together with another instance; use ReplaceCredential",
    )
}

/// The stored connection with the wished fields, still at its old instance.
fn edited(before: &Connection, wished: &ConnectionDraft, display_name: DisplayName) -> Connection {
    Connection {
        display_name,
        base_url: wished.base_url.clone(),
        scope: wished.scope.clone(),
        ca_certificates_pem: wished.ca_certificates_pem.clone(),
        required_capabilities: wished.required_capabilities.clone(),
        disabled: wished.disabled,
        labels: wished.labels.clone(),
        annotations: wished.annotations.clone(),
        owner: wished.owner.clone(),
        ..before.clone()
    }
}

/// The stored connection with the edit applied, as if a caller had described it whole.
fn apply_edit(before: &Connection, edit: &Edit) -> ConnectionDraft {
    let or = |new: &Option<String>, old: &str| new.clone().unwrap_or_else(|| old.to_owned());
    ConnectionDraft {
        display_name: or(&edit.display_name, before.display_name.as_str()),
        provider: before.provider.as_str().to_owned(),
        base_url: or(&edit.base_url, &before.base_url),
        scope: Scope {
            organization: or(&edit.organization, &before.scope.organization),
            collection: or(&edit.collection, &before.scope.collection),
            projects: edit.projects.clone().unwrap_or_else(|| before.scope.projects.clone()),
            workspaces: edit.workspaces.clone().unwrap_or_else(|| before.scope.workspaces.clone()),
        },
        credential: None,
        ca_certificates_pem: or(&edit.ca_certificates_pem, &before.ca_certificates_pem),
        required_capabilities: edit
            .required_capabilities
            .clone()
            .unwrap_or_else(|| before.required_capabilities.clone()),
        disabled: edit.disabled.unwrap_or(before.disabled),
        labels: edit.labels.clone().unwrap_or_else(|| before.labels.clone()),
        annotations: edit.annotations.clone().unwrap_or_else(|| before.annotations.clone()),
        owner: or(&edit.owner, &before.owner),
    }
}
