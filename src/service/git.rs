//! What git needs to clone: which connection reaches a clone URL, and the credential that goes with it.

mod find;

use std::sync::Arc;

pub use find::{Candidate, Fit};

use super::audit::{self, Subject};
use super::error::Error;
use super::{Context, Core, parse_stored_url};
use crate::domain::connection::{Connection, ConnectionName, ConnectionRecord, State};
use crate::domain::credential::{AuthScheme, ExpireTimeSource, GitLogin, Secret};
use crate::domain::event::EventType;
use crate::domain::link::{LinkName, LinkState};
use crate::domain::repository::Repository;
use crate::domain::timestamp::Timestamp;
use crate::provider::ProviderError;
use crate::store::{Change, StoreError};

/// How often a credential is made ready anew because its connection changed meanwhile.
const MAX_ATTEMPTS: usize = 3;

/// The operations for git.
#[derive(Debug, Clone)]
pub struct Git(Arc<Core>);

/// What a credential is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The repository of a link, through the connection that the link has now.
    Link(LinkName),
    /// A repository through that connection.
    Repository {
        /// The connection.
        connection: ConnectionName,
        /// The stable id of the repository.
        id: String,
        /// Its full name, as it stands in the audit trail.
        name: String,
    },
}

/// What `git clone` needs for one repository. It holds a secret.
#[derive(Debug)]
pub struct GitCredential {
    /// The user name that goes with the secret.
    pub username: String,
    /// The secret.
    pub password: Secret,
    /// How it travels, best.
    pub scheme: AuthScheme,
    /// Where to clone from, without user info; of the very origin that the secret is for.
    pub clone_url: String,
    /// When the secret ends, as far as is known.
    pub expire_time: Option<Timestamp>,
    /// Certificates (PEM) to trust beside the system's; empty for none.
    pub ca_certificates_pem: String,
}

/// A repository and the connection that it is cloned through.
struct Subjects {
    /// What the credential is given out for: the full name of a link or a repository.
    resource: String,
    record: Arc<ConnectionRecord>,
    repository: Repository,
}

