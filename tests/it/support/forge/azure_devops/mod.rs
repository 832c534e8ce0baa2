//! The fake Azure DevOps, Services and Server: routes, who asks, which version.

pub(crate) mod data;
mod hooks;
mod permissions;
mod projects;
mod refs;
mod refusal;
pub(crate) mod tokens;

use std::io;
use std::sync::Mutex;

use base64::Engine;
use serde_json::{Value, json};

use super::fault::SIGN_IN;
use super::hooks::{HookIds, Hooks};
use super::refs::Refs;
use super::wire::{Reply, Seen, decode};
use super::{AzureConfig, COLLECTION, ForgeConfig, ORGANIZATION, lock};
use data::{Data, guid};
use permissions::{evaluate, permissions};
use refusal::{error, no_project, unauthorized, unrouted, version_error};
use tokens::{AzureToken, SignIn, issue};

/// The identity of a caller without one.
pub(crate) const ANONYMOUS: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
/// Both forms, over the same tokens.
#[derive(Debug)]
pub(super) struct Instance {
    config: AzureConfig,
    services: Data,
    server: Data,
    refs: Refs,
    tokens: Mutex<Vec<AzureToken>>,
    /// The webhooks that it keeps.
    pub(super) hooks: Hooks,
}

/// One of the two forms.
#[derive(Clone, Copy)]
struct Form<'a> {
    server: bool,
    data: &'a Data,
}

/// Who asks.
enum Caller {
    Known(AzureToken),
    Anonymous,
}

impl Instance {
    /// Reads the recorded answers.
    pub(super) fn build(config: &ForgeConfig, origin: &str) -> io::Result<Self> {
        let azure = &config.azure;
        let own = format!("{origin}/azure/{ORGANIZATION}");
        let services = azure.external_url.clone().unwrap_or(own);
        let server = format!("{origin}/azure-server/{COLLECTION}");
        Ok(Self {
            services: Data::build(azure, services, false)?,
            server: Data::build(azure, server, true)?,
            refs: Refs::new(config.branches, config.tags),
            tokens: Mutex::new(issue()),
            hooks: Hooks::new(HookIds::Uuid),
            config: azure.clone(),
        })
    }

    /// Changes a token.
    pub(super) fn edit_token(&self, token: &str, edit: impl FnOnce(&mut AzureToken)) {
        if let Some(known) = lock(&self.tokens).iter_mut().find(|known| known.token == token) {
            edit(known);
        }
    }

    /// Answers a request.
    pub(super) fn answer(&self, seen: &Seen) -> Reply {
        let services = format!("/azure/{ORGANIZATION}");
        let server = format!("/azure-server/{COLLECTION}");
        let (form, rest) = if let Some(rest) = below(&seen.path, &services) {
            (Form { server: false, data: &self.services }, rest)
        } else if let Some(rest) = below(&seen.path, &server) {
            (Form { server: true, data: &self.server }, rest)
        } else {
            return self.elsewhere(seen);
        };
        let caller = self.caller(form, seen);
        let id = match &caller {
            Some(Caller::Known(token)) if !form.server => {
                Some(format!("{}:{}", token.user_id, token.account))
            }
            _ => None,
        };
        let reply = match caller {
            None => self.signed_out(form.server, seen),
            Some(caller) => self.route(form, &caller, rest, seen).unwrap_or_else(|refusal| refusal),
        };
        let reply = reply
            .header("activityid", "4dda23e3-c0f4-49d0-90f8-4e2c742ac75a")
            .header("cache-control", "no-cache, no-store, must-revalidate")
            .header("x-tfs-processid", "3b10a939-2702-407a-b448-22aebf6e87a7")
            .header("x-vss-e2eid", "4dda23e3-c0f4-49d0-90f8-4e2c742ac75a");
        let reply = match self.config.rate_limit.filter(|_| !form.server) {
            Some((limit, remaining, reset)) => reply
                .header("x-ratelimit-resource", "Core")
                .header("x-ratelimit-limit", limit)
                .header("x-ratelimit-remaining", remaining)
                .header("x-ratelimit-reset", reset),
            None => reply,
        };
        match id {
            Some(id) => reply.header("x-vss-userdata", id),
            None => reply,
        }
    }

