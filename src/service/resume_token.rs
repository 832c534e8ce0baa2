//! Where a watch goes on: opaque, authenticated, bound to the tenant; as good as the events behind it last.

use super::page_token::{self, Binding};
use crate::domain::connection::{ConnectionId, TenantId};
use crate::seal::ServiceSecret;

/// How far a watcher has been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The sequence number of the last event that it was told of.
    pub(super) after: u64,
    /// How far it is with the initial state.
    pub(super) listing: Listing,
}

/// How far a watcher is with the initial state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listing {
    /// It was told all, or wanted none.
    Done,
    /// It comes from the first connection on.
    Start,
    /// It goes on behind this connection.
    After(ConnectionId),
}

const DONE: u8 = 0;
const START: u8 = 1;
const AFTER: u8 = 2;

/// The token for a position.
pub(super) fn issue(secret: &ServiceSecret, tenant: &TenantId, position: &Position) -> String {
    let mut content = position.after.to_be_bytes().to_vec();
    match &position.listing {
        Listing::Done => content.push(DONE),
        Listing::Start => content.push(START),
        Listing::After(id) => {
            content.push(AFTER);
            content.extend_from_slice(id.as_str().as_bytes());
        }
    }
    page_token::sign(secret, &binding(tenant), content)
}

/// The position of a token that was issued for this tenant; `None` for everything else.
pub(super) fn open(secret: &ServiceSecret, tenant: &TenantId, token: &str) -> Option<Position> {
    let content = page_token::verify(secret, &binding(tenant), token)?;
    let (after, rest) = content.split_first_chunk()?;
    let listing = match rest.split_first()? {
        (&DONE, []) => Listing::Done,
        (&START, []) => Listing::Start,
        (&AFTER, id) => Listing::After(ConnectionId::parse(std::str::from_utf8(id).ok()?).ok()?),
        _ => return None,
    };
    Some(Position { after: u64::from_be_bytes(*after), listing })
}

/// No page token has it: theirs begin with the name of another method.
fn binding(tenant: &TenantId) -> Binding {
    Binding(format!("WatchConnections\0{tenant}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_tenant_alone_and_no_page_token_is_one() {
        let secret = ServiceSecret::generate().expect("a secret");
        let tenant = |text| TenantId::parse(text).expect("valid");
        let id = ConnectionId::parse("one").expect("valid");
        for listing in [Listing::Done, Listing::Start, Listing::After(id)] {
            let position = Position { after: u64::MAX - 1, listing };
            let token = issue(&secret, &tenant("a"), &position);
            assert_eq!(open(&secret, &tenant("a"), &token), Some(position));
            assert_eq!(open(&secret, &tenant("b"), &token), None);
            assert_eq!(open(&ServiceSecret::generate().expect("a secret"), &tenant("a"), &token), None);
            for at in 0..token.len() {
                let mut other = token.clone().into_bytes();
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
                let other = String::from_utf8(other).expect("text");
                assert_eq!(open(&secret, &tenant("a"), &other), None, "{at}");
            }
        }
        let now = crate::domain::timestamp::Timestamp::from_unix_seconds(1);
        let page = page_token::issue(&secret, &Binding(b"ListConnections\0a".to_vec()), &[0; 9], now);
        assert_eq!(open(&secret, &tenant("a"), &page), None);
        assert_eq!(open(&secret, &tenant("a"), ""), None);
    }
}
