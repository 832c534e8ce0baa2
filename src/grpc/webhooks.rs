//! `gitmoor.v1.WebhookService`.

use std::time::Duration;

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::repeat::{content_of, decode, repeat};
use super::{convert, names, open, status};
use crate::domain::delivery::DeliveryHeaders;
use crate::domain::link::LinkName;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1;
use crate::proto::v1::webhook_service_server::WebhookService;
use crate::service::Context;
use crate::service::checked;
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::once::Done;
use crate::service::webhooks::deliveries::Incoming;
use crate::service::webhooks::{DEFAULT_OVERLAP, Ensured, MAX_OVERLAP, Webhooks};

/// Most headers of a delivery; the providers send about twenty.
const MAX_HEADERS: usize = 256;
/// Longest name or value of a header, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The handlers: decode, call the service, encode.
#[derive(Debug, Clone)]
pub struct WebhookHandlers {
    webhooks: Webhooks,
}

impl WebhookHandlers {
    /// Handlers in front of `webhooks`.
    #[must_use]
    pub const fn new(webhooks: Webhooks) -> Self {
        Self { webhooks }
    }

    async fn read(&self, request: Request<v1::GetWebhookRequest>) -> Result<v1::Webhook, Error> {
        let (_, name) = named(request, |message| message.name)?;
        self.webhooks.read(&name).await.map(convert::webhook)
    }

    async fn ensure(
        &self,
        request: Request<v1::EnsureWebhookRequest>,
    ) -> Result<v1::EnsureWebhookResponse, Error> {
        use v1::ensure_webhook_response::Outcome;
        let (context, name) = named(request, |message| message.name)?;
        let (ensured, shown) = self.webhooks.ensure(&context, &name).await?;
        let outcome = match ensured {
            Ensured::Nothing => Outcome::None,
            Ensured::Created => Outcome::Created,
            Ensured::Updated => Outcome::Updated,
            Ensured::Adopted => Outcome::Adopted,
            Ensured::ManualRequired => Outcome::ManualRequired,
        };
        Ok(v1::EnsureWebhookResponse { outcome: outcome as i32, webhook: Some(convert::webhook(shown)) })
    }

    async fn delete(&self, request: Request<v1::DeleteWebhookRequest>) -> Result<(), Error> {
        let mut etag = String::new();
        let (context, name) = named(request, |message| {
            etag = message.etag;
            message.name
        })?;
        self.webhooks.delete(&context, &name, &etag).await
    }

    async fn setup(
        &self,
        request: Request<v1::GetWebhookSetupRequest>,
    ) -> Result<v1::GetWebhookSetupResponse, Error> {
        let (context, name) = named(request, |message| message.name)?;
        let setup = self.webhooks.setup(&context, &name).await?;
        let secret = setup.secret.expose().to_owned();
        let (secret, password) =
            if setup.username.is_some() { (String::new(), secret) } else { (secret, String::new()) };
        Ok(v1::GetWebhookSetupResponse {
            target_url: setup.target_url,
            secret,
            username: setup.username.unwrap_or_default().to_owned(),
            password,
            content_type: setup.content_type.to_owned(),
            events: setup.events.into_iter().map(convert::webhook_event).collect(),
            steps: setup.steps,
        })
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyDeliveryRequest>,
    ) -> Result<v1::VerifyDeliveryResponse, Error> {
        let (_, message) = open(request)?;
        let mut violations = Violations::default();
        let receiver = names::webhook_or_all("name", &message.name, &mut violations);
        if message.headers.len() > MAX_HEADERS {
            let told = "at most 256 headers";
            violations.push(FieldViolation::new("headers", FieldReason::TooMany, told));
        }
        if message.headers.iter().any(|(name, value)| name.len().max(value.len()) > MAX_HEADER_BYTES) {
            let told = "names and values of headers have at most 16 KiB";
            violations.push(FieldViolation::new("headers", FieldReason::TooLong, told));
        }
        violations.finish()?;
        let incoming = Incoming { headers: DeliveryHeaders::new(message.headers), body: message.body };
        Ok(match self.webhooks.verify(&checked(receiver)?, incoming).await? {
            Ok(genuine) => v1::VerifyDeliveryResponse {
                valid: true,
                reason: String::new(),
                repository_link: genuine.link.to_string(),
                event: Some(convert::delivery(genuine.delivery, genuine.dedupe_key)),
            },
            Err(refusal) => v1::VerifyDeliveryResponse {
                valid: false,
                reason: refusal.as_str().to_owned(),
                ..Default::default()
            },
        })
    }

