//! Calls that are held up: the forge stops at a chosen moment of a chosen call, tells the test so, and goes on when it is
//! let go. What happens to the caller meanwhile is the test's affair: a call that has arrived is done even if its sender
//! is gone, as at a real host.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::{Answer, Seen, Shared, lock};

/// What a call is for, in one vocabulary for all providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Reads one repository.
    ReadRepository,
    /// Lists webhooks, or looks for some.
    ListHooks,
    /// Makes a webhook, or one subscription of it.
    CreateHook,
    /// Changes a webhook.
    UpdateHook,
    /// Removes a webhook.
    DeleteHook,
}

impl Doing {
    /// All of them, by their names.
    pub(super) const NAMED: [(&'static str, Self); 5] = [
        ("read", Self::ReadRepository),
        ("list", Self::ListHooks),
        ("create", Self::CreateHook),
        ("update", Self::UpdateHook),
        ("delete", Self::DeleteHook),
    ];

    /// The name, as the control endpoints write it.
    pub(super) fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// What `seen` is for, and at which provider; `None` for any other call.
    pub(crate) fn of(seen: &Seen) -> Option<(&'static str, Self)> {
        let segments: Vec<&str> = seen.path.split('/').filter(|part| !part.is_empty()).collect();
        let (root, path) = segments.split_first()?;
        let (provider, hooks, repository): (_, _, fn(&[&str]) -> bool) = match *root {
            "azure" | "azure-server" => {
                ("azure-devops", "subscriptions", |path| matches!(path, [.., "git", "repositories", _]))
            }
            "bitbucket" => {
                ("bitbucket-data-center", "webhooks", |path| matches!(path, [.., "projects", _, "repos", _]))
            }
            "bitbucket-cloud" => {
                ("bitbucket-cloud", "hooks", |path| matches!(path, ["2.0", "repositories", _, _]))
            }
            "gitea" => ("gitea", "hooks", of_owner_or_id),
            "github" => ("github", "hooks", of_owner_or_id),
            "gitlab" => ("gitlab", "hooks", |path| matches!(path, [.., "projects", _])),
            _ => return None,
        };
        let method = seen.method.as_str();
        if path.last() == Some(&"subscriptionsquery") {
            return Some((provider, Self::ListHooks));
        }
        let doing = match path.iter().rposition(|part| *part == hooks).map(|at| &path[at + 1..]) {
            None if method == "GET" && repository(path) => Self::ReadRepository,
            Some([]) if method == "GET" => Self::ListHooks,
            Some([]) if method == "POST" => Self::CreateHook,
            Some([_]) if matches!(method, "PUT" | "PATCH") => Self::UpdateHook,
            Some([_]) if method == "DELETE" => Self::DeleteHook,
            _ => return None,
        };
        Some((provider, doing))
    }
}

fn of_owner_or_id(path: &[&str]) -> bool {
    matches!(path, [.., "repos", _, _] | [.., "repositories", _])
}

/// Where in a call the forge stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It has arrived, and nothing is done.
    Arrived,
    /// It is done, and the answer is withheld.
    Done,
    /// The answer has just gone out. There is nothing left to hold up.
    Answered,
}

impl Moment {
    /// All of them, by their names.
    pub(super) const NAMED: [(&'static str, Self); 3] =
        [("arrived", Self::Arrived), ("done", Self::Done), ("answered", Self::Answered)];
}

/// Which call is held up, and where.
#[derive(Clone, Debug)]
pub(crate) struct HoldAt {
    /// The provider, such as `github`.
    pub(crate) provider: String,
    /// What it is for.
    pub(crate) doing: Doing,
    /// Where in it.
    pub(crate) moment: Moment,
    /// How many such calls pass before.
    pub(crate) skip: usize,
}

/// What becomes of a call that is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It waits.
    Held,
    /// It goes on.
    LetGo,
    /// It gets no answer, and if it was not done yet, it never is: as if it had been lost on its way.
    Lost,
}

/// One call that is held up, or will be. Dropping it lets the call go.
#[derive(Debug)]
pub(crate) struct Hold {
    reached: watch::Receiver<bool>,
    fate: watch::Sender<Fate>,
}

impl Hold {
    /// Waits until the call has come to the moment; whether it did in time.
    pub(crate) async fn reached(&self, within: Duration) -> bool {
        let mut reached = self.reached.clone();
        let came = reached.wait_for(|reached| *reached);
        tokio::time::timeout(within, came).await.is_ok_and(|came| came.is_ok())
    }

    /// Lets the call go on.
    pub(crate) fn let_go(&self) {
        self.fate.send_replace(Fate::LetGo);
    }

    /// Loses the call, or its answer if it was done already.
    pub(crate) fn lose(&self) {
        self.fate.send_replace(Fate::Lost);
    }
}

/// The forge's side of a hold.
#[derive(Debug)]
struct Stop {
    at: HoldAt,
    reached: watch::Sender<bool>,
    fate: watch::Receiver<Fate>,
}

impl Stop {
    /// Says that the call has come, and waits for its fate; whether it goes on.
    async fn wait(&mut self) -> bool {
        self.reached.send_replace(true);
        let fate = self.fate.wait_for(|fate| *fate != Fate::Held).await;
        // Nobody holds it any more: it goes on.
        !fate.is_ok_and(|fate| *fate == Fate::Lost)
    }
}

/// The holds that no call has met yet.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Vec<Stop>>);

impl Holds {
    /// From now on, one such call is held up.
    pub(super) fn set(&self, at: HoldAt) -> Hold {
        let ((reached, came), (fate, told)) = (watch::channel(false), watch::channel(Fate::Held));
        lock(&self.0).push(Stop { at, reached, fate: told });
        Hold { reached: came, fate }
    }

    /// The hold that this call meets.
    fn take(&self, seen: &Seen) -> Option<Stop> {
        let (provider, doing) = Doing::of(seen)?;
        let mut stops = lock(&self.0);
        // Whoever set it may have gone meanwhile.
        stops.retain(|stop| stop.fate.has_changed().is_ok());
        let mut fitting = stops
            .iter_mut()
            .enumerate()
            .filter(|(_, stop)| stop.at.provider == provider && stop.at.doing == doing);
        let met = fitting.find_map(|(place, stop)| match stop.at.skip.checked_sub(1) {
            None => Some(place),
            Some(left) => {
                stop.at.skip = left;
                None
            }
        });
        met.map(|place| stops.remove(place))
    }
}

/// Answers a call, and stops in it where a hold says so.
pub(super) async fn answer(shared: &Arc<Shared>, seen: Seen) -> Answer {
    let Some(mut stop) = shared.holds.take(&seen) else { return shared.reply(seen).await };
    if stop.at.moment == Moment::Answered {
        let answer = shared.reply(seen).await;
        // It is written by whoever called this, before anybody else has a turn.
        tokio::spawn(async move { stop.reached.send_replace(true) });
        return answer;
    }
    let shared = Arc::clone(shared);
    // On a task of its own, which the end of the caller's connection does not end.
    let held = tokio::spawn(async move {
        if stop.at.moment == Moment::Arrived && !stop.wait().await {
            return Answer::Raw(Vec::new());
        }
        let answer = shared.reply(seen).await;
        if stop.at.moment == Moment::Done && !stop.wait().await {
            return Answer::Raw(Vec::new());
        }
        answer
    });
    held.await.unwrap_or_else(|_| Answer::Raw(Vec::new()))
}
