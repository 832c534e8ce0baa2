//! The gRPC contract: types, clients and servers generated from `proto/`, and the descriptors behind them.
//!
//! The comments in `proto/gitmoor/v1` are the documentation of these types. Types that hold a secret, or a URL that may
//! hold one, get their `Debug` here instead of from the generator, so that no request prints a token.

use std::fmt::{self, Debug, Formatter};

use v1::lookup_repository_request::Selector;

/// The package `gitmoor.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::use_self,
    reason = "generated: its documentation is that of the .proto files, its style that of the generator"
)]
pub mod v1 {
    tonic::include_proto!("gitmoor.v1");
}

/// The encoded `FileDescriptorSet` of `gitmoor.v1` and all that it imports, with comments and options: what server
/// reflection answers from.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("gitmoor_descriptor");

impl v1::ErrorReason {
    /// The bare name as it stands in `google.rpc.ErrorInfo.reason`: `INVALID_FIELDS`.
    #[must_use]
    pub fn bare_name(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("ERROR_REASON_").unwrap_or(name)
    }
}

impl Debug for v1::Connection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Taken apart by name, so that a new field is not forgotten here.
        let Self {
            name,
            uid,
            display_name,
            provider,
            base_url,
            effective_api_url,
            scope,
            credential,
            credential_info,
            tls,
            required_capabilities: _,
            server_version,
            hosting: _,
            state: _,
            conditions,
            rate_limit,
            disabled,
            labels,
            annotations,
            owner,
            create_time,
            update_time,
            last_verify_time,
            etag,
            linked_repository_count,
        } = self;
        f.debug_struct("Connection")
            .field("name", name)
            .field("uid", uid)
            .field("display_name", display_name)
            .field("provider", provider)
            .field("base_url", &Url(base_url))
            .field("effective_api_url", &Url(effective_api_url))
            .field("scope", scope)
            .field("credential", credential)
            .field("credential_info", credential_info)
            .field("tls", tls)
            .field("required_capabilities", &self.required_capabilities().collect::<Vec<_>>())
            .field("server_version", server_version)
            .field("hosting", &self.hosting())
            .field("state", &self.state())
            .field("conditions", conditions)
            .field("rate_limit", rate_limit)
            .field("disabled", disabled)
            .field("labels", labels)
            .field("annotations", annotations)
            .field("owner", owner)
            .field("create_time", create_time)
            .field("update_time", update_time)
            .field("last_verify_time", last_verify_time)
            .field("etag", etag)
            .field("linked_repository_count", linked_repository_count)
            .finish()
    }
}

impl Debug for v1::PersonalAccessToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { token: _, username } = self;
        f.debug_struct("PersonalAccessToken").field("token", &Redacted).field("username", username).finish()
    }
}

impl Debug for v1::EmailApiToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { email, token: _ } = self;
        f.debug_struct("EmailApiToken").field("email", email).field("token", &Redacted).finish()
    }
}

impl Debug for v1::ResourceToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { token: _, resource_type: _, resource } = self;
        f.debug_struct("ResourceToken")
            .field("token", &Redacted)
            .field("resource_type", &self.resource_type())
            .field("resource", resource)
            .finish()
    }
}

impl Debug for v1::LookupRepositoryRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { parent, selector } = self;
        f.debug_struct("LookupRepositoryRequest").field("parent", parent).field("selector", selector).finish()
    }
}

impl Debug for v1::RepositoryLink {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            uid,
            connection,
            repository,
            provider,
            webhook_mode: _,
            webhook_events: _,
            webhook_target_url,
            state: _,
            conditions,
            connection_history,
            previous_full_names,
            labels,
            annotations,
            create_time,
            update_time,
            etag,
            reconciling,
        } = self;
        f.debug_struct("RepositoryLink")
            .field("name", name)
            .field("uid", uid)
            .field("connection", connection)
            .field("repository", repository)
            .field("provider", provider)
            .field("webhook_mode", &self.webhook_mode())
            .field("webhook_events", &self.webhook_events().collect::<Vec<_>>())
            .field("webhook_target_url", &Url(webhook_target_url))
            .field("state", &self.state())
            .field("conditions", conditions)
            .field("connection_history", connection_history)
            .field("previous_full_names", previous_full_names)
            .field("labels", labels)
            .field("annotations", annotations)
            .field("create_time", create_time)
            .field("update_time", update_time)
            .field("etag", etag)
            .field("reconciling", reconciling)
            .finish()
    }
}

