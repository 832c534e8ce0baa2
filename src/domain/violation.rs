//! What is wrong with one field of a request.

/// Why a field was refused. The names are part of the contract (`FieldReason` in the protobuf files).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldReason {
    /// It must be set.
    Required,
    /// It is not of the form that it must have.
    Malformed,
    /// It is longer than it may be.
    TooLong,
    /// It has more entries than it may have.
    TooMany,
    /// The number is outside the range.
    OutOfRange,
    /// An enum number or an id that this server does not know.
    UnknownValue,
    /// A field path that the message does not have.
    UnknownPath,
    /// It cannot be changed after creation.
    Immutable,
    /// It holds a control character.
    ControlCharacter,
    /// It looks like a token, which has its own field.
    TokenInText,
    /// It contradicts another field.
    Conflicting,
    /// The provider has no such thing.
    UnsupportedForProvider,
    /// The id is kept for a meaning of its own.
    Reserved,
    /// The text is no URL that this service accepts.
    UrlMalformed,
    /// Only https is accepted, and http where the operator listed the origin.
    UrlSchemeForbidden,
    /// User name or password in a URL.
    UrlUserinfoForbidden,
    /// A port that is not accepted.
    UrlPortForbidden,
    /// More than 2,048 bytes.
    UrlTooLong,
    /// The token is empty, too long, or holds a character that no token has.
    TokenMalformed,
    /// Not a PEM bundle of certificates.
    CaCertificateMalformed,
    /// The outbound policy does not admit the address (an `ErrorReason` too).
    EndpointNotAllowed,
    /// A stored token never goes to another instance (an `ErrorReason` too).
    CredentialRequiredForNewHost,
    /// The operator does not admit the webhook's target (an `ErrorReason` too).
    WebhookTargetNotAllowed,
}

impl FieldReason {
    /// The bare name of the reason, as it stands in a violation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "REQUIRED",
            Self::Malformed => "MALFORMED",
            Self::TooLong => "TOO_LONG",
            Self::TooMany => "TOO_MANY",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::UnknownValue => "UNKNOWN_VALUE",
            Self::UnknownPath => "UNKNOWN_PATH",
            Self::Immutable => "IMMUTABLE",
            Self::ControlCharacter => "CONTROL_CHARACTER",
            Self::TokenInText => "TOKEN_IN_TEXT",
            Self::Conflicting => "CONFLICTING",
            Self::UnsupportedForProvider => "UNSUPPORTED_FOR_PROVIDER",
            Self::Reserved => "RESERVED",
            Self::UrlMalformed => "URL_MALFORMED",
            Self::UrlSchemeForbidden => "URL_SCHEME_FORBIDDEN",
            Self::UrlUserinfoForbidden => "URL_USERINFO_FORBIDDEN",
            Self::UrlPortForbidden => "URL_PORT_FORBIDDEN",
            Self::UrlTooLong => "URL_TOO_LONG",
            Self::TokenMalformed => "TOKEN_MALFORMED",
            Self::CaCertificateMalformed => "CA_CERTIFICATE_MALFORMED",
            Self::EndpointNotAllowed => "ENDPOINT_NOT_ALLOWED",
            Self::CredentialRequiredForNewHost => "CREDENTIAL_REQUIRED_FOR_NEW_HOST",
            Self::WebhookTargetNotAllowed => "WEBHOOK_TARGET_NOT_ALLOWED",
        }
    }
}

/// One field of a request that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field in the request, such as `connection.base_url`.
    pub field: String,
    /// Why.
    pub reason: FieldReason,
    /// What is wrong and what to do, for people. Never the value of a secret.
    pub description: String,
}

impl FieldViolation {
    /// A violation of `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, reason: FieldReason, description: impl Into<String>) -> Self {
        Self { field: field.into(), reason, description: description.into() }
    }
}

/// Why a text was refused, before anybody knows which field it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: FieldReason,
    /// What is wrong and what to do, for people.
    pub description: String,
}

impl Refusal {
    /// A refusal for `reason`.
    #[must_use]
    pub fn new(reason: FieldReason, description: impl Into<String>) -> Self {
        Self { reason, description: description.into() }
    }

    /// The same refusal, about `field`.
    #[must_use]
    pub fn at(self, field: impl Into<String>) -> FieldViolation {
        FieldViolation { field: field.into(), reason: self.reason, description: self.description }
    }
}
