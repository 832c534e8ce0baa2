//! The part of `gitmoor.v1.RepositoryService` that is about repository links.

use std::time::Duration;

use futures_util::StreamExt as _;
use prost::Message as _;
use tonic::Request;

use super::repeat::{content, content_of, decode, repeat};
use super::repositories::{Messages, by_clone_url, by_full_name, streaming, until};
use super::{convert, names, open, status};
use crate::domain::connection::TenantId;
use crate::domain::link::Link;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1;
use crate::proto::v1::create_repository_link_request::Selector as Wire;
use crate::service::checked;
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::filter::{Filter, OrderBy};
use crate::service::links::{
    Create, CreateBatch, Links, ListTargets, Migrate, Selector, ShownLink, Switch, Update,
};
use crate::service::listing::Query;
use crate::service::once::Done;
use crate::service::page_token::Binding;

/// Decode, call the service, encode.
#[derive(Debug, Clone)]
pub(super) struct LinkHandlers(Links);

impl LinkHandlers {
    /// Handlers in front of `links`.
    pub(super) const fn new(links: Links) -> Self {
        Self(links)
    }

    pub(super) async fn create(
        &self,
        request: Request<v1::CreateRepositoryLinkRequest>,
    ) -> Result<v1::RepositoryLink, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        let content = content_of("CreateRepositoryLink", &message, request_id.as_deref());
        let tenant = names::tenant("parent", &message.parent, &mut violations);
        let validate_only = message.validate_only;
        let create = create_of(message, tenant, violations);
        let repeat = repeat(request_id.as_deref(), &content, validate_only, |links: &[ShownLink]| {
            links.first().map(|link| convert::link(link.clone()).encode_to_vec()).unwrap_or_default()
        });
        match self.0.create(&context, create, repeat).await? {
            Done::Now(link) => Ok(convert::link(link)),
            Done::Before(answer) => decode(&answer),
        }
    }

    pub(super) async fn create_batch(
        &self,
        request: Request<v1::BatchCreateRepositoryLinksRequest>,
    ) -> Result<v1::BatchCreateRepositoryLinksResponse, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        let content = content_of("BatchCreateRepositoryLinks", &message, request_id.as_deref());
        let parent = std::mem::take(&mut message.parent);
        let tenant = names::tenant("parent", &parent, &mut violations);
        let requests = message.requests.into_iter();
        let requests = requests.map(|request| entry_of(request, &parent, tenant.clone())).collect::<Vec<_>>();
        let batch = CreateBatch { tenant, requests, violations: violations.into_found() };
        let repeat = repeat(request_id.as_deref(), &content, false, |links: &[ShownLink]| {
            created(links.to_vec()).encode_to_vec()
        });
        match self.0.create_batch(&context, batch, repeat).await? {
            Done::Now(links) => Ok(created(links)),
            Done::Before(answer) => decode(&answer),
        }
    }

    pub(super) async fn read(
        &self,
        request: Request<v1::GetRepositoryLinkRequest>,
    ) -> Result<v1::RepositoryLink, Error> {
        let (_, message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::link("name", &message.name, &mut violations);
        violations.finish()?;
        Ok(convert::link(self.0.read(&checked(name)?).await?))
    }

    pub(super) async fn list(
        &self,
        request: Request<v1::ListRepositoryLinksRequest>,
    ) -> Result<v1::ListRepositoryLinksResponse, Error> {
        let (_, mut message) = open(request)?;
        let mut violations = Violations::default();
        let tenant = names::tenant("parent", &message.parent, &mut violations);
        let filter = violations.take("filter", Filter::parse::<Link>(&message.filter));
        let order = violations.take("order_by", OrderBy::parse::<Link>(&message.order_by));
        let page_size = convert::page_size(std::mem::take(&mut message.page_size), &mut violations);
        let page_token = std::mem::take(&mut message.page_token);
        violations.finish()?;
        let (tenant, filter, order) = (checked(tenant)?, checked(filter)?, checked(order)?);
        let binding = Binding(content("ListRepositoryLinks", &message));
        let page = self.0.list(&tenant, Query { filter, order, page_size, page_token, binding }).await?;
        Ok(v1::ListRepositoryLinksResponse {
            repository_links: page.links.into_iter().map(convert::link).collect(),
            next_page_token: page.next_page_token,
        })
    }

    pub(super) async fn update(
        &self,
        request: Request<v1::UpdateRepositoryLinkRequest>,
    ) -> Result<v1::RepositoryLink, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        let content = content_of("UpdateRepositoryLink", &message, request_id.as_deref());
        let wire = message.repository_link.unwrap_or_default();
        let name = names::link("repository_link.name", &wire.name, &mut violations);
        let etag = wire.etag.clone();
        let mask = message.update_mask.map(|mask| mask.paths).filter(|paths| !paths.is_empty());
        let edit = convert::link_edit(wire, mask.as_deref(), &mut violations);
        let update = Update { name, etag, edit, violations: violations.into_found() };
        let repeat = repeat(request_id.as_deref(), &content, false, |link: &ShownLink| {
            convert::link(link.clone()).encode_to_vec()
        });
        match self.0.update(&context, update, repeat).await? {
            Done::Now(link) => Ok(convert::link(link)),
            Done::Before(answer) => decode(&answer),
        }
    }

    pub(super) async fn delete(
        &self,
        request: Request<v1::DeleteRepositoryLinkRequest>,
    ) -> Result<(), Error> {
        let (context, message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::link("name", &message.name, &mut violations);
        violations.finish()?;
        self.0.delete(&context, &checked(name)?, &message.etag).await
    }

    pub(super) async fn switch_targets(
        &self,
        request: Request<v1::ListSwitchTargetsRequest>,
    ) -> Result<v1::ListSwitchTargetsResponse, Error> {
        let (_, mut message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::link("parent", &message.parent, &mut violations);
        let page_size = convert::page_size(std::mem::take(&mut message.page_size), &mut violations);
        let page_token = std::mem::take(&mut message.page_token);
        violations.finish()?;
        let binding = Binding(content("ListSwitchTargets", &message));
        let list = ListTargets { name: checked(name)?, page_size, page_token, binding };
        let page = self.0.switch_targets(list).await?;
        Ok(v1::ListSwitchTargetsResponse {
            switch_targets: page.targets.into_iter().map(convert::switch_target).collect(),
            next_page_token: page.next_page_token,
        })
    }

    pub(super) async fn switch(
        &self,
        request: Request<v1::SwitchConnectionRequest>,
    ) -> Result<v1::RepositoryLink, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        let content = content_of("SwitchConnection", &message, request_id.as_deref());
        let name = names::link("name", &message.name, &mut violations);
        let target = names::connection("connection", &message.connection, &mut violations);
        let switch = Switch { name, target, etag: message.etag, violations };
        let repeat = repeat(request_id.as_deref(), &content, false, |link: &ShownLink| {
            convert::link(link.clone()).encode_to_vec()
        });
        match self.0.switch(&context, switch, repeat).await? {
            Done::Now(link) => Ok(convert::link(link)),
            Done::Before(answer) => decode(&answer),
        }
    }

    /// The stream ends after `total`, unless the caller named another deadline.
    pub(super) async fn migrate(
        &self,
        request: Request<v1::MigrateRepositoryLinksRequest>,
        total: Duration,
    ) -> Result<Messages<v1::MigrateRepositoryLinksResponse>, Error> {
        let (context, message) = open(request)?;
        let context = streaming(context, total);
        let mut violations = Violations::default();
        let tenant = names::tenant("parent", &message.parent, &mut violations);
        let source = names::connection("source_connection", &message.source_connection, &mut violations);
        let target = names::connection("target_connection", &message.target_connection, &mut violations);
        let validate_only = message.validate_only;
        let migrate = Migrate { tenant, source, target, violations, validate_only };
        let moved = self.0.migrate(&context, migrate).await?;
        let messages = moved.map(|moved| moved.map(convert::migrated).map_err(status::of));
        Ok(until(Box::pin(messages), context.deadline))
    }
}

