//! Deliveries of Gitea and Forgejo.

use std::collections::BTreeMap;

use gitmoor::domain::credential::Account;
use gitmoor::domain::delivery::{Delivery, PullRequest, PullRequestState, RefChange};
use gitmoor::domain::webhook::{SecretScheme, WebhookEvent};

use super::{SECRET, Sample, change, hmac_hex, pull_request};

const PROOF_HEADERS: &[&str] = &[
    "x-gitea-signature",
    "x-forgejo-signature",
    "x-gogs-signature",
    "x-hub-signature",
    "x-hub-signature-256",
];
const DELIVERY: &str = "f6266f16-1bf3-46a5-9ea4-602e06ead473";
const FIRST: &str = "94bfcd634b82a303835c4890470d51684278ceec";
const SECOND: &str = "c0ec3167eb961b4fd029166d448b1481dd49a5de";
const THIRD: &str = "781d990b404e0d22095ef1d0f3455ee9fcfbc64c";
const MERGED: &str = "c8615853cab64e75826b5bc393c2225ebd047702";

macro_rules! body {
    ($($name:literal),+) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/providers/gitea/",
            $($name,)+
            ".json"
        ))
    };
}

/// A delivery of a real server, with its headers and the secret of its webhook.
macro_rules! recorded {
    ($file:literal, $name:literal, $expected:expr) => {
        recorded($name, body!("signed/", $file, ".headers"), body!("signed/", $file), $expected)
    };
}

fn recorded(name: &'static str, headers: &str, body: &str, expected: Delivery) -> Sample {
    let headers: BTreeMap<String, String> = serde_json::from_str(headers).expect("headers");
    Sample {
        name,
        expected: Delivery { delivery_id: headers["X-Gitea-Delivery"].clone(), ..expected },
        headers: headers.into_iter().collect(),
        body: body.as_bytes().to_vec(),
        scheme: SecretScheme::HmacSha256,
        secret: "s3cr3t".to_owned(),
        proof_headers: PROOF_HEADERS,
        sent_at: None,
    }
}

/// A delivery of an older server, signed here.
fn older(name: &'static str, kind: &str, body: &str, expected: Delivery) -> Sample {
    let signature = hmac_hex(SECRET.as_bytes(), &[body.as_bytes()]);
    let headers = [
        ("X-Gitea-Delivery", DELIVERY.to_owned()),
        ("X-Gitea-Event", kind.to_owned()),
        ("X-Gitea-Signature", signature),
        ("X-Gogs-Event", kind.to_owned()),
        ("X-GitHub-Event", kind.to_owned()),
    ];
    Sample {
        name,
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        body: body.as_bytes().to_vec(),
        scheme: SecretScheme::HmacSha256,
        secret: SECRET.to_owned(),
        proof_headers: PROOF_HEADERS,
        sent_at: None,
        expected: Delivery { delivery_id: DELIVERY.to_owned(), ..expected },
    }
}

/// What the deliveries of one repository have in common.
struct Place {
    repository: (&'static str, &'static str),
    actor: (&'static str, &'static str),
}

const RECORDED: Place = Place { repository: ("131", "alice/main-repo"), actor: ("2", "alice") };
const GOGITS: Place = Place { repository: ("61", "gogits/hello-world"), actor: ("1", "unknwon") };
const JCITIZEN: Place = Place { repository: ("6589", "jcitizen/my-repo"), actor: ("6641", "jcitizen") };

impl Place {
    fn told(&self, event: WebhookEvent, action: &str, changes: Vec<RefChange>) -> Delivery {
        Delivery {
            event,
            action: action.to_owned(),
            repository_id: self.repository.0.to_owned(),
            full_name: self.repository.1.to_owned(),
            changes,
            actor: Some(Account {
                id: self.actor.0.to_owned(),
                login: self.actor.1.to_owned(),
                ..Account::default()
            }),
            pull_request: None,
            moment: String::new(),
            delivery_id: String::new(),
        }
    }

    fn told_of(&self, action: &str, moment: &str, pull_request: PullRequest) -> Delivery {
        let told = self.told(WebhookEvent::PullRequest, action, Vec::new());
        Delivery { pull_request: Some(pull_request), moment: moment.to_owned(), ..told }
    }
}

