//! [`Remote`]: a running server, over HTTP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;
use unisono::config::Problems;
use unisono::core::query::Query;
use unisono::core::{Effect, Error, ErrorKind, Position, Result};
use unisono::engine::archive::backup::Backup;
use unisono::engine::delivery::dead_letter::DeadLetter;
use unisono::engine::sync::Conflict;
use unisono::engine::verify::report::VerifyOptions;

use super::events::Events;
use super::{
    CONFLICTS_MAX, Found, Log, Page, Parser, Prepared, PutCondition, ReportProgress, Target,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Verification and streams take as long as they take; a silent connection is given up after this.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// A server and the way to it.
pub(crate) struct Remote {
    base: Url,
    client: Client,
    events: Mutex<Option<Events>>,
}

impl Remote {
    /// For the address of a server. Connects with the first request.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self> {
        let text = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let bad = || Error::invalid("is not the address of a server").with("url", url);
        let mut base: Url = text.parse().map_err(|e| bad().caused_by(e))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad().hint("an address is like http://127.0.0.1:3000"));
        }
        base.set_query(None);
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Error::invalid("the token has characters that no token has"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .build()
            .map_err(|e| Error::internal("no HTTP client can be made").caused_by(e))?;
        Ok(Remote { base, client, events: Mutex::new(None) })
    }

    fn request(&self, method: Method, path: &[&str], query: &[(String, String)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            for segment in path {
                // An operation begins with an underscore; a key that does is told from it by its escape.
                segments.push(segment);
            }
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.client.request(method, url)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let problem: Json = response.json().await.unwrap_or_default();
        Err(failure(status, &problem))
    }

    async fn json(&self, request: RequestBuilder) -> Result<Json> {
        self.read(request).await
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let bytes = self.send(request).await?.bytes().await.map_err(|e| self.unreachable(e))?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(ErrorKind::Unavailable, "the answer is not that of a Unisono server")
                .hint("check --url")
                .caused_by(e)
        })
    }

    async fn admin(&self, method: Method, path: &[&str], body: Option<&Json>) -> Result<Json> {
        let request = self.request(method, &[&["admin", "v1"], path].concat(), &[]);
        match body {
            Some(body) => self.json(request.json(body)).await,
            None => self.json(request).await,
        }
    }

    /// Has the server read its configuration again; answers what that changed, or would change.
    pub(crate) async fn reload(&self, dry_run: bool) -> Result<Json> {
        let dry_run = [("dry_run".to_owned(), dry_run.to_string())];
        self.json(self.request(Method::POST, &["admin", "v1", "reload"], &dry_run)).await
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        let effect = if error.is_connect() { Effect::None } else { Effect::Unknown };
        let message = match error.is_timeout() {
            true => "the server did not answer in time",
            false => "the server cannot be reached",
        };
        Error::new(ErrorKind::Unavailable, message)
            .with("url", &self.base)
            .effect(effect)
            .hint("check --url, and that the server is running")
            .caused_by(error.without_url())
    }
}

/// The details of a problem that are told again.
const CONTEXT: &[&str] = &[
    "key",
    "actual",
    "parameter",
    "value",
    "reason",
    "limit",
    "bytes_max",
    "oldest",
    "head",
    "sources",
    "file",
    "restart",
];

