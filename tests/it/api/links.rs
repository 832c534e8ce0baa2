//! Repository links.

mod batch;
mod editing;
mod listing;
mod looks;
mod making;

use gitmoor::proto::v1;

/// The condition of that type.
fn condition<'a>(link: &'a v1::RepositoryLink, kind: &str) -> Option<&'a v1::Condition> {
    link.conditions.iter().find(|found| found.r#type == kind)
}