pub(super) fn samples() -> Vec<Sample> {
    use WebhookEvent::{Push, Tag};
    let (branch, tag) = ("refs/heads/pr-1", "refs/tags/hooked");
    let of = |head| pull_request(1, PullRequestState::Open, "pr-1", "main", head);
    let mut samples = vec![
        recorded!(
            "server_commit_on_branch_0",
            "a push",
            RECORDED.told(Push, "", vec![change(branch, FIRST, SECOND)])
        ),
        recorded!(
            "server_commit_on_pr_0",
            "a push to a pull request",
            RECORDED.told(Push, "", vec![change(branch, SECOND, THIRD)])
        ),
        recorded!(
            "server_create_tag_0",
            "a merge",
            RECORDED.told(Push, "", vec![change("refs/heads/main", FIRST, MERGED)])
        ),
        recorded!("server_create_tag_1", "a new tag", RECORDED.told(Tag, "", vec![change(tag, "", MERGED)])),
        recorded!("server_delete_tag_1", "a deleted tag", RECORDED.told(Tag, "", vec![change(tag, "", "")])),
        recorded!(
            "server_create_branch_0",
            "a new branch",
            RECORDED.told(Push, "", vec![change(branch, "", FIRST)])
        ),
        recorded!(
            "server_delete_branch_0",
            "a deleted branch",
            RECORDED.told(Push, "", vec![change(branch, "", "")])
        ),
        recorded!(
            "server_open_pr_0",
            "an opened pull request",
            RECORDED.told_of("opened", "2026-11-21T13:13:47Z", of(SECOND))
        ),
        recorded!(
            "server_edit_pr_title_0",
            "an edited pull request",
            RECORDED.told_of("edited", "2026-11-21T13:13:51Z", of(THIRD))
        ),
    ];
    samples.extend(older_samples());
    samples
}

fn older_samples() -> Vec<Sample> {
    use WebhookEvent::{Other, Push, Tag};
    let tag = "599d25c67b05717269f50ac082b34f176d085179";
    let (before, after) =
        ("9836a96a253cce25d17988fcf41b8c4205cf779f", "4522cbcefc20728a5b72b3a86af35e608622c514");
    let of = |state| pull_request(1, state, "feature", "master", "2eba238e33607c1fa49253182e9fff42baafa1eb");
    let mut edited = older(
        "an edited pull request, signed by Gitea",
        "pull_request",
        body!("signed/pull_request_edited"),
        JCITIZEN.told_of("edited", "2018-07-06T01:32:20Z", of(PullRequestState::Open)),
    );
    edited.secret = "71295b197fa25f4356d2fb9965df3f2379d903d7".to_owned();
    for (name, value) in &mut edited.headers {
        if name == "X-Gitea-Signature" {
            "a31111f057bafe895837f4a93c0f1f528919c199a20438b1fc8e23485780a33a".clone_into(value);
        }
    }
    vec![
        edited,
        older(
            "a push",
            "push",
            body!("go-scm/webhooks/push"),
            GOGITS.told(Push, "", vec![change("refs/heads/master", before, after)]),
        ),
        older(
            "a tag, told as created",
            "create",
            body!("go-scm/webhooks/tag_create"),
            GOGITS.told(Tag, "", vec![change("refs/tags/v1.0.0", "", tag)]),
        ),
        // Told without a commit, at that time.
        older(
            "a branch, told as created",
            "create",
            body!("go-scm/webhooks/branch_create"),
            GOGITS.told(Push, "create", vec![change("refs/heads/feature", "", "")]),
        ),
        older(
            "a pull request with new commits",
            "pull_request",
            body!("go-scm/webhooks/pull_request_synchronized"),
            JCITIZEN.told_of("synchronized", "2018-07-06T00:37:47Z", of(PullRequestState::Open)),
        ),
        older(
            "a reopened pull request",
            "pull_request",
            body!("go-scm/webhooks/pull_request_reopened"),
            JCITIZEN.told_of("reopened", "2018-07-06T01:38:39Z", of(PullRequestState::Open)),
        ),
        older(
            "a closed pull request",
            "pull_request",
            body!("go-scm/webhooks/pull_request_closed"),
            JCITIZEN.told_of("closed", "2018-07-06T01:34:08Z", of(PullRequestState::Closed)),
        ),
        older(
            "a merged pull request",
            "pull_request",
            body!("go-scm/webhooks/pull_request_merged"),
            JCITIZEN.told_of("closed", "2018-07-06T01:39:46Z", of(PullRequestState::Merged)),
        ),
        older(
            "a comment on a pull request",
            "issue_comment",
            body!("go-scm/webhooks/pull_request_comment_created"),
            GOGITS.told(Other, "created", Vec::new()),
        ),
        older(
            "an issue",
            "issues",
            body!("go-scm/webhooks/issues_opened"),
            GOGITS.told(Other, "opened", Vec::new()),
        ),
    ]
}
