//! Which connections of a tenant reach a clone URL, best first.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::Git;
use crate::domain::connection::{ConnectionName, ConnectionRecord, TenantId};
use crate::domain::credential::CredentialForm;
use crate::domain::link::{Link, LinkName};
use crate::domain::repository::{Permission, Repository};
use crate::provider::{CloneAddress, Lookup};
use crate::service::error::Error;
use crate::service::repositories::Found;
use crate::service::{Context, parse_stored_url, store_down};
use crate::store::StoreError;

/// Connections, or links, that are read from the store at a time.
const BATCH: usize = 100;
/// Most links that are looked at for one answer.
const MAX_LINKS: usize = 2_000;
/// Most connections that are asked for the repository.
const MAX_ASKED: usize = 20;
/// How many of them side by side: they are of one host.
const SIDE_BY_SIDE: usize = 4;
/// The longest that one of them may take.
const LONGEST_ASK: Duration = Duration::from_secs(10);

/// How sure it is that a connection reaches the repository, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The provider showed it the repository just now.
    Proven,
    /// It is limited to the namespace of the repository, or has links in it.
    Namespace,
    /// Its host is the one.
    Host,
}

/// A connection that may reach a clone URL.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Which one.
    pub connection: ConnectionName,
    /// How sure it is.
    pub fit: Fit,
    /// The repository, if it was seen; its link may be through another connection.
    pub found: Option<Found>,
}

/// A connection of the host.
struct Place {
    record: Arc<ConnectionRecord>,
    /// What the URL names there, if it can name something.
    full_name: Option<String>,
    fit: Fit,
    found: Option<Found>,
    /// Whether the tenant's link to it is through this connection.
    is_chosen: bool,
}

impl Git {
    /// The connections of the tenant whose instance has the URL's host (over HTTP with its scheme and port), best
    /// first. Up to twenty of them are asked for the repository, those that fit its namespace before the
    /// others, each for its share of the time. One that fails, or is not asked, ranks by what is known without it; a
    /// disabled one is never asked. Of those that are proven the one that the tenant's link uses comes first, then the
    /// one with the most rights.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn find(
        &self,
        context: &Context,
        tenant: &TenantId,
        url: &CloneAddress,
    ) -> Result<Vec<Candidate>, Error> {
        let mut places = self.places(tenant, url).await?;
        self.fit_namespaces(&mut places).await?;
        places.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let can_see = |place: &Place| place.full_name.is_some() && !place.record.connection.disabled;
        let asked = places.iter().enumerate().filter(|(_, place)| can_see(place)).map(|(at, _)| at);
        let asked: Vec<usize> = asked.take(MAX_ASKED).collect();
        let span = share(context.deadline, asked.len());
        let calls: Vec<_> = asked
            .iter()
            .map(|at| self.ask(places[*at].record.connection.name.clone(), url.clone(), span))
            .collect();
        let found: Vec<Option<Repository>> = stream::iter(calls).buffered(SIDE_BY_SIDE).collect().await;
        for (at, repository) in asked.into_iter().zip(found) {
            if let Some(repository) = repository {
                self.prove(&mut places[at], repository).await?;
            }
        }
        places.sort_by(|a, b| a.rank().cmp(&b.rank()));
        Ok(places.into_iter().map(Place::into_candidate).collect())
    }

    /// The connections of the URL's host.
    async fn places(&self, tenant: &TenantId, url: &CloneAddress) -> Result<Vec<Place>, Error> {
        let core = &*self.0;
        let (mut places, mut after) = (Vec::new(), None);
        loop {
            let listed = core.store.connections(tenant, after.as_ref(), BATCH).await.map_err(store_down)?;
            let is_last = listed.len() < BATCH;
            let mut last = None;
            for row in listed {
                let record = match row {
                    Ok(record) => record,
                    Err(unreadable) => {
                        last = unreadable.connection.or(last);
                        continue;
                    }
                };
                last = Some(record.connection.name.id.clone());
                let provider = core.provider_of(&record)?;
                let api_url = parse_stored_url(&record.connection.effective_api_url)?;
                if provider.git_hosts(&api_url).serve(url.as_str()) {
                    places.push(Place {
                        full_name: provider.named(&api_url, url.as_str()),
                        record,
                        fit: Fit::Host,
                        found: None,
                        is_chosen: false,
                    });
                }
            }
            // Without an id to go on from, all that is left has unreadable keys.
            if is_last || last.is_none() {
                return Ok(places);
            }
            after = last;
        }
    }

    /// Finds out which connections fit the namespace of what the URL names.
    async fn fit_namespaces(&self, places: &mut [Place]) -> Result<(), Error> {
        let mut left = MAX_LINKS;
        for place in places {
            let Some(full_name) = place.full_name.clone() else { continue };
            if self.is_limited_to(&place.record, &full_name)?
                || self.has_links_beside(&place.record, &full_name, &mut left).await?
            {
                place.fit = Fit::Namespace;
            }
        }
        Ok(())
    }

    /// Whether the connection is limited to a part of its instance that holds the repository.
    fn is_limited_to(&self, record: &ConnectionRecord, full_name: &str) -> Result<bool, Error> {
        let connection = &record.connection;
        if let CredentialForm::ResourceToken { resource, .. } = &connection.credential.form
            && holds(resource, full_name)
        {
            return Ok(true);
        }
        let scope = self.0.provider_of(record)?.scope(&connection.base_url, &connection.scope);
        Ok(scope.workspaces.iter().chain(&scope.projects).any(|part| holds(part, full_name)))
    }

    /// Whether the connection has a live link in the namespace of `full_name`; at most `left` links are looked at.
    async fn has_links_beside(
        &self,
        record: &ConnectionRecord,
        full_name: &str,
        left: &mut usize,
    ) -> Result<bool, Error> {
        let connection = &record.connection;
        let mut after = None;
        while *left > 0 {
            let limit = BATCH.min(*left);
            let ids = self.0.store.links_of(&connection.name, after.as_ref(), limit).await;
            let ids = ids.map_err(store_down)?;
            let is_last = ids.len() < limit;
            *left -= ids.len();
            for id in &ids {
                let name = LinkName { tenant: connection.name.tenant.clone(), id: id.clone() };
                match self.0.store.link(&name).await {
                    Ok(found) if is_beside(&found.link, connection.effective_api_url.as_str(), full_name) => {
                        return Ok(true);
                    }
                    Ok(_) | Err(StoreError::NotFound | StoreError::Unreadable(_)) => {}
                    Err(error) => return Err(store_down(error)),
                }
            }
            if is_last {
                break;
            }
            after = ids.into_iter().next_back();
        }
        Ok(false)
    }

    /// The repository, if the connection shows it in time.
    async fn ask(&self, name: ConnectionName, url: CloneAddress, span: Duration) -> Option<Repository> {
        let found = async {
            let reach = self.0.reach(&name, Instant::now() + span).await?;
            let what = Lookup::CloneUrl(url.as_str().to_owned());
            reach.provider.lookup(&reach.api, &what).await.map_err(|error| reach.failed(error))
        };
        found
            .await
            .inspect_err(|error| {
                tracing::debug!(connection = %name, %error, "a connection does not show the repository of a clone URL");
            })
            .ok()
    }

    /// Notes that the connection showed the repository.
    async fn prove(&self, place: &mut Place, repository: Repository) -> Result<(), Error> {
        let connection = &place.record.connection;
        let store = &self.0.store;
        let tenant = &connection.name.tenant;
        let (provider, instance) = (&connection.provider, &connection.effective_api_url);
        let link = store.link_of(tenant, provider, instance, &repository.provider_id).await;
        let link = link.map_err(store_down)?.map(|id| LinkName { tenant: tenant.clone(), id });
        if let Some(name) = &link {
            let used = store.link(name).await.map(|found| found.link.connection.clone());
            place.is_chosen = used.is_ok_and(|used| used == connection.name.id);
        }
        place.fit = Fit::Proven;
        place.found = Some(Found { repository, link });
        Ok(())
    }
}

