//! What git needs: from the messages of its calls to the service and back.

use tonic::Request;

use super::names::RepositoryOrLink;
use super::repositories::check_text;
use super::{convert, names, open};
use crate::domain::credential::AuthScheme;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1;
use crate::proto::v1::connection_candidate::Match;
use crate::proto::v1::generate_git_credential_response::AuthScheme as Scheme;
use crate::provider::CloneAddress;
use crate::service::checked;
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::git::{Candidate, Fit, Git, GitCredential, Target};

/// FindConnections.
pub(super) async fn find(
    git: &Git,
    request: Request<v1::FindConnectionsRequest>,
) -> Result<v1::FindConnectionsResponse, Error> {
    let (context, message) = open(request)?;
    let mut violations = Violations::default();
    let tenant = names::tenant("parent", &message.parent, &mut violations);
    let url = clone_address(&message.clone_url, &mut violations);
    violations.finish()?;
    let found = git.find(&context, &checked(tenant)?, &checked(url)?).await?;
    Ok(v1::FindConnectionsResponse { candidates: found.into_iter().map(candidate).collect() })
}

/// GenerateGitCredential.
pub(super) async fn credential(
    git: &Git,
    request: Request<v1::GenerateGitCredentialRequest>,
) -> Result<v1::GenerateGitCredentialResponse, Error> {
    let (context, message) = open(request)?;
    let mut violations = Violations::default();
    let target = names::repository_or_link("name", &message.name, &mut violations).map(|found| match found {
        RepositoryOrLink::Link(name) => Target::Link(name),
        RepositoryOrLink::Repository(connection, id) => {
            let name = names::repository_name(&connection, &id);
            Target::Repository { connection, id, name }
        }
    });
    violations.finish()?;
    let GitCredential { username, password, scheme, clone_url, expire_time, ca_certificates_pem } =
        git.credential(&context, &checked(target)?).await?;
    Ok(v1::GenerateGitCredentialResponse {
        username,
        password: password.expose().to_owned(),
        auth_scheme: match scheme {
            AuthScheme::Basic => Scheme::Basic,
            AuthScheme::Bearer => Scheme::Bearer,
        } as i32,
        clone_url,
        expire_time: expire_time.map(convert::time),
        ca_certificates_pem,
    })
}

/// A clone URL, of which nothing is kept but the place.
fn clone_address(text: &str, violations: &mut Violations) -> Option<CloneAddress> {
    if text.is_empty() {
        let told = "send the clone URL, such as https://git.example/group/project.git";
        violations.push(FieldViolation::new("clone_url", FieldReason::Required, told));
        return None;
    }
    let mut wrong = Violations::default();
    check_text("clone_url", text, &mut wrong);
    let wrong = wrong.into_found();
    if wrong.is_empty() {
        return violations.take("clone_url", CloneAddress::parse(text));
    }
    wrong.into_iter().for_each(|violation| violations.push(violation));
    None
}

fn candidate(candidate: Candidate) -> v1::ConnectionCandidate {
    let Candidate { connection, fit, found } = candidate;
    let repository = found.map(|found| convert::found(&connection, found));
    v1::ConnectionCandidate {
        connection: connection.to_string(),
        r#match: match fit {
            Fit::Proven => Match::Proven,
            Fit::Namespace => Match::Namespace,
            Fit::Host => Match::Host,
        } as i32,
        repository,
    }
}
