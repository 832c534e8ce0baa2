//! The audit trail, to protobuf.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::encode::time;
use crate::domain::event::{Entry, Event};
use crate::proto::v1;

/// An event at its place.
pub(in crate::grpc) fn connection_event(entry: Entry) -> v1::ConnectionEvent {
    let Entry { sequence, event, hash } = entry;
    let Event {
        uid,
        tenant: _,
        resource,
        connections: _,
        event_type,
        actor,
        time: at,
        request_id,
        before,
        after,
    } = event;
    v1::ConnectionEvent {
        uid,
        sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
        r#type: event_type.as_str().to_owned(),
        resource,
        actor,
        event_time: Some(time(at)),
        request_id,
        before: fields(before),
        after: fields(after),
        hash,
    }
}

fn fields(texts: BTreeMap<String, String>) -> Option<Struct> {
    let value = |text| Value { kind: Some(Kind::StringValue(text)) };
    (!texts.is_empty())
        .then(|| Struct { fields: texts.into_iter().map(|(path, text)| (path, value(text))).collect() })
}
