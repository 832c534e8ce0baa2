//! Branches and tags of a repository, as its provider shows them now; never stored.

/// What a ref is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefKind {
    /// Below `refs/heads/`.
    Branch,
    /// Below `refs/tags/`.
    Tag,
}

/// One branch or tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// Without `refs/heads/` or `refs/tags/`.
    pub name: String,
    /// What it is.
    pub kind: RefKind,
    /// The commit that it stands for, also where an annotated tag lies between; empty if the provider did not tell.
    pub commit_id: String,
    /// Whether rules keep it from being changed at will; `None` where the provider does not tell.
    pub protected: Option<bool>,
    /// Whether it is the repository's default branch.
    pub is_default: bool,
}
