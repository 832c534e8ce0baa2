//! `gitmoor.v1.ConnectionService`.

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::layers::Draining;
use super::repeat::{content, content_of, decode, repeat};
use super::watch::{Notices, watch};
use super::{convert, names, open, status};
use crate::domain::connection::Connection;
use crate::domain::event::Event;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1;
use crate::proto::v1::connection_service_server::ConnectionService;
use crate::service::checked;
use crate::service::connections::{
    Connections, Create, Replace, Replaced, ShownConnection, UNNAMED, Update, Verified,
};
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::filter::{Filter, OrderBy};
use crate::service::listing::Query;
use crate::service::once::Done;
use crate::service::page_token::Binding;
use crate::service::trail::ListEvents;

/// The handlers: decode, call the service, encode.
#[derive(Debug, Clone)]
pub struct ConnectionHandlers(Connections, Draining);

impl ConnectionHandlers {
    /// Handlers in front of `connections`; a watch ends when `draining` starts.
    #[must_use]
    pub const fn new(connections: Connections, draining: Draining) -> Self {
        Self(connections, draining)
    }

    async fn create(&self, request: Request<v1::CreateConnectionRequest>) -> Result<v1::Connection, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        let content = content_of("CreateConnection", &message, request_id.as_deref());
        let tenant = names::tenant("parent", &message.parent, &mut violations);
        let wire = message.connection.unwrap_or_default();
        let draft = convert::draft(wire, &mut violations);
        let create = Create {
            tenant,
            connection_id: message.connection_id,
            draft,
            violations: violations.into_found(),
            validate_only: message.validate_only,
        };
        let repeat = repeat(request_id.as_deref(), &content, message.validate_only, encode_connection);
        match self.0.create(&context, create, repeat).await? {
            Done::Now(connection) => Ok(convert::connection(connection)),
            Done::Before(answer) => decode(&answer),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<v1::ListConnectionsResponse, Error> {
        let (_, mut message) = open(request)?;
        let mut violations = Violations::default();
        let tenant = names::tenant("parent", &message.parent, &mut violations);
        let (filter, order_by) = (message.filter.as_str(), message.order_by.as_str());
        let filter = violations.take("filter", Filter::parse::<Connection>(filter));
        let order = violations.take("order_by", OrderBy::parse::<Connection>(order_by));
        let page_size = convert::page_size(std::mem::take(&mut message.page_size), &mut violations);
        let page_token = std::mem::take(&mut message.page_token);
        violations.finish()?;
        let (tenant, filter, order) = (checked(tenant)?, checked(filter)?, checked(order)?);
        let binding = Binding(content("ListConnections", &message));
        let page = self.0.list(&tenant, Query { filter, order, page_size, page_token, binding }).await?;
        Ok(v1::ListConnectionsResponse {
            connections: page.connections.into_iter().map(convert::connection).collect(),
            next_page_token: page.next_page_token,
        })
    }

    async fn update(&self, request: Request<v1::UpdateConnectionRequest>) -> Result<v1::Connection, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        let content = content_of("UpdateConnection", &message, request_id.as_deref());
        let wire = message.connection.unwrap_or_default();
        let name = names::connection("connection.name", &wire.name, &mut violations);
        let etag = wire.etag.clone();
        let mask = message.update_mask.map(|mask| mask.paths).filter(|paths| !paths.is_empty());
        let edit = convert::edit(wire, mask.as_deref(), &mut violations);
        let update = Update {
            name,
            etag,
            edit,
            violations: violations.into_found(),
            validate_only: message.validate_only,
        };
        let repeat = repeat(request_id.as_deref(), &content, message.validate_only, encode_connection);
        match self.0.update(&context, update, repeat).await? {
            Done::Now(connection) => Ok(convert::connection(connection)),
            Done::Before(answer) => decode(&answer),
        }
    }

