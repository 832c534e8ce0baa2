//! Stored webhooks: what a fake remembers of them, and what a test may ask and change. One form for all providers; how
//! they are shown, paged and refused is each provider's own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::lock;

/// A webhook as a provider keeps it, its secret included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Its id, as the provider writes it in a path.
    pub(crate) id: String,
    /// Where it delivers, as it was sent.
    pub(crate) url: String,
    /// What it tells, in the provider's own words, as the provider keeps them.
    pub(crate) events: BTreeSet<String>,
    /// What its deliveries prove themselves with, as it was sent; `None` for deliveries without a proof.
    pub(crate) secret: Option<String>,
    /// How it fares.
    pub(crate) state: HookState,
    /// `json` or `form`, where there is a choice.
    pub(crate) content_type: String,
    /// Whether the certificate of the target is checked.
    pub(crate) verifies_tls: bool,
    /// What else the provider keeps of it.
    pub(crate) more: BTreeMap<String, String>,
}

impl Hook {
    /// A hook that works, tells JSON and checks certificates. Its id is drawn when it is added.
    pub(crate) fn new(url: &str, events: &[&str], secret: Option<&str>) -> Self {
        Self {
            id: String::new(),
            url: url.to_owned(),
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            secret: secret.map(str::to_owned),
            state: HookState::Working,
            content_type: "json".to_owned(),
            verifies_tls: true,
            more: BTreeMap::new(),
        }
    }
}

/// How a webhook fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookState {
    /// It delivers.
    Working,
    /// Somebody switched it off.
    SwitchedOff,
    /// The provider suspended it; it can be woken.
    Suspended,
    /// The provider disabled it for good.
    Dead,
}

/// The form of a provider's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookIds {
    /// `1001`.
    Number,
    /// `00000000-0000-4000-8000-000000001001`.
    Uuid,
    /// The same in braces.
    BracedUuid,
}

/// The webhooks of one provider, in the order of their making. A repository is named by its stable id, as in the names
/// of resources.
#[derive(Debug)]
pub(crate) struct Hooks {
    ids: HookIds,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    made: usize,
    rows: Vec<(String, Hook)>,
}

impl Hooks {
    /// None yet.
    pub(super) fn new(ids: HookIds) -> Self {
        Self { ids, kept: Mutex::default() }
    }

    /// All of them, each with its repository.
    pub(crate) fn all(&self) -> Vec<(String, Hook)> {
        lock(&self.kept).rows.clone()
    }

    /// How many were ever made.
    pub(crate) fn made(&self) -> usize {
        lock(&self.kept).made
    }

    /// Those of a repository.
    pub(crate) fn of(&self, repository: &str) -> Vec<Hook> {
        let kept = lock(&self.kept);
        kept.rows.iter().filter(|(of, _)| of == repository).map(|(_, hook)| hook.clone()).collect()
    }

    /// One of a repository.
    pub(crate) fn find(&self, repository: &str, id: &str) -> Option<Hook> {
        self.of(repository).into_iter().find(|hook| hook.id == id)
    }

    /// Adds a hook under a new id, whatever the provider would say to it: also one that a person made.
    pub(crate) fn add(&self, repository: &str, hook: Hook) -> Hook {
        let mut kept = lock(&self.kept);
        kept.made += 1;
        let number = 1_000 + kept.made;
        let uuid = format!("00000000-0000-4000-8000-{number:012x}");
        let id = match self.ids {
            HookIds::Number => number.to_string(),
            HookIds::Uuid => uuid,
            HookIds::BracedUuid => format!("{{{uuid}}}"),
        };
        let hook = Hook { id, ..hook };
        kept.rows.push((repository.to_owned(), hook.clone()));
        hook
    }

    /// Changes a hook behind the provider's back, or as it changes it: the hook as it is now, if there is one.
    pub(crate) fn edit(&self, repository: &str, id: &str, edit: impl FnOnce(&mut Hook)) -> Option<Hook> {
        let mut kept = lock(&self.kept);
        let (_, hook) = kept.rows.iter_mut().find(|(of, hook)| of == repository && hook.id == id)?;
        edit(hook);
        Some(hook.clone())
    }

    /// Changes every hook of a repository.
    pub(crate) fn edit_all(&self, repository: &str, edit: impl Fn(&mut Hook)) {
        let mut kept = lock(&self.kept);
        kept.rows.iter_mut().filter(|(of, _)| of == repository).for_each(|(_, hook)| edit(hook));
    }

    /// Removes a hook; whether there was one.
    pub(crate) fn remove(&self, repository: &str, id: &str) -> bool {
        let mut kept = lock(&self.kept);
        let before = kept.rows.len();
        kept.rows.retain(|(of, hook)| of != repository || hook.id != id);
        kept.rows.len() < before
    }
}
