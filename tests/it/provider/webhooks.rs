//! Webhooks at the provider: made, found, repaired, removed, and refused, the same for a caller whichever provider it is.

use std::collections::BTreeSet;

use gitmoor::domain::credential::Secret;
use gitmoor::domain::repository::Repository;
use gitmoor::domain::webhook::{
    RemoteWebhook, SecretScheme, SecretUpdate, WantedWebhook, WebhookEvent, WebhookHealth,
};
use gitmoor::provider::{ProviderError, Providers};

use super::bench::Bench;
use crate::support::forge::{Fault, ForgeConfig, Hook, HookState};

/// What the suite needs to know of a provider's webhooks.
struct Hooked {
    /// The full name of a repository that the good token administers.
    repository: &'static str,
    /// How deliveries of a webhook prove themselves that is made at the default fake.
    scheme: SecretScheme,
    /// How many of the forge's rows one webhook of all events is: Azure DevOps has one for each event.
    rows: usize,
    /// Whether a person can switch one off.
    switches_off: bool,
    /// How many webhooks a repository can have; `None` where nothing is known of a limit.
    limit: Option<usize>,
    /// Whether a target on the local host is refused when the webhook is made.
    refuses_local: bool,
    /// The secret as it was sent, out of what the forge keeps.
    secret: fn(&Hook) -> Option<String>,
}

fn hooked(id: &str) -> Hooked {
    let plain = |repository| Hooked {
        repository,
        scheme: SecretScheme::HmacSha256,
        rows: 1,
        switches_off: true,
        limit: None,
        refuses_local: false,
        secret: |hook| hook.secret.clone(),
    };
    match id {
        "bitbucket-cloud" => Hooked { refuses_local: true, ..plain("acme/website") },
        "bitbucket-data-center" => plain("WEB/acme-website"),
        "azure-devops" => Hooked {
            scheme: SecretScheme::BasicAuth,
            rows: 4,
            refuses_local: true,
            ..plain("Fabrikam Fiber/Fabrikam Fiber")
        },
        "gitea" => plain("acme/website"),
        "gitlab" => Hooked {
            scheme: SecretScheme::Token,
            switches_off: false,
            limit: Some(100),
            refuses_local: true,
            ..plain("acme/website")
        },
        "github" => Hooked { limit: Some(20), refuses_local: true, ..plain("acme/website") },
        other => panic!("the provider {other} has no row here: write one, with webhooks in its fake"),
    }
}

const TARGET: &str = "https://hooks.example.test/gitmoor/in?link=1";
const OTHER_TARGET: &str = "https://hooks.example.test/gitmoor/in?link=2";
const SECRET: &str = "5ec7e7000000000000000000000000000000000000000000000000000000c0de";
const OTHER_SECRET: &str = "5ec7e70111111111111111111111111111111111111111111111111111111ace";

/// A driver, a repository that it administers, and the webhook that it should have.
struct Case {
    bench: Bench,
    hooked: Hooked,
    repository: Repository,
    wanted: WantedWebhook,
}

impl Case {
    async fn new(id: &'static str, hooked: Hooked) -> Self {
        let bench = Bench::start(id, ForgeConfig::default()).await;
        let repository = bench.repository(hooked.repository).await;
        let wanted = WantedWebhook {
            target_url: TARGET.to_owned(),
            events: BTreeSet::from(WebhookEvent::CHOSEN),
            server_version: bench.server_version.clone(),
        };
        Self { bench, hooked, repository, wanted }
    }

    async fn list(&self) -> Vec<RemoteWebhook> {
        let found = self.bench.driver().webhooks(&self.bench.good(), &self.repository, &self.wanted).await;
        found.unwrap_or_else(|error| panic!("{}: listing: {error}", self.bench.id))
    }

    async fn create(&self, wanted: &WantedWebhook, secret: &str) -> Result<RemoteWebhook, ProviderError> {
        let secret = Secret::new(secret.to_owned());
        self.bench.driver().create_webhook(&self.bench.good(), &self.repository, wanted, &secret).await
    }

    async fn made(&self) -> RemoteWebhook {
        let made = self.create(&self.wanted, SECRET).await;
        made.unwrap_or_else(|error| panic!("{}: making: {error}", self.bench.id))
    }

    async fn update(&self, hook: &RemoteWebhook, secret: &str) -> Result<RemoteWebhook, ProviderError> {
        let secret = Secret::new(secret.to_owned());
        let (driver, api) = (self.bench.driver(), self.bench.good());
        driver.update_webhook(&api, &self.repository, hook, &self.wanted, &secret).await
    }

