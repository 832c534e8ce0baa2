//! Connections: create, read, update, replace the credential, verify, delete.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use uuid::Uuid;

use super::draft::{self, CheckedCredential, ConnectionDraft, CredentialDraft, Violations};
use super::error::{CredentialOrigin, Error};
use super::filter::{Filter, OrderBy, Place};
use super::page_token::{self, Binding as TokenBinding};
use super::verify::{self, Verification, accounts_differ, present};
use super::{CREDENTIAL_FIELD, Context, Core, origin_of, parse_stored_url, store_down};
use crate::domain::connection::{
    Connection, ConnectionId, ConnectionName, ConnectionRecord, DisplayName, ProviderId, Revision, Scope,
    State, TenantId,
};
use crate::domain::credential::{Account, Capabilities, CredentialInfo, ExpireTimeSource, Sealed};
use crate::domain::event::{Event, EventType};
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::VerificationReport;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::gateway::Peer;
use crate::provider::{About, Endpoint, Inspection, Provider, ProviderError};
use crate::seal::Binding;
use crate::store::{Change, Remembered, StoreError};

/// Rows of one page where the caller names no number.
const DEFAULT_PAGE_SIZE: usize = 50;
/// Most rows of one page; larger wishes are cut to it.
const MAX_PAGE_SIZE: usize = 500;
/// Records read from the store at a time while a listing looks through a tenant.
const SCAN_BATCH: usize = 256;

/// What was done, or what was answered when it was done.
#[derive(Debug)]
pub enum Done<T> {
    /// Done now.
    Now(T),
    /// Done before under the same request id; the answer as it was encoded then.
    Before(Vec<u8>),
}

/// How a request is recognised when it comes again.
#[derive(Debug)]
pub struct Repeat<'a, T> {
    /// The id that the caller gave it: a UUID.
    pub request_id: &'a str,
    /// Method and content, without the id itself.
    pub content: &'a [u8],
    /// Encodes the answer, to be given again.
    pub encode: fn(&T) -> Vec<u8>,
}

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
    pub required_capabilities: Option<Vec<crate::domain::credential::CapabilityType>>,
    /// See `Connection.disabled`.
    pub disabled: Option<bool>,
    /// See `Connection.labels`.
    pub labels: Option<BTreeMap<String, String>>,
    /// See `Connection.annotations`.
    pub annotations: Option<BTreeMap<String, String>>,
    /// See `Connection.owner`.
    pub owner: Option<String>,
}

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

/// A connection and what its verification found.
#[derive(Debug)]
pub struct Verified {
    /// As it is now.
    pub connection: Connection,
    /// Step by step.
    pub report: VerificationReport,
}

/// What ListConnections asks for.
#[derive(Debug)]
pub struct ListConnections {
    /// Whose connections.
    pub tenant: TenantId,
    /// Which of them.
    pub filter: Filter,
    /// In which order.
    pub order: OrderBy,
    /// Rows of one page; 0 for the default.
    pub page_size: usize,
    /// Where the last page ended; empty for the first.
    pub page_token: String,
    /// What the token is bound to.
    pub binding: TokenBinding,
}

/// One page of connections.
#[derive(Debug)]
pub struct ConnectionsPage {
    /// The rows.
    pub connections: Vec<Connection>,
    /// Leads to the next page; empty after the last.
    pub next_page_token: String,
}

/// The operations on connections.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Core>);

