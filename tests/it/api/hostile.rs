//! Hostile rows at the surface: texts, tokens, timeouts, broken-off calls. And AC-65: no answer tells a token.

use std::time::Duration;

use base64::Engine as _;
use gitmoor::proto::v1;
use gitmoor::proto::v1::lookup_repository_request::Selector;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use super::fixture::{gitlab, sides, started};
use crate::support::app::{Running, refused};
use crate::support::forge::{Fault, azure_tokens, gitlab_tokens};

/// The form by which a token of Azure DevOps is known: 52 characters of base32.
const AZURE_FORM: &str = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";

/// Whatever a client got to see.
#[derive(Default)]
struct Seen(Vec<u8>);

impl Seen {
    #[track_caller]
    fn keep<M: Message>(&mut self, outcome: Result<M, Status>) {
        match outcome {
            Ok(message) => self.0.extend(message.encode_to_vec()),
            Err(status) => self.0.extend(format!("{status:?}").into_bytes()),
        }
        for token in [gitlab_tokens::GOOD, azure_tokens::GOOD] {
            self.assert_without(token);
        }
    }

    /// Asserts that no form of the token is in it.
    #[track_caller]
    fn assert_without(&self, token: &str) {
        let raw = token.as_bytes();
        let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        let engine = base64::engine::general_purpose::STANDARD;
        let basic = engine.encode(format!(":{token}"));
        for form in [token.to_owned(), hex, engine.encode(raw), basic] {
            // The padding and the last character depend on what follows.
            let form = &form.as_bytes()[..form.trim_end_matches('=').len() - 1];
            assert!(!self.0.windows(form.len()).any(|part| part == form), "an answer holds a token");
        }
    }
}

#[tokio::test]
async fn ac_65_s09_no_answer_holds_a_token() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let mut seen = Seen::default();
        let create = |name: &str, token: &str| v1::CreateConnectionRequest {
            parent: "tenants/default".into(),
            connection: Some(side.with_token(name, token)),
            request_id: uuid::Uuid::now_v7().to_string(),
            ..Default::default()
        };
        seen.keep(app.create_with(create("refused", side.unknown)).await);
        let request = create("x", side.good);
        let created = app.create_with(request.clone()).await.expect("created");
        seen.keep(app.create_with(request).await);
        let replace = |token: &str, allow| v1::ReplaceCredentialRequest {
            name: created.name.clone(),
            credential: Some(side.credential(token)),
            allow_account_change: allow,
            ..Default::default()
        };
        // From the second round on the provider repeats the token wherever it can.
        for fault in [None, Some(Fault::TokenEcho)] {
            if let Some(fault) = fault {
                forge.set_fault(fault);
            }
            seen.keep(app.get(&created.name).await);
            seen.keep(app.verify(&created.name).await);
            seen.keep(app.verify_draft(side.connection("draft")).await);
            seen.keep(app.replace(replace(side.second, false)).await);
            seen.keep(app.replace(replace(side.good, true)).await);
            let renamed = v1::Connection { owner: "team".into(), ..created.clone() };
            seen.keep(app.update(v1::Connection { etag: String::new(), ..renamed }, &["owner"]).await);
            let moved = v1::Connection {
                name: created.name.clone(),
                base_url: format!("{}/elsewhere", forge.origin()),
                credential: Some(side.credential(side.good)),
                ..Default::default()
            };
            seen.keep(app.update(moved, &["base_url", "credential"]).await);
            let parent = created.name.clone();
            let pages = v1::ListRepositoriesRequest { parent, ..Default::default() };
            seen.keep(app.repositories_of(pages).await);
            let pasted = format!("https://casey:{}@git.test/acme/website.git", side.good);
            seen.keep(app.lookup(&created.name, Selector::CloneUrl(pasted)).await);
            let full_name = Selector::FullName(format!("a/{}", gitlab_tokens::GOOD));
            seen.keep(app.lookup(&created.name, full_name).await);
            let row = format!("{}/repositories/{}", created.name, gitlab_tokens::GOOD);
            seen.keep(app.repository(&row).await);
            match app.stream(&created.name).await {
                Ok(rows) => rows.into_iter().for_each(|row| seen.keep(Ok(row))),
                Err(status) => seen.keep::<()>(Err(status)),
            }
            let list = v1::ListConnectionsRequest { parent: "tenants/default".into(), ..Default::default() };
            seen.keep(app.connections().list_connections(list).await.map(tonic::Response::into_inner));
        }
        forge.clear_faults();
        for event in app.events("default").await {
            seen.0.extend(format!("{event:?}").into_bytes());
        }
        for token in [side.second, side.unknown, side.good] {
            seen.assert_without(token);
        }
        app.delete(&created.name).await.expect("deleted");
    }
}