    async fn delete(&self, id: &str) -> Result<(), ProviderError> {
        self.bench.driver().delete_webhook(&self.bench.good(), &self.repository, id).await
    }

    /// The rows that the forge keeps of the repository.
    fn kept(&self) -> Vec<Hook> {
        self.bench.hooks().of(&self.repository.provider_id)
    }

    /// The one webhook that the listing shows.
    async fn only(&self) -> RemoteWebhook {
        let found = self.list().await;
        assert_eq!(found.len(), 1, "{}: {found:?}", self.bench.id);
        found.into_iter().next().expect("one")
    }

    /// Leaves a copy of the rows that are there, each with another target: webhooks of somebody else.
    fn add_strangers(&self, count: usize) {
        let rows = self.kept();
        for number in 0..count {
            for row in &rows {
                let url = format!("https://stranger.example.test/{number}");
                self.bench.hooks().add(&self.repository.provider_id, Hook { url, ..row.clone() });
            }
        }
    }
}

/// One case for each provider, with a forge of its own.
async fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for provider in Providers::builtin().iter() {
        let id = provider.about().id;
        cases.push(Case::new(id, hooked(id)).await);
    }
    cases
}

fn assert_healthy(hook: &RemoteWebhook, case: &Case) {
    let id = case.bench.id;
    assert_eq!(hook.health, WebhookHealth::Working, "{id}");
    assert_eq!(hook.drift, Vec::<&str>::new(), "{id}");
    assert_eq!(hook.scheme, case.hooked.scheme, "{id}");
    assert_ne!(hook.secret_set, Some(false), "{id}");
}

#[tokio::test]
async fn ac_50_a_webhook_is_made_as_wanted_and_shows_no_drift() {
    for case in cases().await {
        let id = case.bench.id;
        assert_eq!(case.list().await, Vec::new(), "{id}: nobody made one");
        let made = case.made().await;
        assert_healthy(&made, &case);
        // A webhook is nothing else for having been listed, however often.
        for _ in 0..2 {
            assert_eq!(case.only().await, made, "{id}");
        }
        let kept = case.kept();
        assert_eq!(kept.len(), case.hooked.rows, "{id}: {kept:?}");
        for row in &kept {
            assert_eq!((row.url.as_str(), row.state), (TARGET, HookState::Working), "{id}");
            assert!(row.content_type == "json" && row.verifies_tls, "{id}: {row:?}");
            assert_eq!((case.hooked.secret)(row).as_deref(), Some(SECRET), "{id}");
        }
    }
}

#[tokio::test]
async fn each_choice_of_events_is_made_and_found_without_drift() {
    for mut case in cases().await {
        let about = case.bench.driver().about();
        for chosen in 1..1_usize << about.webhook_events.len() {
            let is_chosen = |at: &usize| chosen & (1 << at) != 0;
            let events = (0..about.webhook_events.len()).filter(is_chosen).map(|at| about.webhook_events[at]);
            case.wanted.events = events.collect();
            let made = case.made().await;
            assert_healthy(&made, &case);
            assert_eq!(case.only().await, made, "{}: {:?}", case.bench.id, case.wanted.events);
            // Another choice is a drift of this one, and an update repairs it in place.
            let all = WantedWebhook { events: WebhookEvent::CHOSEN.into(), ..case.wanted.clone() };
            let wanted = std::mem::replace(&mut case.wanted, all);
            let seen = case.only().await;
            let updated = case.update(&seen, SECRET).await.expect("updated");
            assert_healthy(&updated, &case);
            assert_eq!(case.only().await, updated, "{}: {:?}", case.bench.id, wanted.events);
            case.delete(&updated.id).await.expect("removed");
        }
    }
}

