//! The way to the provider: links, redirects, authorities, deadlines, callers that go away.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use gitmoor::proto::v1;
use gitmoor::proto::v1::check_result::Check;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{Code, Request, Status};

use super::fixture::{azure, check, gitlab, sides, started};
use crate::support::app::{Refused, TestApp, connection, refused};
use crate::support::forge::{AzureConfig, Fault, Forge, ForgeConfig, GitlabConfig, gitlab_tokens};

const LIST_PROVIDERS: &str = "/gitmoor.v1.ConnectionService/ListProviders";

/// Waits for something that another task is about to do; a test that waits in vain ends here.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patient = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), patient).await.is_ok(), "waited in vain: {what}");
}

async fn large() -> Forge {
    let config = ForgeConfig {
        gitlab: GitlabConfig { repositories: 1_000, ..GitlabConfig::default() },
        azure: AzureConfig {
            projects: 520,
            repositories_per_project: 1,
            unreadable: false,
            ..AzureConfig::default()
        },
        ..ForgeConfig::default()
    };
    Forge::start(config).await.expect("a forge")
}

#[tokio::test]
async fn ac_61_a_link_to_another_origin_is_never_dialled() {
    let (forge, elsewhere) = (large().await, Forge::small().await.expect("another host"));
    // Even the operator's rule does not make it a place for this connection's token.
    let app = TestApp::new().allow(forge.origin()).allow(elsewhere.origin()).start().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let whole = app.stream(&created.name).await.expect("a stream").len();
        forge.set_fault(Fault::ForeignNextLink(elsewhere.origin().into()));
        match app.stream(&created.name).await {
            Ok(rows) => assert_eq!(rows.len(), whole, "it counts pages, or takes the query alone"),
            Err(error) => assert_eq!(Refused::from(&error).reason, "PROVIDER_ERROR"),
        }
        forge.clear_faults();
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn ac_61_paging_that_leads_back_ends_with_a_provider_error() {
    let forge = large().await;
    let app = TestApp::new().allow(forge.origin()).start().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        for fault in [Fault::SelfNextLink, Fault::CursorCycle, Fault::SamePageForever] {
            forge.set_fault(fault.clone());
            forge.forget_requests();
            let outcome = app.stream(&created.name).await;
            forge.clear_faults();
            match outcome {
                // A driver that counts pages by the total never asks for what leads back.
                Ok(rows) => {
                    let unique: std::collections::BTreeSet<_> =
                        rows.iter().map(|row| &row.provider_id).collect();
                    assert_eq!(unique.len(), rows.len(), "{} {fault:?}", side.provider);
                }
                Err(error) => {
                    let refusal = Refused::from(&error);
                    assert_eq!(
                        (refusal.code, refusal.reason.as_str()),
                        (Code::Unavailable, "PROVIDER_ERROR"),
                        "{} {fault:?}",
                        side.provider
                    );
                }
            }
            assert!(forge.requests().len() < 2_000, "{} {fault:?}: it ends", side.provider);
        }
    }
}

#[tokio::test]
async fn ac_63_h46_an_authority_serves_the_connection_that_names_it() {
    let start = || Forge::start(ForgeConfig { tls: true, ..ForgeConfig::default() });
    let (forge, other) = (start().await.expect("a forge"), start().await.expect("another"));
    let app =
        TestApp::new().allow(&forge.address().to_string()).allow(&other.address().to_string()).start().await;
    for side in sides(&forge) {
        let with = |name: &str, pem: &str| v1::Connection {
            tls: Some(v1::connection::Tls { ca_certificates_pem: pem.into() }),
            ..side.connection(name)
        };
        let pem = forge.ca_pem().expect("a CA");
        let works = app.create(with("works", pem)).await.expect("created");
        assert_eq!(works.tls.clone().expect("given back").ca_certificates_pem, pem);
        assert!(!app.stream(&works.name).await.expect("a stream").is_empty());
        // While its connection is open and pooled, nobody else may use its trust.
        for (name, pem) in [("none", ""), ("wrong", other.ca_pem().expect("a CA"))] {
            let refusal = refused(app.create(with(name, pem)).await);
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                (Code::FailedPrecondition, "PROVIDER_TLS_UNTRUSTED"),
                "{name}"
            );
            assert!(!refusal.metadata["issuer"].is_empty() && !refusal.metadata["sha256"].is_empty());
        }
        // Taking the authority away is verified like any other change of the way.
        let without = v1::Connection { name: works.name.clone(), ..Default::default() };
        let refusal = refused(app.update(without, &["tls"]).await);
        assert_eq!(refusal.reason, "PROVIDER_TLS_UNTRUSTED");
        assert!(!app.stream(&works.name).await.expect("it still works").is_empty());
    }
    assert_eq!(app.list("default").await.len(), sides(&forge).len());
}

