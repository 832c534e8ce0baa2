//! Calls that are held up.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Answer, ask, exchange, tell};
use crate::support::forge::{Doing, Forge, HoldAt, Moment, Seen, gitlab_tokens};

const PROJECT: &str = "/gitlab/api/v4/projects/1003";
const SOON: Duration = Duration::from_secs(10);

fn reading(moment: Moment, skip: usize) -> HoldAt {
    HoldAt { provider: "gitlab".to_owned(), doing: Doing::ReadRepository, moment, skip }
}

async fn read(forge: &Forge) -> Answer {
    ask(forge, "GET", PROJECT, &[("private-token", gitlab_tokens::GOOD)]).await
}

#[tokio::test]
async fn a_call_is_held_up_at_the_chosen_moment() {
    let forge = Forge::small().await.expect("a forge");
    for (moment, arrived) in [(Moment::Arrived, 0), (Moment::Done, 1)] {
        forge.forget_requests();
        let hold = forge.hold(reading(moment, 0));
        let reading = read(&forge);
        tokio::pin!(reading);
        tokio::select! {
            _ = &mut reading => panic!("{moment:?}: it was not held up"),
            reached = hold.reached(SOON) => assert!(reached, "{moment:?}"),
        }
        assert_eq!(forge.requests().len(), arrived, "{moment:?}");
        hold.let_go();
        assert_eq!(timeout(SOON, reading).await.expect("it goes on").status, 200);
        assert_eq!(forge.requests().len(), 1, "{moment:?}");
        assert_eq!(read(&forge).await.status, 200, "only once");
    }
}

#[tokio::test]
async fn calls_before_the_chosen_one_pass() {
    let forge = Forge::small().await.expect("a forge");
    let hold = forge.hold(reading(Moment::Answered, 2));
    for reached in [false, false, true] {
        assert_eq!(read(&forge).await.status, 200);
        assert_eq!(hold.reached(Duration::from_millis(if reached { 10_000 } else { 20 })).await, reached);
    }
}

#[tokio::test]
async fn what_has_arrived_is_done_though_its_sender_is_gone_unless_it_is_lost() {
    let forge = Forge::small().await.expect("a forge");
    for (lost, done) in [(false, 1), (true, 0)] {
        forge.forget_requests();
        let hold = forge.hold(reading(Moment::Arrived, 0));
        let stream = TcpStream::connect(forge.address()).await.expect("the forge listens");
        let headers = [("private-token", gitlab_tokens::GOOD)];
        let sender = tokio::spawn(async move { exchange(stream, "GET", PROJECT, &headers).await.status });
        assert!(hold.reached(SOON).await);
        sender.abort();
        assert!(sender.await.expect_err("gone").is_cancelled());
        if lost {
            hold.lose()
        } else {
            hold.let_go()
        }
        for _ in 0..50 {
            if forge.requests().len() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(forge.requests().len(), done);
    }
}

#[tokio::test]
async fn a_hold_that_is_dropped_holds_nothing_up() {
    let forge = Forge::small().await.expect("a forge");
    drop(forge.hold(reading(Moment::Arrived, 0)));
    assert_eq!(timeout(SOON, read(&forge)).await.expect("it passes").status, 200);
    let hold = forge.hold(reading(Moment::Done, 0));
    let reading = read(&forge);
    tokio::pin!(reading);
    tokio::select! {
        _ = &mut reading => panic!("it was not held up"),
        reached = hold.reached(SOON) => assert!(reached),
    }
    drop(hold);
    assert_eq!(timeout(SOON, reading).await.expect("it goes on").status, 200);
}

#[tokio::test]
async fn another_process_sets_holds_and_asks_for_webhooks() {
    let forge = Forge::small().await.expect("a forge");
    let wanted = json!({"provider": "gitlab", "call": "read", "moment": "done", "skip": 0});
    let made = tell(&forge, "POST", "/forge/holds", &[], &wanted).await;
    let id = made.json()["id"].as_u64().expect("an id");
    let place = format!("/forge/holds/{id}");
    let reached = |seconds: f64| {
        let target = format!("{place}?seconds={seconds}");
        let forge = &forge;
        async move { ask(forge, "GET", &target, &[]).await.json()["reached"] == true }
    };
    assert!(!reached(0.01).await);
    let reading = read(&forge);
    tokio::pin!(reading);
    tokio::select! {
        _ = &mut reading => panic!("it was not held up"),
        reached = reached(10.0) => assert!(reached),
    }
    assert_eq!(ask(&forge, "DELETE", &place, &[]).await.status, 200);
    assert_eq!(reading.await.status, 200);
    let calls = ask(&forge, "GET", "/forge/calls/gitlab", &[]).await.json();
    assert_eq!(calls["calls"][0]["call"], "read");
    let hooks = ask(&forge, "GET", "/forge/hooks/gitlab", &[]).await.json();
    assert_eq!(hooks["made"], 0);
    for missing in ["/forge/hooks/none", "/forge/holds/77", "/forge/", "/forge/else"] {
        assert_eq!(ask(&forge, "GET", missing, &[]).await.status, 404, "{missing}");
    }
}

fn seen(method: &str, path: &str) -> Seen {
    Seen {
        method: method.to_owned(),
        path: path.to_owned(),
        query: String::new(),
        headers: Vec::new(),
        body: Bytes::new(),
    }
}

#[test]
fn calls_are_told_apart_at_each_provider() {
    const UUID: &str = "%7B00000000-0000-4000-8000-000000000001%7D";
    let cloud = format!("/bitbucket-cloud/2.0/repositories/acme/{UUID}");
    let azure = "/azure/contoso/_apis/hooks/subscriptions".to_owned();
    for (provider, repository, hooks, change) in [
        ("azure-devops", "/azure/contoso/_apis/git/repositories/1a".to_owned(), azure.clone(), "PUT"),
        ("azure-devops", "/azure/contoso/acme/_apis/git/repositories/1a".to_owned(), azure, "PUT"),
        ("bitbucket-cloud", cloud.clone(), format!("{cloud}/hooks"), "PUT"),
        (
            "bitbucket-data-center",
            "/bitbucket/rest/api/latest/projects/K/repos/s".to_owned(),
            "/bitbucket/rest/api/latest/projects/K/repos/s/webhooks".to_owned(),
            "PUT",
        ),
        (
            "gitea",
            "/gitea/api/v1/repositories/7".to_owned(),
            "/gitea/api/v1/repos/a/b/hooks".to_owned(),
            "PATCH",
        ),
        (
            "github",
            "/github/api/v3/repositories/7".to_owned(),
            "/github/api/v3/repositories/7/hooks".to_owned(),
            "PATCH",
        ),
        ("gitlab", PROJECT.to_owned(), format!("{PROJECT}/hooks"), "PUT"),
    ] {
        let doing = |method: &str, path: &str| Doing::of(&seen(method, path));
        let one = format!("{hooks}/9");
        assert_eq!(doing("GET", &repository), Some((provider, Doing::ReadRepository)));
        assert_eq!(doing("GET", &hooks), Some((provider, Doing::ListHooks)));
        assert_eq!(doing("POST", &hooks), Some((provider, Doing::CreateHook)));
        assert_eq!(doing(change, &one), Some((provider, Doing::UpdateHook)));
        assert_eq!(doing("DELETE", &one), Some((provider, Doing::DeleteHook)));
        assert_eq!(doing("DELETE", &repository), None);
        assert_eq!(doing("GET", &format!("{repository}/branches")), None);
    }
}
