//! Checks requests against a provider's own API description (OpenAPI 3 or Swagger 2).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::forge::Seen;

/// The operations of a description.
#[derive(Debug)]
pub(crate) struct Description {
    operations: Vec<Operation>,
}

#[derive(Debug)]
struct Operation {
    method: String,
    template: String,
    /// The parts of the path; `None` for a parameter.
    segments: Vec<Option<String>>,
    query: BTreeSet<String>,
    /// The members of a JSON body, if the description names them.
    body: Option<BTreeSet<String>>,
}

impl Description {
    /// Reads a description. Panics on one that is none: it is a fixture.
    pub(crate) fn read(text: &str) -> Self {
        let root: Value = serde_json::from_str(text).expect("an API description");
        let base = root["basePath"].as_str().unwrap_or("").trim_end_matches('/');
        let mut operations = Vec::new();
        for (path, item) in root["paths"].as_object().expect("paths") {
            let template = format!("{base}{path}");
            for (method, operation) in item.as_object().expect("a path item") {
                if !matches!(method.as_str(), "get" | "post" | "put" | "patch" | "delete" | "head") {
                    continue;
                }
                let parameters = [&item["parameters"], &operation["parameters"]];
                let query = parameters
                    .into_iter()
                    .filter_map(Value::as_array)
                    .flatten()
                    .map(|parameter| resolve(&root, parameter))
                    .filter(|parameter| parameter["in"] == "query")
                    .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
                    .collect();
                operations.push(Operation {
                    body: body_members(&root, operation),
                    method: method.to_ascii_uppercase(),
                    segments: segments(&template),
                    template: template.clone(),
                    query,
                });
            }
        }
        Self { operations }
    }

    /// What a request has that the description does not: its path, names in its query, or members of its JSON body.
    /// `path` is the part of the request's path that the description speaks of; `also` are names of the query that other
    /// documentation has.
    pub(crate) fn problems(&self, seen: &Seen, path: &str, also: &[&str]) -> Vec<String> {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let fitting = self
            .operations
            .iter()
            .filter(|operation| operation.method == seen.method && operation.fits(&parts))
            // The most literal one is meant: `/self` before `/{id}`.
            .max_by_key(|operation| operation.segments.iter().flatten().count());
        let Some(operation) = fitting else {
            return vec![format!("{} {path} is not described", seen.method)];
        };
        let mut problems: Vec<String> = url::form_urlencoded::parse(seen.query.as_bytes())
            .filter(|(name, _)| !operation.query.contains(name.as_ref()) && !also.contains(&name.as_ref()))
            .map(|(name, _)| format!("{} {} has no parameter {name}", seen.method, operation.template))
            .collect();
        let body: Option<Map<String, Value>> = serde_json::from_slice(&seen.body).ok();
        if let (Some(body), Some(known)) = (body, &operation.body) {
            let unknown = body.keys().filter(|name| !known.contains(*name));
            problems.extend(
                unknown.map(|name| format!("{} {} has no member {name}", seen.method, operation.template)),
            );
        }
        problems
    }
}

impl Operation {
    fn fits(&self, parts: &[String]) -> bool {
        self.segments.len() == parts.len()
            && self.segments.iter().zip(parts).all(|(segment, part)| match segment {
                Some(literal) => literal.eq_ignore_ascii_case(part),
                None => !part.is_empty(),
            })
    }
}

fn decode(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn segments(template: &str) -> Vec<Option<String>> {
    let parameter = |part: &str| part.starts_with('{') && part.ends_with('}');
    let parts = template.trim_matches('/').split('/');
    parts.map(|part| (!parameter(part)).then(|| part.to_owned())).collect()
}

/// The members of the JSON body that an operation takes: OpenAPI 3 has a body of its own, Swagger 2 a parameter.
fn body_members(root: &Value, operation: &Value) -> Option<BTreeSet<String>> {
    let own = resolve(root, &operation["requestBody"]);
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameter = parameters.map(|parameter| resolve(root, parameter)).find(|it| it["in"] == "body");
    let schema = parameter.map_or(&own["content"]["application/json"]["schema"], |it| &it["schema"]);
    let members = resolve(root, schema)["properties"].as_object()?;
    Some(members.keys().cloned().collect())
}

/// The thing that a `$ref` inside the same file names, or the thing itself.
fn resolve<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    value["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_description_lacks_is_told() {
        let description = Description::read(
            r##"{"basePath": "/api", "parameters": {"v": {"in": "query", "name": "api-version"}},
                "paths": {"/things/{id}": {"get": {"parameters": [{"$ref": "#/parameters/v"}]},
                              "put": {"requestBody": {"content": {"application/json": {"schema":
                                  {"properties": {"name": {"type": "string"}}}}}}}},
                          "/things/self": {"get": {"parameters": [{"in": "query", "name": "page"}]}}}}"##,
        );
        let with_body = |method: &str, path: &str, query: &str, body: &'static str| {
            let seen = Seen {
                method: method.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                headers: Vec::new(),
                body: Bytes::from_static(body.as_bytes()),
            };
            description.problems(&seen, path, &["extra"]).len()
        };
        let problems = |method: &str, path: &str, query: &str| with_body(method, path, query, "");
        assert_eq!(problems("GET", "/api/things/a%2Fb", "api-version=1&extra=2"), 0);
        assert_eq!(problems("GET", "/api/things/self", "page=1"), 0);
        assert_eq!(problems("GET", "/api/things/self", "api-version=1"), 1);
        assert_eq!(problems("POST", "/api/things/1", ""), 1);
        assert_eq!(problems("GET", "/api/other", ""), 1);
        assert_eq!(with_body("PUT", "/api/things/1", "", r#"{"name": "x"}"#), 0);
        assert_eq!(with_body("PUT", "/api/things/1", "", r#"{"name": "x", "kind": 1}"#), 1);
    }
}