/// The error that a problem of the server describes.
pub(super) fn failure(status: StatusCode, problem: &Json) -> Error {
    let code = problem["code"].as_str().unwrap_or_default();
    let kind = ErrorKind::ALL.iter().copied().find(|kind| kind.code() == code);
    let Some(kind) = kind else {
        return Error::new(ErrorKind::Unavailable, "the answer is not that of a Unisono server")
            .with("status", status.as_u16())
            .hint("check --url");
    };
    let detail = problem["detail"].as_str().unwrap_or(kind.summary());
    let mut error = Error::new(kind, detail.to_owned());
    if let Some(source) = problem["source"].as_str() {
        error = error.at(source);
    }
    if let Some(entity) = problem["entity"].as_str() {
        error = error.of(entity);
    }
    if let Some(hint) = problem["hint"].as_str() {
        error = error.hint(hint.to_owned());
    }
    for name in CONTEXT {
        if let Some(value) = problem["context"][*name].as_str() {
            error = error.with(name, value);
        }
    }
    if let Ok(problems) = serde_json::from_value::<Problems>(problem["problems"].clone()) {
        error = error.caused_by(problems);
    }
    error.effect(match problem["committed"].as_str() {
        Some("yes") => Effect::Committed,
        Some("unknown") => Effect::Unknown,
        _ => Effect::None,
    })
}

/// The body that chooses one dead letter.
fn chosen(letter: &DeadLetter) -> Json {
    let mut body = json!({"entity": letter.entity, "source": letter.source, "key": letter.key});
    if let Some(write) = &letter.write {
        body["write"] = write.accepted.id.to_string().into();
    }
    body
}