    async fn rotate(
        &self,
        request: Request<v1::RotateWebhookSecretRequest>,
    ) -> Result<v1::RotateWebhookSecretResponse, Error> {
        let (context, mut message) = open(request)?;
        let mut violations = Violations::default();
        let name = names::webhook("name", &message.name, &mut violations);
        let overlap = overlap(message.overlap.as_ref(), &mut violations);
        let request_id = names::request_id(&std::mem::take(&mut message.request_id), &mut violations);
        violations.finish()?;
        let (name, overlap) = (checked(name)?, checked(overlap)?);
        let content = content_of("RotateWebhookSecret", &message, request_id.as_deref());
        let repeat = repeat(request_id.as_deref(), &content, false, |rotated| {
            convert::rotated(rotated).encode_to_vec()
        });
        match self.webhooks.rotate(&context, &name, overlap, repeat).await? {
            Done::Now(rotated) => Ok(convert::rotated(&rotated)),
            Done::Before(answer) => decode(&answer),
        }
    }
}

#[tonic::async_trait]
impl WebhookService for WebhookHandlers {
    async fn get_webhook(
        &self,
        request: Request<v1::GetWebhookRequest>,
    ) -> Result<Response<v1::Webhook>, Status> {
        self.read(request).await.map(Response::new).map_err(status::of)
    }

    async fn ensure_webhook(
        &self,
        request: Request<v1::EnsureWebhookRequest>,
    ) -> Result<Response<v1::EnsureWebhookResponse>, Status> {
        self.ensure(request).await.map(Response::new).map_err(status::of)
    }

    async fn delete_webhook(
        &self,
        request: Request<v1::DeleteWebhookRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete(request).await.map(Response::new).map_err(status::of)
    }

    async fn get_webhook_setup(
        &self,
        request: Request<v1::GetWebhookSetupRequest>,
    ) -> Result<Response<v1::GetWebhookSetupResponse>, Status> {
        self.setup(request).await.map(Response::new).map_err(status::of)
    }

    async fn verify_delivery(
        &self,
        request: Request<v1::VerifyDeliveryRequest>,
    ) -> Result<Response<v1::VerifyDeliveryResponse>, Status> {
        self.verify(request).await.map(Response::new).map_err(status::of)
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<v1::RotateWebhookSecretRequest>,
    ) -> Result<Response<v1::RotateWebhookSecretResponse>, Status> {
        self.rotate(request).await.map(Response::new).map_err(status::of)
    }
}

/// The caller, and the link whose webhook the request names.
fn named<T>(request: Request<T>, name: impl FnOnce(T) -> String) -> Result<(Context, LinkName), Error> {
    let (context, message) = open(request)?;
    let mut violations = Violations::default();
    let found = names::webhook("name", &name(message), &mut violations);
    violations.finish()?;
    Ok((context, checked(found)?))
}

fn overlap(sent: Option<&prost_types::Duration>, violations: &mut Violations) -> Option<Duration> {
    let Some(sent) = sent else { return Some(DEFAULT_OVERLAP) };
    let overlap = Duration::try_from(*sent).ok().filter(|overlap| *overlap <= MAX_OVERLAP);
    if overlap.is_none() {
        let told = "an overlap is between 0 s and 7 days (604800 s)";
        violations.push(FieldViolation::new("overlap", FieldReason::OutOfRange, told));
    }
    overlap
}
