//! How Azure DevOps says no.

use serde_json::json;

use super::super::wire::Reply;
use super::{ANONYMOUS, Caller};

pub(super) fn error(status: u16, assembly: &str, key: &str, message: &str) -> Reply {
    let body = json!({"$id": "1", "innerException": null, "message": message,
        "typeName": format!("{assembly}.{key}, {assembly}"), "typeKey": key, "errorCode": 0, "eventId": 3000});
    Reply::new(status, "application/json; charset=utf-8", body.to_string())
}

pub(super) fn unauthorized(user: &str) -> Reply {
    let text = format!("TF400813: The user '{user}' is not authorized to access this resource.");
    error(401, "Microsoft.TeamFoundation.Framework.Server", "UnauthorizedRequestException", &text)
}

pub(super) fn forbidden(caller: &Caller) -> Reply {
    let user = match caller {
        Caller::Known(token) => token.user_id.as_str(),
        Caller::Anonymous => ANONYMOUS,
    };
    let text = format!(
        "VS403403: The identity '{user}' needs the following permission(s) to perform this action: GenericRead."
    );
    error(403, "Microsoft.TeamFoundation.Framework.Server", "AccessCheckException", &text)
}

pub(super) fn no_hook_right(caller: &Caller, project: &str) -> Reply {
    let user = match caller {
        Caller::Known(token) => token.user_id.as_str(),
        Caller::Anonymous => ANONYMOUS,
    };
    let text = format!(
        "Access Denied: {user} needs the following permission(s) on the resource PublisherSecurity/{project} to perform this action: Edit Subscription"
    );
    error(403, "Microsoft.TeamFoundation.Framework.Server", "AccessCheckException", &text)
}

/// An input of a subscription that is none. The words are made up, the exception is the service's.
pub(super) fn hook_input(name: &str) -> Reply {
    let text = format!("The value of the consumer input {name} is not valid.");
    error(400, "Microsoft.VisualStudio.Services.ServiceHooks.WebApi", "SubscriptionInputException", &text)
}

pub(super) fn no_project(name: &str) -> Reply {
    let text = format!(
        "TF200016: The following project does not exist: {name}. Verify that the name of the project is correct and that the project exists on the specified Azure DevOps Server."
    );
    error(404, "Microsoft.TeamFoundation.Core.WebApi", "ProjectDoesNotExistWithNameException", &text)
}

pub(super) fn no_repository(name: &str) -> Reply {
    let text = format!(
        "TF401019: The Git repository with name or identifier {name} does not exist or you do not have permissions for the operation you are attempting."
    );
    error(404, "Microsoft.TeamFoundation.Git.Server", "GitRepositoryNotFoundException", &text)
}

pub(super) fn version_error(key: &str, message: &str) -> Reply {
    error(400, "Microsoft.VisualStudio.Services.WebApi", key, message)
}

pub(super) fn bad_value(name: &str) -> Reply {
    let text = format!("The value specified for the following variable is not valid: {name}.");
    error(400, "Microsoft.VisualStudio.Services.Common", "VssPropertyValidationException", &text)
}

pub(super) fn unrouted(path: &str) -> Reply {
    let text = format!("The controller for path '{path}' was not found or does not implement IController.");
    error(404, "System.Web", "HttpException", &text)
}