impl Git {
    /// The operations for git on the connections of `core`.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// Gives out what git needs to clone a repository. The event is on disk before the secret leaves.
    ///
    /// A link whose repository was last seen is answered from what is stored, without a call. Where there is a doubt
    /// (the provider refused the token when it was last checked, the repository was out of sight, the declared end of
    /// the token has passed) the repository is read now, and so is one that is named by its connection and id: a token
    /// that is refused is not sent around, because failed logins can lock an account.
    ///
    /// The secret is for the connection's own instance alone. Where the provider names a clone URL of another origin (a
    /// wrong ROOT_URL, a clone root on another host, plain text for an instance with TLS), there is none.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::ConnectionNotFound`], [`Error::RepositoryNotFound`], [`Error::Disabled`],
    /// [`Error::CredentialExpired`]; [`Error::NotAccessible`] for a link whose repository is out of sight and for a
    /// clone URL of another origin; [`Error::Provider`].
    pub async fn credential(&self, context: &Context, target: &Target) -> Result<GitCredential, Error> {
        let mut attempt = 1;
        loop {
            match self.issue(context, target).await {
                // The connection got another credential, or the link another connection, in between.
                Err(Error::Stale { .. }) if attempt < MAX_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn issue(&self, context: &Context, target: &Target) -> Result<GitCredential, Error> {
        let core = &*self.0;
        let Subjects { resource, record, repository } = self.subjects(context, target).await?;
        let connection = &record.connection;
        let provider = core.provider_of(&record)?;
        let clone_url = repository.clone_https_url;
        let hosts = provider.git_hosts(&parse_stored_url(&connection.effective_api_url)?);
        if !hosts.take_token_of(&clone_url) {
            return Err(Error::NotAccessible {
                connection: connection.name.clone(),
                lost: vec![(resource, elsewhere(&clone_url))],
            });
        }
        let GitLogin { username, scheme } =
            provider.git_login(&connection.credential.form, connection.credential.account.as_ref());
        let password = core.credential_of(&record)?.token;
        let told = [
            ("connection", connection.name.to_string()),
            ("repository.full_name", repository.full_name),
            ("clone_url", clone_url.clone()),
            ("username", username.clone()),
            ("credential.version", connection.credential.version.to_string()),
            ("credential.fingerprint", connection.credential.fingerprint.clone()),
        ];
        let event = audit::event(
            context,
            EventType::GitCredentialIssued,
            Subject {
                tenant: connection.name.tenant.clone(),
                resource,
                connections: vec![connection.name.id.clone()],
            },
            audit::Fields::new(),
            told.into_iter().map(|(field, value)| (field.to_owned(), value)).collect(),
            core.clock.now(),
        );
        let unchanged = Change::Require {
            connection: connection.name.clone(),
            uid: connection.uid.clone(),
            credential_version: connection.credential.version,
        };
        core.store.commit(vec![unchanged, Change::Append(event)]).await.map_err(|error| match error {
            // Deleted in between: the next attempt says so.
            StoreError::NotFound => Error::Stale { name: connection.name.to_string() },
            error => Error::from_store(error, &connection.name, ""),
        })?;
        core.note_use(&record);
        Ok(GitCredential {
            username,
            password,
            scheme,
            clone_url,
            expire_time: connection.credential.expire_time,
            ca_certificates_pem: connection.ca_certificates_pem.clone(),
        })
    }

    /// The repository that is meant and its connection, which may be used.
    async fn subjects(&self, context: &Context, target: &Target) -> Result<Subjects, Error> {
        let core = &*self.0;
        match target {
            Target::Link(name) => {
                let found = core.store.link(name).await;
                let link = &found.map_err(|error| Error::from_link_store(error, name))?.link;
                if !link.is_live() {
                    return Err(Error::LinkNotFound(name.to_string()));
                }
                let record = self.usable(&link.connection_name()).await?;
                let seen = &link.repository;
                if link.state == LinkState::Linked && !in_doubt(&record.connection, core.clock.now()) {
                    return Ok(Subjects { resource: name.to_string(), record, repository: seen.clone() });
                }
                let reach = core.reach(&record.connection.name, context.deadline).await?;
                let read = reach.provider.known_repository(&reach.api, &seen.provider_id, &seen.full_name);
                let repository = read.await.map_err(|error| match error {
                    ProviderError::NotFound => Error::NotAccessible {
                        connection: record.connection.name.clone(),
                        lost: vec![(
                            name.to_string(),
                            "the provider shows it no such repository.".to_owned(),
                        )],
                    },
                    other => reach.failed(other),
                })?;
                Ok(Subjects { resource: name.to_string(), record: reach.record, repository })
            }
            Target::Repository { connection, id, name } => {
                self.usable(connection).await?;
                let reach = core.reach(connection, context.deadline).await?;
                let read = reach.provider.repository(&reach.api, id).await;
                let repository = read.map_err(|error| reach.failed_about(error, id))?;
                Ok(Subjects { resource: name.clone(), record: reach.record, repository })
            }
        }
    }

    /// The stored connection of that name, unless it is disabled or known to have ended.
    async fn usable(&self, name: &ConnectionName) -> Result<Arc<ConnectionRecord>, Error> {
        let record = self.0.record(name).await?;
        let credential = &record.connection.credential;
        if record.connection.disabled {
            return Err(Error::Disabled { name: name.clone() });
        }
        match credential.expire_time {
            Some(expire_time)
                if expire_time <= self.0.clock.now()
                    && credential.expire_time_source == ExpireTimeSource::Provider =>
            {
                Err(Error::CredentialExpired { name: name.clone(), expire_time })
            }
            _ => Ok(record),
        }
    }
}

/// Whether what is stored leaves open if the provider still takes the token.
fn in_doubt(connection: &Connection, now: Timestamp) -> bool {
    connection.state == State::AuthFailed || connection.credential.expire_time.is_some_and(|end| end <= now)
}

/// Why there is no credential for a clone URL.
fn elsewhere(clone_url: &str) -> String {
    if clone_url.is_empty() {
        return "the provider names no clone URL for HTTP.".to_owned();
    }
    "the provider names a clone URL of another origin than the connection's, to which no token is given. Have the \
     server's administrator correct its own address."
        .to_owned()
}
