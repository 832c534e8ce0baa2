//! `gitmoor.v1.WebhookService`.

use tonic::{Request, Response, Status};

use crate::proto::v1;
use crate::proto::v1::webhook_service_server::WebhookService;

/// The handlers: decode, call the service, encode.
#[derive(Debug, Clone, Default)]
pub struct WebhookHandlers {}

#[tonic::async_trait]
impl WebhookService for WebhookHandlers {
    async fn get_webhook(
        &self,
        _request: Request<v1::GetWebhookRequest>,
    ) -> Result<Response<v1::Webhook>, Status> {
        Err(Status::unimplemented("GetWebhook"))
    }

    async fn ensure_webhook(
        &self,
        _request: Request<v1::EnsureWebhookRequest>,
    ) -> Result<Response<v1::EnsureWebhookResponse>, Status> {
        Err(Status::unimplemented("EnsureWebhook"))
    }

    async fn delete_webhook(
        &self,
        _request: Request<v1::DeleteWebhookRequest>,
    ) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("DeleteWebhook"))
    }

    async fn get_webhook_setup(
        &self,
        _request: Request<v1::GetWebhookSetupRequest>,
    ) -> Result<Response<v1::GetWebhookSetupResponse>, Status> {
        Err(Status::unimplemented("GetWebhookSetup"))
    }

    async fn verify_delivery(
        &self,
        _request: Request<v1::VerifyDeliveryRequest>,
    ) -> Result<Response<v1::VerifyDeliveryResponse>, Status> {
        Err(Status::unimplemented("VerifyDelivery"))
    }

    async fn rotate_webhook_secret(
        &self,
        _request: Request<v1::RotateWebhookSecretRequest>,
    ) -> Result<Response<v1::RotateWebhookSecretResponse>, Status> {
        Err(Status::unimplemented("RotateWebhookSecret"))
    }
}
