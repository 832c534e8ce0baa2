//! WatchConnections: the stream of a watch as messages.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Status};

use super::layers::Draining;
use super::{convert, names, open, status};
use crate::proto::v1;
use crate::proto::v1::watch_connections_response::Type;
use crate::service::checked;
use crate::service::connections::Connections;
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::watch::{Gone, Kind, News, Notice, Watch};

/// The messages to one watcher.
pub(super) type Notices = Pin<Box<dyn Stream<Item = Result<v1::WatchConnectionsResponse, Status>> + Send>>;

/// Starts a watch, which ends when the server is about to stop.
pub(super) async fn watch(
    connections: &Connections,
    draining: &Draining,
    request: Request<v1::WatchConnectionsRequest>,
) -> Result<Notices, Error> {
    let (context, message) = open(request)?;
    let mut violations = Violations::default();
    let tenant = names::tenant("parent", &message.parent, &mut violations);
    violations.finish()?;
    let watch = Watch {
        tenant: checked(tenant)?,
        resume_token: message.resume_token,
        include_initial: message.include_initial,
    };
    let notices = connections.watch(&context, watch).await?;
    let messages = notices.map(|notice| notice.map(encode).map_err(status::of));
    // It has no end of its own: what ends without an error was cut off by the drain.
    let drained = futures_util::stream::once(async { Err(status::draining()) });
    Ok(Box::pin(messages.take_until(draining.clone().started()).chain(drained)))
}

fn encode(notice: Notice) -> v1::WatchConnectionsResponse {
    let Notice { news, resume_token, time } = notice;
    let (kind, connection) = match news {
        News::Connection(kind, connection) => {
            let kind = match kind {
                Kind::Added => Type::Added,
                Kind::Modified => Type::Modified,
                Kind::StateChanged => Type::StateChanged,
                Kind::CredentialExpiring => Type::CredentialExpiring,
            };
            (kind, Some(convert::connection(*connection)))
        }
        News::Deleted(gone) => (Type::Deleted, Some(remains(gone))),
        News::InitialDone => (Type::InitialDone, None),
        News::Heartbeat => (Type::Heartbeat, None),
    };
    v1::WatchConnectionsResponse {
        r#type: kind as i32,
        connection,
        resume_token,
        event_time: Some(convert::time(time)),
    }
}

/// What is left of a connection that was deleted.
fn remains(gone: Gone) -> v1::Connection {
    let Gone { name, mut fields } = gone;
    let mut field = |path: &str| fields.remove(path).unwrap_or_default();
    v1::Connection {
        name: name.to_string(),
        uid: field("uid"),
        display_name: field("display_name"),
        provider: field("provider"),
        base_url: field("base_url"),
        effective_api_url: field("effective_api_url"),
        owner: field("owner"),
        ..Default::default()
    }
}