#[tokio::test]
async fn ac_59_an_altered_webhook_is_noticed_and_repaired_in_place() {
    for case in cases().await {
        let (id, of) = (case.bench.id, &case.repository.provider_id);
        let made = case.made().await;
        let before = case.kept();
        // Somebody takes an event away: a row where the provider has one for each, else one of the row's.
        if case.hooked.rows > 1 {
            case.bench.hooks().remove(of, &before[0].id);
        } else {
            let taken = case.bench.hooks().edit(of, &before[0].id, |row| {
                row.events.pop_first();
            });
            assert!(taken.is_some(), "{id}");
        }
        let altered = case.only().await;
        assert_eq!((altered.drift.as_slice(), altered.health), (&["events"][..], WebhookHealth::Working));
        let repaired = case.update(&altered, SECRET).await.expect("updated");
        assert_healthy(&repaired, &case);
        assert_eq!(case.only().await, repaired, "{id}");
        let after = case.kept();
        assert_eq!(after.len(), before.len(), "{id}");
        let events = |rows: &[Hook]| rows.iter().flat_map(|row| row.events.clone()).collect::<BTreeSet<_>>();
        assert_eq!(events(&after), events(&before), "{id}");
        if case.hooked.rows == 1 {
            assert_eq!(repaired.id, made.id, "{id}: repaired in place");
        }
        for row in &after {
            assert_eq!((case.hooked.secret)(row).as_deref(), Some(SECRET), "{id}: the secret is still there");
        }
        // To update what is as it should be changes nothing.
        assert_eq!(case.update(&repaired, SECRET).await, Ok(repaired), "{id}");
        assert_eq!(case.kept(), after, "{id}");
    }
}

#[tokio::test]
async fn ac_59_a_webhook_that_somebody_switched_off_is_switched_on() {
    for case in cases().await.into_iter().filter(|case| case.hooked.switches_off) {
        let id = case.bench.id;
        let made = case.made().await;
        case.bench.hooks().edit_all(&case.repository.provider_id, |row| row.state = HookState::SwitchedOff);
        let found = case.only().await;
        assert_eq!((found.health, &found.id), (WebhookHealth::SwitchedOff, &made.id), "{id}");
        assert_healthy(&case.update(&found, SECRET).await.expect("updated"), &case);
        assert_eq!(case.only().await, made, "{id}");
        assert!(case.kept().iter().all(|row| row.state == HookState::Working), "{id}");
    }
}

#[tokio::test]
async fn a_removed_webhook_is_not_found_and_not_listed() {
    for case in cases().await {
        let id = case.bench.id;
        let made = case.made().await;
        case.add_strangers(1);
        let strangers = case.kept().split_off(case.hooked.rows);
        assert_eq!(case.delete(&made.id).await, Ok(()), "{id}");
        assert_eq!(case.list().await, Vec::new(), "{id}");
        assert_eq!(case.delete(&made.id).await, Err(ProviderError::NotFound), "{id}");
        if case.hooked.rows == 1 {
            assert_eq!(case.update(&made, SECRET).await, Err(ProviderError::NotFound), "{id}");
        }
        assert_eq!(case.kept(), strangers, "{id}: those of others are as they were");
        for hostile in ["", "..", "../1", "1/../../x", "1?x=1", "%2e%2e", "0x1", "{}"] {
            assert_eq!(case.delete(hostile).await, Err(ProviderError::NotFound), "{id}: {hostile}");
        }
        assert_eq!(case.kept(), strangers, "{id}: those of others are as they were");
    }
}

#[tokio::test]
async fn ac_54_targets_are_compared_as_urls() {
    for case in cases().await {
        let (id, of) = (case.bench.id, &case.repository.provider_id);
        let made = case.made().await;
        let written = TARGET.replace("https://hooks.example.test/", "HTTPS://Hooks.Example.TEST:443/");
        case.bench.hooks().edit_all(of, |row| row.url = written.clone());
        assert_eq!(case.only().await.id, made.id, "{id}");
        for other in ["http://hooks.example.test/gitmoor/in?link=1", "https://hooks.example.test/gitmoor/in"]
        {
            case.bench.hooks().edit_all(of, |row| row.url = other.to_owned());
            assert_eq!(case.list().await, Vec::new(), "{id}: {other}");
        }
        // What is no URL at all is somebody else's.
        case.bench.hooks().edit_all(of, |row| row.url = "not a URL".to_owned());
        assert_eq!(case.list().await, Vec::new(), "{id}");
    }
}

#[tokio::test]
async fn webhooks_of_other_targets_are_neither_shown_nor_touched() {
    for case in cases().await {
        let id = case.bench.id;
        let other = WantedWebhook { target_url: OTHER_TARGET.to_owned(), ..case.wanted.clone() };
        case.create(&other, OTHER_SECRET).await.expect("the other one");
        let others = case.kept();
        let made = case.made().await;
        assert_eq!(case.only().await, made, "{id}");
        case.update(&made, SECRET).await.expect("updated");
        assert_eq!(case.kept()[..others.len()], others[..], "{id}");
        case.delete(&made.id).await.expect("removed");
        assert_eq!(case.kept(), others, "{id}");
    }
}

