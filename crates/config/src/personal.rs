//! `[personal]`, and `personal` of entities and streams: which values are about persons, and where their keys are.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use unisono_core::{Entity, Role};
use unisono_policy::declaration::{FollowerDeclaration, PersonalDeclaration};
use unisono_policy::hook::Secret;

use crate::problem::Spot;
use crate::sections::{PERSONAL, PERSONAL_FIELDS};
use crate::sources::{DeclaredSource, playing};
use crate::table::{Found, Table};

/// The fewest bytes of the secret.
const SECRET_BYTES_MIN: usize = 32;

/// Reads `[personal]`, if there is one; the inner `None` if a problem was reported.
pub(crate) fn store(
    file: &Table<'_>,
    sources: &BTreeMap<String, DeclaredSource>,
) -> Option<Option<PersonalDeclaration>> {
    let table = file.table("personal", &PERSONAL)?;
    let keys =
        table.text("keys").filter(|k| playing(file.report, sources, k, Role::Truth).is_some());
    let secret = table.text("secret").and_then(|found| secret(&table, &found));
    let remembered = table.duration("remembered");
    table.finish();
    Some(match (keys, secret) {
        (Some(keys), Some(secret)) => {
            Some(PersonalDeclaration { keys: keys.value.into(), secret, remembered })
        }
        _ => None,
    })
}

fn secret(table: &Table<'_>, found: &Found<String>) -> Option<Secret> {
    let bytes = BASE64_STANDARD.decode(found.value.trim()).unwrap_or_default();
    let secret = Secret::new(&bytes).filter(|_| bytes.len() >= SECRET_BYTES_MIN);
    if secret.is_none() {
        let message = "is not a secret: 32 to 64 bytes in Base64";
        let hint = "make one with: openssl rand -base64 32";
        table.report.error_with(&found.spot, message, hint);
    }
    secret
}

/// An entity with what `personal` says of it; `None` if a problem was reported.
pub(crate) fn declared(table: &Table<'_>, entity: Option<Arc<Entity>>) -> Option<Arc<Entity>> {
    let Some(of) = table.table("personal", &PERSONAL_FIELDS) else { return entity };
    let (fields, subject) = (of.texts("fields"), of.text("subject"));
    let spot_of = |name| of.spot_of(name);
    let (of_fields, of_subject) = (spot_of("fields"), spot_of("subject"));
    of.finish();
    let (entity, subject) = (entity?, subject?.value);
    let names: Vec<&str> = fields.iter().map(|found| found.value.as_str()).collect();
    match Entity::clone(&entity).with_personal(&names, &subject) {
        Ok(entity) => Some(Arc::new(entity)),
        Err(error) => {
            let path = error.detail("path").unwrap_or_default();
            let field = fields.iter().find(|found| found.value == path);
            let spot = field.map_or(&of_fields, |found| &found.spot);
            let spot = if field.is_none() && path == subject { &of_subject } else { spot };
            table.report.error(spot, format!("`{path}` {}", error.message()));
            None
        }
    }
}

/// What is declared of an entity beside its personal fields.
pub(crate) struct Around<'a> {
    /// The source of `[personal]`, if there is one.
    pub(crate) keys: Option<&'a str>,
    pub(crate) truth: Option<&'a str>,
    /// Whether others write its table.
    pub(crate) captured: bool,
    /// Whether its truth follows another one.
    pub(crate) synchronised: bool,
    pub(crate) followers: Vec<(&'a FollowerDeclaration, &'a Spot)>,
}

/// Reports what cannot be with personal fields; `None` if something was.
pub(crate) fn check(table: &Table<'_>, entity: &Entity, around: &Around<'_>) -> Option<()> {
    let report = table.report;
    let clear = around.followers.iter().find(|(follower, _)| follower.clear);
    let Some(personal) = entity.personal() else {
        let Some((_, spot)) = clear else { return Some(()) };
        let message = "`clear` is for entities with personal fields";
        report.error_with(spot, message, "remove it, or declare `personal`");
        return None;
    };
    let spot = table.spot_of("personal");
    let refuse = |message: &str, hint: &str| report.error_with(&spot, message, hint);
    let mut is_possible = true;
    let mut possible = |is: bool, message: &str, hint: &str| {
        if !is {
            refuse(message, hint);
            is_possible = false;
        }
    };
    possible(
        around.keys.is_some(),
        "personal fields need keys, and no source keeps them",
        "add [personal] with `keys`, a source, and `secret`",
    );
    possible(
        around.keys.is_none() || around.keys != around.truth,
        "the truth would keep the data and the keys to it, and so would every copy of it",
        "name another source as `keys` of [personal], such as a SQLite file of its own",
    );
    possible(
        !around.captured,
        "others write the table, and they write personal fields as they are",
        "have them write by way of Unisono, or leave out `personal`",
    );
    possible(
        !around.synchronised,
        "two truths that follow each other cannot have personal fields",
        "leave out `sync` or `personal`",
    );
    let fields = || personal.fields.iter().map(|path| &entity.fields()[path.field]);
    let searched = fields().find(|field| field.search);
    if let Some(field) = searched.filter(|_| clear.is_none()) {
        let message = format!("`{}` is searched, and no follower has it as it is", field.name);
        possible(false, &message, "set `search = false`, or `clear = true` of a search follower");
    }
    let required = fields().find(|field| field.personal && field.required);
    if let Some(field) = required.filter(|_| clear.is_some()) {
        let message = format!(
            "`{}` is required, and is null in a `clear` follower once it is erased",
            field.name
        );
        possible(false, &message, "leave out `required` or `clear`");
    }
    is_possible.then_some(())
}