fn created(links: Vec<ShownLink>) -> v1::BatchCreateRepositoryLinksResponse {
    v1::BatchCreateRepositoryLinksResponse {
        repository_links: links.into_iter().map(convert::link).collect(),
    }
}

/// One entry of a batch of `parent`: what the batch says once is not said again by its entries.
fn entry_of(message: v1::CreateRepositoryLinkRequest, parent: &str, tenant: Option<TenantId>) -> Create {
    let mut violations = Violations::default();
    if !message.parent.is_empty() && message.parent != parent {
        let told = "must be empty or the parent of the batch";
        violations.push(FieldViolation::new("parent", FieldReason::Conflicting, told));
    }
    if !message.request_id.is_empty() {
        let told = "the batch has one request_id for all of its requests; set it there";
        violations.push(FieldViolation::new("request_id", FieldReason::Conflicting, told));
    }
    if message.validate_only {
        let told = "a batch is carried out; validate its requests one by one with CreateRepositoryLink";
        violations.push(FieldViolation::new("validate_only", FieldReason::Conflicting, told));
    }
    create_of(message, tenant, violations)
}

fn create_of(
    message: v1::CreateRepositoryLinkRequest,
    tenant: Option<TenantId>,
    mut violations: Violations,
) -> Create {
    let selector = match message.selector {
        Some(Wire::Repository(name)) if !name.is_empty() => {
            let found = names::repository("repository", &name, &mut violations);
            found.map(|(connection, id)| Selector::Name(connection, id))
        }
        Some(Wire::FullName(text)) if !text.is_empty() => {
            Some(Selector::Lookup(by_full_name(text, &mut violations)))
        }
        Some(Wire::CloneUrl(text)) if !text.is_empty() => {
            Some(Selector::Lookup(by_clone_url(text, &mut violations)))
        }
        _ => {
            let told = "say which repository: by its name, its full_name (`group/project`) or its clone_url";
            violations.push(FieldViolation::new("repository", FieldReason::Required, told));
            None
        }
    };
    let draft = convert::link_draft(message.repository_link.unwrap_or_default(), &mut violations);
    Create {
        tenant,
        link_id: message.repository_link_id,
        draft,
        selector,
        violations: violations.into_found(),
        validate_only: message.validate_only,
    }
}