impl Debug for v1::CreateRepositoryLinkRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { parent, repository_link_id, repository_link, request_id, validate_only, selector } = self;
        f.debug_struct("CreateRepositoryLinkRequest")
            .field("parent", parent)
            .field("repository_link_id", repository_link_id)
            .field("repository_link", repository_link)
            .field("request_id", request_id)
            .field("validate_only", validate_only)
            .field("selector", selector)
            .finish()
    }
}

impl Debug for v1::create_repository_link_request::Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(name) => f.debug_tuple("Repository").field(name).finish(),
            Self::FullName(name) => f.debug_tuple("FullName").field(name).finish(),
            Self::CloneUrl(url) => f.debug_tuple("CloneUrl").field(&Url(url)).finish(),
        }
    }
}

impl Debug for v1::FindConnectionsRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { parent, clone_url } = self;
        f.debug_struct("FindConnectionsRequest")
            .field("parent", parent)
            .field("clone_url", &Url(clone_url))
            .finish()
    }
}

impl Debug for v1::GenerateGitCredentialResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { username, password: _, auth_scheme: _, clone_url, expire_time, ca_certificates_pem } =
            self;
        f.debug_struct("GenerateGitCredentialResponse")
            .field("username", username)
            .field("password", &Redacted)
            .field("auth_scheme", &self.auth_scheme())
            .field("clone_url", &Url(clone_url))
            .field("expire_time", expire_time)
            .field("ca_certificates_pem", ca_certificates_pem)
            .finish()
    }
}

impl Debug for v1::GetWebhookSetupResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { target_url, secret: _, username, password: _, content_type, events: _, steps } = self;
        f.debug_struct("GetWebhookSetupResponse")
            .field("target_url", &Url(target_url))
            .field("secret", &Redacted)
            .field("username", username)
            .field("password", &Redacted)
            .field("content_type", content_type)
            .field("events", &self.events().collect::<Vec<_>>())
            .field("steps", steps)
            .finish()
    }
}

impl Debug for v1::VerifyDeliveryRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, headers, body } = self;
        f.debug_struct("VerifyDeliveryRequest")
            .field("name", name)
            // Some providers send the secret itself in a header.
            .field("headers", &headers.keys().collect::<Vec<_>>())
            .field("body_bytes", &body.len())
            .finish()
    }
}

impl Debug for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::FullName(name) => f.debug_tuple("FullName").field(name).finish(),
            Self::CloneUrl(url) => f.debug_tuple("CloneUrl").field(&Url(url)).finish(),
        }
    }
}

/// What a secret prints as.
struct Redacted;

impl Debug for Redacted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// A URL as a caller sent it, not yet checked. One with an `@` may have user info, which may be a token; where it ends
/// is for the parser to say, so nothing of it is shown.
struct Url<'a>(&'a str);