#[tokio::test]
async fn a_webhook_behind_many_others_is_found() {
    for case in cases().await {
        let made = case.made().await;
        let rows = case.kept();
        case.add_strangers(240 / case.hooked.rows);
        case.delete(&made.id).await.expect("removed");
        let again: Vec<Hook> =
            rows.into_iter().map(|row| case.bench.hooks().add(&case.repository.provider_id, row)).collect();
        let found = case.only().await;
        assert_healthy(&found, &case);
        assert!(again.iter().all(|row| found.id.contains(&row.id)), "{}: {found:?}", case.bench.id);
    }
}

#[tokio::test]
async fn two_webhooks_of_one_target_are_both_shown_in_the_order_of_their_making() {
    for case in cases().await.into_iter().filter(|case| case.hooked.rows == 1) {
        let made = case.made().await;
        let twin = case.bench.hooks().add(&case.repository.provider_id, case.kept().remove(0));
        let ids: Vec<String> = case.list().await.into_iter().map(|hook| hook.id).collect();
        assert_eq!(ids, [made.id, twin.id], "{}", case.bench.id);
    }
}

#[tokio::test]
async fn ac_51_ac_52_a_token_without_the_right_is_told_so_and_nothing_changes() {
    for case in cases().await {
        let id = case.bench.id;
        let made = case.made().await;
        let before = case.kept();
        case.bench.forge.lower_to_read_only(id, case.bench.subject.good);
        let other = WantedWebhook { target_url: OTHER_TARGET.to_owned(), ..case.wanted.clone() };
        let refused = case.create(&other, OTHER_SECRET).await.expect_err("refused");
        assert!(refused.lacks_right(), "{id}: making: {refused:?}");
        let refused = case.update(&made, OTHER_SECRET).await.expect_err("refused");
        assert!(refused.lacks_right() || refused == ProviderError::NotFound, "{id}: update: {refused:?}");
        let refused = case.delete(&made.id).await.expect_err("refused");
        assert!(refused.lacks_right() || refused == ProviderError::NotFound, "{id}: removal: {refused:?}");
        // Some providers show webhooks to whoever reads the repository.
        match case.bench.driver().webhooks(&case.bench.good(), &case.repository, &case.wanted).await {
            Ok(found) => assert_eq!(found.len(), 1, "{id}: {found:?}"),
            Err(refused) => assert!(refused.lacks_right(), "{id}: listing: {refused:?}"),
        }
        assert_eq!(case.kept(), before, "{id}");
    }
}

#[tokio::test]
async fn a_repository_with_all_the_webhooks_it_can_have_is_told() {
    for case in cases().await {
        let Some(limit) = case.hooked.limit else { continue };
        case.made().await;
        case.add_strangers(limit - 1);
        let other = WantedWebhook { target_url: OTHER_TARGET.to_owned(), ..case.wanted.clone() };
        let refused = case.create(&other, OTHER_SECRET).await;
        assert_eq!(refused, Err(ProviderError::WebhookLimitReached), "{}", case.bench.id);
        assert_eq!(case.kept().len(), limit * case.hooked.rows, "{}", case.bench.id);
    }
}

