//! Whether captured tables are still captured.

use unisono_core::{Error, ErrorKind, Result};

use crate::client::Tables;
use crate::error::Failed;
use crate::parameter::text;
use crate::schema::{Catalog, Step};
use crate::session::Session;

/// Fails if somebody has changed a captured table so that writes to it can be missed.
pub(crate) async fn check(session: &Session, schema: &str, tables: &Tables) -> Result<(), Failed> {
    let catalog = Catalog { session, schema };
    for table in tables.values().filter(|t| t.capture.is_some()) {
        let binding = &table.binding();
        let step = Step { catalog: &catalog, binding, notes: &mut Vec::new() };
        let is_captured =
            step.is_captured().await.map_err(|failed| failed.of(table.entity.name()))?;
        if !is_captured {
            let gone = "triggers that capture the writes of others are gone, disabled or outdated";
            return Err(Error::new(ErrorKind::SchemaMismatch, gone)
                .of(table.entity.name())
                .with("table", &binding.place)
                .hint("somebody made the table anew, or changed its triggers: restart, so that they are made again and every record is read")
                .into());
        }
    }
    Ok(())
}

/// The entities that are still captured, although they are no longer declared.
pub(crate) async fn undeclared(
    catalog: &Catalog<'_>,
    declared: &Tables,
) -> Result<Vec<String>, Failed> {
    let schema = crate::table::quote(catalog.schema);
    let rows = catalog.rows(&format!("SELECT entity FROM {schema}.unisono_captures"), &[]).await?;
    let entities: Result<Vec<_>> = rows.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect();
    Ok(entities?.into_iter().filter(|entity| !declared.contains_key(entity.as_str())).collect())
}
