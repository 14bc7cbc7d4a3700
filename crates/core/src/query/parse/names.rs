//! Names of fields, resolved against an entity.

use crate::entity::{Entity, Field, FieldType};
use crate::error::{Error, Result};
use crate::query::ast::{Order, Path, Query, Step};
use crate::spelling::closest;

/// A path from its text.
pub(super) fn path(entity: &Entity, text: &str) -> Result<Path> {
    let (name, rest) = text.split_once('.').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let field = index(entity, name)?;
    let Some(rest) = rest else { return Ok(Path::whole(field)) };
    let step = match &entity.fields()[field].ty {
        FieldType::Objects(fields) => {
            let found = fields.iter().position(|f| f.name.as_ref() == rest);
            Step::Each(found.ok_or_else(|| unknown(text, rest, fields))?)
        }
        FieldType::Json => {
            let steps: Vec<_> = rest.split('.').map(str::to_owned).collect();
            if steps.iter().any(String::is_empty) {
                return Err(Error::invalid("a member name is empty").with("field", text));
            }
            Step::Json(steps)
        }
        ty => {
            return Err(Error::invalid(format!("a field of type {ty} has nothing below it"))
                .with("field", text)
                .hint(format!("use `{name}`")));
        }
    };
    Ok(Path { field, step })
}

/// The index of a field by its name.
pub(super) fn index(entity: &Entity, name: &str) -> Result<usize> {
    entity.index_of(name).ok_or_else(|| unknown(name, name, entity.fields()))
}

fn unknown(text: &str, name: &str, fields: &[Field]) -> Error {
    let error = Error::invalid("there is no such field").with("field", super::clip(text));
    match closest(name, fields.iter().map(|f| f.name.as_ref())) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// The error for a name that is none of the known ones of a body or URL.
pub(super) fn unknown_parameter<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    let error = Error::invalid("there is no such parameter").with("parameter", super::clip(name));
    match closest(name, known) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// Fields by name, each once.
pub(super) fn fields<'a>(
    entity: &Entity,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<usize>> {
    let mut fields = Vec::new();
    for name in names {
        let field = index(entity, name)?;
        if fields.contains(&field) {
            return Err(Error::invalid("is named twice").with("field", name));
        }
        fields.push(field);
    }
    if fields.is_empty() {
        return Err(Error::invalid("names no field"));
    }
    Ok(fields)
}

/// Fields to count values of.
pub(super) fn facets<'a>(
    entity: &Entity,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<usize>> {
    let facets = fields(entity, names)?;
    if let Some(field) = facets.iter().map(|n| &entity.fields()[*n]).find(|f| !f.ty.is_scalar()) {
        return Err(Error::invalid(format!("values of type {} are not counted", field.ty))
            .with("field", &field.name));
    }
    if facets.len() > Query::FACETS_MAX {
        return Err(Error::invalid("has too many facets").with("limit", Query::FACETS_MAX));
    }
    Ok(facets)
}

/// Sort criteria: `-created_at`, `created_at.desc`, `created_at.asc` or `created_at`.
pub(super) fn order<'a>(
    entity: &Entity,
    texts: impl Iterator<Item = &'a str>,
) -> Result<Vec<Order>> {
    let mut order: Vec<Order> = Vec::new();
    for text in texts {
        let criterion = criterion(entity, text)?;
        if order.iter().any(|o| o.path == criterion.path) {
            return Err(
                Error::invalid("is named twice in the order").with("field", super::clip(text))
            );
        }
        order.push(criterion);
    }
    if order.len() > Query::ORDER_MAX {
        return Err(Error::invalid("has too many sort criteria").with("limit", Query::ORDER_MAX));
    }
    Ok(order)
}

fn criterion(entity: &Entity, text: &str) -> Result<Order> {
    let (name, descending) = direction(text);
    let path = path(entity, name)?;
    let ty = path.ty(entity);
    if path.step != Step::Whole || !ty.is_scalar() {
        return Err(Error::invalid("cannot be sorted by").with("field", super::clip(name)).hint(
            "sort by fields of the record itself that hold a single value, not JSON or a list",
        ));
    }
    Ok(Order { path, descending })
}

/// The name and direction of a sort criterion.
pub(super) fn direction(text: &str) -> (&str, bool) {
    if let Some(name) = text.strip_prefix('-') {
        return (name, true);
    }
    match text.rsplit_once('.') {
        Some((name, "desc")) => (name, true),
        Some((name, "asc")) => (name, false),
        _ => (text, false),
    }
}