#[tokio::test]
async fn ac_56_a_local_target_is_refused_in_words_or_made() {
    for mut case in cases().await {
        let id = case.bench.id;
        for local in ["https://127.0.0.1/in", "https://localhost:8443/in"] {
            case.wanted.target_url = local.to_owned();
            match case.create(&case.wanted, SECRET).await {
                Err(ProviderError::WebhookTargetRefused { setting }) if case.hooked.refuses_local => {
                    assert!(!setting.is_empty(), "{id}: nobody would know what to change");
                    assert_eq!(case.kept(), Vec::new(), "{id}");
                }
                made => {
                    assert!(!case.hooked.refuses_local, "{id}: {local}: {made:?}");
                    assert_healthy(&made.expect("made"), &case);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_found_once() {
    for case in cases().await {
        let id = case.bench.id;
        for fault in [Fault::CloseBeforeHead, Fault::ResetAfterHeaders, Fault::ResetMidBody] {
            case.bench.forge.fault_on("POST /", fault.clone(), 1);
            case.bench.forge.forget_requests();
            let lost = case.create(&case.wanted, SECRET).await.expect_err("lost");
            assert!(lost.leaves_open(), "{id} {fault:?}: {lost:?}");
            let posts = case.bench.forge.requests().iter().filter(|seen| seen.method == "POST").count();
            assert_eq!(posts, 1, "{id} {fault:?}: sent once");
            // Of a webhook that is several rows, the rest is missing, and repaired beside what is there.
            let mut found = case.only().await;
            if case.hooked.rows > 1 {
                assert_eq!(found.drift, ["events"], "{id}");
                found = case.update(&found, SECRET).await.expect("repaired");
            }
            assert_healthy(&found, &case);
            assert_eq!(case.kept().len(), case.hooked.rows, "{id} {fault:?}");
            case.delete(&found.id).await.expect("removed");
        }
    }
}

#[tokio::test]
async fn another_secret_takes_effect_where_the_provider_says_so() {
    for case in cases().await {
        let id = case.bench.id;
        let made = case.made().await;
        let updated = case.update(&made, OTHER_SECRET).await.expect("updated");
        assert_healthy(&updated, &case);
        let used = match case.bench.driver().about().webhook_secret {
            SecretUpdate::InPlace => OTHER_SECRET,
            SecretUpdate::NewHook => SECRET,
        };
        for row in case.kept() {
            assert_eq!((case.hooked.secret)(&row).as_deref(), Some(used), "{id}");
        }
        assert_eq!(case.kept().len(), case.hooked.rows, "{id}");
    }
}

/// Also where a provider says what it was sent: its answers are hostile until they are parsed.
#[tokio::test]
async fn no_secret_of_a_webhook_prints() {
    for case in cases().await {
        let id = case.bench.id;
        let made = case.made().await;
        let mut printed = format!("{made:?} {:?} {:?}", case.only().await, case.update(&made, SECRET).await);
        case.delete(&made.id).await.expect("removed");
        // Last the limit, behind which nothing is sent any more.
        for status in [400, 401, 403, 404, 409, 422, 500, 429] {
            let body =
                format!("{{\"message\":\"{SECRET}\",\"error\":\"{SECRET}\",\"errors\":[\"{SECRET}\"]}}");
            let json = [("content-type", "application/json")];
            case.bench.forge.respond_once("POST", "/", status, &json, body);
            let refused = case.create(&case.wanted, SECRET).await.expect_err("refused");
            printed.push_str(&format!("{refused:?} {refused}"));
        }
        assert!(!printed.contains(SECRET) && !printed.contains(&SECRET[..16]), "{id}: {printed}");
        let setup = case.bench.driver().webhook_setup(&case.repository, &case.wanted);
        assert!(!format!("{setup:?}").contains(SECRET), "{id}");
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_told_as_such() {
    for case in cases().await {
        let id = case.bench.id;
        let made = case.made().await;
        for fault in
            [Fault::GarbageJson, Fault::FakeSuccess, Fault::HtmlOk, Fault::DeepJson, Fault::NotFoundHtml]
        {
            case.bench.forge.set_fault(fault.clone());
            let found =
                case.bench.driver().webhooks(&case.bench.good(), &case.repository, &case.wanted).await;
            let is_failure = matches!(
                found,
                Err(ProviderError::Failed { .. }
                    | ProviderError::Mismatch { .. }
                    | ProviderError::CredentialRejected { .. })
            );
            assert!(is_failure, "{id} {fault:?}: {found:?}");
            let updated = case.update(&made, SECRET).await;
            assert!(updated.is_err_and(|error| error != ProviderError::NotFound), "{id} {fault:?}");
            case.bench.forge.clear_faults();
        }
        case.bench.forge.set_fault(Fault::UnknownMembers);
        assert_eq!(case.only().await, made, "{id}");
    }
}

#[tokio::test]
async fn a_person_is_told_what_to_enter() {
    for case in cases().await {
        let id = case.bench.id;
        let setup = case.bench.driver().webhook_setup(&case.repository, &case.wanted);
        assert_eq!((setup.scheme, setup.content_type), (case.hooked.scheme, "application/json"), "{id}");
        let text = setup.steps.join("\n");
        assert!((3..=10).contains(&setup.steps.len()), "{id}: {text}");
        // The page, the target, and that certificates are checked.
        assert!(text.contains(&case.repository.web_url), "{id}: {text}");
        assert!(
            text.contains(TARGET) && (text.contains("SSL") || text.contains("certificate")),
            "{id}: {text}"
        );
        assert!(setup.steps.iter().all(|step| !step.trim().is_empty() && step.len() < 400), "{id}: {text}");
    }
}