impl Place {
    /// What candidates are ordered by, the best one lowest.
    fn rank(&self) -> (Fit, bool, std::cmp::Reverse<Permission>, bool, bool, &str) {
        let permission = self.found.as_ref().map_or(Permission::Unknown, |found| found.repository.permission);
        let connection = &self.record.connection;
        (
            self.fit,
            !self.is_chosen,
            std::cmp::Reverse(permission),
            self.full_name.is_none(),
            connection.disabled,
            connection.name.id.as_str(),
        )
    }

    fn into_candidate(self) -> Candidate {
        let Self { record, fit, found, .. } = self;
        Candidate { connection: record.connection.name.clone(), fit, found }
    }
}

/// How long each of so many connections may take, so that a quarter of the time is left for the rest.
fn share(deadline: Instant, asked: usize) -> Duration {
    let rounds = u32::try_from(asked.div_ceil(SIDE_BY_SIDE).max(1)).unwrap_or(u32::MAX);
    let left = deadline.saturating_duration_since(Instant::now());
    (left / 4 * 3 / rounds).min(LONGEST_ASK)
}

/// Whether a repository is `part`, or lies below it; letter case says nothing.
fn holds(part: &str, full_name: &str) -> bool {
    let part = part.trim_matches('/');
    full_name.split_at_checked(part.len()).is_some_and(|(head, rest)| {
        !part.is_empty()
            && caseless::default_caseless_match_str(head, part)
            && (rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether a link is live at that instance and in the namespace of `full_name`.
fn is_beside(link: &Link, instance: &str, full_name: &str) -> bool {
    let namespace = full_name.rsplit_once('/').map_or("", |(namespace, _)| namespace);
    let fits = |name: &str| caseless::default_caseless_match_str(name, namespace);
    link.is_live()
        && link.instance == instance
        && (fits(&link.repository.namespace)
            || link.previous_full_names.iter().any(|name| {
                // It may be asked for by the name that it had.
                caseless::default_caseless_match_str(name, full_name)
            }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_holds_what_lies_below_it() {
        for (part, full_name) in [
            ("acme", "acme/website"),
            ("Acme", "acme/website"),
            ("acme/website", "ACME/website"),
            ("acme/platform", "acme/platform/web/site"),
            ("acme/", "acme/website"),
        ] {
            assert!(holds(part, full_name), "{part} {full_name}");
        }
        for (part, full_name) in [
            ("", "acme/website"),
            ("ac", "acme/website"),
            ("acme/web", "acme/website"),
            ("acme/website/x", "acme/website"),
            ("\u{fc}b", "\u{fc}ber/x"),
        ] {
            assert!(!holds(part, full_name), "{part} {full_name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_connection_has_its_share_of_the_time() {
        let deadline = Instant::now() + Duration::from_secs(20);
        let seconds = |asked| share(deadline, asked).as_secs_f64();
        assert_eq!([seconds(0), seconds(1), seconds(4)], [10.0, 10.0, 10.0]);
        assert_eq!([seconds(5), seconds(20)], [7.5, 3.0]);
        assert_eq!(share(Instant::now(), 7), Duration::ZERO);
    }
}
