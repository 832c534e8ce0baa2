//! Service hook subscriptions: one event each.

use serde_json::{Map, Value, json};

use super::super::gitlab::hooks::is_local;
use super::super::hooks::{Hook, HookState};
use super::super::wire::{Query, Reply};
use super::permissions::{Right, may_with_hooks};
use super::refusal::{bad_value, error, hook_input, no_hook_right, no_repository, unauthorized};
use super::{ANONYMOUS, Caller, Form, Instance, find_project, need};

/// The scopes that include hooks; those of their own can no longer be chosen.
const SCOPES: &[&str] = &["vso.code", "vso.work", "vso.build", "vso.hooks"];
/// What stands for a confidential input in an answer; sent back, it becomes the input.
const MASK: &str = "********";

impl Instance {
    /// `hooks/subscriptions` and below.
    pub(super) fn subscriptions(
        &self,
        form: Form<'_>,
        caller: &Caller,
        (method, rest): (&str, &[&str]),
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Reply> {
        need(caller, SCOPES)?;
        let Caller::Known(_) = caller else { return Err(unauthorized(ANONYMOUS)) };
        let missing = |id: &str| {
            let text = format!("The subscription {id} does not exist.");
            error(404, "Microsoft.VisualStudio.Services.ServiceHooks", "SubscriptionNotFoundException", &text)
        };
        match (method, rest) {
            ("GET", []) => {
                let is = |name: &str, known: &str| {
                    query.any_case(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(known))
                };
                let rows: Vec<Value> = self
                    .seen_by(form, caller)
                    .filter(|(_, hook)| {
                        is("publisherId", "tfs")
                            && is("consumerId", "webHooks")
                            && is("consumerActionId", "httpRequest")
                            && hook.events.iter().all(|event| is("eventType", event))
                    })
                    .map(|(repository, hook)| row(form, &repository, &hook))
                    .collect();
                Ok(Reply::json(200, &json!({"count": rows.len(), "value": rows})))
            }
            ("POST", []) => {
                let (repository, hook) = self.read(form, caller, body, None)?;
                let hook = self.hooks.add(&repository, hook);
                Ok(Reply::json(200, &row(form, &repository, &hook)))
            }
            (method, [id]) => {
                let known = self.seen_by(form, caller).find(|(_, hook)| hook.id.eq_ignore_ascii_case(id));
                let (repository, known) = known.ok_or_else(|| missing(id))?;
                match method {
                    "GET" => Ok(Reply::json(200, &row(form, &repository, &known))),
                    "PUT" => {
                        // It is replaced as a whole, and stays in its repository here.
                        let (_, hook) = self.read(form, caller, body, Some(&known))?;
                        let hook = self.hooks.edit(&repository, &known.id, |place| *place = hook);
                        Ok(Reply::json(200, &row(form, &repository, &hook.ok_or_else(|| missing(id))?)))
                    }
                    "DELETE" => {
                        may(form, caller, &known.more["projectId"])?;
                        self.hooks.remove(&repository, &known.id);
                        // The description says 200, its example 204.
                        let status = if form.server { 200 } else { 204 };
                        Ok(Reply { status, headers: Vec::new(), body: "".into() })
                    }
                    _ => Err(bad_value("method")),
                }
            }
            _ => Err(bad_value("subscriptionId")),
        }
    }

    /// `hooks/subscriptionsquery`: the query comes back with its results.
    pub(super) fn query_subscriptions(
        &self,
        form: Form<'_>,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Reply, Reply> {
        need(caller, SCOPES)?;
        let Caller::Known(_) = caller else { return Err(unauthorized(ANONYMOUS)) };
        let mut query: Value = serde_json::from_slice(body).map_err(|_| bad_value("query"))?;
        let matches = |row: &Value| {
            let same = |name: &str| {
                let wanted = query[name].as_str();
                wanted
                    .is_none_or(|wanted| row[name].as_str().is_some_and(|is| is.eq_ignore_ascii_case(wanted)))
            };
            let fits = |filters: &str, inputs: &str| {
                query[filters].as_array().into_iter().flatten().all(|filter| {
                    filter["conditions"].as_array().into_iter().flatten().any(|condition| {
                        let input = condition["inputId"].as_str().and_then(|id| row[inputs][id].as_str());
                        let value = condition["inputValue"].as_str().unwrap_or("");
                        let is_equal = input.unwrap_or("").eq_ignore_ascii_case(value);
                        is_equal == (condition["operator"] == "equals")
                    })
                })
            };
            ["publisherId", "eventType", "consumerId", "consumerActionId"].into_iter().all(same)
                && fits("publisherInputFilters", "publisherInputs")
                && fits("consumerInputFilters", "consumerInputs")
        };
        let rows = self.seen_by(form, caller).map(|(repository, hook)| row(form, &repository, &hook));
        let rows: Vec<Value> = rows.filter(matches).collect();
        query["results"] = Value::Array(rows);
        Ok(Reply::json(200, &query))
    }

    /// What the caller may view; the rest is left out without a word.
    fn seen_by(&self, form: Form<'_>, caller: &Caller) -> impl Iterator<Item = (String, Hook)> {
        let rows = self.hooks.all().into_iter();
        rows.filter(move |(_, hook)| {
            let project = hook.more.get("projectId").map_or("", String::as_str);
            may_with_hooks(form, caller, project, Right::View)
        })
    }

    /// The subscription that a body describes, and its repository.
    fn read(
        &self,
        form: Form<'_>,
        caller: &Caller,
        body: &[u8],
        before: Option<&Hook>,
    ) -> Result<(String, Hook), Reply> {
        let body: Value = serde_json::from_slice(body).map_err(|_| bad_value("subscription"))?;
        for (name, value) in
            [("publisherId", "tfs"), ("consumerId", "webHooks"), ("consumerActionId", "httpRequest")]
        {
            if body[name].as_str() != Some(value) {
                return Err(bad_value(name));
            }
        }
        let told_of = inputs(&body["publisherInputs"])?;
        let sent_with = inputs(&body["consumerInputs"])?;
        let input = |inputs: &Map<String, Value>, name: &str| {
            inputs.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
        };
        let project = input(&told_of, "projectId");
        let place = find_project(form, caller, &project)?;
        may(form, caller, &project)?;
        let repository = input(&told_of, "repository");
        if form.data.find_repository(&repository).is_none_or(|(within, _)| within != place) {
            return Err(no_repository(&repository));
        }
        let url = url::Url::parse(&input(&sent_with, "url")).map_err(|_| hook_input("url"))?;
        let has_password = ["basicAuthUsername", "basicAuthPassword"]
            .into_iter()
            .any(|name| !input(&sent_with, name).is_empty());
        if has_password && url.scheme() != "https" || !form.server && is_local(&url) {
            return Err(hook_input("url"));
        }
        let event = body["eventType"].as_str().unwrap_or("");
        if !event.starts_with("git.") {
            return Err(bad_value("eventType"));
        }
        let secret = Some(input(&sent_with, "basicAuthPassword")).filter(|secret| !secret.is_empty());
        let mut hook = Hook::new(&input(&sent_with, "url"), &[event], secret.as_deref());
        hook.verifies_tls = !input(&sent_with, "acceptUntrustedCerts").eq_ignore_ascii_case("true");
        hook.more.insert("projectId".to_owned(), project.to_lowercase());
        hook.more.insert(
            "resourceVersion".to_owned(),
            body["resourceVersion"].as_str().unwrap_or("2.0").to_owned(),
        );
        for (prefix, inputs, known) in [
            ("of:", &told_of, &["projectId", "repository"][..]),
            ("with:", &sent_with, &["url", "basicAuthPassword", "acceptUntrustedCerts"]),
        ] {
            let rest = inputs.iter().filter(|(name, _)| !known.contains(&name.as_str()));
            let rest = rest.filter_map(|(name, value)| Some((name, value.as_str()?)));
            hook.more.extend(rest.map(|(name, value)| (format!("{prefix}{name}"), value.to_owned())));
        }
        if body["status"] == "disabledByUser" {
            hook.state = HookState::SwitchedOff;
        }
        if let Some(before) = before {
            hook.id.clone_from(&before.id);
            // Nothing but a new one helps once it is disabled.
            if before.state == HookState::Dead {
                hook.state = HookState::Dead;
            }
        }
        Ok((repository.to_lowercase(), hook))
    }
}

/// Whether the caller may edit subscriptions of a project.
fn may(form: Form<'_>, caller: &Caller, project: &str) -> Result<(), Reply> {
    let may_edit = may_with_hooks(form, caller, project, Right::Edit);
    if may_edit { Ok(()) } else { Err(no_hook_right(caller, project)) }
}

/// Inputs are strings, booleans too.
fn inputs(value: &Value) -> Result<Map<String, Value>, Reply> {
    let inputs = value.as_object().ok_or_else(|| bad_value("inputs"))?;
    if inputs.values().all(|value| value.is_string()) { Ok(inputs.clone()) } else { Err(bad_value("inputs")) }
}

/// With the members of `go-scm/hook.json`; confidential inputs are masked.
fn row(form: Form<'_>, repository: &str, hook: &Hook) -> Value {
    let url = format!("{}/_apis/hooks/subscriptions/{}", form.data.external, hook.id);
    let of = |prefix: &str| -> Map<String, Value> {
        let named = hook.more.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
        named.map(|(name, value)| (name.to_owned(), json!(value))).collect()
    };
    let (mut told_of, mut sent_with) = (of("of:"), of("with:"));
    told_of.insert("projectId".to_owned(), json!(hook.more.get("projectId")));
    told_of.insert("repository".to_owned(), json!(repository));
    told_of.insert("tfsSubscriptionId".to_owned(), json!("4ce8d6c4-f655-418d-8eb6-9462dd01ff39"));
    sent_with.insert("url".to_owned(), json!(hook.url));
    sent_with.insert("acceptUntrustedCerts".to_owned(), json!((!hook.verifies_tls).to_string()));
    if hook.secret.is_some() {
        sent_with.insert("basicAuthPassword".to_owned(), json!(MASK));
    }
    let status = match hook.state {
        HookState::Working => "enabled",
        HookState::SwitchedOff => "disabledByUser",
        HookState::Suspended => "onProbation",
        HookState::Dead => "disabledBySystem",
    };
    let event = hook.events.iter().next();
    let person = json!({"displayName": "Casey Example", "id": "473dec3e-03d7-6147-b106-0b0a7f766a92",
        "uniqueName": "casey@forge.example", "descriptor": "aad.NDczZGVjM2U"});
    json!({"id": hook.id, "url": url, "status": status, "publisherId": "tfs", "eventType": event, "subscriber": null,
        "resourceVersion": hook.more.get("resourceVersion"), "eventDescription": "Any branch", "consumerId": "webHooks",
        "consumerActionId": "httpRequest", "actionDescription": "To a host", "probationRetries": 0,
        "createdBy": person, "createdDate": "2026-11-20T17:58:37.55Z", "modifiedBy": person,
        "modifiedDate": "2026-11-20T17:58:37.55Z", "lastProbationRetryDate": "2026-11-20T17:58:37.55Z",
        "publisherInputs": told_of, "consumerInputs": sent_with,
        "_links": {"self": {"href": url}}})
}