impl Connections {
    /// The operations on the connections of `core`.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// All providers, in the order of their ids.
    pub fn providers(&self) -> impl Iterator<Item = &'static About> {
        self.0.gateway.providers().iter().map(Provider::about)
    }

    /// The provider of that id.
    ///
    /// # Errors
    ///
    /// [`Error::ProviderNotFound`].
    pub fn provider(&self, id: &str) -> Result<&'static About, Error> {
        let found = self.0.gateway.providers().find(id).map(Provider::about);
        found.ok_or_else(|| Error::ProviderNotFound(id.to_owned()))
    }

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
        repeat: Option<Repeat<'_, Connection>>,
    ) -> Result<Done<Connection>, Error> {
        let core = &*self.0;
        let mut violations = Violations::starting_with(request.violations);
        let id = match request.connection_id.as_str() {
            "" => ConnectionId::parse(&Uuid::now_v7().to_string()),
            chosen => ConnectionId::parse_chosen(chosen),
        };
        let id = violations.take("connection_id", id);
        let tenant = request.tenant;
        let draft = request.draft;
        let provider = draft::provider(&core.gateway, &draft.provider, &mut violations);
        let display_name = draft::display_name(&draft.display_name, &mut violations);
        draft::check_rest(&core.gateway, &draft, &mut violations);
        let endpoints = provider.map_or_else(Vec::new, |provider| {
            draft::endpoints(&core.gateway, provider, &draft.base_url, &draft.scope, &mut violations)
        });
        let credential = match draft.credential.clone() {
            Some(found) => draft::credential(provider, found, "connection.credential", &mut violations),
            None => {
                violations.push(credential_required("connection.credential"));
                None
            }
        };
        violations.finish()?;
        // After `finish` each of these is there; a hole would be a defect of the checks above.
        let (Some(tenant), Some(id), Some(provider), Some(display_name), Some(credential)) =
            (tenant, id, provider, display_name, credential)
        else {
            return Err(Error::Bug { problem: "a checked request has holes".to_owned() });
        };
        let name = ConnectionName { tenant, id };

        if let Some(done) = self.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(done));
        }
        let outcome = self
            .create_checked(
                context,
                &name,
                provider,
                display_name,
                draft,
                endpoints,
                credential,
                request.validate_only,
                repeat.as_ref(),
            )
            .await;
        match outcome {
            // The same request, sent twice at once: the other one was faster.
            Err(error @ (Error::NameTaken { .. } | Error::IdTaken { .. } | Error::Bug { .. })) => {
                match self.answered_before(&name.tenant, repeat.as_ref()).await? {
                    Some(done) => Ok(Done::Before(done)),
                    None => Err(error),
                }
            }
            other => other.map(Done::Now),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `create`, which checked them all")]
    async fn create_checked(
        &self,
        context: &Context,
        name: &ConnectionName,
        provider: &dyn Provider,
        display_name: DisplayName,
        draft: ConnectionDraft,
        endpoints: Vec<Endpoint>,
        credential: CheckedCredential,
        validate_only: bool,
        repeat: Option<&Repeat<'_, Connection>>,
    ) -> Result<Connection, Error> {
        let core = &*self.0;
        if core.store.id_taken(name).await.map_err(store_down)? {
            return Err(Error::IdTaken { name: name.clone() });
        }
        let provider_id = ProviderId::new(provider.about().id);
        self.check_name_free(name, &provider_id, &display_name).await?;

        let uid = Uuid::now_v7().to_string();
        let (endpoint, inspection) = if draft.disabled {
            let first = endpoints.into_iter().next();
            (first.ok_or_else(|| Error::Bug { problem: "no endpoint".to_owned() })?, None)
        } else {
            let (endpoint, inspection) = self
                .inspect_new(
                    context,
                    provider,
                    endpoints,
                    &draft.ca_certificates_pem,
                    &credential,
                    &draft,
                    &uid,
                )
                .await?;
            (endpoint, Some(inspection))
        };

        let now = core.clock.now();
        let mut connection = Connection {
            name: name.clone(),
            uid,
            display_name,
            provider: provider_id,
            base_url: draft.base_url,
            effective_api_url: api_url_text(&endpoint),
            scope: draft.scope,
            ca_certificates_pem: draft.ca_certificates_pem,
            required_capabilities: draft.required_capabilities,
            credential: core.credential_info(&credential, &Inspection::default(), 1, now),
            server_version: String::new(),
            hosting: endpoint.hosting,
            state: State::Pending,
            conditions: Vec::new(),
            rate_limit: None,
            disabled: draft.disabled,
            labels: draft.labels,
            annotations: draft.annotations,
            owner: draft.owner,
            create_time: now,
            update_time: now,
            last_verify_time: None,
            generation: 1,
        };
        if let Some(inspection) = &inspection {
            verify::apply(&mut connection, inspection, now);
        }
        let shown = present(&connection, now);
        if validate_only {
            return Ok(shown);
        }
        let sealed = self.seal(&connection, &credential)?;
        let event = event(
            context,
            EventType::ConnectionCreated,
            &connection,
            BTreeMap::new(),
            summary(&connection),
            now,
        );
        let record = ConnectionRecord { connection, sealed, revision: Revision(1) };
        self.commit(name, vec![Change::Insert(Box::new(record)), Change::Append(event)], repeat, &shown, now)
            .await?;
        Ok(shown)
    }

    /// Asks the provider about a supplied credential; a failure is an error.
    #[expect(clippy::too_many_arguments, reason = "one step of creating and of moving a connection")]
    async fn inspect_new(
        &self,
        context: &Context,
        provider: &dyn Provider,
        endpoints: Vec<Endpoint>,
        ca_certificates_pem: &str,
        credential: &CheckedCredential,
        draft: &ConnectionDraft,
        account: &str,
    ) -> Result<(Endpoint, Inspection), Error> {
        let core = &*self.0;
        let failed = |error| supplied(error, provider);
        let endpoint =
            core.locate(provider, endpoints, ca_certificates_pem, context.deadline).await.map_err(failed)?;
        let peer = Peer { provider, api_url: &endpoint.api_url, ca_certificates_pem, account };
        let api = core.gateway.api(peer, Some(&credential.credential), context.deadline).map_err(failed)?;
        let wanted = wanted(&draft.required_capabilities);
        let inspection = provider.inspect(&api, wanted).await;
        match inspection.failure {
            Some(error) => Err(failed(error)),
            None => Ok((endpoint, inspection)),
        }
    }

    /// The connection of that name.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionNotFound`], [`Error::Unreadable`], [`Error::StoreUnavailable`].
    pub async fn read(&self, name: &ConnectionName) -> Result<Connection, Error> {
        let record = self.0.record(name).await?;
        Ok(present(&record.connection, self.0.clock.now()))
    }

    /// One page of a tenant's connections. Looks through all of them, so that any order and filter work; keeps
    /// no more than one page in memory. A record that cannot be read is left out and logged.
    ///
    /// # Errors
    ///
    /// [`Error::PageTokenInvalid`], [`Error::StoreUnavailable`].
    pub async fn list(&self, request: ListConnections) -> Result<ConnectionsPage, Error> {
        let core = &*self.0;
        let now = core.clock.now();
        let size =
            if request.page_size == 0 { DEFAULT_PAGE_SIZE } else { request.page_size.min(MAX_PAGE_SIZE) };
        let after = if request.page_token.is_empty() {
            None
        } else {
            let cursor = page_token::open(&core.secret, &request.binding, &request.page_token, now)?;
            Some(Place::decode(&cursor).ok_or(Error::PageTokenInvalid)?)
        };
        // The `size + 1` first rows so far; the greatest of them on top, to be thrown out.
        let mut rows = BinaryHeap::new();
        let mut last_id = None;
        loop {
            let batch = core
                .store
                .connections(&request.tenant, last_id.as_ref(), SCAN_BATCH)
                .await
                .map_err(store_down)?;
            let last = batch.iter().rev().find_map(|listed| match listed {
                Ok(record) => Some(record.connection.name.id.clone()),
                Err(unreadable) => unreadable.connection.clone(),
            });
            // Without an id to go on from, all that is left has unreadable keys.
            let end = batch.len() < SCAN_BATCH || last.is_none();
            last_id = last;
            for listed in batch {
                let record = match listed {
                    Ok(record) => record,
                    Err(unreadable) => {
                        tracing::error!(record = %unreadable.key, problem = %unreadable.problem, "unreadable record left out of a listing");
                        continue;
                    }
                };
                let shown = present(&record.connection, now);
                let place = request.order.place(&shown);
                let behind = after.as_ref().is_none_or(|after| request.order.compare(&place, after).is_gt());
                if behind && request.filter.matches(&shown) {
                    rows.push(Row { order: request.order, place, connection: shown });
                    if rows.len() > size + 1 {
                        rows.pop();
                    }
                }
            }
            if end {
                break;
            }
        }
        let mut rows = rows.into_sorted_vec();
        let more = rows.len() > size;
        rows.truncate(size);
        let next_page_token = match rows.last() {
            Some(last) if more => {
                page_token::issue(&core.secret, &request.binding, &last.place.encode(), now)
            }
            _ => String::new(),
        };
        Ok(ConnectionsPage {
            connections: rows.into_iter().map(|row| row.connection).collect(),
            next_page_token,
        })
    }

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
        repeat: Option<Repeat<'_, Connection>>,
    ) -> Result<Done<Connection>, Error> {
        let core = &*self.0;
        let Some(name) = request.name else {
            return Err(Error::Invalid(request.violations));
        };
        if let Some(done) = self.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(done));
        }
        let record = core.record(&name).await?;
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
        let supplied_credential = edit.credential.and_then(|found| {
            draft::credential(Some(provider), found, "connection.credential", &mut violations)
        });
        let stays =
            !moves || endpoints.iter().any(|endpoint| api_url_text(endpoint) == before.effective_api_url);
        if supplied_credential.is_some() && !moves {
            violations.push(FieldViolation::new(
                "connection.credential",
                FieldReason::Conflicting,
                "a credential is accepted here only together with another instance; use ReplaceCredential",
            ));
        }
        if !endpoints.is_empty() && !stays && supplied_credential.is_none() {
            violations.push(new_host_needs_credential());
        }
        violations.finish()?;
        let Some(display_name) = display_name else {
            return Err(Error::Bug { problem: "a checked request has holes".to_owned() });
        };
        if display_name.fold() != before.display_name.fold() {
            self.check_name_free(&name, &before.provider, &display_name).await?;
        }

        let verifies = moves || wished.ca_certificates_pem != before.ca_certificates_pem;
        let now = core.clock.now();
        let mut connection = before.clone();
        let mut sealed = record.sealed.clone();
        connection.display_name = display_name;
        connection.base_url.clone_from(&wished.base_url);
        connection.scope.clone_from(&wished.scope);
        connection.ca_certificates_pem.clone_from(&wished.ca_certificates_pem);
        connection.required_capabilities.clone_from(&wished.required_capabilities);
        connection.disabled = wished.disabled;
        connection.labels.clone_from(&wished.labels);
        connection.annotations.clone_from(&wished.annotations);
        connection.owner.clone_from(&wished.owner);
        if verifies && !wished.disabled {
            let endpoints = if moves { endpoints } else { vec![stored_endpoint(before)?] };
            let moved = Move { provider, wished: &wished, endpoints, supplied: supplied_credential.as_ref() };
            let inspection = self.verify_move(context, &record, moved, &mut connection, &mut sealed).await?;
            verify::apply(&mut connection, &inspection, now);
        } else if moves {
            let Some(endpoint) = endpoints.into_iter().next() else {
                return Err(Error::Bug { problem: "no endpoint".to_owned() });
            };
            if let Some(credential) = &supplied_credential {
                self.take_credential(
                    &mut connection,
                    &mut sealed,
                    &endpoint,
                    credential,
                    &Inspection::default(),
                    now,
                )?;
                connection.last_verify_time = None;
                connection.conditions.clear();
            } else if api_url_text(&endpoint) != before.effective_api_url {
                return Err(Error::invalid(new_host_needs_credential()));
            }
        } else {
            reconsider(&mut connection);
        }

        let (changed_before, changed_after) = difference(&summary(before), &summary(&connection));
        if connection == *before {
            return Ok(Done::Now(present(before, now)));
        }
        connection.update_time = now;
        connection.generation += 1;
        let shown = present(&connection, now);
        if request.validate_only {
            return Ok(Done::Now(shown));
        }
        let event =
            event(context, EventType::ConnectionUpdated, &connection, changed_before, changed_after, now);
        let change = replace_change(&record, connection, sealed);
        let outcome =
            self.commit(&name, vec![change, Change::Append(event)], repeat.as_ref(), &shown, now).await;
        self.done_or_before(&name, repeat.as_ref(), outcome.map(|()| shown)).await
    }

    /// Proves that the connection works where an update would have it, and seals a credential that came along.
    async fn verify_move(
        &self,
        context: &Context,
        record: &ConnectionRecord,
        moved: Move<'_>,
        connection: &mut Connection,
        sealed: &mut Sealed,
    ) -> Result<Inspection, Error> {
        let core = &*self.0;
        let Move { provider, wished, endpoints, supplied: supplied_credential } = moved;
        let origin =
            if supplied_credential.is_some() { CredentialOrigin::Supplied } else { CredentialOrigin::Stored };
        let failed = |error| Error::Provider { error, credential: origin, provider: provider.about().title };
        let ca = &wished.ca_certificates_pem;
        let endpoint = core.locate(provider, endpoints, ca, context.deadline).await.map_err(failed)?;
        let same_instance = api_url_text(&endpoint) == record.connection.effective_api_url;
        let credential = match (supplied_credential, same_instance) {
            (Some(_), true) => {
                return Err(Error::invalid(FieldViolation::new(
                    "connection.credential",
                    FieldReason::Conflicting,
                    "the URL means the instance that the connection has already; use ReplaceCredential",
                )));
            }
            (Some(supplied), false) => supplied.credential.clone(),
            (None, true) => core.credential_of(record)?,
            (None, false) => return Err(Error::invalid(new_host_needs_credential())),
        };
        let peer =
            Peer { provider, api_url: &endpoint.api_url, ca_certificates_pem: ca, account: &connection.uid };
        let api = core.gateway.api(peer, Some(&credential), context.deadline).map_err(failed)?;
        let inspection = provider.inspect(&api, wanted(&wished.required_capabilities)).await;
        if let Some(error) = inspection.failure {
            return Err(failed(error));
        }
        if let Some(supplied) = supplied_credential {
            self.take_credential(connection, sealed, &endpoint, supplied, &inspection, core.clock.now())?;
        }
        Ok(inspection)
    }

    /// Puts a new credential, and the instance that it is for, into the connection.
    fn take_credential(
        &self,
        connection: &mut Connection,
        sealed: &mut Sealed,
        endpoint: &Endpoint,
        credential: &CheckedCredential,
        inspection: &Inspection,
        now: Timestamp,
    ) -> Result<(), Error> {
        connection.effective_api_url = api_url_text(endpoint);
        connection.hosting = endpoint.hosting;
        let version = connection.credential.version + 1;
        connection.credential = self.0.credential_info(credential, inspection, version, now);
        *sealed = self.seal(connection, credential)?;
        Ok(())
    }

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
            violations.push(credential_required("credential"));
        }
        let Some(name) = request.name else {
            violations.finish()?;
            return Err(Error::Bug { problem: "a checked request has holes".to_owned() });
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
        let Some(credential) = credential else {
            return Err(Error::Bug { problem: "a checked request has holes".to_owned() });
        };
        let before = &record.connection;
        if before.disabled {
            return Err(Error::Disabled { name });
        }
        let endpoint = stored_endpoint(before)?;
        let Verification { report, inspection } = core
            .verify(
                self.peer(provider, before, &endpoint),
                &credential.credential,
                before.wanted_capabilities(),
                context.deadline,
            )
            .await;
        if let Some(error) = inspection.failure {
            return Err(supplied(error, provider));
        }
        let (old, new) = (before.credential.account.as_ref(), inspection.account.as_ref());
        // A token that may not name its account could be anybody's.
        let changed = accounts_differ(old, new) || (old.is_some() && new.is_none());
        if changed && !request.allow_account_change {
            return Err(Error::AccountChanged { name, current: describe(old), supplied: describe(new) });
        }

        let now = core.clock.now();
        let mut connection = before.clone();
        let mut sealed = record.sealed.clone();
        self.take_credential(&mut connection, &mut sealed, &endpoint, &credential, &inspection, now)?;
        connection.conditions.retain(|condition| condition.condition_type != "CREDENTIAL_ACCOUNT_CHANGED");
        verify::apply(&mut connection, &inspection, now);
        connection.update_time = now;
        connection.generation += 1;
        let verified = Verified { connection: present(&connection, now), report };
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
                self.peer(provider, before, &endpoint),
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
            connection.generation += 1;
            let shown = present(&connection, now);
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
                return Ok(Verified { connection: present(&current.connection, now), report });
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
        draft: ConnectionDraft,
        found: Vec<FieldViolation>,
    ) -> Result<Verified, Error> {
        let core = &*self.0;
        let mut violations = Violations::starting_with(found);
        let provider = draft::provider(&core.gateway, &draft.provider, &mut violations);
        let display_name = match draft.display_name.as_str() {
            // A form may want to check URL and token before a name was chosen.
            "" => violations.take("connection.display_name", DisplayName::parse("unnamed")),
            text => draft::display_name(text, &mut violations),
        };
        draft::check_rest(&core.gateway, &draft, &mut violations);
        let endpoints = provider.map_or_else(Vec::new, |provider| {
            draft::endpoints(&core.gateway, provider, &draft.base_url, &draft.scope, &mut violations)
        });
        let credential = match draft.credential.clone() {
            Some(found) => draft::credential(provider, found, "connection.credential", &mut violations),
            None => {
                violations.push(credential_required("connection.credential"));
                None
            }
        };
        violations.finish()?;
        let (Some(tenant), Some(provider), Some(display_name), Some(credential), Some(first)) =
            (tenant, provider, display_name, credential, endpoints.first().cloned())
        else {
            return Err(Error::Bug { problem: "a checked request has holes".to_owned() });
        };
        // Where no candidate answers, the report of the first one tells why.
        let ca = &draft.ca_certificates_pem;
        let endpoint = core.locate(provider, endpoints, ca, context.deadline).await.unwrap_or(first);
        let uid = Uuid::now_v7().to_string();
        let peer = Peer { provider, api_url: &endpoint.api_url, ca_certificates_pem: ca, account: &uid };
        let wanted = wanted(&draft.required_capabilities);
        let Verification { report, inspection } =
            core.verify(peer, &credential.credential, wanted, context.deadline).await;
        let now = core.clock.now();
        let id = ConnectionId::parse(&uid)
            .map_err(|_| Error::Bug { problem: "an own id is malformed".to_owned() })?;
        let mut connection = Connection {
            name: ConnectionName { tenant, id },
            uid,
            display_name,
            provider: ProviderId::new(provider.about().id),
            base_url: draft.base_url,
            effective_api_url: api_url_text(&endpoint),
            scope: draft.scope,
            ca_certificates_pem: draft.ca_certificates_pem,
            required_capabilities: draft.required_capabilities,
            credential: core.credential_info(&credential, &inspection, 1, now),
            server_version: String::new(),
            hosting: endpoint.hosting,
            state: State::Pending,
            conditions: Vec::new(),
            rate_limit: None,
            disabled: draft.disabled,
            labels: draft.labels,
            annotations: draft.annotations,
            owner: draft.owner,
            create_time: now,
            update_time: now,
            last_verify_time: None,
            generation: 1,
        };
        verify::apply(&mut connection, &inspection, now);
        Ok(Verified { connection: present(&connection, now), report })
    }

    /// Deletes a connection with its sealed secret. Its display name is free again, its id never.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionNotFound`], [`Error::Stale`], [`Error::StoreUnavailable`].
    pub async fn delete(&self, context: &Context, name: &ConnectionName, etag: &str) -> Result<(), Error> {
        let core = &*self.0;
        let record = core.record(name).await?;
        check_etag(&record.connection, etag)?;
        let now = core.clock.now();
        let gone = summary(&record.connection);
        let event =
            event(context, EventType::ConnectionDeleted, &record.connection, gone, BTreeMap::new(), now);
        let changes =
            vec![Change::Remove { name: name.clone(), expected: record.revision }, Change::Append(event)];
        core.store.commit(changes).await.map_err(|error| Error::from_store(error, name, ""))
    }

    fn peer<'a>(
        &self,
        provider: &'a dyn Provider,
        connection: &'a Connection,
        endpoint: &'a Endpoint,
    ) -> Peer<'a> {
        Peer {
            provider,
            api_url: &endpoint.api_url,
            ca_certificates_pem: &connection.ca_certificates_pem,
            account: &connection.uid,
        }
    }

    async fn check_name_free(
        &self,
        name: &ConnectionName,
        provider: &ProviderId,
        display_name: &DisplayName,
    ) -> Result<(), Error> {
        let owner = self
            .0
            .store
            .name_owner(&name.tenant, provider, &display_name.fold())
            .await
            .map_err(store_down)?;
        match owner {
            Some(id) if id != name.id => Err(Error::NameTaken {
                owner: ConnectionName { tenant: name.tenant.clone(), id },
                provider: provider.as_str().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn seal(&self, connection: &Connection, credential: &CheckedCredential) -> Result<Sealed, Error> {
        let origin = origin_of(&connection.effective_api_url)?;
        let binding = Binding {
            tenant: connection.name.tenant.as_str(),
            uid: &connection.uid,
            field: CREDENTIAL_FIELD,
            origin: &origin,
        };
        let sealed = self.0.keys.seal(&credential.credential.token, &binding);
        sealed.map_err(|error| Error::from_seal(error, &connection.name))
    }

    /// The answer that was given to this request before.
    async fn answered_before<T>(
        &self,
        tenant: &TenantId,
        repeat: Option<&Repeat<'_, T>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(repeat) = repeat else { return Ok(None) };
        let Some(known) = self.0.store.remembered(tenant, repeat.request_id).await.map_err(store_down)?
        else {
            return Ok(None);
        };
        if self.0.secret.verify_request(repeat.content, &known.fingerprint) {
            Ok(Some(known.answer))
        } else {
            Err(Error::RequestIdReused)
        }
    }

    /// Commits the changes, and remembers the answer if the request may come again.
    async fn commit<T>(
        &self,
        name: &ConnectionName,
        mut changes: Vec<Change>,
        repeat: Option<&Repeat<'_, T>>,
        answer: &T,
        now: Timestamp,
    ) -> Result<(), Error> {
        if let Some(repeat) = repeat {
            // First, so that a request that comes twice at once is told so before it is told that its name is taken.
            changes.insert(
                0,
                Change::Remember(Remembered {
                    tenant: name.tenant.clone(),
                    request_id: repeat.request_id.to_owned(),
                    fingerprint: self.0.secret.request_fingerprint(repeat.content),
                    answer: (repeat.encode)(answer),
                    time: now,
                }),
            );
        }
        self.0.store.commit(changes).await.map_err(|error| Error::from_store(error, name, ""))
    }

    /// Turns a lost race against the same request into its answer.
    async fn done_or_before<T>(
        &self,
        name: &ConnectionName,
        repeat: Option<&Repeat<'_, T>>,
        outcome: Result<T, Error>,
    ) -> Result<Done<T>, Error> {
        match outcome {
            Ok(done) => Ok(Done::Now(done)),
            Err(error @ (Error::Stale { .. } | Error::NameTaken { .. } | Error::Bug { .. })) => {
                match self.answered_before(&name.tenant, repeat).await? {
                    Some(answer) => Ok(Done::Before(answer)),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Where an update would have a connection, and with which credential.
struct Move<'a> {
    provider: &'a dyn Provider,
    wished: &'a ConnectionDraft,
    endpoints: Vec<Endpoint>,
    supplied: Option<&'a CheckedCredential>,
}

/// One row of a listing, ordered as the listing is.
struct Row {
    order: OrderBy,
    place: Place,
    connection: Connection,
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.compare(&self.place, &other.place)
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row {}

fn wanted(
    required: &[crate::domain::credential::CapabilityType],
) -> &[crate::domain::credential::CapabilityType] {
    if required.is_empty() { &crate::domain::credential::CapabilityType::ALL } else { required }
}

fn supplied(error: ProviderError, provider: &dyn Provider) -> Error {
    Error::Provider { error, credential: CredentialOrigin::Supplied, provider: provider.about().title }
}

fn credential_required(field: &str) -> FieldViolation {
    FieldViolation::new(
        field,
        FieldReason::Required,
        "send the credential, such as `personal_access_token {token: ...}`; GetProvider tells the kinds",
    )
}

fn new_host_needs_credential() -> FieldViolation {
    FieldViolation::new(
        "connection.base_url",
        FieldReason::CredentialRequiredForNewHost,
        "this URL is another instance, and a stored token never goes there; send `credential` in the same call",
    )
}

fn check_etag(connection: &Connection, etag: &str) -> Result<(), Error> {
    if etag.is_empty() || etag == self::etag(connection) {
        Ok(())
    } else {
        Err(Error::Stale { name: connection.name.clone() })
    }
}

/// The etag of a connection: it changes with everything that a reader can see.
#[must_use]
pub fn etag(connection: &Connection) -> String {
    format!("\"{:x}\"", connection.generation)
}

fn api_url_text(endpoint: &Endpoint) -> String {
    endpoint.api_url.as_str().trim_end_matches('/').to_owned()
}

fn stored_endpoint(connection: &Connection) -> Result<Endpoint, Error> {
    Ok(Endpoint { api_url: parse_stored_url(&connection.effective_api_url)?, hosting: connection.hosting })
}

fn replace_change(record: &ConnectionRecord, connection: Connection, sealed: Sealed) -> Change {
    Change::Replace {
        record: Box::new(ConnectionRecord { connection, sealed, revision: Revision(record.revision.0 + 1) }),
        expected: record.revision,
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

/// After a change that asks nobody: other required capabilities can change the state by themselves.
fn reconsider(connection: &mut Connection) {
    use crate::domain::credential::Capability;
    if !matches!(connection.state, State::Active | State::Degraded) {
        return;
    }
    let lacks = |wanted: &&crate::domain::credential::CapabilityType| {
        connection.credential.capabilities.of(**wanted) == Capability::No
    };
    let changed_account = connection.conditions.iter().any(|condition| {
        condition.condition_type == "CREDENTIAL_ACCOUNT_CHANGED"
            && condition.status == crate::domain::connection::ConditionStatus::True
    });
    connection.state =
        if connection.wanted_capabilities().iter().any(|wanted| lacks(&wanted)) || changed_account {
            State::Degraded
        } else {
            State::Active
        };
}

fn describe(account: Option<&Account>) -> String {
    match account {
        Some(account) if !account.login.is_empty() => account.login.clone(),
        Some(account) if !account.display_name.is_empty() => account.display_name.clone(),
        Some(account) => account.id.clone(),
        None => "an account that the token may not name".to_owned(),
    }
}

/// What the audit trail keeps of a connection: enough to tell what changed, and no secret.
fn summary(connection: &Connection) -> BTreeMap<String, String> {
    let credential: &CredentialInfo = &connection.credential;
    let account = credential.account.clone().unwrap_or_default();
    let Capabilities { list_repositories, read_code, manage_webhooks } = credential.capabilities;
    let expires = match credential.expire_time_source {
        ExpireTimeSource::Unknown => String::new(),
        _ => credential.expire_time.map(|time| time.unix_seconds().to_string()).unwrap_or_default(),
    };
    [
        ("display_name", connection.display_name.as_str().to_owned()),
        ("provider", connection.provider.to_string()),
        ("base_url", connection.base_url.clone()),
        ("effective_api_url", connection.effective_api_url.clone()),
        ("scope", format!("{:?}", connection.scope)),
        ("tls.ca_certificates_pem", format!("{} bytes", connection.ca_certificates_pem.len())),
        ("required_capabilities", format!("{:?}", connection.required_capabilities)),
        ("disabled", connection.disabled.to_string()),
        ("labels", format!("{:?}", connection.labels)),
        ("annotations", format!("{} entries", connection.annotations.len())),
        ("owner", connection.owner.clone()),
        ("state", connection.state.as_str().to_owned()),
        ("credential.version", credential.version.to_string()),
        ("credential.fingerprint", credential.fingerprint.clone()),
        ("credential.account.id", account.id),
        ("credential.account.login", account.login),
        ("credential.capabilities", format!("{list_repositories:?} {read_code:?} {manage_webhooks:?}")),
        ("credential.expire_time", expires),
    ]
    .into_iter()
    .map(|(field, value)| (field.to_owned(), value))
    .collect()
}

type Fields = BTreeMap<String, String>;

/// The entries of both maps that are not the same.
fn difference(before: &Fields, after: &Fields) -> (Fields, Fields) {
    let only = |these: &Fields, those: &Fields| {
        these
            .iter()
            .filter(|(field, value)| those.get(*field) != Some(value))
            .map(|(f, v)| (f.clone(), v.clone()))
            .collect()
    };
    (only(before, after), only(after, before))
}

fn event(
    context: &Context,
    event_type: EventType,
    connection: &Connection,
    before: Fields,
    after: Fields,
    now: Timestamp,
) -> Event {
    Event {
        uid: Uuid::now_v7().to_string(),
        tenant: connection.name.tenant.clone(),
        connection: connection.name.id.clone(),
        event_type,
        actor: context.actor.clone(),
        time: now,
        request_id: context.request_id.clone(),
        before,
        after,
    }
}