impl Debug for Url<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        if text.contains('@') { Redacted.fmt(f) } else { text.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};
    use prost_types::FileDescriptorProto;

    use super::*;
    use v1::credential;

    const CANARY: &str = "glpat-CANARYcanaryCANARY0";

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptor set decodes")
    }

    /// Own messages without the entries that a map field makes.
    fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
        pool.all_messages()
            .filter(|message| message.package_name() == "gitmoor.v1" && !message.is_map_entry())
            .collect()
    }

    fn behaviors(field: &FieldDescriptor) -> Vec<String> {
        let extension = field
            .parent_pool()
            .get_extension_by_name("google.api.field_behavior")
            .expect("the extension is known");
        let enumeration =
            field.parent_pool().get_enum_by_name("google.api.FieldBehavior").expect("the enum is known");
        let options = field.options();
        let value = options.get_extension(&extension);
        let list = value.as_list().unwrap_or_default();
        list.iter()
            .filter_map(Value::as_enum_number)
            .filter_map(|number| enumeration.get_value(number))
            .map(|value| value.name().to_owned())
            .collect()
    }

    fn debug_redact(field: &FieldDescriptor) -> bool {
        field.options().get_field_by_name("debug_redact").is_some_and(|value| value.as_bool() == Some(true))
    }

    fn connection(kind: credential::Kind, base_url: &str) -> v1::Connection {
        v1::Connection {
            display_name: "Instance".to_owned(),
            provider: "gitlab".to_owned(),
            base_url: base_url.to_owned(),
            credential: Some(v1::Credential { kind: Some(kind), ..Default::default() }),
            ..Default::default()
        }
    }

    fn kinds() -> [credential::Kind; 3] {
        let token = CANARY.to_owned();
        [
            credential::Kind::PersonalAccessToken(v1::PersonalAccessToken {
                token: token.clone(),
                username: Some("someone".to_owned()),
            }),
            credential::Kind::EmailApiToken(v1::EmailApiToken {
                email: "someone@example.com".to_owned(),
                token: token.clone(),
            }),
            credential::Kind::ResourceToken(v1::ResourceToken {
                token,
                resource_type: v1::resource_token::ResourceType::Group.into(),
                resource: "group".to_owned(),
            }),
        ]
    }

    #[test]
    fn s31_debug_of_a_request_prints_redacted_instead_of_the_token() {
        for kind in kinds() {
            let connection = connection(kind.clone(), "https://git.corp.example");
            let requests = [
                format!(
                    "{:?}",
                    v1::CreateConnectionRequest {
                        connection: Some(connection.clone()),
                        ..Default::default()
                    }
                ),
                format!(
                    "{:#?}",
                    v1::UpdateConnectionRequest {
                        connection: Some(connection.clone()),
                        ..Default::default()
                    }
                ),
                format!(
                    "{:?}",
                    v1::VerifyConnectionRequest { connection: Some(connection), ..Default::default() }
                ),
                format!(
                    "{:?}",
                    v1::ReplaceCredentialRequest {
                        credential: Some(v1::Credential { kind: Some(kind), ..Default::default() }),
                        ..Default::default()
                    }
                ),
            ];
            for text in requests {
                assert!(!text.contains("CANARY"), "{text}");
                assert!(text.contains("[REDACTED]"), "{text}");
            }
        }
    }

    #[test]
    fn s31_debug_of_a_url_with_user_info_is_redacted() {
        let url = format!("https://oauth2:{CANARY}@git.corp.example/group/project.git");
        let [kind, ..] = kinds();
        let lookup = v1::LookupRepositoryRequest {
            parent: "tenants/default/connections/c".to_owned(),
            selector: Some(Selector::CloneUrl(url.clone())),
        };
        for text in [format!("{:?}", connection(kind, &url)), format!("{lookup:?}")] {
            assert!(!text.contains("CANARY"), "{text}");
        }
        let plain = v1::LookupRepositoryRequest {
            selector: Some(Selector::CloneUrl("https://git.corp.example/a.git".to_owned())),
            ..Default::default()
        };
        assert!(format!("{plain:?}").contains("https://git.corp.example/a.git"));
    }

    #[test]
    fn s09_only_input_only_fields_of_an_answer_can_hold_a_secret() {
        // The answers whose purpose is a secret: each use is an audit event of its own.
        const MADE_FOR_SECRETS: [&str; 2] = ["GenerateGitCredentialResponse", "GetWebhookSetupResponse"];
        let pool = pool();
        // The secrets are known by their names or their mark; each mark must be on an INPUT_ONLY field.
        let mut secrets = BTreeSet::new();
        for message in messages(&pool) {
            for field in message.fields() {
                // `Provider.CredentialField.secret` is a flag and says nothing.
                let text = matches!(field.kind(), Kind::String | Kind::Bytes);
                let named = text && ["token", "secret", "password", "private_key"].contains(&field.name());
                if named || debug_redact(&field) {
                    assert!(debug_redact(&field), "{} lacks debug_redact", field.full_name());
                    assert!(
                        behaviors(&field).iter().any(|name| name == "INPUT_ONLY")
                            || MADE_FOR_SECRETS.contains(&message.name()),
                        "{} is not INPUT_ONLY",
                        field.full_name()
                    );
                    secrets.insert(field.full_name().to_owned());
                }
            }
        }
        assert_eq!(
            secrets.into_iter().collect::<Vec<_>>(),
            [
                "gitmoor.v1.EmailApiToken.token",
                "gitmoor.v1.GenerateGitCredentialResponse.password",
                "gitmoor.v1.GetWebhookSetupResponse.password",
                "gitmoor.v1.GetWebhookSetupResponse.secret",
                "gitmoor.v1.PersonalAccessToken.token",
                "gitmoor.v1.ResourceToken.token",
            ]
        );

        // Walk every answer without entering INPUT_ONLY fields: no secret may be met.
        let mut seen = BTreeSet::new();
        let mut open: Vec<MessageDescriptor> = pool
            .services()
            .flat_map(|service| service.methods().map(|rpc| rpc.output()).collect::<Vec<_>>())
            .collect();
        assert!(!open.is_empty(), "there are answers to walk");
        while let Some(message) = open.pop() {
            if !seen.insert(message.full_name().to_owned()) {
                continue;
            }
            for field in message.fields() {
                if behaviors(&field).iter().any(|name| name == "INPUT_ONLY") {
                    continue;
                }
                let meant = MADE_FOR_SECRETS.contains(&message.name());
                assert!(!debug_redact(&field) || meant, "{} is answered", field.full_name());
                if let Kind::Message(inner) = field.kind() {
                    open.push(inner);
                }
            }
        }
        assert!(seen.contains("gitmoor.v1.Connection"));
        assert!(!seen.contains("gitmoor.v1.Credential"));
    }

    #[test]
    fn every_field_states_its_behavior() {
        for message in messages(&pool()) {
            for field in message.fields() {
                assert!(!behaviors(&field).is_empty(), "{} has no field_behavior", field.full_name());
            }
        }
    }

    #[test]
    fn every_declaration_has_a_comment() {
        let pool = pool();
        let files: Vec<_> = pool.files().filter(|file| file.package_name() == "gitmoor.v1").collect();
        assert!(!files.is_empty(), "there are files to walk");
        let mut missing = Vec::new();
        for file in files {
            let file = file.file_descriptor_proto();
            let commented: BTreeSet<&[i32]> = file
                .source_code_info
                .iter()
                .flat_map(|info| &info.location)
                .filter(|location| !location.leading_comments().trim().is_empty())
                .map(|location| location.path.as_slice())
                .collect();
            for (path, name) in declarations(file) {
                if !commented.contains(path.as_slice()) {
                    missing.push(format!("{}: {name}", file.name()));
                }
            }
        }
        assert!(missing.is_empty(), "without a comment: {missing:#?}");
    }

    /// Path (as in `SourceCodeInfo`) and name of everything that a file declares. The numbers are the field numbers of
    /// descriptor.proto.
    fn declarations(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
        let mut found = Vec::new();
        for (index, message) in (0..).zip(&file.message_type) {
            walk_message(vec![4, index], message, &mut found);
        }
        for (index, enumeration) in (0..).zip(&file.enum_type) {
            walk_enum(&[5, index], enumeration, &mut found);
        }
        for (index, service) in (0..).zip(&file.service) {
            found.push((vec![6, index], service.name().to_owned()));
            for (rpc, method) in (0..).zip(&service.method) {
                found.push((vec![6, index, 2, rpc], method.name().to_owned()));
            }
        }
        found
    }

    fn walk_message(
        path: Vec<i32>,
        message: &prost_types::DescriptorProto,
        found: &mut Vec<(Vec<i32>, String)>,
    ) {
        let at = |kind: i32, index: i32| [path.as_slice(), &[kind, index]].concat();
        let name = message.name();
        for (index, field) in (0..).zip(&message.field) {
            found.push((at(2, index), format!("{name}.{}", field.name())));
        }
        for (index, oneof) in (0..).zip(&message.oneof_decl) {
            // An `optional` field makes a oneof of its own, which nobody wrote down.
            if !oneof.name().starts_with('_') {
                found.push((at(8, index), format!("{name}.{}", oneof.name())));
            }
        }
        for (index, enumeration) in (0..).zip(&message.enum_type) {
            walk_enum(&at(4, index), enumeration, found);
        }
        for (index, inner) in (0..).zip(&message.nested_type) {
            let map_entry = inner.options.as_ref().is_some_and(|options| options.map_entry());
            if !map_entry {
                walk_message(at(3, index), inner, found);
            }
        }
        found.push((path, name.to_owned()));
    }

    fn walk_enum(
        path: &[i32],
        enumeration: &prost_types::EnumDescriptorProto,
        found: &mut Vec<(Vec<i32>, String)>,
    ) {
        found.push((path.to_vec(), enumeration.name().to_owned()));
        for (index, value) in (0..).zip(&enumeration.value) {
            found.push(([path, &[2, index]].concat(), value.name().to_owned()));
        }
    }

    #[test]
    fn services_have_their_names_and_rpcs() {
        let pool = pool();
        let rpcs: Vec<String> = pool
            .services()
            .flat_map(|service| service.methods().map(|rpc| rpc.full_name().to_owned()).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            rpcs,
            [
                "gitmoor.v1.ConnectionService.ListProviders",
                "gitmoor.v1.ConnectionService.GetProvider",
                "gitmoor.v1.ConnectionService.CreateConnection",
                "gitmoor.v1.ConnectionService.GetConnection",
                "gitmoor.v1.ConnectionService.ListConnections",
                "gitmoor.v1.ConnectionService.UpdateConnection",
                "gitmoor.v1.ConnectionService.ReplaceCredential",
                "gitmoor.v1.ConnectionService.DeleteConnection",
                "gitmoor.v1.ConnectionService.VerifyConnection",
                "gitmoor.v1.ConnectionService.WatchConnections",
                "gitmoor.v1.ConnectionService.ListConnectionEvents",
                "gitmoor.v1.RepositoryService.ListNamespaces",
                "gitmoor.v1.RepositoryService.ListRepositories",
                "gitmoor.v1.RepositoryService.StreamRepositories",
                "gitmoor.v1.RepositoryService.GetRepository",
                "gitmoor.v1.RepositoryService.LookupRepository",
                "gitmoor.v1.RepositoryService.ListRefs",
                "gitmoor.v1.RepositoryService.CreateRepositoryLink",
                "gitmoor.v1.RepositoryService.BatchCreateRepositoryLinks",
                "gitmoor.v1.RepositoryService.GetRepositoryLink",
                "gitmoor.v1.RepositoryService.ListRepositoryLinks",
                "gitmoor.v1.RepositoryService.UpdateRepositoryLink",
                "gitmoor.v1.RepositoryService.DeleteRepositoryLink",
                "gitmoor.v1.RepositoryService.ListSwitchTargets",
                "gitmoor.v1.RepositoryService.SwitchConnection",
                "gitmoor.v1.RepositoryService.MigrateRepositoryLinks",
                "gitmoor.v1.RepositoryService.FindConnections",
                "gitmoor.v1.RepositoryService.GenerateGitCredential",
                "gitmoor.v1.WebhookService.GetWebhook",
                "gitmoor.v1.WebhookService.EnsureWebhook",
                "gitmoor.v1.WebhookService.DeleteWebhook",
                "gitmoor.v1.WebhookService.GetWebhookSetup",
                "gitmoor.v1.WebhookService.VerifyDelivery",
                "gitmoor.v1.WebhookService.RotateWebhookSecret",
            ]
        );
        assert_eq!(v1::connection_service_server::SERVICE_NAME, "gitmoor.v1.ConnectionService");
        assert_eq!(v1::repository_service_server::SERVICE_NAME, "gitmoor.v1.RepositoryService");
    }

    #[test]
    fn reasons_are_answered_without_their_prefix() {
        assert_eq!(v1::ErrorReason::InvalidFields.bare_name(), "INVALID_FIELDS");
    }
}
