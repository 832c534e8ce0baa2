//! `gitmoor.v1.RepositoryService`.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::links::LinkHandlers;
use super::names::RepositoryOrLink;
use super::repeat::content;
use super::{convert, git, names, open, status};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1;
use crate::proto::v1::repository_service_server::RepositoryService;
use crate::provider::Lookup;
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::git::Git;
use crate::service::links::Links;
use crate::service::page_token::Binding;
use crate::service::repositories::{Batch, PageRequest, Repositories, Section, Wanted};
use crate::service::{Context, checked};

/// Longest query, namespace, full name or clone URL, in bytes.
const MAX_TEXT_BYTES: usize = 2_048;
/// Longest silence of a stream.
const IDLE: Duration = Duration::from_secs(60);
/// Rows of one message of a stream: a provider may answer thousands of rows at once, and a message has an end.
const ROWS_PER_MESSAGE: usize = 500;

/// The handlers: decode, call the service, encode.
#[derive(Debug, Clone)]
pub struct RepositoryHandlers {
    repositories: Repositories,
    git: Git,
    links: LinkHandlers,
    stream_total: Duration,
}

impl RepositoryHandlers {
    /// Handlers in front of `repositories`, `links` and `git`. A stream ends after `stream_total`.
    #[must_use]
    pub const fn new(repositories: Repositories, links: Links, git: Git, stream_total: Duration) -> Self {
        Self { repositories, links: LinkHandlers::new(links), git, stream_total }
    }

    async fn list(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Result<v1::ListRepositoriesResponse, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let parent = names::connection_or_all("parent", &message.parent, &mut violations);
        let wanted = wanted(
            &message.query,
            &message.namespace,
            message.include_archived,
            message.min_permission,
            &mut violations,
        );
        let size = convert::page_size(std::mem::take(&mut message.page_size), &mut violations);
        let token = std::mem::take(&mut message.page_token);
        violations.finish()?;
        let parent = checked(parent)?;
        let page = PageRequest { size, token, binding: Binding(content("ListRepositories", &message)) };
        let listing = self.repositories.list(&context, parent, wanted, page).await?;
        let mut response =
            v1::ListRepositoriesResponse { next_page_token: listing.next_page_token, ..Default::default() };
        for section in listing.sections {
            let section = Rows::of(section);
            response.repositories.extend(section.repositories);
            response.unreachable.extend(section.unreachable);
            response.warnings.extend(section.warnings);
        }
        Ok(response)
    }

