//! `gitmoor git-credential`: a credential helper of git that asks a running server.
//!
//! Git runs it with the operation as its last argument and asks on stdin; what is printed on stdout is the answer, and
//! without one git asks its next helper, or the person. Nothing is kept: `store` and `erase` do nothing. The secret
//! goes from the server's answer to git's pipe, and nowhere else.

mod protocol;

use std::time::Duration;

use gitmoor::config::ListenAddress;
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection_candidate::Match;
use gitmoor::proto::v1::generate_git_credential_response::AuthScheme;
use gitmoor::proto::v1::lookup_repository_request::Selector;
use gitmoor::proto::v1::repository_service_client::RepositoryServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};
use zeroize::Zeroizing;

use crate::dial::dial;
use protocol::Answer;
pub(crate) use protocol::Question;

/// Whom to ask, and for what.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Where the server listens.
    pub(crate) address: ListenAddress,
    /// Which repository.
    pub(crate) through: Through,
    /// How long everything may take.
    pub(crate) timeout: Duration,
}

/// Which repository, and through what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Through {
    /// The one that git names, through the one connection of this tenant that reaches it.
    Tenant(String),
    /// The one that git names, through the connection of this full name.
    Connection(String),
    /// That of the link of this full name.
    Link(String),
}

/// Why there is no credential.
#[derive(Debug)]
pub(crate) enum Nothing {
    /// It is nothing that the server knows of: git's next helper may.
    Unknown,
    /// Somebody has to say more, in these words.
    Unclear(String),
    /// It went wrong, in these words.
    Failed(String),
}

impl From<Status> for Nothing {
    /// The server's messages are made for people.
    fn from(status: Status) -> Self {
        Self::Failed(status.message().to_owned())
    }
}

/// The lines for git: the credential for what it asks.
///
/// # Errors
///
/// See [`Nothing`].
pub(crate) async fn answer(ask: &Ask, question: &Question) -> Result<Zeroizing<String>, Nothing> {
    let late = |_| Nothing::Failed(format!("{}: no answer in time", ask.address));
    tokio::time::timeout(ask.timeout, within(ask, question)).await.map_err(late)?
}

async fn within(ask: &Ask, question: &Question) -> Result<Zeroizing<String>, Nothing> {
    let deadline = Instant::now() + ask.timeout;
    if !question.names_repository && matches!(ask.through, Through::Connection(_)) {
        return Err(Nothing::Unclear(without_path(question)));
    }
    let channel = dial(&ask.address).await;
    let channel = channel.map_err(|problem| Nothing::Failed(format!("{}: {problem}", ask.address)))?;
    let mut server = Server { client: RepositoryServiceClient::new(channel), deadline };
    // Whether the server found the URL that git was told among those of the connection's own origins.
    let (name, is_own) = match &ask.through {
        Through::Link(name) => (name.clone(), false),
        Through::Connection(parent) => (server.lookup(parent, question).await?, false),
        Through::Tenant(tenant) => (server.find(tenant, question).await?, true),
    };
    let given = server.credential(&name).await?;
    // A cloud may have several names, all of them behind TLS; in plain text the origin must be the very one.
    let is_for_it = question.is_at_origin_of(&given.clone_url) || (is_own && question.is_private());
    if !is_for_it {
        return Err(Nothing::Unclear(format!(
            "{name} is cloned from {}, and git asks for {}: no credential is given",
            given.clone_url,
            question.origin()
        )));
    }
    let is_bearer = given.auth_scheme() == AuthScheme::Bearer;
    let answer = Answer {
        username: given.username,
        password: Zeroizing::new(given.password),
        is_bearer,
        expires: given.expire_time.map(|time| time.seconds),
    };
    let cannot = || Nothing::Failed(format!("the credential of {name} cannot be told to git"));
    answer.lines(question).ok_or_else(cannot)
}

/// The server, and until when it is asked.
struct Server {
    client: RepositoryServiceClient<Channel>,
    deadline: Instant,
}

