//! The example file: every option with what it does, made from the same table as everything else.

use std::fmt::Write;

use unisono_core::Role;
use unisono_core::kind::SourceKind;

use crate::kinds::Kinds;
use crate::options::{self, Key, Section, Shape};
use crate::sections::{
    ADAPTIVE, ARCHIVE, BATCH, CACHE, ENTITY, FIELD, FILE, FOLLOWER, HOOK, LOG, PERSONAL,
    PERSONAL_FIELDS, PROJECTED, PROJECTION, READ, READ_RULE, RESIDENCY, ROUTE, SAMPLER, SERVER,
    STREAM, SWEEP, SYNC, TARGET, TLS, TOKEN, WARM_QUESTION, WRITE,
};

const HEAD: &str = "\
# Every option of Unisono. Options that are commented out show their default, or an example where there is none.
#
# Any text can hold ${NAME}, ${NAME:-default} or ${file:/path}. Durations are written like \"500ms\", \"60s\", \"7d\",
# sizes like \"64MB\". `unisono check` shows every problem of a file at its line.

";

/// The text of an example that uses the given kinds: it is valid, and names every option.
pub fn example(kinds: &[&'static dyn SourceKind]) -> String {
    let mut out = HEAD.to_owned();
    keys(&mut out, &FILE, &[]);
    head(&mut out, "[server]", SERVER.doc);
    keys(&mut out, &SERVER, &[]);
    commented(
        &mut out,
        "[server.tls]",
        &TLS,
        &[("certificate", "\"tls/server.pem\""), ("key", "\"tls/server.key\"")],
    );
    let hash = format!("\"sha256:{}\"", "0".repeat(64));
    let token =
        [("name", "\"shop\""), ("hash", hash.as_str()), ("expires", "2030-01-01T00:00:00Z")];
    commented(&mut out, "[[server.tokens]]", &TOKEN, &token);
    let route = [("path", "\"/products\""), ("entity", "\"product\"")];
    commented(&mut out, "[[server.routes]]", &ROUTE, &route);
    head(&mut out, "[log]", LOG.doc);
    keys(&mut out, &LOG, &[]);
    head(&mut out, "[sweep]", SWEEP.doc);
    keys(&mut out, &SWEEP, &[]);
    let keeps = |kind: &&&dyn SourceKind| kind.capability().roles.contains(&Role::Vault);
    if let Some(vault) = kinds.iter().find(keeps) {
        let vault = format!("\"{}\"", vault.name());
        commented(&mut out, "[archive]", &ARCHIVE, &[("source", &vault)]);
    }
    commented(&mut out, "[sampler]", &SAMPLER, &[]);
    let secret = format!("\"whsec_{}\"", "A".repeat(44).replace("AAAA", "c2Vj"));
    let hook = [("url", "\"https://example.org/unisono\""), ("secret", secret.as_str())];
    commented(&mut out, "[hooks.operators]", &HOOK, &hook);
    let secret = format!("\"{}=\"", "A".repeat(43));
    let personal = [("keys", "\"keys\""), ("secret", secret.as_str())];
    commented(&mut out, "[personal]", &PERSONAL, &personal);
    for kind in kinds.iter().filter(|kind| !options::is_outlet(**kind)) {
        source(&mut out, *kind);
    }
    entity(&mut out, kinds);
    streams(&mut out, kinds);
    projections(&mut out, kinds);
    for kind in kinds.iter().filter(|kind| options::is_outlet(**kind)) {
        outlet(&mut out, *kind);
    }
    out
}

/// An outlet, which only the user can say the place of.
fn outlet(out: &mut String, kind: &dyn SourceKind) {
    let section = options::outlet(kind);
    let required = section.keys.iter().filter(|key| key.required);
    let value = |key: &Key| match key.name {
        "kind" => format!("\"{}\"", kind.name()),
        "from" => "[\"product\"]".to_owned(),
        "secret" => format!("\"whsec_{}\"", "c2Vj".repeat(11)),
        _ => sample(key),
    };
    let mut given: Vec<_> = required.map(|key| (key.name, value(key))).collect();
    given.push(("where", "\"record.stock > 0\"".to_owned()));
    let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    commented(out, &format!("[outlets.{}]", kind.name()), &section, &given);
}

fn source(out: &mut String, kind: &dyn SourceKind) {
    let section = options::source(kind);
    let header = format!("[sources.{}]", kind.name());
    let mut given = vec![("kind", format!("\"{}\"", kind.name()))];
    for key in section.keys.iter().filter(|k| k.required && k.name != "kind") {
        let value = match key.shape {
            Shape::Path => format!("\"data/{}\"", kind.name()),
            _ => sample(key),
        };
        given.push((key.name, value));
    }
    let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if is_server(kind) {
        commented(out, &header, &section, &given);
    } else {
        head(out, &header, section.doc);
        keys(out, &section, &given);
    }
}

/// Whether only the user can say where it is.
fn is_server(kind: &dyn SourceKind) -> bool {
    let has_place = |k: &&Key| k.name == "kind" || matches!(k.shape, Shape::Path);
    options::source(kind).keys.iter().filter(|k| k.required).any(|k| !has_place(&k))
}

fn entity(out: &mut String, kinds: &[&'static dyn SourceKind]) {
    let can = |role: Role| kinds.iter().filter(move |k| k.capability().roles.contains(&role));
    let here = |role: Role| can(role).filter(|k| !is_server(**k));
    let durable = here(Role::Truth).find(|k| k.capability().durable);
    let Some(truth) = durable.or_else(|| here(Role::Truth).next()) else { return };
    let cache = here(Role::Cache).find(|k| k.name() != truth.name());
    let of_kind =
        |section: &Section, kind: &dyn SourceKind| section.with_kind(Some(kind), kinds.into());
    let quoted = |name: &str| format!("\"{name}\"");

    head(out, "[entities.product]", ENTITY.doc);
    let given = [("key", "\"id\""), ("truth", &quoted(truth.name()))];
    keys(out, &of_kind(&ENTITY, *truth), &given);
    fields(out);
    let personal = [("fields", "[\"properties.owner\"]"), ("subject", "\"id\"")];
    commented(out, "[entities.product.personal]", &PERSONAL_FIELDS, &personal);
    if let Some(cache) = cache {
        head(out, "[entities.product.cache]", CACHE.doc);
        keys(out, &of_kind(&CACHE, *cache), &[("source", &quoted(cache.name()))]);
        let question = [
            (
                "query",
                "{ where = { field = \"status\", op = \"eq\", value = \"listed\" }, limit = 50 }",
            ),
            ("count", "{ where = { field = \"stock\", op = \"gt\", value = 0 } }"),
            ("aggregate", "{ group_by = [\"status\"], metrics = { products = \"count\" } }"),
        ];
        commented(out, "[[entities.product.cache.warm_questions]]", &WARM_QUESTION, &question);
    }
    head(out, "[entities.product.read]", READ.doc);
    keys(out, &READ, &[]);
    let rule = [
        ("name", "\"reports\""),
        ("when", "\"request.criteria > 2 && request.actor == 'reports'\""),
        ("ask", "[\"followers\", \"truth\"]"),
    ];
    commented(out, "[[entities.product.read.rules]]", &READ_RULE, &rule);
    head(out, "[entities.product.write]", WRITE.doc);
    keys(out, &WRITE, &[]);
    commented(out, "[entities.product.adaptive]", &ADAPTIVE, &[]);
    let cache = cache.map(|k| k.name());
    let others =
        can(Role::Follower).filter(|k| k.name() != truth.name() && Some(k.name()) != cache);
    let mut kept = None;
    for follower in others {
        kept.get_or_insert(follower.name());
        let section = of_kind(&FOLLOWER, *follower);
        let searches = follower.capability().query.search;
        let mut given = vec![("source", quoted(follower.name()))];
        if searches {
            given.push(("where", quoted("record.stock > 0")));
        }
        let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let header = "[[entities.product.followers]]";
        if is_server(*follower) {
            commented(out, header, &section, &given);
        } else {
            head(out, header, section.doc);
            keys(out, &section, &given);
        }
    }
    commented(out, "[entities.product.followers.batch]", &BATCH, &[]);
    sync(out);
    if let Some(kept) = kept {
        let kept = quoted(kept);
        let residency = [("source", kept.as_str()), ("forbid", "\"record.status == 'draft'\"")];
        commented(out, "[[entities.product.residency]]", &RESIDENCY, &residency);
    }
}

/// Another truth that the one of the entity follows.
fn sync(out: &mut String) {
    let sync = [
        ("with", "\"branch\""),
        ("prefer", "\"branch\""),
        ("older_wins", "\"older.status == 'gone'\""),
        ("fields", "{ stock = \"counter\", tags = \"union\" }"),
        ("groups", "[[\"price\", \"weight\"]]"),
    ];
    commented(out, "[entities.product.sync]", &SYNC, &sync);
}

/// A type of streams, in the same truth.
fn streams(out: &mut String, kinds: &[&'static dyn SourceKind]) {
    let can = |k: &&&dyn SourceKind| k.capability().roles.contains(&Role::Truth);
    if let Some(truth) = kinds.iter().find(can) {
        let truth = format!("\"{}\"", truth.name());
        commented(
            out,
            "[streams.order]",
            &STREAM,
            &[("truth", &truth), ("table", "\"order_events\""), ("strategy", "\"best_effort\"")],
        );
    }
}

/// A projection of the entity, in the same truth.
fn projections(out: &mut String, kinds: &[&'static dyn SourceKind]) {
    let can = |k: &&&dyn SourceKind| k.capability().roles.contains(&Role::Follower);
    let Some(target) = kinds.iter().find(can) else { return };
    let projection = [
        ("from", "\"product\""),
        ("where", "\"record.active == true\""),
        ("each", "\"record.offers\""),
        ("key", "{ shop = \"item.shop\" }"),
    ];
    commented(out, "[projections.offers]", &PROJECTION, &projection);
    let header = "[projections.offers.fields.cheapest]";
    commented(out, header, &PROJECTED, &[("min", "\"item.amount\"")]);
    let section = TARGET.with_kind(Some(*target), Kinds::from(kinds));
    let source = format!("\"{}\"", target.name());
    commented(out, "[[projections.offers.targets]]", &section, &[("source", &source)]);
}

/// A field of each type; the rules of a field are described once.
fn fields(out: &mut String) {
    const FIELDS: &str = r#"id = "string"
name = { type = "string", search = true, required = true, max_length = 200 }
description = "text"
price = "decimal(12,2)"
stock = { type = "integer", default = 0 }
weight = "float"
active = { type = "boolean", default = true }
status = { type = "string", enum = ["draft", "listed", "gone"], index = true }
released = "date"
changed_at = "timestamp"
supplier = "uuid"
ean = { type = "string", unique = true }
thumbnail = { type = "bytes", max_length = 65536 }
properties = "json"
tags = { type = "list", of = "string", max_length = 20 }
offers = { type = "list", of = { shop = "string", amount = "decimal(12,2)" } }
"#;
    head(out, "[entities.product.fields]", "Its fields: a type, or a table with a type and rules:");
    for key in FIELD.keys.iter() {
        let _ = writeln!(out, "#   {:<11} {}", key.name, key.doc);
    }
    out.push_str(FIELDS);
}

fn head(out: &mut String, header: &str, doc: &str) {
    let _ = write!(out, "\n{}{header}\n", comment(doc));
}

/// A whole table that is commented out.
fn commented(out: &mut String, header: &str, section: &Section, given: &[(&str, &str)]) {
    let _ = write!(out, "\n{}# {header}\n", comment(section.doc));
    let mut inner = String::new();
    keys(&mut inner, section, given);
    for line in inner.lines() {
        let _ = writeln!(out, "{}{line}", if line.starts_with('#') { "" } else { "# " });
    }
}

/// The scalar keys of a table: those given as they are, the others commented out.
fn keys(out: &mut String, section: &Section, given: &[(&str, &str)]) {
    for key in section.keys.iter() {
        if matches!(
            key.shape,
            Shape::Table(_)
                | Shape::Tables(_)
                | Shape::Named(_)
                | Shape::Sources
                | Shape::Outlets
                | Shape::Fields(_)
        ) {
            continue;
        }
        out.push_str(&comment(key.doc));
        let _ = match given.iter().find(|(name, _)| *name == key.name) {
            Some((name, value)) => writeln!(out, "{name} = {value}"),
            None => {
                let value = key.default_toml().unwrap_or_else(|| sample(key));
                writeln!(out, "# {} = {value}", key.name)
            }
        };
    }
}

/// A value for a key without a default.
fn sample(key: &Key) -> String {
    let sample = match key.shape {
        Shape::Choice(words) => return format!("\"{}\"", words.first().unwrap_or(&"")),
        Shape::Boolean => "true",
        Shape::Integer { .. } => "1",
        Shape::Duration { .. } => "\"60s\"",
        Shape::Size { .. } => "\"64MB\"",
        Shape::Secret => "\"${SECRET}\"",
        Shape::Text if key.name == "where" => "\"record.stock > 0\"",
        Shape::Text if matches!(key.name, "table" | "index" | "folder" | "collection") => {
            "\"products\""
        }
        Shape::Text if key.name == "journal" => "\"queue\"",
        Shape::Text if key.name == "region" => "\"eu\"",
        Shape::Texts => "[\"…\"]",
        Shape::Expressions => "{ stock = \"record.stock * 12\" }",
        _ => "\"…\"",
    };
    sample.to_owned()
}

/// A doc as comment lines of at most 116 characters.
fn comment(doc: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in doc.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 116 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
    out
}