    /// Outside the organization and the collection.
    fn elsewhere(&self, seen: &Seen) -> Reply {
        let server = seen.path.starts_with("/azure-server");
        let collection_left_out = server && seen.path.starts_with("/azure-server/tfs");
        if !collection_left_out {
            // The host root of a Server answers 401 to everybody; another organization refuses the token.
            return self.signed_out(server, seen);
        }
        let known =
            lock(&self.tokens).iter().any(|token| presented(seen).is_some_and(|p| p.0 == token.token));
        if !known {
            return self.signed_out(true, seen);
        }
        error(
            404,
            "Microsoft.TeamFoundation.Framework.Server",
            "HostRoutingException",
            "TF400367: The request could not be performed due to a host type mismatch. The request asked for a ProjectCollection host.",
        )
    }

    // --- who asks ---

    /// `None` is a refused caller.
    fn caller(&self, form: Form<'_>, seen: &Seen) -> Option<Caller> {
        let known = presented(seen).and_then(|(token, bearer)| {
            let tokens = lock(&self.tokens);
            let known = tokens.iter().find(|known| known.token == token)?;
            (known.alive && known.bearer == bearer).then(|| known.clone())
        });
        match known {
            Some(token) => Some(Caller::Known(token)),
            None if self.config.public && !form.server => Some(Caller::Anonymous),
            None => None,
        }
    }

    /// What a refused caller gets: a page that looks like success unless it asks for a plain refusal.
    fn signed_out(&self, server: bool, seen: &Seen) -> Reply {
        if server {
            return Reply::new(401, "text/html", "")
                .header("www-authenticate", "Basic realm=\"tfs.forge.example\"")
                .header("www-authenticate", "NTLM");
        }
        let suppressed =
            seen.header("x-tfs-fedauthredirect").is_some_and(|value| value.eq_ignore_ascii_case("suppress"));
        let tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47";
        if seen.method != "GET" || suppressed {
            let bearer = format!("Bearer authorization_uri=https://login.windows.net/{tenant}");
            return unauthorized("")
                .header("www-authenticate", bearer)
                .header("www-authenticate", "Basic realm=\"https://tfsprodweu3.visualstudio.com/\"")
                .header("www-authenticate", "TFS-Federated")
                .header("x-vss-resourcetenant", tenant);
        }
        match self.config.sign_in {
            SignIn::Page => Reply::html(203, SIGN_IN),
            SignIn::Redirect => Reply::html(
                302,
                "<html><head><title>Object moved</title></head><body></body></html>",
            )
            .header("location", "https://spsprodcus1.vssps.visualstudio.com/_signin?realm=dev.azure.com"),
        }
    }

    // --- routes ---

    fn route(&self, form: Form<'_>, caller: &Caller, rest: &str, seen: &Seen) -> Result<Reply, Reply> {
        let segments: Vec<String> = rest.split('/').filter(|s| !s.is_empty()).map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (project, api) = match segments.iter().position(|segment| segment.eq_ignore_ascii_case("_apis")) {
            Some(0) => (None, &segments[1..]),
            Some(1) => (Some(segments[0]), &segments[2..]),
            _ => {
                return Err(Reply::html(
                    404,
                    "<!DOCTYPE html><html><head><title>The controller for path was not found</title></head></html>",
                ));
            }
        };
        if seen.method == "OPTIONS" {
            return Ok(self.resources(form, api));
        }
        let preview = matches!(api, ["connectionData"]);
        let version = self.version(form, preview, seen)?;
        let query = seen.params();
        let reply = match (seen.method.as_str(), project, api) {
            ("GET", None, ["connectionData"]) => Ok(connection_data(form, caller)),
            ("GET", None, ["projects"]) => self.projects(form, caller, &query),
            ("GET", None, ["projects", id]) => self.project(form, caller, id),
            ("GET", None, ["git", "repositories"]) => self.all_repositories(form, caller),
            ("GET", Some(project), ["git", "repositories"]) => {
                self.project_repositories(form, caller, project)
            }
            ("GET", project, ["git", "repositories", id]) => self.repository(form, caller, project, id),
            ("GET", Some(project), ["git", "repositories", id, "refs"]) => {
                self.repository_refs(form, caller, project, id, &query)
            }
            (method, None, ["hooks", "subscriptions", rest @ ..]) => {
                self.subscriptions(form, caller, (method, rest), &query, &seen.body)
            }
            ("POST", None, ["hooks", "subscriptionsquery"]) => {
                self.query_subscriptions(form, caller, &seen.body)
            }
            ("GET", None, ["permissions", namespace, bits]) => {
                Ok(permissions(form, caller, namespace, bits, &query))
            }
            ("POST", None, ["security", "permissionevaluationbatch"]) => evaluate(form, caller, &seen.body),
            _ => Err(unrouted(rest)),
        };
        reply.map(|mut reply| {
            if reply.body.is_empty() {
                return reply;
            }
            reply.set("content-type", format!("application/json; charset=utf-8; api-version={version}"));
            reply
        })
    }