    async fn namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<v1::ListNamespacesResponse, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::connection("parent", &message.parent, &mut violations);
        check_text("query", &message.query, &mut violations);
        let size = convert::page_size(std::mem::take(&mut message.page_size), &mut violations);
        let token = std::mem::take(&mut message.page_token);
        violations.finish()?;
        let name = checked(name)?;
        let page = PageRequest { size, token, binding: Binding(content("ListNamespaces", &message)) };
        let listing = self.repositories.namespaces(&context, &name, message.query, page).await?;
        Ok(v1::ListNamespacesResponse {
            namespaces: listing.rows.into_iter().map(convert::namespace).collect(),
            next_page_token: listing.next_page_token,
        })
    }

    async fn stream(&self, request: Request<v1::StreamRepositoriesRequest>) -> Result<Batches, Error> {
        let (context, message) = open(request)?;
        let mut violations = Violations::default();
        let parent = names::connection_or_all("parent", &message.parent, &mut violations);
        let wanted = wanted(
            &message.query,
            &message.namespace,
            message.include_archived,
            message.min_permission,
            &mut violations,
        );
        violations.finish()?;
        let parent = checked(parent)?;
        let context = streaming(context, self.stream_total);
        let deadline = context.deadline;
        let batches = self.repositories.stream(&context, parent, wanted).await?;
        let messages = batches.flat_map(move |batch| {
            let messages = match batch {
                Ok(batch) => split(batch),
                Err(error) => vec![Err(status::of(error))],
            };
            futures_util::stream::iter(messages)
        });
        Ok(until(Box::pin(messages), deadline))
    }

    async fn read(&self, request: Request<v1::GetRepositoryRequest>) -> Result<v1::Repository, Error> {
        let (context, message) = open(request)?;
        let mut violations = Violations::default();
        let found = names::repository("name", &message.name, &mut violations);
        violations.finish()?;
        let (name, id) = checked(found)?;
        let repository = self.repositories.read(&context, &name, &id).await?;
        Ok(convert::found(&name, repository))
    }

    async fn refs(&self, request: Request<v1::ListRefsRequest>) -> Result<v1::ListRefsResponse, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let parent = names::repository_or_link("parent", &message.parent, &mut violations);
        let kind = convert::ref_type(message.r#type, &mut violations);
        check_text("query", &message.query, &mut violations);
        let size = convert::page_size(std::mem::take(&mut message.page_size), &mut violations);
        let token = std::mem::take(&mut message.page_token);
        violations.finish()?;
        let page = PageRequest { size, token, binding: Binding(content("ListRefs", &message)) };
        let (repositories, query) = (&self.repositories, message.query);
        let listing = match checked(parent)? {
            RepositoryOrLink::Repository(name, id) => {
                repositories.refs(&context, &name, &id, kind, query, page).await?
            }
            RepositoryOrLink::Link(name) => {
                repositories.linked_refs(&context, &name, kind, query, page).await?
            }
        };
        Ok(v1::ListRefsResponse {
            refs: listing.rows.into_iter().map(convert::git_ref).collect(),
            next_page_token: listing.next_page_token,
        })
    }

    async fn lookup(&self, request: Request<v1::LookupRepositoryRequest>) -> Result<v1::Repository, Error> {
        let (context, message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::connection("parent", &message.parent, &mut violations);
        let what = match message.selector {
            Some(v1::lookup_repository_request::Selector::FullName(text)) if !text.is_empty() => {
                Some(by_full_name(text, &mut violations))
            }
            Some(v1::lookup_repository_request::Selector::CloneUrl(text)) if !text.is_empty() => {
                Some(by_clone_url(text, &mut violations))
            }
            _ => {
                let told = "send the repository's full_name (`group/project`) or its clone_url";
                violations.push(FieldViolation::new("full_name", FieldReason::Required, told));
                None
            }
        };
        violations.finish()?;
        let (name, what) = (checked(name)?, checked(what)?);
        let repository = self.repositories.lookup(&context, &name, &what).await?;
        Ok(convert::found(&name, repository))
    }
}

/// The messages of a streamed answer.
pub(super) type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;
type Batches = Messages<v1::StreamRepositoriesResponse>;

#[tonic::async_trait]
impl RepositoryService for RepositoryHandlers {
    type StreamRepositoriesStream = Batches;

