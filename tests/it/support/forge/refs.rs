//! Branches and tags, the same in every repository of every fake that has code.

/// Names as git sorts them, and the commits that they stand for.
#[derive(Debug)]
pub(super) struct Refs {
    branches: Vec<String>,
    tags: Vec<String>,
}

impl Refs {
    /// So many branches (at least four: the default branch `main`, a protected one, one with a capital, one beyond ASCII)
    /// and so many tags.
    pub(super) fn new(branches: usize, tags: usize) -> Self {
        let features = (0..branches.saturating_sub(4)).map(|number| format!("feature/{number:05}"));
        let named = ["Hotfix/Login", "feature/gr\u{fc}n", "main", "release/2.0"].map(str::to_owned);
        let mut branches: Vec<String> = features.chain(named).collect();
        branches.sort_unstable();
        let tags = (0..tags).map(|number| format!("v1.{number:05}")).collect();
        Self { branches, tags }
    }

    /// All names of a kind.
    pub(super) fn names(&self, tags: bool) -> &[String] {
        if tags { &self.tags } else { &self.branches }
    }

    /// The commit of a ref.
    pub(super) fn commit(name: &str) -> String {
        hash(name, 0x0c)
    }

    /// The object that a tag's name leads to: every second tag is annotated, and its object is not its commit.
    pub(super) fn tag_object(name: &str) -> String {
        let is_annotated = name.bytes().last().is_some_and(|digit| digit % 2 == 0);
        hash(name, if is_annotated { 0x7a } else { 0x0c })
    }

    /// Whether rules protect a branch.
    pub(super) fn is_protected(name: &str) -> bool {
        matches!(name, "main" | "release/2.0")
    }
}

/// Forty hexadecimal digits, the same for the same name: FNV-1a, three times.
fn hash(name: &str, seed: u64) -> String {
    let fnv = |seed: u64| {
        name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    format!("{:016x}{:016x}{:08x}", fnv(seed), fnv(seed + 1), fnv(seed + 2) >> 32)
}