    /// Checks the `api-version`; the answer repeats it.
    fn version(&self, form: Form<'_>, preview: bool, seen: &Seen) -> Result<String, Reply> {
        let newest = if form.server { self.config.server_api_version } else { self.config.api_version };
        let query = seen.params();
        let accept = seen.header("accept").unwrap_or_default();
        let asked = query.any_case("api-version").or_else(|| {
            let (_, version) = accept.split_once("api-version=")?;
            version.split([';', ',', ' ']).next()
        });
        let Some(asked) = asked else {
            if seen.method == "GET" {
                let suffix = if preview { "-preview.1" } else { "" };
                return Ok(format!("{}.{}{suffix}", newest.0, newest.1));
            }
            let text = format!(
                "No api-version was supplied for the \"{}\" request. The version must be supplied either as part of the Accept header (e.g. \"application/json; api-version=1.0\") or as a query parameter (e.g. \"?api-version=1.0\").",
                seen.method
            );
            return Err(version_error("VssVersionNotSpecifiedException", &text));
        };
        let (number, flag) = asked.split_once('-').map_or((asked, false), |(number, _)| (number, true));
        let parsed = number.split_once('.').unwrap_or((number, "0"));
        let (Ok(major), Ok(minor)) = (parsed.0.parse::<u32>(), parsed.1.parse::<u32>()) else {
            let text = format!(
                "The api-version value supplied in the request (\"{asked}\") is not a valid version."
            );
            return Err(version_error("VssInvalidApiResourceVersionException", &text));
        };
        // Services has a preview of the version to come.
        let reach = if flag && !form.server { (newest.0, newest.1 + 1) } else { newest };
        if (major, minor) > reach {
            let text = format!(
                "The requested REST API version of {number} is out of range for this server. The latest REST API version this server supports is {}.{}.",
                newest.0, newest.1
            );
            return Err(version_error("VssVersionOutOfRangeException", &text));
        }
        if preview && !flag {
            let text = format!(
                "The requested version \"{asked}\" of the resource is under preview. The -preview flag must be supplied in the api-version for such requests. For example: \"{asked}-preview\""
            );
            return Err(version_error("VssInvalidPreviewVersionException", &text));
        }
        Ok(asked.to_owned())
    }