    async fn replace(
        &self,
        request: Request<v1::ReplaceCredentialRequest>,
    ) -> Result<v1::ReplaceCredentialResponse, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        let content = content_of("ReplaceCredential", &message, request_id.as_deref());
        let name = names::connection("name", &message.name, &mut violations);
        let credential = message
            .credential
            .and_then(|credential| convert::credential_draft(credential, "credential", &mut violations));
        let replace = Replace {
            name,
            credential,
            allow_account_change: message.allow_account_change,
            check_links: convert::check_links(message.check_links, &mut violations),
            etag: message.etag,
            violations: violations.into_found(),
            validate_only: message.validate_only,
        };
        let repeat = repeat(request_id.as_deref(), &content, message.validate_only, |done: &Replaced| {
            replaced(done).encode_to_vec()
        });
        match self.0.replace_credential(&context, replace, repeat).await? {
            Done::Now(done) => Ok(replaced(&done)),
            Done::Before(answer) => decode(&answer),
        }
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyConnectionRequest>,
    ) -> Result<v1::VerifyConnectionResponse, Error> {
        let (context, message) = open(request)?;
        let mut violations = Violations::default();
        let verified = match (message.name.as_str(), message.connection) {
            ("", Some(wire)) => {
                let tenant = names::tenant("parent", &message.parent, &mut violations);
                let draft = convert::draft(wire, &mut violations);
                let mut verified =
                    self.0.verify_draft(&context, tenant, draft, violations.into_found()).await?.into_wire();
                if let Some(connection) = &mut verified.connection {
                    // It is not stored: it has no name by which to find it, and nothing to compare an etag with.
                    connection.name.clear();
                    if connection.display_name == UNNAMED {
                        connection.display_name.clear();
                    }
                    connection.uid.clear();
                    connection.etag.clear();
                    connection.create_time = None;
                    connection.update_time = None;
                }
                return Ok(verified);
            }
            (name, None) if message.parent.is_empty() => {
                let name = names::connection("name", name, &mut violations);
                violations.finish()?;
                let name = checked(name)?;
                self.0.verify_stored(&context, &name).await?
            }
            _ => {
                return Err(Error::invalid(FieldViolation::new(
                    "name",
                    FieldReason::Conflicting,
                    "send either `name`, for a stored connection, or `parent` and a whole `connection` with its own \
                     credential: a stored token is never tried against a URL of the call",
                )));
            }
        };
        Ok(verified.into_wire())
    }

    async fn delete(&self, request: Request<v1::DeleteConnectionRequest>) -> Result<(), Error> {
        let (context, message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::connection("name", &message.name, &mut violations);
        violations.finish()?;
        let name = checked(name)?;
        self.0.delete(&context, &name, &message.etag, message.force).await
    }

    async fn read(&self, request: Request<v1::GetConnectionRequest>) -> Result<v1::Connection, Error> {
        let (_, message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::connection("name", &message.name, &mut violations);
        violations.finish()?;
        let name = checked(name)?;
        Ok(convert::connection(self.0.read(&name).await?))
    }

    async fn events(
        &self,
        request: Request<v1::ListConnectionEventsRequest>,
    ) -> Result<v1::ListConnectionEventsResponse, Error> {
        let (_, mut message) = open(request)?;
        let mut violations = Violations::default();
        let parent = names::connection_or_all("parent", &message.parent, &mut violations);
        let filter = violations.take("filter", Filter::parse::<Event>(&message.filter));
        let page_size = convert::page_size(std::mem::take(&mut message.page_size), &mut violations);
        let page_token = std::mem::take(&mut message.page_token);
        violations.finish()?;
        let (parent, filter) = (checked(parent)?, checked(filter)?);
        let binding = Binding(content("ListConnectionEvents", &message));
        let page = self.0.events(ListEvents { parent, filter, page_size, page_token, binding }).await?;
        Ok(v1::ListConnectionEventsResponse {
            connection_events: page.entries.into_iter().map(convert::connection_event).collect(),
            next_page_token: page.next_page_token,
        })
    }

    fn provider(&self, name: &str) -> Result<v1::Provider, Error> {
        let mut violations = Violations::default();
        let id = names::provider("name", name, &mut violations);
        violations.finish()?;
        Ok(convert::provider(self.0.provider(&id.unwrap_or_default())?))
    }
}

#[tonic::async_trait]
impl ConnectionService for ConnectionHandlers {
    type WatchConnectionsStream = Notices;

    async fn list_providers(
        &self,
        _request: Request<v1::ListProvidersRequest>,
    ) -> Result<Response<v1::ListProvidersResponse>, Status> {
        let providers = self.0.providers().map(convert::provider).collect();
        Ok(Response::new(v1::ListProvidersResponse { providers }))
    }

    async fn get_provider(
        &self,
        request: Request<v1::GetProviderRequest>,
    ) -> Result<Response<v1::Provider>, Status> {
        self.provider(&request.get_ref().name).map(Response::new).map_err(status::of)
    }

    async fn create_connection(
        &self,
        request: Request<v1::CreateConnectionRequest>,
    ) -> Result<Response<v1::Connection>, Status> {
        self.create(request).await.map(Response::new).map_err(status::of)
    }

    async fn get_connection(
        &self,
        request: Request<v1::GetConnectionRequest>,
    ) -> Result<Response<v1::Connection>, Status> {
        self.read(request).await.map(Response::new).map_err(status::of)
    }

    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<v1::ListConnectionsResponse>, Status> {
        self.list(request).await.map(Response::new).map_err(status::of)
    }

    async fn update_connection(
        &self,
        request: Request<v1::UpdateConnectionRequest>,
    ) -> Result<Response<v1::Connection>, Status> {
        self.update(request).await.map(Response::new).map_err(status::of)
    }

    async fn replace_credential(
        &self,
        request: Request<v1::ReplaceCredentialRequest>,
    ) -> Result<Response<v1::ReplaceCredentialResponse>, Status> {
        self.replace(request).await.map(Response::new).map_err(status::of)
    }

    async fn delete_connection(
        &self,
        request: Request<v1::DeleteConnectionRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete(request).await.map(Response::new).map_err(status::of)
    }

    async fn verify_connection(
        &self,
        request: Request<v1::VerifyConnectionRequest>,
    ) -> Result<Response<v1::VerifyConnectionResponse>, Status> {
        self.verify(request).await.map(Response::new).map_err(status::of)
    }

    async fn watch_connections(
        &self,
        request: Request<v1::WatchConnectionsRequest>,
    ) -> Result<Response<Self::WatchConnectionsStream>, Status> {
        watch(&self.0, &self.1, request).await.map(Response::new).map_err(status::of)
    }

    async fn list_connection_events(
        &self,
        request: Request<v1::ListConnectionEventsRequest>,
    ) -> Result<Response<v1::ListConnectionEventsResponse>, Status> {
        self.events(request).await.map(Response::new).map_err(status::of)
    }
}

impl Verified {
    fn into_wire(self) -> v1::VerifyConnectionResponse {
        v1::VerifyConnectionResponse {
            report: Some(convert::report(&self.report)),
            connection: Some(convert::connection(self.connection)),
        }
    }
}

fn replaced(done: &Replaced) -> v1::ReplaceCredentialResponse {
    let Replaced { verified, affected } = done;
    v1::ReplaceCredentialResponse {
        connection: Some(convert::connection(verified.connection.clone())),
        report: Some(convert::report(&verified.report)),
        affected_links: affected.iter().map(convert::affected_link).collect(),
    }
}

fn encode_connection(connection: &ShownConnection) -> Vec<u8> {
    convert::connection(connection.clone()).encode_to_vec()
}