#[tokio::test]
async fn s10_a_token_that_is_none_is_refused_and_not_echoed() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let head = &side.good[..side.good.len() - 4];
        let long = format!("{head}{}", "x".repeat(9_000));
        for token in [
            String::new(),
            " ".to_owned(),
            format!("{head}\r\nX-Evil: 1"),
            format!("{head}\0"),
            format!("{head} {head}"),
            format!(" {head}"),
            format!("{head}\n"),
            format!("{head}\u{fc}"),
            long,
        ] {
            let refusal = refused(app.create(side.with_token("x", &token)).await);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
            let field = format!("connection.{}", side.token_field());
            assert_eq!(refusal.violations, [(field, "TOKEN_MALFORMED".to_owned())]);
            assert!(!format!("{refusal:?}").contains(&head[..8]), "not even partly");
        }
        // More than a message may have.
        let huge = app.create(side.with_token("x", &"x".repeat(2 << 20))).await.expect_err("too large");
        assert!(matches!(huge.code(), Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument));
    }
    assert!(forge.requests().is_empty());
    app.assert_nothing_stored("no token").await;
}

#[tokio::test]
async fn s12_a_token_in_the_url_is_refused_and_not_echoed() {
    let (forge, app) = started().await;
    for token in [gitlab_tokens::GOOD, AZURE_FORM] {
        for url in [
            format!("https://git.corp.example/{token}"),
            format!("https://git.corp.example/a/{token}/b"),
            format!("https://git.corp.example/?private_token={token}"),
            format!("https://oauth2:{token}@git.corp.example/"),
            format!("https://{token}@git.corp.example/"),
        ] {
            let mut connection = gitlab(&forge).asleep("x");
            connection.base_url = url;
            let refusal = refused(app.create(connection).await);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
            assert_eq!(refusal.violations[0].0, "connection.base_url");
            assert!(!format!("{refusal:?}").contains(token));
        }
    }
    app.assert_nothing_stored("a token in the URL").await;
}

#[tokio::test]
async fn a_token_in_any_text_is_refused_and_not_echoed() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    for token in [gitlab_tokens::GOOD, AZURE_FORM, "ghp_0123456789abcdefghijABCDEFGHIJ012345"] {
        let plain = side.asleep("x");
        let map = [("note".to_owned(), format!("is {token}"))];
        for (field, connection) in [
            ("connection.display_name", v1::Connection { display_name: token.into(), ..plain.clone() }),
            ("connection.owner", v1::Connection { owner: token.into(), ..plain.clone() }),
            ("connection.labels[note]", v1::Connection { labels: map.clone().into(), ..plain.clone() }),
            ("connection.annotations[note]", v1::Connection { annotations: map.into(), ..plain.clone() }),
        ] {
            let refusal = refused(app.create(connection).await);
            assert_eq!(refusal.violations, [(field.to_owned(), "TOKEN_IN_TEXT".to_owned())]);
            assert!(!format!("{refusal:?}").contains(token), "{field}");
        }
    }
}

/// A listing with exactly this `grpc-timeout`.
async fn with_timeout(app: &Running, text: &'static str) -> Result<(), Status> {
    let mut request =
        Request::new(v1::ListConnectionsRequest { parent: "tenants/default".into(), ..Default::default() });
    request.metadata_mut().insert("grpc-timeout", MetadataValue::from_static(text));
    app.connections().list_connections(request).await.map(drop)
}

#[tokio::test]
async fn g12_a_timeout_is_kept_clamped_or_refused() {
    let (forge, app) = started().await;
    for fine in ["99999999H", "5S", "60000m"] {
        with_timeout(&app, fine).await.expect(fine);
    }
    for broken in ["-1S", "1X", "S", "123456789S", "1.5S"] {
        let error = with_timeout(&app, broken).await.expect_err(broken);
        assert_eq!(error.code(), Code::InvalidArgument, "{broken}: {error:?}");
    }
    // What needs the provider has no time for it.
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    forge.set_latency(Duration::from_secs(60));
    let mut request =
        Request::new(v1::ListRepositoriesRequest { parent: created.name, ..Default::default() });
    request.metadata_mut().insert("grpc-timeout", MetadataValue::from_static("0n"));
    let error = app.repositories().list_repositories(request).await.expect_err("no time");
    // A client that keeps the deadline itself says that it gave up.
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error:?}");
}

