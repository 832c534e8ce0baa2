//! Reaching a server that runs: for the commands that ask one.

use gitmoor::config::value::Setting as _;
use gitmoor::config::{Environment, ListenAddress};
use tonic::transport::{Channel, Endpoint};

/// The address where a server is asked that was not named: the first one that it was told to listen at, or the default.
///
/// # Errors
///
/// `GITMOOR_LISTEN` does not begin with an address.
pub(crate) fn usual_address(environment: &Environment) -> Result<ListenAddress, String> {
    match environment.key("listen").and_then(|list| list.split(',').next()) {
        None => Ok(ListenAddress::DEFAULT),
        Some(text) => ListenAddress::parse(text.trim())
            .ok_or_else(|| format!("listen (GITMOOR_LISTEN): expected {}", ListenAddress::EXPECTED)),
    }
}

/// A connection to the server at an address.
///
/// # Errors
///
/// Nobody listens there.
pub(crate) async fn dial(address: &ListenAddress) -> Result<Channel, String> {
    let uri = match address {
        ListenAddress::Tcp(address) => format!("http://{address}"),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| "not an address".to_owned())?;
    endpoint.connect().await.map_err(|_| "cannot connect".to_owned())
}
