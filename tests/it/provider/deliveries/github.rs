//! Deliveries of GitHub.

use gitmoor::domain::credential::Account;
use gitmoor::domain::delivery::{Delivery, PullRequest, PullRequestState, RefChange};
use gitmoor::domain::webhook::{SecretScheme, WebhookEvent};

use super::{SECRET, Sample, change, hmac_hex, pull_request};

const DELIVERY: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
const COMMIT: &str = "d2b75aa7797ec26b088fa2dd527e9d2c052fcedd";

macro_rules! body {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/providers/github/", $name, ".json"))
    };
}

/// A delivery of the repository that most recordings are of, signed here.
fn sample(name: &'static str, kind: &str, body: &str, expected: Delivery) -> Sample {
    let signature = hmac_hex(SECRET.as_bytes(), &[body.as_bytes()]);
    let headers = [
        ("User-Agent", "GitHub-Hookshot/044aadd".to_owned()),
        ("X-GitHub-Delivery", DELIVERY.to_owned()),
        ("X-GitHub-Event", kind.to_owned()),
        ("X-GitHub-Hook-ID", "292430182".to_owned()),
        ("X-Hub-Signature", format!("sha1={}", "0".repeat(40))),
        ("X-Hub-Signature-256", format!("sha256={signature}")),
    ];
    Sample {
        name,
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        body: body.as_bytes().to_vec(),
        scheme: SecretScheme::HmacSha256,
        secret: SECRET.to_owned(),
        proof_headers: &["x-hub-signature-256"],
        sent_at: None,
        expected,
    }
}

fn told(event: WebhookEvent, action: &str, changes: Vec<RefChange>) -> Delivery {
    Delivery {
        event,
        action: action.to_owned(),
        repository_id: "13933572".to_owned(),
        full_name: "bradrydzewski/drone-test-go".to_owned(),
        changes,
        actor: Some(Account {
            id: "817538".to_owned(),
            login: "bradrydzewski".to_owned(),
            ..Account::default()
        }),
        pull_request: None,
        moment: String::new(),
        delivery_id: DELIVERY.to_owned(),
    }
}

fn told_of(action: &str, moment: &str, pull_request: PullRequest) -> Delivery {
    let told = told(WebhookEvent::PullRequest, action, Vec::new());
    Delivery { pull_request: Some(pull_request), moment: moment.to_owned(), ..told }
}

/// Pushes first, then what else tells of refs, then pull requests.
pub(super) fn samples() -> Vec<Sample> {
    use WebhookEvent::{Other, Push, Tag};
    let (branch, tag) = ("refs/heads/feature-branch", "refs/tags/v0.0.1");
    let of = |state| pull_request(1, state, "master", "bradrydzewski-patch-1", COMMIT);
    let merged = body!("go-scm/webhooks/pr_closed").replace("\"merged\": false", "\"merged\": true");
    let ping = r#"{"zen":"Keep it logically awesome.","hook_id":7,"repository":{"id":13933572,
        "full_name":"bradrydzewski/drone-test-go"},"sender":{"login":"bradrydzewski","id":817538,"type":"User"}}"#;
    let mut samples = vec![
        sample(
            "a new branch",
            "push",
            body!("go-scm/webhooks/push_branch_create"),
            told(Push, "", vec![change(branch, "", COMMIT)]),
        ),
        sample(
            "a deleted branch",
            "push",
            body!("go-scm/webhooks/push_branch_delete"),
            told(Push, "", vec![change(branch, COMMIT, "")]),
        ),
        sample(
            "a new tag",
            "push",
            body!("go-scm/webhooks/push_tag"),
            told(Tag, "", vec![change(tag, "", COMMIT)]),
        ),
        sample(
            "a deleted tag",
            "push",
            body!("go-scm/webhooks/push_tag_delete"),
            told(Tag, "", vec![change(tag, COMMIT, "")]),
        ),
        // Webhooks made here do not ask for these two; a person may. Neither tells a commit.
        sample(
            "a tag, told as created",
            "create",
            body!("go-scm/webhooks/tag_create"),
            told(Tag, "create", vec![change(tag, "", "")]),
        ),
        sample(
            "a tag, told as deleted",
            "delete",
            body!("go-scm/webhooks/tag_delete"),
            told(Tag, "", vec![change(tag, "", "")]),
        ),
        sample(
            "a branch, told as created",
            "create",
            body!("go-scm/webhooks/branch_create"),
            told(Push, "create", vec![change(branch, "", "")]),
        ),
        sample(
            "a branch, told as deleted",
            "delete",
            body!("go-scm/webhooks/branch_delete"),
            told(Push, "", vec![change(branch, "", "")]),
        ),
        sample(
            "an opened pull request",
            "pull_request",
            body!("go-scm/webhooks/pr_opened"),
            told_of("opened", "2018-06-22T23:54:09Z", of(PullRequestState::Open)),
        ),
        sample(
            "a closed pull request",
            "pull_request",
            body!("go-scm/webhooks/pr_closed"),
            told_of("closed", "2018-06-25T19:12:58Z", of(PullRequestState::Closed)),
        ),
        sample(
            "a merged pull request",
            "pull_request",
            &merged,
            told_of("closed", "2018-06-25T19:12:58Z", of(PullRequestState::Merged)),
        ),
        sample("a ping", "ping", ping, told(Other, "ping", Vec::new())),
    ];
    samples.push(signed_by_github());
    samples
}

/// The recorded signature, with the public secret of its recording.
fn signed_by_github() -> Sample {
    let pushed = change(
        "refs/heads/master",
        "a10867b14bb761a232cd80139fbd4c0d33264240",
        "199eddf46df50de8d02e99bf1c5fdb4101338224",
    );
    let expected = Delivery {
        repository_id: "135493233".to_owned(),
        full_name: "Codertocat/Hello-World".to_owned(),
        actor: Some(Account {
            id: "21031067".to_owned(),
            login: "Codertocat".to_owned(),
            ..Account::default()
        }),
        ..told(WebhookEvent::Push, "", vec![pushed])
    };
    let mut sample = sample("a push, signed by GitHub", "push", body!("signed/push"), expected);
    sample.secret = "topsecret".to_owned();
    for (name, value) in &mut sample.headers {
        if name == "X-Hub-Signature-256" {
            "sha256=e3bfe744d4e2e29ed990bde8acfb8255ca51ef65f99657767989fb6349f32957".clone_into(value);
        }
    }
    sample
}
