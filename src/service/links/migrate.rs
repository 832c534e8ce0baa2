//! MigrateRepositoryLinks: all links of one connection, each switched to another one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::Instant;

use super::Links;
use crate::domain::connection::{ConnectionName, TenantId};
use crate::domain::link::LinkName;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::{Context, Core, checked};

/// Links that are dealt with side by side.
const SIDE_BY_SIDE: usize = 4;
/// How long one link may take, retries included.
const STEP: Duration = Duration::from_secs(60);

/// What MigrateRepositoryLinks asks for.
#[derive(Debug)]
pub struct Migrate {
    /// Whose links.
    pub tenant: Option<TenantId>,
    /// The connection that they have.
    pub source: Option<ConnectionName>,
    /// The connection that they are to have.
    pub target: Option<ConnectionName>,
    /// What was found wrong while the message was read.
    pub violations: Violations,
    /// Prove access, move nothing.
    pub validate_only: bool,
}

/// What became of one link, and how far the migration has come.
#[derive(Debug)]
pub struct Migrated {
    /// The link.
    pub name: LinkName,
    /// What became of it.
    pub became: Became,
    /// Links dealt with so far, this one included.
    pub done: usize,
    /// Links that the source had at the start.
    pub total: usize,
}

/// What a migration does with one link.
#[derive(Debug)]
pub enum Became {
    /// It has the target connection now.
    Moved,
    /// The target sees its repository.
    WouldMove,
    /// It stays where it is.
    Refused(Error),
}

impl Links {
    /// Moves the links of one connection to another, a few side by side, and tells of each in the order of their ids. No
    /// more is done than the reader reads; dropping the stream ends it between two links, or leaves the last few either
    /// moved or not. What has moved is no longer at the source, so that the same call again does the rest.
    ///
    /// # Errors
    ///
    /// Before the first link: [`Error::ConnectionNotFound`], [`Error::ProviderMismatch`], [`Error::NotAccessible`] for
    /// another instance, [`Error::Disabled`]. As the last item: [`Error::StoreUnavailable`].
    pub async fn migrate(
        &self,
        context: &Context,
        mut request: Migrate,
    ) -> Result<BoxStream<'static, Result<Migrated, Error>>, Error> {
        for (field, connection) in
            [("source_connection", &request.source), ("target_connection", &request.target)]
        {
            if let (Some(tenant), Some(connection)) = (&request.tenant, connection)
                && connection.tenant != *tenant
            {
                let told = "the connection is of another tenant than `parent`";
                request.violations.push(FieldViolation::new(field, FieldReason::Conflicting, told));
            }
        }
        if request.source.is_some() && request.source == request.target {
            let told = "it is the source, too; choose another connection";
            let violation = FieldViolation::new("target_connection", FieldReason::Conflicting, told);
            request.violations.push(violation);
        }
        request.violations.finish()?;
        let (source, target) = (checked(request.source)?, checked(request.target)?);
        let core = Arc::clone(&self.0);
        refuse_unfit(&core, &source, &target).await?;
        let links = core.links_of(&source).await?;
        let names: Vec<_> =
            links.iter().filter(|link| link.link.is_live()).map(|link| link.link.name.clone()).collect();
        let (total, until, validate_only) = (names.len(), context.deadline, request.validate_only);
        let moving = Arc::new((source, target, context.clone()));
        let outcomes = stream::iter(names).map(move |name| {
            let (core, moving) = (Arc::clone(&core), Arc::clone(&moving));
            async move {
                let (source, target, context) = &*moving;
                let deadline = until.min(Instant::now() + STEP);
                let context = Context { deadline, ..context.clone() };
                let became = migrate_one(&core, &context, &name, source, target, validate_only).await;
                became.map(|became| became.map(|became| (name, became)))
            }
        });
        let mut done = 0;
        let told = outcomes.buffered(SIDE_BY_SIDE).filter_map(move |outcome| {
            done += 1;
            let told = match outcome {
                Ok(Some((name, became))) => Some(Ok(Migrated { name, became, done, total })),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            };
            std::future::ready(told)
        });
        Ok(told.boxed())
    }
}

/// Refuses two connections between which no link could move.
async fn refuse_unfit(core: &Core, source: &ConnectionName, target: &ConnectionName) -> Result<(), Error> {
    let from = core.record(source).await?;
    let to = core.record(target).await?;
    let (from, to) = (&from.connection, &to.connection);
    if from.provider != to.provider {
        return Err(Error::ProviderMismatch {
            connection: target.clone(),
            found: to.provider.as_str().to_owned(),
            wanted: from.provider.as_str().to_owned(),
        });
    }
    if from.effective_api_url != to.effective_api_url {
        let told = "it is of another instance than the source.".to_owned();
        return Err(Error::NotAccessible {
            connection: target.clone(),
            lost: vec![(source.to_string(), told)],
        });
    }
    if to.disabled {
        return Err(Error::Disabled { name: target.clone() });
    }
    Ok(())
}

/// What becomes of one link; `None` if the source does not have it any more.
async fn migrate_one(
    core: &Core,
    context: &Context,
    name: &LinkName,
    source: &ConnectionName,
    target: &ConnectionName,
    validate_only: bool,
) -> Result<Option<Became>, Error> {
    let read = match core.live_link(name).await {
        Ok(read) if read.link.connection == source.id => read,
        Ok(_) | Err(Error::LinkNotFound(_)) => return Ok(None),
        Err(error) => return refused(error),
    };
    let outcome = if validate_only {
        core.may_move(context, &read.link, target).await.map(|()| Became::WouldMove)
    } else {
        core.move_link(context, &read, target, None).await.map(|_| Became::Moved)
    };
    outcome.map(Some).or_else(refused)
}

/// A refusal of one link; what would be the same for every further one ends the migration.
fn refused(error: Error) -> Result<Option<Became>, Error> {
    match error {
        error @ (Error::StoreUnavailable { .. } | Error::Bug { .. }) => Err(error),
        error => Ok(Some(Became::Refused(error))),
    }
}