#[tokio::test]
async fn ac_66_up_to_three_redirects_of_one_origin_are_followed() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let created = app.create(side.connection("x")).await.expect("created");
    let whole = app.stream(&created.name).await.expect("a stream");
    forge.fault_on("/gitlab/api/v4/projects", Fault::RedirectLoop, 3);
    assert_eq!(app.stream(&created.name).await.expect("three are followed"), whole);
    forge.clear_faults();
    forge.fault_on("/gitlab/api/v4/projects", Fault::RedirectLoop, usize::MAX);
    let refusal = refused(app.stream(&created.name).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "PROVIDER_ERROR"));
}

#[tokio::test]
async fn ac_66_h01_h07_a_redirect_elsewhere_is_refused_and_not_dialled() {
    let (forge, elsewhere) = (Forge::small().await.expect("a forge"), Forge::small().await.expect("another"));
    let app = TestApp::new().allow(forge.origin()).allow(elsewhere.origin()).start().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        for fault in [
            Fault::RedirectMetadata,
            Fault::RedirectOtherOrigin { status: 302, origin: elsewhere.origin().into() },
            Fault::RedirectOtherOrigin { status: 307, origin: elsewhere.origin().into() },
            Fault::RedirectOtherOrigin { status: 308, origin: elsewhere.origin().into() },
        ] {
            forge.set_fault(fault.clone());
            let refusal = refused(app.stream(&created.name).await);
            assert_eq!(refusal.reason, "PROVIDER_ERROR", "{} {fault:?}: {refusal:?}", side.provider);
            assert!(!refusal.message.contains("169.254") && !refusal.message.contains(elsewhere.origin()));
            let refusal = refused(app.create(side.connection("y")).await);
            assert_ne!(refusal.code, Code::Internal, "{refusal:?}");
            forge.clear_faults();
        }
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_client_that_stops_reading_stops_the_fetching() {
    let config = ForgeConfig {
        gitlab: GitlabConfig { repositories: 30_000, ..GitlabConfig::default() },
        azure: AzureConfig { projects: 400, repositories_per_project: 100, ..AzureConfig::default() },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    for (side, pages) in [(gitlab(&forge), 300), (azure(&forge), 400)] {
        let created = app.create(side.connection("x")).await.expect("created");
        forge.forget_requests();
        let request = v1::StreamRepositoriesRequest { parent: created.name, ..Default::default() };
        let stream = app.repositories().stream_repositories(request).await.expect("a stream");
        let mut stream = stream.into_inner();
        stream.next().await.expect("a message").expect("a batch");
        // Until nothing moves any more.
        let mut last = (usize::MAX, 0);
        eventually("the fetching stops", || {
            let now = forge.requests().len();
            last = if last.0 == now && forge.in_flight() == 0 { (now, last.1 + 1) } else { (now, 0) };
            last.1 > 40
        })
        .await;
        let fetched = forge.requests().len();
        assert!(fetched < pages / 2, "{}: {fetched} of {pages} pages for one message read", side.provider);
        let mut rows = 0;
        while let Some(message) = stream.next().await {
            rows += message.expect("a batch").repositories.len();
        }
        assert!(rows > 20_000, "and it goes on where it stood: {rows}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_calls() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        forge.set_latency(Duration::ZERO);
        let created = app.create(side.connection("x")).await.expect("created");
        forge.set_latency(Duration::from_secs(120));
        let name = created.name.clone();
        let parent = created.name.clone();
        let (mut one, mut two) = (app.repositories(), app.repositories());
        let mut three = app.connections();
        let verify = v1::VerifyConnectionRequest { name: name.clone(), ..Default::default() };
        let tasks = [
            tokio::spawn(async move {
                let request = v1::ListRepositoriesRequest { parent, ..Default::default() };
                one.list_repositories(request).await.map(drop)
            }),
            tokio::spawn(async move {
                let request = v1::StreamRepositoriesRequest { parent: name, ..Default::default() };
                let mut stream = two.stream_repositories(request).await?.into_inner();
                stream.message().await.map(drop)
            }),
            tokio::spawn(async move { three.verify_connection(verify).await.map(drop) }),
        ];
        eventually("all three are at the provider", || forge.in_flight() >= 3).await;
        for task in tasks {
            task.abort();
        }
        eventually("the calls are given up", || forge.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn the_callers_deadline_travels_to_the_provider() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        forge.set_latency(Duration::ZERO);
        let created = app.create(side.connection("x")).await.expect("created");
        forge.set_latency(Duration::from_secs(120));
        let start = Instant::now();
        let mut request =
            Request::new(v1::ListRepositoriesRequest { parent: created.name.clone(), ..Default::default() });
        request.set_timeout(Duration::from_millis(400));
        let late = app.repositories().list_repositories(request).await.expect_err("too slow");
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
        let mut request =
            Request::new(v1::StreamRepositoriesRequest { parent: created.name, ..Default::default() });
        request.set_timeout(Duration::from_millis(400));
        let late = match app.repositories().stream_repositories(request).await {
            Ok(stream) => stream.into_inner().message().await.expect_err("too slow"),
            Err(late) => late,
        };
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
        // Far below the forge's latency and every limit of the service; not a measurement.
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
        eventually("nothing goes on behind it", || forge.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn connections_of_one_account_share_their_quota_and_show_it() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let one = app.create(side.connection("one")).await.expect("created").name;
        let two = app.create(side.connection("two")).await.expect("created").name;
        let other = app.create(side.with_token("other", side.second)).await.expect("created").name;
        // Whatever the answer is, its headers count.
        let headers =
            [("x-ratelimit-limit", "600"), ("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "1")];
        forge.respond_once("GET", side.path, 404, &headers, "{}");
        let request = v1::ListNamespacesRequest { parent: one.clone(), ..Default::default() };
        app.repositories().list_namespaces(request).await.expect_err("there is nothing");
        for name in [&one, &two] {
            let told = app.get(name).await.expect("it is there").rate_limit.expect("told");
            assert_eq!((told.limit, told.remaining), (600, 7), "{name}");
        }
        assert_eq!(app.get(&other).await.expect("it is there").rate_limit, None);
        let listed = app.list("default").await;
        assert_eq!(listed.iter().filter(|shown| shown.rate_limit.is_some()).count(), 2);

        forge.fault_on(side.path, Fault::RateLimited(Some("900".into())), 1);
        refused(app.stream(&one).await);
        forge.forget_requests();
        assert_eq!(refused(app.stream(&two).await).reason, "PROVIDER_RATE_LIMITED");
        assert!(forge.requests().is_empty(), "nothing is sent before the pause is over");
        assert!(!app.stream(&other).await.expect("a stream").is_empty());
        for name in [one, two, other] {
            app.delete(&name).await.expect("deleted");
        }
    }
}

#[tokio::test]
async fn a_rate_limit_is_told_with_the_time_to_wait() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection(side.provider)).await.expect("created");
        forge.fault_on(side.path, Fault::RateLimited(Some("900".into())), usize::MAX);
        let refusal = refused(app.stream(&created.name).await);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::ResourceExhausted, "PROVIDER_RATE_LIMITED")
        );
        for detail in ["RetryInfo", "QuotaFailure"] {
            assert!(refusal.details.contains(&detail.to_owned()), "{refusal:?}");
        }
        forge.clear_faults();
    }
}

#[tokio::test]
async fn a_provider_that_fails_is_told_with_its_status() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        for (fault, status) in [(Fault::ServerError, "500"), (Fault::Unavailable, "503")] {
            forge.fault_on(side.path, fault, usize::MAX);
            let refusal = refused(app.stream(&created.name).await);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "PROVIDER_ERROR"));
            assert_eq!(refusal.metadata["httpStatus"], status);
            assert!(refusal.details.contains(&"RetryInfo".to_owned()));
            forge.clear_faults();
        }
    }
}

