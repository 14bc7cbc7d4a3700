//! The triggers on a captured table, and the function that they call.

use unisono_core::source::Binding;
use unisono_core::{Capture, Result};

use crate::error::Failed;
use crate::parameter::text;
use crate::schema::Step;
use crate::table::quote;

/// The trigger of rows, and that of `TRUNCATE`.
const ROW: &str = "unisono_capture";
const WHOLE: &str = "unisono_capture_all";

/// What the function does. It runs with the rights of whoever prepared the table, and finds nothing by a search path.
fn body(schema: &str, binding: &Binding, can_skip: bool) -> String {
    let key = quote(&binding.entity.key_field().name);
    let note = |key: &str| {
        format!(
            "INSERT INTO {schema}.unisono_intake (entity, key, actor) VALUES ('{}', {key}, session_user);",
            binding.entity.name()
        )
    };
    // A foreign key's own statements cannot be told from ours.
    let skip = match can_skip {
        true => {
            "IF current_setting('unisono.own', true) = 'on' AND pg_trigger_depth() = 1 THEN RETURN NULL; END IF;"
        }
        false => "",
    };
    format!(
        "BEGIN {skip} \
         IF TG_OP = 'TRUNCATE' THEN {all} RETURN NULL; END IF; \
         IF TG_OP = 'DELETE' THEN {old} RETURN NULL; END IF; \
         IF TG_OP = 'UPDATE' THEN IF OLD.{key} IS DISTINCT FROM NEW.{key} THEN {old} END IF; END IF; \
         {new} RETURN NULL; END",
        all = note("NULL"),
        old = note(&format!("OLD.{key}::text")),
        new = note(&format!("NEW.{key}::text")),
    )
}

/// What was found of the capture of a table.
struct Found {
    /// The function's body.
    body: Option<String>,
    /// How many of the two triggers are there and always fire.
    triggers: usize,
    /// Whether a statement of ours can write something else than it says: by a trigger of the application that changes
    /// rows before they are written, or by a foreign key that deletes or changes rows with those that they refer to.
    has_others: bool,
}

impl Step<'_> {
    async fn found_triggers(&self) -> Result<Found, Failed> {
        let (table, function) =
            (self.table().replace('\'', "''"), self.function().replace('\'', "''"));
        let sql = format!(
            "SELECT 'body', p.prosrc FROM pg_proc p WHERE p.oid = to_regproc('{function}') \
             UNION ALL SELECT CASE WHEN t.tgname IN ('{ROW}', '{WHOLE}') THEN 'own' WHEN t.tgtype & 3 = 3 THEN 'other' ELSE '' END, \
              t.tgenabled::text || coalesce(t.tgfoid = to_regproc('{function}'), FALSE)::text \
             FROM pg_trigger t WHERE t.tgrelid = '{table}'::regclass AND NOT t.tgisinternal \
             UNION ALL SELECT 'other', c.conname::text FROM pg_constraint c WHERE c.conrelid = '{table}'::regclass AND c.contype = 'f' \
              AND (c.confdeltype NOT IN ('a', 'r') OR c.confupdtype NOT IN ('a', 'r'))"
        );
        let mut found = Found { body: None, triggers: 0, has_others: false };
        for row in &self.rows(&sql).await? {
            match (text(row, 0)?, text(row, 1)?) {
                ("body", body) => found.body = Some(body.to_owned()),
                ("own", "Atrue") => found.triggers += 1,
                ("other", _) => found.has_others = true,
                _ => {}
            }
        }
        Ok(found)
    }

    fn function(&self) -> String {
        // By the entity, whose name is short enough to fit with what stands before it.
        format!("{}.unisono_capture_{}", self.schema(), self.binding.entity.name())
    }

    /// Makes what is missing of the triggers; answers whether writes can have been missed.
    ///
    /// This waits for transactions that are writing the table, though not for long, as nobody else begins to write
    /// meanwhile. From then on nobody writes until the end of this one.
    pub(super) async fn make_triggers(&self) -> Result<bool, Failed> {
        if Capture::of(&self.binding.options) != Some(Capture::Trigger) {
            self.drop_triggers().await?;
            return Ok(false);
        }
        let found = self.found_triggers().await?;
        let body = body(&self.schema(), self.binding, !found.has_others);
        let (table, function) = (self.table(), self.function());
        if found.body.as_ref() != Some(&body) {
            self.run(&format!(
                "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
                 SET search_path = pg_catalog, pg_temp AS $unisono${body}$unisono$"
            ))
            .await?;
        }
        if found.triggers == 2 {
            // While we took our own writes for what was written, another trigger may have changed them.
            return Ok(found.has_others && found.body.as_ref() != Some(&body));
        }
        // Also for rows that logical replication or a restore writes.
        self.run(&format!(
            "SET LOCAL lock_timeout = '2s'; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE; SET LOCAL lock_timeout = 0; \
             DROP TRIGGER IF EXISTS {ROW} ON {table}; DROP TRIGGER IF EXISTS {WHOLE} ON {table}; \
             CREATE TRIGGER {ROW} AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}(); \
             CREATE TRIGGER {WHOLE} AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}(); \
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER {ROW}; ALTER TABLE {table} ENABLE ALWAYS TRIGGER {WHOLE}"
        ))
        .await?;
        Ok(true)
    }

    /// Whether every write to the table is noted down as it must be.
    pub(super) async fn is_captured(&self) -> Result<bool, Failed> {
        if Capture::of(&self.binding.options) != Some(Capture::Trigger) {
            return Ok(true);
        }
        let found = self.found_triggers().await?;
        let body = body(&self.schema(), self.binding, !found.has_others);
        Ok(found.triggers == 2 && found.body == Some(body))
    }

    /// Takes the triggers away, if there are any.
    pub(super) async fn drop_triggers(&self) -> Result<(), Failed> {
        if self.found_triggers().await?.body.is_none() {
            return Ok(());
        }
        let (table, function) = (self.table(), self.function());
        self.run(&format!(
            "DROP TRIGGER IF EXISTS {ROW} ON {table}; DROP TRIGGER IF EXISTS {WHOLE} ON {table}; \
             DROP FUNCTION IF EXISTS {function}()"
        ))
        .await
    }
}