#[tokio::test]
async fn g13_a_create_that_is_broken_off_leaves_nothing_or_all() {
    let (forge, app) = started().await;
    for (round, side) in sides(&forge).iter().enumerate() {
        for (step, latency) in [0_u64, 2, 5, 20, 200].into_iter().enumerate() {
            forge.set_latency(Duration::from_millis(latency));
            let request = v1::CreateConnectionRequest {
                parent: "tenants/default".into(),
                connection: Some(side.connection(&format!("x-{step}"))),
                request_id: format!("{round}{step}234567-89ab-4def-8123-456789abcdef"),
                ..Default::default()
            };
            let (mut service, sent) = (app.connections(), request.clone());
            let task = tokio::spawn(async move { service.create_connection(sent).await.map(drop) });
            let patience = async {
                while forge.requests_to(side.path).is_empty() && !task.is_finished() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), patience).await.expect("it starts");
            task.abort();
            // Whatever became of it, the same request tells: it is done once.
            forge.set_latency(Duration::ZERO);
            let created = app.create_with(request).await.expect("created, now or before");
            let named = app.list("default").await;
            let same: Vec<_> = named
                .iter()
                .filter(|c| c.provider == side.provider && c.display_name == created.display_name)
                .collect();
            assert_eq!(same, [&created]);
            assert!(!app.stream(&created.name).await.expect("it opens").is_empty(), "a complete row");
            forge.forget_requests();
        }
    }
    let events = app.events("default").await;
    assert_eq!(events.len(), app.list("default").await.len(), "one event for each");
}

#[tokio::test]
async fn g18_texts_are_stored_exactly_or_refused() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    for (index, text) in
        ["\u{1f980} crab", "e\u{301}t\u{e9}", "\u{4ee3}\u{7801}", "a\u{a0}b", "\u{1f469}\u{200d}\u{1f4bb}"]
            .into_iter()
            .enumerate()
    {
        let mut connection = side.asleep(text);
        connection.owner = text.into();
        connection.labels = [("k".to_owned(), text.to_owned())].into();
        connection.annotations = [("k".to_owned(), format!("{text}\n\t{text}"))].into();
        let created = app.create(connection).await.expect(text);
        let read = app.get(&created.name).await.expect("it is there");
        assert_eq!((read.display_name.as_str(), read.owner.as_str()), (text, text), "{index}");
        assert_eq!(read.labels["k"], text);
        assert_eq!(read.annotations["k"], format!("{text}\n\t{text}"));
    }
    // Composed and decomposed are one name.
    let refusal = refused(app.create(side.asleep("\u{e9}te\u{301}")).await);
    assert_eq!(refusal.reason, "CONNECTION_NAME_TAKEN");
    for (text, reason) in [
        ("nul\0byte", "CONTROL_CHARACTER"),
        ("bell\u{7}", "CONTROL_CHARACTER"),
        ("esc\u{1b}[31m", "CONTROL_CHARACTER"),
        ("\u{202e}txt.exe", "CONTROL_CHARACTER"),
        ("a\u{85}b", "CONTROL_CHARACTER"),
        ("\u{2028}\u{3000} ", "REQUIRED"),
    ] {
        let refusal = refused(app.create(side.asleep(text)).await);
        assert_eq!(
            refusal.violations,
            [("connection.display_name".to_owned(), reason.to_owned())],
            "{text:?}"
        );
    }
    let half = refused(app.create(side.asleep(&"x".repeat(500_000))).await);
    assert_eq!(half.violations, [("connection.display_name".to_owned(), "TOO_LONG".to_owned())]);
    let whole = app.create(side.asleep(&"x".repeat(1 << 20))).await.expect_err("above the limit");
    assert!(matches!(whole.code(), Code::OutOfRange | Code::ResourceExhausted), "{whole:?}");
    app.get(&app.list("default").await[0].name).await.expect("the connection lives on");
}

#[tokio::test]
async fn h21_h22_names_from_the_provider_are_cleaned_or_opaque() {
    use crate::support::app::TestApp;
    use crate::support::forge::{AzureConfig, Forge, ForgeConfig, GitlabConfig};
    let config = ForgeConfig {
        gitlab: GitlabConfig { hostile_rows: true, ..GitlabConfig::default() },
        azure: AzureConfig { hostile_rows: true, ..AzureConfig::default() },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    for side in sides(&forge) {
        let name = "bell\u{7} \u{1b}[31mred\u{1b}[0m \u{202e}txt";
        forge.edit_gitlab_token(side.good, |token| token.name = name.repeat(10_000));
        forge.edit_azure_token(side.good, |token| token.name = name.repeat(10_000));
        let created = app.create(side.connection("x")).await.expect("created");
        let account = created.credential_info.clone().and_then(|info| info.account).expect("an account");
        let bad = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!account.display_name.chars().any(bad), "{account:?}");
        assert!(account.display_name.len() < 4_096, "{} bytes", account.display_name.len());
        let rows = app.stream(&created.name).await.expect("a stream");
        assert!(rows.len() >= 20);
        for row in rows.iter().take(6) {
            assert_eq!(row.name.matches('/').count(), 5, "{}", row.name);
            if !row.disabled {
                assert_eq!(app.repository(&row.name).await.expect("by id").provider_id, row.provider_id);
            }
        }
        for seen in forge.requests() {
            assert!(!seen.path.split('/').any(|part| part == ".."), "{}", seen.path);
        }
    }
}