#[tokio::test]
async fn a_certificate_past_its_end_is_not_trusted_with_its_authority_either() {
    let forge = Forge::start(ForgeConfig { tls: true, tls_expired: true, ..ForgeConfig::default() })
        .await
        .expect("a forge");
    let app = TestApp::new().allow(&forge.address().to_string()).start().await;
    let mut wanted = connection("gitlab", "x", &forge.gitlab_url(), gitlab_tokens::GOOD);
    wanted.tls = Some(v1::connection::Tls { ca_certificates_pem: forge.ca_pem().expect("a CA").into() });
    let report = app.verify_draft(wanted.clone()).await.expect("a report").report.expect("a report");
    assert_eq!(check(&report, Check::Tls).reason, "PROVIDER_TLS_UNTRUSTED");
    assert_eq!(refused(app.create(wanted).await).reason, "PROVIDER_TLS_UNTRUSTED");
}

#[tokio::test]
async fn g10_a_call_beyond_the_bound_is_shed_with_a_time_to_wait() {
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).max_calls(1).start().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    forge.set_latency(Duration::from_secs(120));
    let (mut service, parent) = (app.repositories(), created.name.clone());
    let busy = tokio::spawn(async move {
        let request = v1::ListRepositoriesRequest { parent, ..Default::default() };
        service.list_repositories(request).await.map(drop)
    });
    eventually("the one call is at the provider", || forge.in_flight() >= 1).await;
    let refusal = refused(app.get(&created.name).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "SERVER_OVERLOADED"));
    assert!(refusal.details.contains(&"RetryInfo".to_owned()));
    busy.abort();
    eventually("the call is given up", || forge.in_flight() == 0).await;
    let patient = async {
        while app.get(&created.name).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), patient).await.expect("its place is free again");
    let address = app.address;
    app.stop().await.expect("a clean stop");
    tokio::net::TcpStream::connect(address).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn g03_a_call_that_never_ends_its_request_ends_by_its_deadline_and_frees_its_place() {
    let app = TestApp::new().max_calls(1).start().await;
    let socket = tokio::net::TcpStream::connect(app.address).await.expect("the service listens");
    let (mut client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(socket))
        .await
        .expect("a connection");
    let driver = tokio::spawn(connection);
    // The head of a message of a hundred bytes, a few of them, or not even that; then silence.
    for begun in [&b""[..], &[0, 0, 0, 0, 100], &[0, 0, 0, 0, 100, 10, 5]] {
        let first = (!begun.is_empty()).then(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(begun))));
        let body = StreamBody::new(stream::iter(first).chain(stream::pending()));
        let request = http::Request::post(format!("http://{}{LIST_PROVIDERS}", app.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "300m")
            .body(body)
            .expect("a request");
        let answer = tokio::time::timeout(Duration::from_secs(30), client.send_request(request));
        let answer = answer.await.expect("the service does not wait for ever").expect("an answer");
        let status = Status::from_header_map(answer.headers()).expect("a status in the head");
        let refusal = Refused::from(&status);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::DeadlineExceeded, "PROVIDER_TIMEOUT"));
        drop(answer);
        let patient = async {
            while app.connections().list_providers(v1::ListProvidersRequest {}).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), patient).await.expect("its place is free again");
    }
    driver.abort();
}