#[async_trait]
impl Target for Remote {
    async fn get(&self, entity: &str, key: &str) -> Result<Option<Found>> {
        let meta = [("meta".to_owned(), "true".to_owned())];
        match self.read(self.request(Method::GET, &["v1", entity, key], &meta)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    async fn put(
        &self,
        entity: &str,
        record: &Json,
        condition: PutCondition,
    ) -> Result<Option<Position>> {
        if condition == PutCondition::Absent {
            let request = self.request(Method::POST, &["v1", entity], &[]).json(record);
            let response = self.send(request).await?;
            if response.status() == StatusCode::ACCEPTED {
                return Ok(None);
            }
            let tag =
                response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
            return tag.trim_matches(['"', 'v']).parse().map(Some);
        }
        // In a batch the record names its key itself.
        let mut operation = json!({"put": record});
        if let PutCondition::Version(version) = condition {
            operation["if_match"] = format!("\"v{version}\"").into();
        }
        let request = self.request(Method::POST, &["v1", entity, "_batch"], &[]);
        let answer = self.json(request.json(&json!({"operations": [operation]}))).await?;
        result(&answer["items"][0])?;
        match &answer["items"][0] {
            item if item["status"] == StatusCode::ACCEPTED.as_u16() => Ok(None),
            item => item["version"].as_str().unwrap_or_default().parse().map(Some),
        }
    }

    async fn find(&self, entity: &str, parameters: &[(String, String)]) -> Result<Page> {
        self.read(self.request(Method::GET, &["v1", entity], parameters)).await
    }

    async fn count(&self, entity: &str) -> Result<u64> {
        let answer = self.json(self.request(Method::GET, &["v1", entity, "_count"], &[])).await?;
        answer["count"]
            .as_u64()
            .ok_or_else(|| Error::internal("a count was answered without its number"))
    }

    fn parser(&self, _entity: &str) -> Result<Parser> {
        Ok(Arc::new(|text| {
            let text = std::str::from_utf8(text)
                .map_err(|_| Error::invalid("is not valid JSON").with("reason", "not UTF-8"))?;
            let raw = RawValue::from_string(text.trim().to_owned())
                .map_err(|e| Error::invalid("is not valid JSON").with("reason", e))?;
            Ok(Prepared::Json(raw))
        }))
    }

    async fn store(&self, entity: &str, records: Vec<Prepared>) -> Result<Vec<Result<()>>> {
        let body = batch_body(&records)?;
        let request = self.request(Method::POST, &["v1", entity, "_batch"], &[]);
        let answer = self.json(request.header(CONTENT_TYPE, "application/json").body(body)).await?;
        let results = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(results.iter().map(result).collect())
    }

    fn stores_at_once(&self) -> usize {
        // Two requests may overtake each other.
        1
    }

    async fn export(&self, entity: &str, after: Option<String>) -> Result<Page> {
        let mut parameters = vec![("limit".to_owned(), Query::LIMIT_MAX.to_string())];
        parameters.extend(after.map(|cursor| ("cursor".to_owned(), cursor)));
        self.find(entity, &parameters).await
    }

    async fn status(&self) -> Result<Json> {
        self.admin(Method::GET, &["status"], None).await
    }

    async fn logs(&self) -> Result<Vec<Log>> {
        serde_json::from_value(self.status().await?["logs"].take())
            .map_err(|e| Error::internal("the logs were answered in another form").caused_by(e))
    }

    async fn changes(
        &self,
        log: &str,
        after: Position,
        max: usize,
        follow: bool,
    ) -> Result<Vec<Json>> {
        let mut open = self.events.lock().await;
        let mut events = match open.take().filter(|events| events.is_at(log, after)) {
            Some(events) => events,
            None => {
                let parameters =
                    [("log".to_owned(), log.to_owned()), ("after".to_owned(), after.to_string())];
                let response =
                    self.send(self.request(Method::GET, &["v1", "changes"], &parameters)).await?;
                Events::new(response, log, after)
            }
        };
        let until = if follow { None } else { Some(self.head(log).await?) };
        let changes = events.take(max, until).await?;
        *open = Some(events);
        Ok(changes)
    }

    async fn history(
        &self,
        entity: &str,
        key: &str,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Json>> {
        let (mut before, mut changes) = (before, Vec::new());
        loop {
            let left = (limit - changes.len()).min(Query::LIMIT_MAX);
            let mut parameters = vec![("limit".to_owned(), left.to_string())];
            parameters.extend(before.map(|before| ("before".to_owned(), before.to_string())));
            let path = ["v1", entity, key, "_history"];
            let page = self.json(self.request(Method::GET, &path, &parameters)).await?;
            let next = page["next"].as_str().map(str::parse).transpose()?;
            changes.extend(member::<Vec<Json>>(page, "items")?);
            if next.is_none() || changes.len() >= limit {
                return Ok(changes);
            }
            before = next;
        }
    }

    async fn append(&self, ty: &str, stream: &str, body: &Json) -> Result<Json> {
        self.json(self.request(Method::POST, &["v1", "streams", ty, stream], &[]).json(body)).await
    }

    async fn events(
        &self,
        ty: &str,
        stream: Option<&str>,
        parameters: &[(String, String)],
    ) -> Result<Json> {
        let path: Vec<&str> = ["v1", "streams", ty].into_iter().chain(stream).collect();
        self.json(self.request(Method::GET, &path, parameters)).await
    }

    async fn verify(&self, options: &VerifyOptions, progress: &ReportProgress<'_>) -> Result<Json> {
        let body = json!({
            "entity": options.entity,
            "source": options.source,
            "depth": options.depth,
            "repair": options.repair,
            "rate": options.rate,
        });
        let request = self.request(Method::POST, &["admin", "v1", "verify"], &[]);
        let mut response =
            self.send(request.header(ACCEPT, "application/x-ndjson").json(&body)).await?;
        let mut rest = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|e| self.unreachable(e))? {
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if let Some(report) = verify_line(&line, progress)? {
                    return Ok(report);
                }
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the server ended the verification without a report",
        ))
    }

    async fn backfill(&self, entity: &str, source: &str) -> Result<()> {
        let body = json!({"entity": entity, "source": source});
        self.admin(Method::POST, &["backfill"], Some(&body)).await.map(|_| ())
    }

    async fn projections(&self) -> Result<Vec<Json>> {
        member(self.admin(Method::GET, &["projections"], None).await?, "items")
    }

    async fn change_projection(&self, name: &str, action: &str) -> Result<Json> {
        self.admin(Method::POST, &["projections", name, action], None).await
    }

    async fn pause_source(&self, source: &str) -> Result<Json> {
        let mut answer = self.admin(Method::POST, &["sources", source, "pause"], None).await?;
        Ok(answer["paused"].take())
    }

    async fn resume_source(&self, source: &str) -> Result<bool> {
        let answer = self.admin(Method::POST, &["sources", source, "resume"], None).await?;
        Ok(answer["was_paused"] == true)
    }

    async fn erase(&self, subject: &str) -> Result<Json> {
        let mut answer = self.admin(Method::DELETE, &["subjects", subject], None).await?;
        Ok(answer["erased"].take())
    }

    async fn back_up(&self, truth: Option<&str>, _: &(dyn Fn(u64) + Sync)) -> Result<Vec<Backup>> {
        let made = self.admin(Method::POST, &["backups"], Some(&json!({ "truth": truth }))).await?;
        member(made, "backups")
    }

    async fn backups(&self, truth: Option<&str>) -> Result<Vec<Backup>> {
        let parameters: Vec<_> =
            truth.iter().map(|t| ("truth".to_owned(), (*t).to_owned())).collect();
        let request = self.request(Method::GET, &["admin", "v1", "backups"], &parameters);
        member(self.json(request).await?, "backups")
    }

    async fn check_archive(&self, truth: Option<&str>) -> Result<Vec<Json>> {
        let body = json!({ "truth": truth });
        let checked = self.admin(Method::POST, &["archive", "check"], Some(&body)).await?;
        member(checked, "logs")
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let page = self.admin(Method::GET, &["dead-letters"], None).await?;
        member(page, "items")
    }

    async fn conflicts(&self, entity: Option<&str>, key: Option<&str>) -> Result<Vec<Conflict>> {
        let mut query = vec![("limit".to_owned(), CONFLICTS_MAX.to_string())];
        let given = [("entity", entity), ("key", key)];
        query.extend(given.into_iter().filter_map(|(name, v)| Some((name.into(), v?.into()))));
        let request = self.request(Method::GET, &["admin", "v1", "conflicts"], &query);
        let mut page = self.json(request).await?;
        serde_json::from_value(page["items"].take())
            .map_err(|e| Error::internal("conflicts were answered in another form").caused_by(e))
    }

    async fn replay(&self, letter: &DeadLetter) -> Result<bool> {
        let body = chosen(letter);
        let answer = self.admin(Method::POST, &["dead-letters", "replay"], Some(&body)).await?;
        Ok(answer["accepted"].as_u64().unwrap_or(0) > 0)
    }

    async fn discard(&self, letter: &DeadLetter) -> Result<()> {
        let body = chosen(letter);
        self.admin(Method::POST, &["dead-letters", "discard"], Some(&body)).await.map(|_| ())
    }

    async fn explain(
        &self,
        entity: &str,
        key: Option<&str>,
        parameters: &[(String, String)],
    ) -> Result<Vec<String>> {
        let mut all = vec![("entity".to_owned(), entity.to_owned())];
        all.extend(key.map(|key| ("key".to_owned(), key.to_owned())));
        all.extend_from_slice(parameters);
        let answer =
            self.json(self.request(Method::GET, &["admin", "v1", "explain"], &all)).await?;
        let lines = answer["lines"].as_array().into_iter().flatten();
        Ok(lines.filter_map(|line| line.as_str().map(str::to_owned)).collect())
    }

    fn ends_with_program(&self) -> bool {
        false
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Remote {
    async fn head(&self, log: &str) -> Result<Position> {
        let found = self.logs().await?.into_iter().find(|l| l.name == log);
        let unknown =
            || Error::new(ErrorKind::NotFound, "there is no log of this name").with("log", log);
        Ok(found.ok_or_else(unknown)?.head)
    }
}

/// `{"operations": [{"put": …}, …]}` around the lines as they are.
fn batch_body(records: &[Prepared]) -> Result<String> {
    let mut body = String::from(r#"{"atomic":false,"operations":["#);
    for (n, record) in records.iter().enumerate() {
        let Prepared::Json(record) = record else {
            return Err(Error::internal("a record was prepared for sources of this process"));
        };
        if n > 0 {
            body.push(',');
        }
        body.push_str(r#"{"put":"#);
        body.push_str(record.get());
        body.push('}');
    }
    body.push_str("]}");
    Ok(body)
}

/// One line of a running verification; the report if it was the last.
/// One member of an answer.
fn member<T: DeserializeOwned>(mut answer: Json, name: &'static str) -> Result<T> {
    serde_json::from_value(answer[name].take()).map_err(|e| {
        Error::internal("the server answers in another form").with("member", name).caused_by(e)
    })
}

fn verify_line(line: &[u8], progress: &ReportProgress<'_>) -> Result<Option<Json>> {
    let mut line: Json = serde_json::from_slice(line).map_err(|e| {
        Error::internal("a line of the verification is not valid JSON").caused_by(e)
    })?;
    if let Some(step) = line.get("progress") {
        let number = |name: &str| step[name].as_u64().unwrap_or(0);
        let name = |name: &str| step[name].as_str().unwrap_or_default();
        progress(name("entity"), name("source"), number("records"), number("total"));
        return Ok(None);
    }
    match line.get_mut("report").map(Json::take) {
        Some(report) => Ok(Some(report)),
        None => Err(failure(StatusCode::INTERNAL_SERVER_ERROR, &line["error"])),
    }
}

/// What became of one operation of a batch: `status`, and the problem if it failed.
fn result(answer: &Json) -> Result<()> {
    let status =
        answer["status"].as_u64().and_then(|n| StatusCode::from_u16(u16::try_from(n).ok()?).ok());
    match status {
        Some(status) if status.is_success() => Ok(()),
        status => {
            Err(failure(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &answer["error"]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_the_server_is_the_error_that_it_was() {
        let problem = json!({
            "code": "version_conflict", "detail": "the record is not at the expected version", "committed": "no",
            "entity": "product", "hint": "read it again",
        });
        let error = failure(StatusCode::PRECONDITION_FAILED, &problem);
        assert_eq!(error.kind(), ErrorKind::VersionConflict);
        assert_eq!((error.entity(), error.hint_text()), (Some("product"), Some("read it again")));
        let other = failure(StatusCode::BAD_GATEWAY, &Json::Null);
        assert_eq!(other.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_verification_tells_its_progress_and_ends_with_the_report_or_the_failure() {
        let seen = std::sync::Mutex::new(Vec::new());
        let progress = |e: &str, s: &str, n: u64, of: u64| {
            seen.lock().unwrap().push(format!("{e} {s} {n}/{of}"))
        };
        let step = br#"{"progress":{"entity":"product","source":"search","records":5,"total":9}}"#;
        assert_eq!(verify_line(step, &progress).unwrap(), None);
        assert_eq!(*seen.lock().unwrap(), ["product search 5/9"]);
        let end = br#"{"agrees":true,"report":{"comparisons":[]}}"#;
        assert_eq!(verify_line(end, &progress).unwrap(), Some(json!({"comparisons": []})));
        let failed = br#"{"error":{"code":"timeout","detail":"slow"}}"#;
        assert_eq!(verify_line(failed, &progress).unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn addresses_are_forgiving_and_checked() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let path = |url: &str, path: &[&str]| {
            let request =
                Remote::new(url, None).unwrap().request(Method::GET, path, &[]).build().unwrap();
            request.url().to_string()
        };
        assert_eq!(
            path("127.0.0.1:3000", &["v1", "product", "a/b"]),
            "http://127.0.0.1:3000/v1/product/a%2Fb"
        );
        assert_eq!(path("https://x/shop/", &["v1"]), "https://x/shop/v1");
        assert!(Remote::new("ftp://x", None).is_err());
        assert!(Remote::new("http://", None).is_err());
    }
}
