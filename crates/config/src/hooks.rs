//! `[hooks.NAME]`: who is told of what.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::entity::check_name;
use unisono_core::spelling::closest;
use unisono_policy::hook::{self, HookDeclaration, Occasion, Secret};

use crate::problem::Spot;
use crate::sections::HOOK;
use crate::server::patterns;
use crate::table::{Found, Table};

/// Reads `[hooks]`; `None` if a problem was reported. `entities` are the declared names.
pub(crate) fn hooks(
    file: &Table<'_>,
    entities: &[&str],
) -> Option<BTreeMap<Arc<str>, HookDeclaration>> {
    let mut hooks = Vec::new();
    for (name, found) in file.named("hooks") {
        let spot = Spot { span: name.span.clone(), key: found.spot.key.clone() };
        if let Err(error) = check_name(&name.text) {
            let message =
                format!("`{}` cannot be the name of a hook: {}", name.text, error.message());
            file.report.error(&spot, message);
        }
        let table = Table::new(file.report, &HOOK, found.value, found.spot);
        hooks.push((name.text.as_str().into(), table.and_then(|table| hook(table, entities))));
    }
    hooks.into_iter().map(|(name, hook)| Some((name, hook?))).collect()
}

fn hook(table: Table<'_>, entities: &[&str]) -> Option<HookDeclaration> {
    let url = table.text("url").filter(|found| is_private(&table, found));
    let secret = table.text("secret").and_then(|found| secret(&table, &found));
    let on = table.texts("on");
    let on = on.iter().map(|found| occasion(&table, found)).collect::<Option<Vec<_>>>();
    let entities = patterns(&table, entities);
    let (timeout, retry_for) = (table.duration("timeout"), table.duration("retry_for"));
    table.finish();
    let (url, secret, on) = (url?.value.into(), secret?, on?);
    Some(HookDeclaration { url, secret, on, entities, timeout, retry_for })
}

/// Whether nobody on the way can read what is sent.
fn is_private(table: &Table<'_>, found: &Found<String>) -> bool {
    let is_private = hook::is_private(&found.value);
    if !is_private {
        let message = "the URL of a hook begins with https://";
        let hint = "http:// is for a receiver on this machine: 127.0.0.1, localhost or [::1]";
        table.report.error_with(&found.spot, message, hint);
    }
    is_private
}

fn secret(table: &Table<'_>, found: &Found<String>) -> Option<Secret> {
    let secret = Secret::parse(&found.value);
    if secret.is_none() {
        let message = "is not a secret for signatures: `whsec_` and 24 to 64 bytes in Base64";
        let hint = "make one with: echo \"whsec_$(openssl rand -base64 32)\"";
        table.report.error_with(&found.spot, message, hint);
    }
    secret
}

fn occasion(table: &Table<'_>, found: &Found<String>) -> Option<Occasion> {
    let known = Occasion::ALL.into_iter().find(|occasion| occasion.as_str() == found.value);
    if known.is_none() {
        let words = Occasion::ALL.map(Occasion::as_str);
        let hint = closest(&found.value, words);
        let hint = hint.map(|meant| format!("did you mean `{meant}`?"));
        let message = format!("`{}` is not one of {}", found.value, words.join(", "));
        table.report.error_maybe(&found.spot, message, hint);
    }
    known
}
