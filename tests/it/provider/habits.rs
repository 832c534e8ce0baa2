//! How providers page, refuse, rename and name things: the same for a caller, whichever it is.

use std::time::{Duration, Instant};

use gitmoor::proto::v1;
use gitmoor::proto::v1::lookup_repository_request::Selector;
use tonic::{Code, Request, Status};

use super::{FAILED, LIMITED, all, connected, first_page, paged, started};
use crate::support::app::{Refused, Running, refused};
use crate::support::forge::{Fault, Forge, ForgeConfig};

async fn look_up(app: &Running, parent: &str, selector: Selector) -> Result<v1::Repository, Status> {
    let request = v1::LookupRepositoryRequest { parent: parent.to_owned(), selector: Some(selector) };
    app.repositories().lookup_repository(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn ac_08_every_pasted_form_of_an_address_is_the_same_instance() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let url = (subject.url)(&forge);
        for (number, rest) in subject.pasted.iter().enumerate() {
            let name = format!("Pasted {number}");
            let pasted = subject.connection(about, &name, &format!("{url}{rest}"), subject.good);
            let found = app.create(pasted).await;
            let found = found.unwrap_or_else(|status| panic!("{} {rest}: {status}", about.id));
            assert_eq!(found.effective_api_url, made.effective_api_url, "{} {rest}", about.id);
        }
    }
}

#[tokio::test]
async fn ac_10_a_token_that_ended_is_refused() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all().into_iter().filter(|(_, subject)| !subject.expired.is_empty()) {
        let wanted = subject.connection(about, "Ended", &(subject.url)(&forge), subject.expired);
        let refusal = refused(app.create(wanted).await);
        assert_eq!(refusal.reason, "CREDENTIAL_REJECTED", "{}", about.id);
        assert_eq!(refusal.metadata["cause"], "expired", "{}", about.id);
    }
    assert!(app.list("default").await.is_empty());
}

#[tokio::test]
async fn a_server_below_the_lowest_version_is_refused_with_both_versions() {
    for (about, subject) in all() {
        let Some(too_old) = subject.too_old else { continue };
        let (forge, app) = started(too_old()).await;
        let wanted = subject.connection(about, "Old", &(subject.url)(&forge), subject.good);
        let refusal = refused(app.create(wanted).await);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::FailedPrecondition, "PROVIDER_VERSION_UNSUPPORTED"),
            "{}: {}",
            about.id,
            refusal.message
        );
        assert!(!refusal.metadata["found"].is_empty(), "{}", about.id);
        // One driver may have a version for each of its products.
        let minimum = &refusal.metadata["minimum"];
        assert!(about.minimum_server_version.contains(minimum), "{}: {minimum}", about.id);
    }
}

/// Either the listing is told as broken, or it is whole: a driver that counts pages does not follow links.
#[tokio::test]
async fn ac_61_paging_that_leads_nowhere_ends() {
    let (forge, app) = started(ForgeConfig::with_repositories(250)).await;
    let elsewhere = Forge::small().await.expect("another forge");
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let truth = paged(&app, &made.name, 100).await;
        for fault in [
            Fault::SelfNextLink,
            Fault::CursorCycle,
            Fault::SamePageForever,
            Fault::ForeignNextLink(elsewhere.origin().to_owned()),
            Fault::BadNextPage("abc".to_owned()),
            Fault::InflatedTotal,
        ] {
            forge.set_fault(fault.clone());
            let streamed = tokio::time::timeout(Duration::from_secs(30), app.stream(&made.name)).await;
            match streamed.unwrap_or_else(|_| panic!("{} with {fault:?} does not end", about.id)) {
                Ok(rows) => {
                    let names: Vec<_> = rows.into_iter().map(|row| row.name).collect();
                    assert_eq!(names, truth, "{} with {fault:?}", about.id);
                }
                Err(status) => {
                    let refusal = Refused::from(&status);
                    assert_eq!(
                        (refusal.code, refusal.reason.as_str()),
                        FAILED,
                        "{} with {fault:?}: {}",
                        about.id,
                        refusal.message
                    );
                }
            }
            forge.clear_faults();
        }
        assert_eq!(elsewhere.connections(), 0, "{}: another origin was dialled", about.id);
    }
}