impl Server {
    /// A message with the time that is left: the server stops when nobody waits any more.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline.saturating_duration_since(Instant::now()));
        request
    }

    /// The name of what git asks for: the tenant's link to it, or the repository of the only connection that sees it.
    async fn find(&mut self, tenant: &str, question: &Question) -> Result<String, Nothing> {
        let message = v1::FindConnectionsRequest {
            parent: format!("tenants/{tenant}"),
            clone_url: question.clone_url().to_owned(),
        };
        let request = self.request(message);
        let found = self.client.find_connections(request).await?.into_inner().candidates;
        if found.is_empty() {
            return Err(Nothing::Unknown);
        }
        if !question.names_repository {
            return Err(Nothing::Unclear(without_path(question)));
        }
        choose(&found, question)
    }

    /// The name of the repository that git asks for, through that connection.
    async fn lookup(&mut self, parent: &str, question: &Question) -> Result<String, Nothing> {
        let message = v1::LookupRepositoryRequest {
            parent: parent.to_owned(),
            selector: Some(Selector::CloneUrl(question.clone_url().to_owned())),
        };
        let request = self.request(message);
        Ok(self.client.lookup_repository(request).await?.into_inner().name)
    }

    async fn credential(&mut self, name: &str) -> Result<v1::GenerateGitCredentialResponse, Nothing> {
        let request = self.request(v1::GenerateGitCredentialRequest { name: name.to_owned() });
        Ok(self.client.generate_git_credential(request).await?.into_inner())
    }
}

/// What the tenant has chosen by linking it, or what is the only choice; never one of several.
fn choose(found: &[v1::ConnectionCandidate], question: &Question) -> Result<String, Nothing> {
    let proven: Vec<(&str, &v1::Repository)> = found
        .iter()
        .filter(|candidate| candidate.r#match() == Match::Proven)
        .filter_map(|candidate| Some((candidate.connection.as_str(), candidate.repository.as_ref()?)))
        .collect();
    let link = proven.first().map_or("", |(_, repository)| &repository.repository_link);
    match proven.as_slice() {
        [] => Err(Nothing::Unclear(format!(
            "no connection shows {}; asked were {}",
            question.clone_url(),
            listed(found.iter().map(|candidate| candidate.connection.as_str()))
        ))),
        all if !link.is_empty() && all.iter().all(|(_, repository)| repository.repository_link == link) => {
            Ok(link.to_owned())
        }
        [(_, repository)] => Ok(repository.name.clone()),
        all => Err(Nothing::Unclear(format!(
            "{} is reached by several connections: {}. Name one with --connection, or link the repository",
            question.clone_url(),
            listed(all.iter().map(|(connection, _)| *connection))
        ))),
    }
}

/// The first few names.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn without_path(question: &Question) -> String {
    let origin = question.origin();
    format!(
        "git does not say which repository of {origin} it asks for. Let it: \
         git config --global credential.{origin}.useHttpPath true"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        let text = "protocol=https\nhost=git.test\npath=a/b.git\n";
        Question::read(text.as_bytes()).expect("readable").expect("a question")
    }

    fn candidate(connection: &str, fit: Match, link: &str) -> v1::ConnectionCandidate {
        let repository = v1::Repository {
            name: format!("{connection}/repositories/1"),
            repository_link: link.to_owned(),
            ..Default::default()
        };
        v1::ConnectionCandidate {
            connection: connection.to_owned(),
            r#match: fit as i32,
            repository: (fit == Match::Proven).then_some(repository),
        }
    }

    fn chosen(found: &[v1::ConnectionCandidate]) -> Result<String, String> {
        choose(found, &question()).map_err(|nothing| match nothing {
            Nothing::Unclear(told) => told,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_only_connection_that_sees_it_is_taken() {
        let found = [candidate("a", Match::Host, ""), candidate("b", Match::Proven, "")];
        assert_eq!(chosen(&found).as_deref(), Ok("b/repositories/1"));
    }

    #[test]
    fn a_link_is_a_choice_and_the_best_of_several_is_none() {
        let linked = [candidate("a", Match::Proven, "l"), candidate("b", Match::Proven, "l")];
        assert_eq!(chosen(&linked).as_deref(), Ok("l"));
        let several: Vec<_> = (0..7).map(|n| candidate(&format!("c{n}"), Match::Proven, "")).collect();
        let told = chosen(&several).expect_err("nothing is chosen");
        assert!(told.contains("c0, c1, c2, c3, c4 and 2 more") && told.contains("--connection"), "{told}");
        // Two products at one host, each with a repository of that name.
        let mixed = [candidate("a", Match::Proven, "l"), candidate("b", Match::Proven, "")];
        assert!(chosen(&mixed).is_err());
    }

    #[test]
    fn a_host_or_a_namespace_alone_is_no_choice() {
        let told = chosen(&[candidate("a", Match::Namespace, ""), candidate("b", Match::Host, "")]);
        assert!(
            told.expect_err("nothing is chosen").contains("no connection shows https://git.test/a/b.git")
        );
    }
}
