//! The URL of an instance: a text that was checked before anything repaired it.

use url::Url;

use super::violation::{FieldReason, Refusal};

/// The URL of an instance as a caller wrote it, after the strict text check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    url: Url,
}

impl BaseUrl {
    /// Checks and parses what a caller wrote.
    ///
    /// # Errors
    ///
    /// A refusal with the URL reasons of the contract.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let url = Url::parse(text).map_err(|_| Refusal::new(FieldReason::UrlMalformed, "not a URL"))?;
        Ok(Self { text: text.to_owned(), url })
    }

    /// The text as the caller wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed form.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }
}
