//! From what people paste to the places that it can mean.

use crate::domain::connection::Scope;
use crate::domain::violation::{FieldReason, FieldViolation};

/// Most roots that one path stands for; deeper paths are repositories, roots are short.
pub(crate) const MAX_CANDIDATES: usize = 8;

/// A violation for each filled field of `scope`, for a provider that has none of them.
pub(crate) fn unused_scope(scope: &Scope, title: &str) -> Vec<FieldViolation> {
    [
        ("organization", scope.organization.is_empty()),
        ("collection", scope.collection.is_empty()),
        ("projects", scope.projects.is_empty()),
        ("workspaces", scope.workspaces.is_empty()),
    ]
    .into_iter()
    .filter(|(_, empty)| !empty)
    .map(|(field, _)| {
        FieldViolation::new(
            format!("connection.scope.{field}"),
            FieldReason::UnsupportedForProvider,
            format!("{title} has no such thing; leave it empty"),
        )
    })
    .collect()
}

/// The roots that a path can mean, longest first: each may have a page of the provider behind it that was pasted
/// with it.
pub(crate) fn candidates(mut segments: Vec<&str>) -> Vec<String> {
    segments.truncate(MAX_CANDIDATES - 1);
    (0..=segments.len()).rev().map(|length| root_of(&segments[..length])).collect()
}

/// The root of these segments: empty, or with a slash before it alone.
pub(crate) fn root_of(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
}
