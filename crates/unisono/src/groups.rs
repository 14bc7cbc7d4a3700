//! Groups and totals as JSON, in the one form that the library, the server and the command line share.

use serde_json::{Map, Value as Json};
use unisono_core::query::{Aggregate, Groups, Metric, Path};
use unisono_core::{Entity, FieldType, Value, json};

/// Each group as an object of its keys and metrics, named as in the question.
pub fn to_json(entity: &Entity, aggregate: &Aggregate, groups: &Groups) -> Vec<Json> {
    let groups = groups.groups.iter().map(|group| {
        let mut object = Map::new();
        for (path, value) in aggregate.group_by.iter().zip(&group.keys) {
            object.insert(path.to_text(entity), json::value_to_json(path.ty(entity), value));
        }
        for ((name, metric), value) in aggregate.metrics.iter().zip(&group.metrics) {
            object.insert(name.clone(), metric_to_json(entity, metric, value));
        }
        Json::Object(object)
    });
    groups.collect()
}

/// A minimum or maximum is written like its field; counts, sums and means like the number that they are.
fn metric_to_json(entity: &Entity, metric: &Metric, value: &Value) -> Json {
    let like = |path: &Path| json::value_to_json(path.ty(entity), value);
    match metric {
        Metric::Min(path) | Metric::Max(path) => like(path),
        Metric::Count | Metric::Sum(_) | Metric::Avg(_) => {
            json::value_to_json(&FieldType::Json, value)
        }
    }
}
