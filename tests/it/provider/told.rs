//! What ListProviders tells is what the drivers do.

use std::collections::BTreeSet;
use std::time::Duration;

use gitmoor::domain::credential::{Credential, CredentialForm, CredentialKind, ResourceType, Secret};
use gitmoor::proto::v1::credential_info::ExpireTimeSource;
use gitmoor::provider::Providers;

use super::{all, connected, started};
use crate::support::forge::ForgeConfig;

/// Every form that a credential of a kind can have.
fn forms(kind: CredentialKind) -> Vec<CredentialForm> {
    match kind {
        CredentialKind::PersonalAccessToken => vec![CredentialForm::PersonalAccessToken { username: None }],
        CredentialKind::EmailApiToken => {
            vec![CredentialForm::EmailApiToken { email: "casey@forge.example".to_owned() }]
        }
        CredentialKind::ResourceToken => [
            (ResourceType::Repository, "acme/website"),
            (ResourceType::Project, "acme/website"),
            (ResourceType::Project, "WEB"),
            (ResourceType::Workspace, "acme"),
            (ResourceType::Group, "acme"),
        ]
        .map(|(resource_type, resource)| CredentialForm::ResourceToken {
            resource_type,
            resource: resource.to_owned(),
        })
        .to_vec(),
    }
}

#[test]
fn a_driver_takes_the_kinds_of_credential_that_it_tells_of() {
    let providers = Providers::builtin();
    for (about, subject) in all() {
        let driver = providers.find(about.id).expect("listed");
        for kind in [
            CredentialKind::PersonalAccessToken,
            CredentialKind::EmailApiToken,
            CredentialKind::ResourceToken,
        ] {
            let takes = forms(kind).into_iter().any(|form| {
                driver.accepts(&Credential { form, token: Secret::new(subject.good.to_owned()) }).is_ok()
            });
            let told = about.credential_kinds.iter().any(|told| told.kind == kind);
            assert_eq!(takes, told, "{} {kind:?}", about.id);
        }
    }
}

#[tokio::test]
async fn scopes_and_ends_are_told_by_those_who_say_so() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let id = about.id;
        let info = connected(&app, &forge, about, &subject).await.credential_info.expect("told");
        assert_eq!(!info.granted_scopes.is_empty(), about.tells_scopes, "{id}: {info:?}");
        let by_provider = info.expire_time_source() == ExpireTimeSource::Provider;
        assert_eq!(by_provider, about.tells_expiry, "{id}: {info:?}");

        let weak = subject.connection(about, "Weak", &(subject.url)(&forge), subject.weak);
        let weak = app.create(weak).await.expect("made").credential_info.expect("told");
        let told: BTreeSet<&str> =
            about.capability_scopes.iter().flat_map(|(_, scopes)| scopes.iter().copied()).collect();
        let untold: Vec<_> =
            weak.missing_scopes.iter().filter(|scope| !told.contains(scope.as_str())).collect();
        assert!(untold.is_empty(), "{id}: it misses what nobody was told of: {untold:?}");
    }
}

#[tokio::test]
async fn no_page_is_larger_and_no_more_calls_are_made_at_once_than_told() {
    let (forge, app) = started(ForgeConfig::with_repositories(2_500)).await;
    for (about, subject) in all() {
        let id = about.id;
        let made = connected(&app, &forge, about, &subject).await;
        forge.set_latency(Duration::from_millis(20));
        forge.reset_max_in_flight();
        let rows = app.stream(&made.name).await.expect("a stream");
        assert!(rows.len() >= 2_500, "{id}: {} rows", rows.len());
        let (most, concurrency) = (forge.max_in_flight(), about.concurrency);
        assert!(most <= concurrency, "{id}: {most} at once");
        // A chain of large pages is the exception.
        assert!(
            most == concurrency || about.max_page_size >= 1_000,
            "{id}: only {most} of {concurrency} at once"
        );
        forge.set_latency(Duration::ZERO);
        let request =
            gitmoor::proto::v1::StreamRepositoriesRequest { parent: made.name, ..Default::default() };
        let mut stream =
            app.repositories().stream_repositories(request).await.expect("a stream").into_inner();
        while let Some(message) = stream.message().await.expect("a message") {
            // What one call brought; a message of a larger page is split.
            let rows = i32::try_from(message.repositories.len()).expect("few");
            assert!(rows <= about.max_page_size, "{id}: {rows} rows in one page");
        }
    }
}
