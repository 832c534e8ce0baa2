//! What the caller may do, asked beforehand.

use serde_json::{Value, json};

use super::super::wire::{Query, Reply};
use super::refusal::bad_value;
use super::{Caller, Form};

/// The security namespace of service hooks.
const SERVICE_HOOKS: &str = "cb594ebe-87dd-4fc9-ac2c-6a10a4c92046";
/// The security namespace of Git repositories.
const GIT: &str = "2e9eb7ed-3c0a-47d4-87c1-0ffdd275fd87";

pub(super) fn permissions(
    form: Form<'_>,
    caller: &Caller,
    namespace: &str,
    bits: &str,
    query: &Query,
) -> Reply {
    let delimiter = query.any_case("delimiter").filter(|d| !d.is_empty()).unwrap_or(",");
    let tokens = query.any_case("tokens").unwrap_or_default();
    let bits = bits.parse().unwrap_or(0);
    let rows: Vec<bool> =
        tokens.split(delimiter).map(|token| allowed(form, caller, namespace, token, bits)).collect();
    Reply::json(200, &json!({"count": rows.len(), "value": rows}))
}

pub(super) fn evaluate(form: Form<'_>, caller: &Caller, body: &[u8]) -> Result<Reply, Reply> {
    let mut batch: Value = serde_json::from_slice(body).map_err(|_| bad_value("evaluationBatch"))?;
    for evaluation in batch["evaluations"].as_array_mut().into_iter().flatten() {
        let namespace = evaluation["securityNamespaceId"].as_str().unwrap_or_default();
        let token = evaluation["token"].as_str().unwrap_or_default();
        let bits = evaluation["permissions"].as_u64().unwrap_or(0);
        let allowed = allowed(form, caller, namespace, token, bits);
        evaluation["value"] = json!(allowed);
    }
    Ok(Reply::json(200, &batch))
}

/// What somebody may do with the subscriptions of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    View = 1,
    Edit = 2,
}

pub(super) fn may_with_hooks(form: Form<'_>, caller: &Caller, project: &str, right: Right) -> bool {
    allowed(form, caller, SERVICE_HOOKS, &format!("PublisherSecurity/{project}"), right as u64)
}

/// Administrators may do everything in every second project, others may view hooks.
fn allowed(form: Form<'_>, caller: &Caller, namespace: &str, token: &str, bits: u64) -> bool {
    let Caller::Known(user) = caller else {
        return false;
    };
    if namespace.eq_ignore_ascii_case(SERVICE_HOOKS) && !user.sees_hooks {
        return false;
    }
    let project = token.split('/').nth(1).and_then(|id| form.data.find_project(id));
    let Some(place) = project else {
        return user.admin && !token.contains('/');
    };
    let admin = user.admin && place.is_multiple_of(2);
    match namespace.to_lowercase().as_str() {
        SERVICE_HOOKS => admin || bits == 1,
        GIT => admin || bits & 8_192 == 0,
        _ => false,
    }
}
