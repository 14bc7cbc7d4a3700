//! Which product and version answers: OpenSearch 2, Elasticsearch 7 or 8; what differs between them.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use unisono_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::error;

/// What a cluster runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    opensearch: bool,
    number: String,
    views: Views,
}

/// How an engine keeps a view of an index that stays the same (a point in time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Views {
    /// It does not.
    None,
    /// `/_pit`.
    Elasticsearch,
    /// `/_search/point_in_time`.
    OpenSearch,
}

#[derive(Deserialize)]
struct Root {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    number: String,
    #[serde(default)]
    distribution: Option<String>,
    #[serde(default)]
    build_flavor: Option<String>,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: BTreeMap<String, Node>,
}

#[derive(Deserialize)]
struct Node {
    version: String,
    #[serde(default)]
    build_flavor: Option<String>,
}

impl Product {
    /// Asks the cluster.
    pub(crate) async fn detect(client: &Client) -> Result<Product> {
        let root = client.get("/").await?;
        if root.status != 405 {
            let root: Root = root.ok()?.parse().map_err(|e| {
                Error::new(ErrorKind::Unsupported, "this is neither OpenSearch nor Elasticsearch")
                    .hint("look what listens at the url")
                    .caused_by(e)
            })?;
            return Product::of(root.version);
        }
        // An Elasticsearch behind a gateway that keeps its front page to itself.
        let nodes = client.get("/_nodes/_local?filter_path=nodes.*.version,nodes.*.build_flavor");
        let nodes: Nodes = nodes.await?.ok()?.parse()?;
        let node = nodes.nodes.into_values().next().ok_or_else(error::missing)?;
        let (number, build_flavor) = (node.version, node.build_flavor);
        Product::of(Version { number, distribution: None, build_flavor })
    }

    fn of(version: Version) -> Result<Product> {
        let opensearch = version.distribution.as_deref() == Some("opensearch");
        let mut parts = version.number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let release = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let views = match (opensearch, release) {
            (true, (2, 4..)) => Views::OpenSearch,
            (true, (2, _)) => Views::None,
            // Only builds with Elastic's own features have them.
            (false, (7, 10..)) if version.build_flavor.as_deref() != Some("default") => Views::None,
            (false, (7, 10..) | (8, _)) => Views::Elasticsearch,
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the cluster's version is not one of those that are known to work",
                )
                .with("product", if opensearch { "OpenSearch" } else { "Elasticsearch" })
                .with("version", version.number)
                .hint("use OpenSearch 2, Elasticsearch 7.10 to 7.17 or Elasticsearch 8"));
            }
        };
        Ok(Product { opensearch, number: version.number, views })
    }

    /// Opens a view of an index that stays the same; `None` if the engine has none.
    pub(crate) async fn open_view(&self, client: &Client, index: &str) -> Result<Option<String>> {
        let path = match self.views {
            Views::None => return Ok(None),
            Views::Elasticsearch => format!("/{index}/_pit?keep_alive={VIEW_KEPT}"),
            Views::OpenSearch => format!("/{index}/_search/point_in_time?keep_alive={VIEW_KEPT}"),
        };
        #[derive(Deserialize)]
        struct Opened {
            #[serde(alias = "pit_id")]
            id: String,
        }
        let opened = client.read(Method::POST, &path, None::<&Json>).await?;
        Ok(Some(opened.ok()?.parse::<Opened>()?.id))
    }

    /// Lets go of a view. It would end by itself, so that a failure does no harm.
    pub(crate) async fn close_view(&self, client: &Client, id: &str) {
        let (path, body) = match self.views {
            Views::None => return,
            Views::Elasticsearch => ("/_pit", json!({"id": id})),
            Views::OpenSearch => ("/_search/point_in_time", json!({"pit_id": [id]})),
        };
        if let Err(e) = client.read(Method::DELETE, path, Some(&body)).await.and_then(|a| a.ok()) {
            tracing::debug!(source = %client.source(), error = %e, "a point in time was left to end by itself");
        }
    }
}

/// How long an engine keeps a view after its last use.
pub(crate) const VIEW_KEPT: &str = "1m";

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.opensearch { "OpenSearch" } else { "Elasticsearch" };
        write!(f, "{name} {}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: &str, distribution: Option<&str>, flavor: Option<&str>) -> Result<Product> {
        let text = |t: Option<&str>| t.map(str::to_owned);
        Product::of(Version {
            number: number.to_owned(),
            distribution: text(distribution),
            build_flavor: text(flavor),
        })
    }

    #[test]
    fn versions_that_were_never_tried_are_refused() {
        let (opensearch, default) = (Some("opensearch"), Some("default"));
        for (number, distribution, flavor, views) in [
            ("2.19.1", opensearch, None, Views::OpenSearch),
            ("2.3.0", opensearch, None, Views::None),
            ("7.10.2", None, Some("oss"), Views::None),
            ("7.17.29", None, default, Views::Elasticsearch),
            ("8.19.21", None, default, Views::Elasticsearch),
        ] {
            assert_eq!(of(number, distribution, flavor).unwrap().views, views, "{number}");
        }
        for (number, distribution) in [
            ("1.3.0", opensearch),
            ("3.0.0", opensearch),
            ("7.9.3", None),
            ("9.0.0", None),
            ("", None),
        ] {
            let e = of(number, distribution, default).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unsupported, "{number}");
            assert_eq!(e.detail("version"), Some(number));
        }
    }
}
