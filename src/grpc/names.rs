//! Resource names (AIP-122) and the encoding of ids in them.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::domain::connection::{ConnectionId, ConnectionName, TenantId, check_text};
use crate::domain::link::{LinkId, LinkName};
use crate::domain::violation::{FieldReason, FieldViolation, Refusal};
use crate::service::draft::Violations;
use crate::service::repositories::Parent;
use crate::service::webhooks::deliveries::Receiver;

/// Longest resource name that is looked at, in bytes.
const MAX_NAME_BYTES: usize = 1_024;

/// Everything that could end or split a path segment.
const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'/').add(b'%').add(b'?').add(b'#').add(b'"').add(b'<').add(b'>').add(b'\\');

/// `tenants/{tenant}`.
pub(super) fn tenant(field: &str, text: &str, violations: &mut Violations) -> Option<TenantId> {
    let parsed = match split(text).as_deref() {
        Some(["tenants", tenant]) => TenantId::parse(tenant),
        _ => Err(not_of_form(text, "tenants/{tenant}")),
    };
    violations.take(field, parsed)
}

/// `tenants/{tenant}/connections/{connection}`.
pub(super) fn connection(field: &str, text: &str, violations: &mut Violations) -> Option<ConnectionName> {
    let parsed = match split(text).as_deref() {
        Some(["tenants", tenant, "connections", id]) => connection_parts(tenant, id),
        _ => Err(not_of_form(text, "tenants/{tenant}/connections/{connection}")),
    };
    violations.take(field, parsed)
}

/// `tenants/{tenant}/connections/{connection}`, or `tenants/{tenant}/connections/-` for all of them (AIP-159).
pub(super) fn connection_or_all(field: &str, text: &str, violations: &mut Violations) -> Option<Parent> {
    match split(text).as_deref() {
        Some(["tenants", tenant, "connections", "-"]) => {
            violations.take(field, TenantId::parse(tenant)).map(Parent::Tenant)
        }
        _ => connection(field, text, violations).map(Parent::Connection),
    }
}

/// `tenants/{tenant}/connections/{connection}/repositories/{repository}`: the connection and the decoded id.
pub(super) fn repository(
    field: &str,
    text: &str,
    violations: &mut Violations,
) -> Option<(ConnectionName, String)> {
    let parsed = match split(text).as_deref() {
        Some(["tenants", tenant, "connections", id, "repositories", repository]) => {
            connection_parts(tenant, id).and_then(|name| Ok((name, decode(repository)?)))
        }
        _ => Err(not_of_form(text, "tenants/{tenant}/connections/{connection}/repositories/{repository}")),
    };
    violations.take(field, parsed)
}

/// `tenants/{tenant}/repositoryLinks/{repository_link}`.
pub(super) fn link(field: &str, text: &str, violations: &mut Violations) -> Option<LinkName> {
    let parsed = match split(text).as_deref() {
        Some(["tenants", tenant, "repositoryLinks", id]) => link_parts(tenant, id),
        _ => Err(not_of_form(text, "tenants/{tenant}/repositoryLinks/{repository_link}")),
    };
    violations.take(field, parsed)
}

/// `tenants/{tenant}/repositoryLinks/{repository_link}/webhook`: the link.
pub(super) fn webhook(field: &str, text: &str, violations: &mut Violations) -> Option<LinkName> {
    let parsed = match split(text).as_deref() {
        Some(["tenants", tenant, "repositoryLinks", id, "webhook"]) => link_parts(tenant, id),
        _ => Err(not_of_form(text, "tenants/{tenant}/repositoryLinks/{repository_link}/webhook")),
    };
    violations.take(field, parsed)
}

/// `tenants/{tenant}/repositoryLinks/{repository_link}/webhook`, or `tenants/{tenant}/repositoryLinks/-` for any of them.
pub(super) fn webhook_or_all(field: &str, text: &str, violations: &mut Violations) -> Option<Receiver> {
    match split(text).as_deref() {
        Some(
            ["tenants", tenant, "repositoryLinks", "-"]
            | ["tenants", tenant, "repositoryLinks", "-", "webhook"],
        ) => violations.take(field, TenantId::parse(tenant)).map(Receiver::Tenant),
        _ => webhook(field, text, violations).map(Receiver::Link),
    }
}