    async fn list_namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        self.namespaces(request).await.map(Response::new).map_err(status::of)
    }

    async fn list_repositories(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Result<Response<v1::ListRepositoriesResponse>, Status> {
        self.list(request).await.map(Response::new).map_err(status::of)
    }

    async fn stream_repositories(
        &self,
        request: Request<v1::StreamRepositoriesRequest>,
    ) -> Result<Response<Self::StreamRepositoriesStream>, Status> {
        self.stream(request).await.map(Response::new).map_err(status::of)
    }

    async fn get_repository(
        &self,
        request: Request<v1::GetRepositoryRequest>,
    ) -> Result<Response<v1::Repository>, Status> {
        self.read(request).await.map(Response::new).map_err(status::of)
    }

    async fn lookup_repository(
        &self,
        request: Request<v1::LookupRepositoryRequest>,
    ) -> Result<Response<v1::Repository>, Status> {
        self.lookup(request).await.map(Response::new).map_err(status::of)
    }

    async fn list_refs(
        &self,
        request: Request<v1::ListRefsRequest>,
    ) -> Result<Response<v1::ListRefsResponse>, Status> {
        self.refs(request).await.map(Response::new).map_err(status::of)
    }

    async fn create_repository_link(
        &self,
        request: Request<v1::CreateRepositoryLinkRequest>,
    ) -> Result<Response<v1::RepositoryLink>, Status> {
        self.links.create(request).await.map(Response::new).map_err(status::of)
    }

    async fn batch_create_repository_links(
        &self,
        request: Request<v1::BatchCreateRepositoryLinksRequest>,
    ) -> Result<Response<v1::BatchCreateRepositoryLinksResponse>, Status> {
        self.links.create_batch(request).await.map(Response::new).map_err(status::of)
    }

    async fn get_repository_link(
        &self,
        request: Request<v1::GetRepositoryLinkRequest>,
    ) -> Result<Response<v1::RepositoryLink>, Status> {
        self.links.read(request).await.map(Response::new).map_err(status::of)
    }

    async fn list_repository_links(
        &self,
        request: Request<v1::ListRepositoryLinksRequest>,
    ) -> Result<Response<v1::ListRepositoryLinksResponse>, Status> {
        self.links.list(request).await.map(Response::new).map_err(status::of)
    }

    async fn update_repository_link(
        &self,
        request: Request<v1::UpdateRepositoryLinkRequest>,
    ) -> Result<Response<v1::RepositoryLink>, Status> {
        self.links.update(request).await.map(Response::new).map_err(status::of)
    }

    async fn delete_repository_link(
        &self,
        request: Request<v1::DeleteRepositoryLinkRequest>,
    ) -> Result<Response<()>, Status> {
        self.links.delete(request).await.map(Response::new).map_err(status::of)
    }

    async fn list_switch_targets(
        &self,
        request: Request<v1::ListSwitchTargetsRequest>,
    ) -> Result<Response<v1::ListSwitchTargetsResponse>, Status> {
        self.links.switch_targets(request).await.map(Response::new).map_err(status::of)
    }

    async fn switch_connection(
        &self,
        request: Request<v1::SwitchConnectionRequest>,
    ) -> Result<Response<v1::RepositoryLink>, Status> {
        self.links.switch(request).await.map(Response::new).map_err(status::of)
    }

    async fn find_connections(
        &self,
        request: Request<v1::FindConnectionsRequest>,
    ) -> Result<Response<v1::FindConnectionsResponse>, Status> {
        git::find(&self.git, request).await.map(Response::new).map_err(status::of)
    }

    async fn generate_git_credential(
        &self,
        request: Request<v1::GenerateGitCredentialRequest>,
    ) -> Result<Response<v1::GenerateGitCredentialResponse>, Status> {
        git::credential(&self.git, request).await.map(Response::new).map_err(status::of)
    }

    type MigrateRepositoryLinksStream = Messages<v1::MigrateRepositoryLinksResponse>;

    async fn migrate_repository_links(
        &self,
        request: Request<v1::MigrateRepositoryLinksRequest>,
    ) -> Result<Response<Self::MigrateRepositoryLinksStream>, Status> {
        self.links.migrate(request, self.stream_total).await.map(Response::new).map_err(status::of)
    }
}

/// What one connection brought to an answer.
struct Rows<I> {
    repositories: I,
    unreachable: Option<String>,
    warnings: Vec<v1::RepositoryWarning>,
}

impl Rows<std::iter::Empty<v1::Repository>> {
    fn of(section: Section) -> Rows<impl Iterator<Item = v1::Repository>> {
        let Section { connection, repositories, warnings, failure } = section;
        let mut warnings: Vec<_> =
            warnings.into_iter().map(|warning| convert::warning(&connection, warning)).collect();
        let unreachable = failure.is_some().then(|| connection.to_string());
        // The name alone would leave open what to do about it.
        warnings.extend(failure.map(|error| {
            let status = status::of(error);
            // The call goes well, so its log line will not tell.
            if let Some(cause) = status::Cause::of(&status) {
                tracing::error!(%connection, %cause, "a connection is left out of a listing");
            }
            v1::RepositoryWarning {
                connection: connection.to_string(),
                reason: status::reason(&status),
                message: status.message().to_owned(),
            }
        }));
        let repositories = repositories.into_iter().map(move |row| convert::found(&connection, row));
        Rows { repositories, unreachable, warnings }
    }
}

