//! Payloads, times, statuses and search attributes to and from values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json, json};
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads};
use temporalio_common::protos::temporal::api::enums::v1::{
    IndexedValueType, WorkflowExecutionStatus as Status,
};
use unisono_core::{Error, ErrorKind, FieldType, Result, Timestamp, Value, json};

const ENCODING: &str = "encoding";

/// A JSON value as a payload, as every Temporal SDK writes it.
pub(crate) fn payload(value: &Json) -> Payload {
    let encoding = if value.is_null() { "binary/null" } else { "json/plain" };
    let data = if value.is_null() { Vec::new() } else { value.to_string().into_bytes() };
    let metadata = [(ENCODING.to_owned(), encoding.as_bytes().to_vec())].into();
    Payload { metadata, data, ..Default::default() }
}

/// What a payload holds. One that is not JSON, such as an encrypted one, comes as its encoding and its bytes in base64.
pub(crate) fn payload_to_json(payload: &Payload) -> Json {
    let encoding = payload.metadata.get(ENCODING).map(Vec::as_slice).unwrap_or_default();
    let parsed = match encoding {
        b"binary/null" => Some(Json::Null),
        b"json/plain" | b"json/protobuf" => serde_json::from_slice(&payload.data).ok(),
        _ => None,
    };
    parsed.unwrap_or_else(|| {
        let encoding = String::from_utf8_lossy(encoding);
        json!({ "encoding": encoding, "data": BASE64.encode(&payload.data) })
    })
}

/// Arguments from a list of them; null is none.
pub(crate) fn arguments(value: &Value) -> Result<Option<Payloads>> {
    match value {
        Value::Null => Ok(None),
        Value::Json(Json::Array(all)) => {
            Ok(Some(Payloads { payloads: all.iter().map(payload).collect() }))
        }
        _ => Err(Error::invalid("must be a list of arguments")
            .hint("write [argument] for a workflow or signal with one argument")),
    }
}

/// The list of arguments in some payloads.
pub(crate) fn arguments_to_json(payloads: Option<&Payloads>) -> Json {
    payloads.map_or(json!([]), |p| p.payloads.iter().map(payload_to_json).collect())
}

/// The result in some payloads: a workflow has one or none.
pub(crate) fn result_to_json(payloads: Option<&Payloads>) -> Json {
    match payloads.map(|p| p.payloads.as_slice()).unwrap_or_default() {
        [] => Json::Null,
        [one] => payload_to_json(one),
        more => more.iter().map(payload_to_json).collect(),
    }
}

/// An object of payloads.
pub(crate) fn object_to_json<'a>(all: impl Iterator<Item = (&'a String, &'a Payload)>) -> Json {
    Json::Object(all.map(|(name, p)| (name.clone(), payload_to_json(p))).collect::<Map<_, _>>())
}

/// A JSON value as the value of a `json` field.
pub(crate) fn json_value(json: Json) -> Value {
    if json.is_null() { Value::Null } else { Value::Json(json) }
}

/// The word for a status.
pub(crate) fn status_word(status: i32) -> &'static str {
    match Status::try_from(status) {
        Ok(Status::Running) => "running",
        Ok(Status::Completed) => "completed",
        Ok(Status::Failed) => "failed",
        Ok(Status::Canceled) => "canceled",
        Ok(Status::Terminated) => "terminated",
        Ok(Status::ContinuedAsNew) => "continued_as_new",
        Ok(Status::TimedOut) => "timed_out",
        Ok(Status::Paused) => "paused",
        Ok(Status::Unspecified) | Err(_) => "unknown",
    }
}

/// Whether a workflow with this status has ended.
pub(crate) fn has_ended(status: i32) -> bool {
    !OPEN.contains(&status_word(status))
}

/// The statuses of workflows that have not ended.
pub(crate) const OPEN: [&str; 3] = ["running", "paused", "unknown"];

/// A time, cut to the digits that the field keeps.
pub(crate) fn time(ty: &FieldType, seconds: i64, nanos: i32) -> Value {
    let FieldType::Timestamp { precision } = ty else { return Value::Null };
    let step = 10_i64.pow(6 - u32::from(*precision).min(6));
    let micros = seconds.saturating_mul(1_000_000).saturating_add(i64::from(nanos) / 1000);
    Value::Timestamp(Timestamp::from_micros_clamped(micros.div_euclid(step) * step))
}

/// The value of a search attribute, by the declared type of its field.
pub(crate) fn attribute(ty: &FieldType, payload: &Payload) -> Result<Value> {
    let mut json = payload_to_json(payload);
    // A list of one keyword can stand for the keyword, and the other way round.
    match (ty, &json) {
        (FieldType::List(_), Json::String(_)) => json = json!([json]),
        (FieldType::List(_), _) => {}
        (_, Json::Array(one)) if one.len() < 2 => json = one.first().cloned().unwrap_or_default(),
        _ => {}
    }
    let parsed = match (ty, json.as_str()) {
        (FieldType::Timestamp { .. }, Some(text)) => attribute_time(ty, text),
        _ => json::parse_value(ty, &json),
    };
    parsed.map_err(|cause| {
        Error::new(ErrorKind::Corrupt, "a search attribute is not of the declared type")
            .hint("declare the field with the type that the attribute has in the namespace")
            .caused_by(cause)
    })
}

/// The server writes nanoseconds; what the field does not keep is cut.
fn attribute_time(ty: &FieldType, text: &str) -> Result<Value> {
    let short = match text.split_once('.') {
        Some((seconds, rest)) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, zone) = rest.split_at(digits);
            format!("{seconds}.{}{zone}", &fraction[..digits.min(6)])
        }
        None => text.to_owned(),
    };
    let micros = short.parse::<Timestamp>()?.micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
    Ok(time(ty, micros.div_euclid(1_000_000), nanos))
}

/// Whether a field of a type holds every value of a search attribute of a registered type.
pub(crate) fn attribute_fits(ty: &FieldType, registered: i32) -> bool {
    use FieldType::{Boolean, Float, Integer, List, String, Text, Timestamp};
    use IndexedValueType as Registered;
    match Registered::try_from(registered) {
        Ok(Registered::Text | Registered::Keyword) => matches!(ty, String | Text),
        Ok(Registered::Int) => matches!(ty, Integer),
        Ok(Registered::Double) => matches!(ty, Float),
        Ok(Registered::Bool) => matches!(ty, Boolean),
        Ok(Registered::Datetime) => matches!(ty, Timestamp { .. }),
        Ok(Registered::KeywordList) => matches!(ty, List(_)),
        Ok(Registered::Unspecified) | Err(_) => false,
    }
}