#[tokio::test]
async fn a_short_pause_is_waited_for_and_a_long_one_told() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let truth = paged(&app, &made.name, 100).await;
        forge.fault_on("/", Fault::RateLimited(Some("1".to_owned())), 1);
        let begun = Instant::now();
        assert_eq!(paged(&app, &made.name, 100).await, truth, "{}", about.id);
        assert!(begun.elapsed() >= Duration::from_secs(1), "{}: called before its time", about.id);

        forge.fault_on("/", Fault::RateLimited(Some("40".to_owned())), 1);
        let refusal = Refused::from(&first_page(&app, &made.name).await.expect_err("refused"));
        assert_eq!((refusal.code, refusal.reason.as_str()), LIMITED, "{}", about.id);
        assert!(refusal.details.iter().any(|detail| detail == "RetryInfo"), "{}: {refusal:?}", about.id);
    }
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let plain = app.stream(&made.name).await.expect("a stream");
        forge.set_fault(Fault::UnknownMembers);
        assert_eq!(app.stream(&made.name).await.expect("a stream"), plain, "{}", about.id);
        let request = v1::VerifyConnectionRequest { name: made.name.clone(), ..Default::default() };
        let verified = app.connections().verify_connection(request).await.expect("a report").into_inner();
        assert_ne!(verified.report.expect("a report").result(), v1::Outcome::Fail, "{}", about.id);
        forge.clear_faults();
    }
}

#[tokio::test]
async fn ac_64_a_renamed_repository_is_found_by_its_former_name() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all().into_iter().filter(|(_, subject)| !subject.former_name.is_empty()) {
        let made = connected(&app, &forge, about, &subject).await;
        let rows = app.stream(&made.name).await.expect("a stream");
        let former = subject.former_name;
        let found = look_up(&app, &made.name, Selector::FullName(former.to_owned())).await;
        let found = found.unwrap_or_else(|status| panic!("{} {former}: {status}", about.id));
        let row = rows.iter().find(|row| row.name == found.name);
        assert_eq!(row.expect("a row of the listing").full_name, found.full_name, "{}", about.id);
        assert_ne!(found.full_name, former, "{}: told under its present name", about.id);
    }
}

#[tokio::test]
async fn names_beyond_ascii_are_listed_and_found() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let rows = app.stream(&made.name).await.expect("a stream");
        let texts =
            |row: &v1::Repository| format!("{}{}{}", row.full_name, row.display_name, row.description);
        assert!(rows.iter().any(|row| !texts(row).is_ascii()), "{}: no such row to look at", about.id);
        // Names that a path must encode, as far as the provider has such: spaces, dots, letters beyond ASCII.
        let is_odd = |row: &&v1::Repository| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte);
            !row.disabled && !row.full_name.bytes().all(plain)
        };
        for row in rows.iter().filter(is_odd).take(3) {
            for selector in
                [Selector::FullName(row.full_name.clone()), Selector::CloneUrl(row.clone_https_url.clone())]
            {
                let found = look_up(&app, &made.name, selector.clone()).await;
                let found = found.unwrap_or_else(|status| panic!("{} {selector:?}: {status}", about.id));
                assert_eq!(found.name, row.name, "{} {selector:?}", about.id);
            }
        }
    }
}

#[tokio::test]
async fn archived_and_disabled_repositories_are_told() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let rows = app.stream(&made.name).await.expect("a stream");
        let archived = rows.iter().filter(|row| row.archived == Some(true)).count();
        assert_eq!(archived > 0, subject.archives, "{}", about.id);
        assert_eq!(rows.iter().any(|row| row.archived.is_some()), subject.archives, "{}", about.id);
        assert_eq!(rows.iter().any(|row| row.disabled), subject.disables, "{}", about.id);
        let parent = made.name.clone();
        let request = v1::ListRepositoriesRequest { parent, page_size: 100, ..Default::default() };
        let page =
            app.repositories().list_repositories(Request::new(request)).await.expect("a page").into_inner();
        assert!(page.repositories.iter().all(|row| row.archived != Some(true)), "{}", about.id);
        assert_eq!(page.repositories.len(), rows.len() - archived, "{}", about.id);
    }
}