/// One batch as messages of a bounded number of rows; at least one, for it tells the progress.
fn split(batch: Batch) -> Vec<Result<v1::StreamRepositoriesResponse, Status>> {
    let progress = v1::stream_repositories_response::Progress {
        seen: i64::try_from(batch.seen).unwrap_or(i64::MAX),
        total: batch.total.and_then(|total| i64::try_from(total).ok()),
    };
    let Rows { repositories, unreachable, mut warnings } = Rows::of(batch.section);
    let (mut rows, mut unreachable) = (repositories.peekable(), Vec::from_iter(unreachable));
    let mut messages = Vec::new();
    loop {
        messages.push(Ok(v1::StreamRepositoriesResponse {
            repositories: rows.by_ref().take(ROWS_PER_MESSAGE).collect(),
            progress: Some(progress),
            unreachable: std::mem::take(&mut unreachable),
            warnings: std::mem::take(&mut warnings),
        }));
        if rows.peek().is_none() {
            return messages;
        }
    }
}

/// The context of a stream that ends after `total`: a caller's own deadline was set by the inbound layers; where there is
/// none a stream may take longer than a unary call.
pub(super) fn streaming(context: Context, total: Duration) -> Context {
    let total = Instant::now() + total;
    let deadline = context.stream_deadline.map_or(total, |deadline| deadline.min(total));
    Context { deadline, ..context }
}

/// Ends a stream with DEADLINE_EXCEEDED at `deadline`, and after [`IDLE`] without a message while somebody waits
/// for one. A reader that does not read is not silence: nothing is fetched for it, and HTTP/2 keep-alive tells
/// whether it is still there.
pub(super) fn until<M: Send + 'static>(messages: Messages<M>, deadline: Instant) -> Messages<M> {
    Box::pin(futures_util::stream::unfold(Some(messages), move |messages| async move {
        let mut messages = messages?;
        let limit = deadline.min(Instant::now() + IDLE);
        match tokio::time::timeout_at(limit, messages.next()).await {
            Ok(Some(Err(status))) => Some((Err(status), None)),
            Ok(Some(message)) => Some((message, Some(messages))),
            Ok(None) => None,
            Err(_) => Some((Err(status::of(Error::DeadlineExceeded)), None)),
        }
    }))
}

fn wanted(
    query: &str,
    namespace: &str,
    include_archived: bool,
    min_permission: i32,
    violations: &mut Violations,
) -> Wanted {
    check_text("query", query, violations);
    check_text("namespace", namespace, violations);
    Wanted {
        query: query.to_owned(),
        namespace: namespace.to_owned(),
        include_archived,
        min_permission: convert::min_permission(min_permission, violations),
    }
}

pub(super) fn check_text(field: &str, text: &str, violations: &mut Violations) {
    if text.len() > MAX_TEXT_BYTES {
        violations.push(FieldViolation::new(field, FieldReason::TooLong, "at most 2,048 bytes"));
    } else if text.chars().any(char::is_control) {
        let told = "the text holds a control character; remove it";
        violations.push(FieldViolation::new(field, FieldReason::ControlCharacter, told));
    }
}

/// A lookup by the field `full_name`.
pub(super) fn by_full_name(text: String, violations: &mut Violations) -> Lookup {
    check_text("full_name", &text, violations);
    if text.contains("://") {
        let told = "a full name has the form `group/project`; send a URL as clone_url";
        violations.push(FieldViolation::new("full_name", FieldReason::Malformed, told));
    }
    Lookup::FullName(text)
}

/// A lookup by the field `clone_url`.
pub(super) fn by_clone_url(text: String, violations: &mut Violations) -> Lookup {
    check_text("clone_url", &text, violations);
    if has_password(&text) {
        let told = "the URL holds a password; send it without user info";
        violations.push(FieldViolation::new("clone_url", FieldReason::UrlUserinfoForbidden, told));
    }
    Lookup::CloneUrl(text)
}

/// Whether a clone URL has `user:password@` before its host. The scp-like form has none.
fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}