/// What some calls are about: a repository, or a link that stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RepositoryOrLink {
    /// A connection and the decoded id of one of its repositories.
    Repository(ConnectionName, String),
    /// A link.
    Link(LinkName),
}

/// The name of a repository or of a link.
pub(super) fn repository_or_link(
    field: &str,
    text: &str,
    violations: &mut Violations,
) -> Option<RepositoryOrLink> {
    if matches!(split(text).as_deref(), Some(["tenants", _, "repositoryLinks", _])) {
        return link(field, text, violations).map(RepositoryOrLink::Link);
    }
    let found = repository(field, text, violations);
    found.map(|(connection, id)| RepositoryOrLink::Repository(connection, id))
}

/// `providers/{provider}`: the id, whether or not there is such a provider.
pub(super) fn provider(field: &str, text: &str, violations: &mut Violations) -> Option<String> {
    let parsed = match split(text).as_deref() {
        Some(["providers", id]) if !id.is_empty() => check_text(id).map(|()| (*id).to_owned()),
        _ => Err(not_of_form(text, "providers/{provider}")),
    };
    violations.take(field, parsed)
}

/// The name of a repository of `connection`.
pub(super) fn repository_name(connection: &ConnectionName, provider_id: &str) -> String {
    format!("{connection}/repositories/{}", utf8_percent_encode(provider_id, SEGMENT))
}

fn connection_parts(tenant: &str, id: &str) -> Result<ConnectionName, Refusal> {
    if id == "-" {
        return Err(Refusal::new(
            FieldReason::Reserved,
            "`-` stands for all connections, which this call cannot do",
        ));
    }
    Ok(ConnectionName { tenant: TenantId::parse(tenant)?, id: ConnectionId::parse(id)? })
}

fn link_parts(tenant: &str, id: &str) -> Result<LinkName, Refusal> {
    if id == "-" {
        return Err(Refusal::new(
            FieldReason::Reserved,
            "`-` stands for all links, which this call cannot do",
        ));
    }
    Ok(LinkName { tenant: TenantId::parse(tenant)?, id: LinkId::parse(id)? })
}

fn decode(segment: &str) -> Result<String, Refusal> {
    let malformed = || Refusal::new(FieldReason::Malformed, "the repository id is not percent-encoded UTF-8");
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| malformed())?;
    if text.is_empty() || text.chars().any(char::is_control) {
        Err(malformed())
    } else {
        Ok(text.into_owned())
    }
}

fn split(text: &str) -> Option<Vec<&str>> {
    (text.len() <= MAX_NAME_BYTES).then(|| text.split('/').collect())
}

fn not_of_form(text: &str, form: &str) -> Refusal {
    if text.is_empty() {
        return Refusal::new(FieldReason::Required, format!("must be set, in the form {form}"));
    }
    Refusal::new(FieldReason::Malformed, format!("must have the form {form}"))
}

/// A request id (AIP-155): empty or a UUID, in one canonical form.
pub(super) fn request_id(text: &str, violations: &mut Violations) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    match uuid::Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Some(id.to_string()),
        _ => {
            violations.push(FieldViolation::new(
                "request_id",
                FieldReason::Malformed,
                "a request id is a UUID in the form 01234567-89ab-cdef-0123-456789abcdef",
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_id_survives_its_name() {
        let mut violations = Violations::default();
        let name = connection("name", "tenants/default/connections/c1", &mut violations).expect("valid");
        for id in ["42", "../../etc", "a%2f..", ".git", "{1-2}", "h\u{e4}us er"] {
            let text = repository_name(&name, id);
            assert_eq!(text.matches('/').count(), 5, "{text}");
            assert_eq!(repository("name", &text, &mut violations), Some((name.clone(), id.to_owned())));
        }
        assert!(violations.finish().is_ok());
    }

    #[test]
    fn t07_reserved_and_foreign_forms_are_refused() {
        for bad in [
            "",
            "tenants",
            "tenants/",
            "tenants/root/connections/a",
            "tenants/default/connections/-",
            "tenants/default/connections/",
            "tenants/default/connections/a/",
            "/tenants/default/connections/a",
            "tenants/default/connections/..",
            "tenants/default/Connections/a",
        ] {
            let mut violations = Violations::default();
            assert!(connection("name", bad, &mut violations).is_none(), "{bad}");
            assert!(violations.finish().is_err());
        }
    }
}