    /// The resources of an area, or all: which versions the server has.
    fn resources(&self, form: Form<'_>, api: &[&str]) -> Reply {
        const ALL: &[(&str, &str, &str, &str, u32, bool)] = &[
            (
                "00d9565f-ed9c-4a06-9a50-00e7896ccab4",
                "Location",
                "ConnectionData",
                "_apis/{resource}",
                1,
                false,
            ),
            (
                "603fe2ac-9723-48b9-88ad-09305aa6c6e1",
                "core",
                "projects",
                "_apis/{resource}/{*projectId}",
                4,
                true,
            ),
            (
                "225f7195-f9c7-4d14-ab28-a83f7ff77e1f",
                "git",
                "repositories",
                "{project}/_apis/{area}/{resource}/{repositoryId}",
                1,
                true,
            ),
            (
                "fc50d02a-849f-41fb-8af1-0a5216103269",
                "hooks",
                "subscriptions",
                "_apis/{area}/{resource}/{subscriptionId}",
                1,
                true,
            ),
            (
                "dd3b8bd6-c7fc-4cbd-929a-933d9c011c9d",
                "security",
                "permissions",
                "_apis/{resource}/{securityNamespaceId}/{permissions}",
                2,
                true,
            ),
        ];
        let newest = if form.server { self.config.server_api_version } else { self.config.api_version };
        let max = if form.server { newest } else { (newest.0, newest.1 + 1) };
        let rows: Vec<Value> = ALL
            .iter()
            .filter(|(_, area, ..)| api.first().is_none_or(|wanted| wanted.eq_ignore_ascii_case(area)))
            .map(|(id, area, name, route, version, released)| {
                let released = if *released { format!("{}.{}", newest.0, newest.1) } else { "0.0".to_owned() };
                json!({"id": id, "area": area, "resourceName": name, "routeTemplate": route, "resourceVersion": version,
                    "minVersion": "1.0", "maxVersion": format!("{}.{}", max.0, max.1), "releasedVersion": released})
            })
            .collect();
        Reply::json(200, &json!({"count": rows.len(), "value": rows}))
    }
}

/// What follows a prefix that ends at a path boundary; letter case does not count.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = path.split_at_checked(prefix.len())?;
    if !start.eq_ignore_ascii_case(prefix) {
        return None;
    }
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The token of a request, and whether it came as Bearer. The user part of Basic is ignored.
fn presented(seen: &Seen) -> Option<(String, bool)> {
    let (scheme, value) = seen.header("authorization")?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((value.trim().to_owned(), true));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let clear = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    let clear = String::from_utf8(clear).ok()?;
    let (_, token) = clear.split_once(':')?;
    Some((token.to_owned(), false))
}

fn visible(caller: &Caller, project: &data::Project) -> bool {
    let is_member = match caller {
        Caller::Known(token) => !token.outsider || project.is_first(),
        _ => false,
    };
    is_member || project.public
}

/// A missing scope is told in the words of a dead token; strangers need none for what is public.
fn need(caller: &Caller, scopes: &[&str]) -> Result<(), Reply> {
    match caller {
        Caller::Known(token) if !token.has(scopes) => Err(unauthorized("")),
        _ => Ok(()),
    }
}

fn find_project(form: Form<'_>, caller: &Caller, id: &str) -> Result<usize, Reply> {
    let place = form.data.find_project(id);
    let place = place.filter(|place| visible(caller, &form.data.projects[*place]));
    place.ok_or_else(|| match caller {
        Caller::Anonymous => unauthorized(ANONYMOUS),
        Caller::Known(_) => no_project(id),
    })
}

fn connection_data(form: Form<'_>, caller: &Caller) -> Reply {
    let user = match caller {
        Caller::Known(token) => json!({
            "id": token.user_id,
            "descriptor": format!("Microsoft.IdentityModel.Claims.ClaimsIdentity;{}\\{}", guid(3, 1), token.account),
            "subjectDescriptor": format!("aad.{}", token.user_id.replace('-', "")),
            "providerDisplayName": token.name,
            "isActive": true,
            "properties": {"Account": {"$type": "System.String", "$value": token.account}},
            "resourceVersion": 2, "metaTypeId": 0}),
        Caller::Anonymous => json!({
            "id": ANONYMOUS,
            "descriptor": format!("System:PublicAccess;{ANONYMOUS}"),
            "subjectDescriptor": format!("s2s.{ANONYMOUS}"),
            "providerDisplayName": "Anonymous",
            "isActive": true,
            "properties": {},
            "resourceVersion": 2, "metaTypeId": 255}),
    };
    let deployment = if form.server { "onPremises" } else { "hosted" };
    let body = json!({"authenticatedUser": user, "authorizedUser": user, "instanceId": guid(4, 1),
        "deploymentId": guid(5, 1), "deploymentType": deployment,
        "locationServiceData": {"serviceOwner": guid(6, 1), "defaultAccessMappingMoniker": "PublicAccessMapping",
            "lastChangeId": 124_013_987, "lastChangeId64": 124_013_987}});
    Reply::json(200, &body)
}
