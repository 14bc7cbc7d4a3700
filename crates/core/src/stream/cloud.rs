//! Events in the form of CloudEvents 1.0 (JSON format). What CloudEvents has no attribute for is an extension
//! attribute: revision as `sequence`, position, correlation, causation, actor, trace (`traceparent`), tags, schema version.

use serde_json::{Map, Value as Json, json};

use crate::error::{Error, Result};
use crate::stream::event::{Event, NewEvent, time};

/// Names of metadata, and of the extension attributes that hold them.
const NAMES: [(&str, &str); 4] = [
    ("correlation", "correlationid"),
    ("causation", "causationid"),
    ("actor", "actor"),
    ("trace", "traceparent"),
];
/// The extension attribute for metadata of the caller's own, as JSON text: attributes hold no objects.
const METADATA: &str = "unisonometadata";

/// An event as a CloudEvent whose source is the type of its stream.
pub fn to_cloud(event: &Event, ty: &str) -> Json {
    let mut cloud = json!({
        "specversion": "1.0", "id": event.id, "source": format!("/v1/streams/{ty}"), "subject": event.stream,
        "type": event.kind, "time": event.time, "datacontenttype": "application/json", "data": event.data,
        "sequence": event.revision.to_string(), "position": event.position,
        "schemaversion": event.schema_version,
    });
    let mut rest = event.metadata.clone();
    let Json::Object(map) = &mut cloud else { return cloud };
    for (name, attribute) in NAMES {
        if rest.get(name).is_some_and(Json::is_string)
            && let Some(value) = rest.remove(name)
        {
            map.insert(attribute.into(), value);
        }
    }
    if !rest.is_empty() {
        map.insert(METADATA.into(), Json::Object(rest).to_string().into());
    }
    if !event.tags.is_empty() {
        map.insert("tags".into(), json!(event.tags).to_string().into());
    }
    cloud
}

/// A CloudEvent as an event to be appended. Attributes that have no place of their own become metadata.
pub fn from_cloud(json: &Json) -> Result<NewEvent> {
    let Json::Object(map) = json else {
        return Err(Error::invalid("a CloudEvent is a JSON object"));
    };
    if map.get("specversion").and_then(Json::as_str) != Some("1.0") {
        return Err(Error::invalid("only CloudEvents 1.0 are taken").with("field", "specversion"));
    }
    let mut event = NewEvent::new("", Json::Null);
    for (name, value) in map {
        let wrong = |what| Error::invalid(what).with("field", name);
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("must be text"));
        match name.as_str() {
            // Whose stream it is says the path; places are given by the truth.
            "specversion" | "source" | "subject" | "sequence" | "position" => {}
            "id" => event.id = Some(text()?),
            "type" => event.kind = text()?,
            "time" => event.time = Some(time(value).map_err(|e| e.with("field", name))?),
            "data" => event.data = value.clone(),
            "data_base64" => return Err(wrong("is not taken: send JSON as data")),
            "datacontenttype" => {
                if !value.as_str().is_some_and(|t| t.contains("json")) {
                    return Err(wrong("must be JSON"));
                }
            }
            "schemaversion" => {
                let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
                event.schema_version =
                    number.filter(|n| *n >= 1).ok_or_else(|| wrong("must be a number from 1"))?;
            }
            "tags" => {
                let tags = serde_json::from_str(&text()?);
                event.tags = tags.map_err(|_| wrong("must be a JSON list of texts"))?;
            }
            METADATA => {
                let own: Map<String, Json> =
                    serde_json::from_str(&text()?).map_err(|_| wrong("must be a JSON object"))?;
                event.metadata.extend(own);
            }
            other => {
                let named = NAMES.into_iter().find(|(_, attribute)| *attribute == other);
                event.metadata.insert(named.map_or(other, |(name, _)| name).into(), value.clone());
            }
        }
    }
    if event.id.is_none() {
        return Err(Error::invalid("is required of a CloudEvent").with("field", "id"));
    }
    event.check().map(|()| event)
}
