//! What another credential, or another instance, means for the links of a connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use super::supplied;
use crate::domain::connection::ConnectionName;
use crate::domain::link::{LinkName, LinkRecord};
use crate::domain::repository::Repository;
use crate::provider::api::Api;
use crate::provider::{Provider, ProviderError};
use crate::service::error::Error;
use crate::service::verify::reason_of;

/// Which linked repositories a new credential must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckLinks {
    /// None of them.
    None,
    /// Each of them.
    All,
}

/// What a new credential means for one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The link.
    pub name: LinkName,
    /// Its repository, as it was last seen.
    pub full_name: String,
    /// What becomes of it.
    pub outcome: AffectedOutcome,
    /// Why it is not kept: a stable word, or empty.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

/// What becomes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffectedOutcome {
    /// The new credential sees its repository.
    Kept,
    /// It does not.
    Lost,
    /// It was not asked, or the answer says nothing of the repository.
    Unchecked,
}

impl Affected {
    /// A link that nobody was asked about.
    pub(super) fn unasked(record: &LinkRecord) -> Self {
        Self {
            name: record.link.name.clone(),
            full_name: record.link.repository.full_name.clone(),
            outcome: AffectedOutcome::Unchecked,
            reason: "",
            message: String::new(),
        }
    }
}

/// The links of a connection, looked up through an endpoint that is not the stored one.
pub(super) struct LinkCheck<'a> {
    provider: &'a dyn Provider,
    api: Api,
    /// Where the credential stands in the request.
    field: &'static str,
    seen: BTreeMap<LinkName, Result<Repository, ProviderError>>,
}

impl<'a> LinkCheck<'a> {
    /// Nothing looked up yet.
    pub(super) const fn new(provider: &'a dyn Provider, api: Api, field: &'static str) -> Self {
        Self { provider, api, field, seen: BTreeMap::new() }
    }

    /// Looks up those that were not looked up before, by their stable ids, as many side by side as the provider allows.
    /// Says whether there were any.
    pub(super) async fn look(&mut self, links: &[Arc<LinkRecord>]) -> bool {
        let new: Vec<_> = links.iter().filter(|record| !self.seen.contains_key(&record.link.name)).collect();
        let side_by_side = self.provider.about().concurrency;
        let looks: Vec<_> = new.iter().map(|record| self.look_at(record)).collect();
        let found: Vec<_> = stream::iter(looks).buffered(side_by_side).collect().await;
        let names = new.iter().map(|record| record.link.name.clone());
        self.seen.extend(names.zip(found));
        !new.is_empty()
    }

    async fn look_at(&self, record: &LinkRecord) -> Result<Repository, ProviderError> {
        let wanted = &record.link.repository;
        let found = self.provider.known_repository(&self.api, &wanted.provider_id, &wanted.full_name).await?;
        if found.provider_id == wanted.provider_id { Ok(found) } else { Err(ProviderError::NotFound) }
    }

    /// The repository of a link, if it was seen.
    ///
    /// # Errors
    ///
    /// Why the answer says nothing of the repository.
    pub(super) fn found(&self, record: &LinkRecord) -> Result<Option<&Repository>, Error> {
        match self.seen.get(&record.link.name) {
            Some(Ok(repository)) => Ok(Some(repository)),
            Some(Err(error)) if !is_lost(error) => Err(supplied(error.clone(), self.provider, self.field)),
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// What became of each of the links.
    pub(super) fn affected(&self, links: &[Arc<LinkRecord>]) -> Vec<Affected> {
        links.iter().map(|record| self.affected_one(record)).collect()
    }

    fn affected_one(&self, record: &LinkRecord) -> Affected {
        let unasked = Affected::unasked(record);
        let (outcome, error) = match self.seen.get(&record.link.name) {
            None => return unasked,
            Some(Ok(_)) => return Affected { outcome: AffectedOutcome::Kept, ..unasked },
            Some(Err(error)) if is_lost(error) => (AffectedOutcome::Lost, error),
            Some(Err(error)) => (AffectedOutcome::Unchecked, error),
        };
        let message = self.words(error);
        Affected { outcome, reason: reason_of(error), message, ..unasked }
    }

    /// Refuses the credential if it loses one of the links, or left open whether it does.
    pub(super) fn refuse_losses(
        &self,
        connection: &ConnectionName,
        links: &[Arc<LinkRecord>],
    ) -> Result<(), Error> {
        let mut lost = Vec::new();
        let mut open = None;
        for record in links {
            match self.seen.get(&record.link.name) {
                Some(Err(error)) if is_lost(error) => {
                    lost.push((record.link.name.to_string(), self.words(error)));
                }
                Some(Err(error)) => open = open.or(Some(error)),
                Some(Ok(_)) | None => {}
            }
        }
        if !lost.is_empty() {
            return Err(Error::NotAccessible { connection: connection.clone(), lost });
        }
        match open {
            Some(error) => Err(supplied(error.clone(), self.provider, self.field)),
            None => Ok(()),
        }
    }

    fn words(&self, error: &ProviderError) -> String {
        match error {
            ProviderError::NotFound => "It does not exist, or the token does not see it.".to_owned(),
            error => format!("{}: {error}.", self.provider.about().title),
        }
    }
}

/// Whether the answer tells that the credential does not reach the repository.
fn is_lost(error: &ProviderError) -> bool {
    *error == ProviderError::NotFound || error.lacks_right()
}
