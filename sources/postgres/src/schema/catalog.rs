//! [`Catalog`]: what is in the database, from PostgreSQL's own tables.

use std::collections::{BTreeMap, HashSet};

use tokio_postgres::Row;
use unisono_core::{Error, ErrorKind, Result};

use crate::error::Failed;
use crate::parameter::{Parameter, integer, text};
use crate::session::{Session, Use};

/// A column as it is in the database.
pub(crate) struct Found {
    /// The type without its numbers, such as `numeric`, or with its schema, if that is another one.
    pub(crate) base: String,
    /// The type in full, such as `numeric(12,2)`.
    pub(crate) full: String,
    pub(crate) is_enumeration: bool,
    pub(crate) required: bool,
    /// Whether it has a value when none is given.
    pub(crate) has_default: bool,
    /// Whether it is always computed, so that it cannot be written.
    pub(crate) computed: bool,
    /// The collation, if it is text.
    pub(crate) collation: Collation,
    /// Whether a unique index has this column alone, for all rows.
    pub(crate) unique: bool,
}

/// How text of a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collation {
    /// No text, or by its bytes.
    Bytes,
    /// By a language, but equal only if the bytes are.
    Language,
    /// Texts with different bytes can be equal.
    Loose,
}

/// The columns of a table by name.
pub(crate) type Columns = BTreeMap<String, Found>;

/// What is in one schema.
pub(crate) struct Catalog<'a> {
    pub(crate) session: &'a Session,
    pub(crate) schema: &'a str,
}

const COLUMNS: &str = "\
SELECT a.attname::text, format_type(a.atttypid, NULL), format_type(a.atttypid, a.atttypmod), \
 (t.typtype = 'e')::int::bigint, a.attnotnull::int::bigint, \
 (a.atthasdef OR a.attidentity <> '')::int::bigint, (a.attgenerated <> '')::int::bigint, \
 CASE WHEN c.oid IS NULL OR c.collname IN ('C', 'POSIX', 'ucs_basic') THEN 0 \
  WHEN c.oid = 'pg_catalog.default'::regcollation AND (SELECT datcollate IN ('C', 'POSIX') FROM pg_database WHERE datname = current_database()) THEN 0 \
  WHEN c.collisdeterministic THEN 1 ELSE 2 END::bigint, \
 EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indimmediate AND i.indisvalid \
  AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)::int::bigint \
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation c ON c.oid = a.attcollation \
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

impl Catalog<'_> {
    pub(crate) async fn run(&self, sql: &str) -> Result<(), Failed> {
        self.session.run(sql).await
    }

    pub(crate) async fn rows(
        &self,
        sql: &str,
        parameters: &[Parameter],
    ) -> Result<Vec<Row>, Failed> {
        self.session.rows(Use::Once, sql, parameters).await
    }

    pub(crate) async fn has_schema(&self) -> Result<bool, Failed> {
        let sql = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
        Ok(!self.rows(sql, &[Parameter::text(self.schema)]).await?.is_empty())
    }

    /// The names of our own tables that are there.
    pub(crate) async fn own_tables(&self) -> Result<HashSet<String>, Failed> {
        let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND starts_with(c.relname, 'unisono_')";
        let rows = self.rows(sql, &[Parameter::text(self.schema)]).await?;
        Ok(rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_>>()?)
    }

    /// Those of the tables that are there on which the user lacks a right.
    pub(crate) async fn lacking_rights(&self, names: &[&str]) -> Result<Vec<String>, Failed> {
        let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relname = ANY ($2) AND NOT (has_schema_privilege(n.oid, 'USAGE') \
                    AND has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
                    AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1";
        let names: Vec<_> = names.iter().map(|name| Some(name.as_bytes().to_vec())).collect();
        let names = Parameter::array(&tokio_postgres::types::Type::TEXT, &names);
        let rows = self.rows(sql, &[Parameter::text(self.schema), names]).await?;
        Ok(rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_>>()?)
    }

    /// The columns of a table; none if there is no such table.
    pub(crate) async fn columns(&self, place: &str) -> Result<Option<Columns>, Failed> {
        let sql = "SELECT c.oid::bigint, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relname = $2";
        let rows = self.rows(sql, &[Parameter::text(self.schema), Parameter::text(place)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if !matches!(text(row, 1)?, "r" | "p") {
            let message = "there is a view or something else with the name of the table";
            return Err(Error::new(ErrorKind::SchemaMismatch, message)
                .with("table", place)
                .hint("choose another table")
                .into());
        }
        let table = u32::try_from(integer(row, 0)?).unwrap_or_default();
        let oid =
            Parameter::new(tokio_postgres::types::Type::OID, Some(table.to_be_bytes().to_vec()));
        let mut columns = Columns::new();
        for row in &self.rows(COLUMNS, &[oid]).await? {
            let yes = |column| integer(row, column).map(|n| n == 1);
            let found = Found {
                base: text(row, 1)?.to_owned(),
                full: text(row, 2)?.to_owned(),
                is_enumeration: yes(3)?,
                required: yes(4)?,
                has_default: yes(5)?,
                computed: yes(6)?,
                collation: match integer(row, 7)? {
                    0 => Collation::Bytes,
                    1 => Collation::Language,
                    _ => Collation::Loose,
                },
                unique: yes(8)?,
            };
            columns.insert(text(row, 0)?.to_owned(), found);
        }
        Ok(Some(columns))
    }

    /// The names of a table's columns, in their order.
    pub(crate) async fn order(&self, place: &str) -> Result<Vec<String>, Failed> {
        let sql = "SELECT column_name::text FROM information_schema.columns \
                   WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position";
        let rows = self.rows(sql, &[Parameter::text(self.schema), Parameter::text(place)]).await?;
        Ok(rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_>>()?)
    }

    /// The column that is the primary key, if it is one alone.
    pub(crate) async fn primary_key(&self, place: &str) -> Result<Option<String>, Failed> {
        let sql = "SELECT a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
                   WHERE n.nspname = $1 AND c.relname = $2 AND i.indisprimary AND i.indnkeyatts = 1";
        let rows = self.rows(sql, &[Parameter::text(self.schema), Parameter::text(place)]).await?;
        Ok(rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()?)
    }

    /// The columns that an index which is not ours keeps unique, each alone and for all rows.
    pub(crate) async fn unique_by_others(&self, place: &str) -> Result<Vec<String>, Failed> {
        let sql = "SELECT a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
                   JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class x ON x.oid = i.indexrelid \
                   JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
                   WHERE n.nspname = $1 AND c.relname = $2 AND i.indisunique AND i.indimmediate AND i.indisvalid \
                   AND i.indpred IS NULL AND i.indnkeyatts = 1 AND NOT starts_with(x.relname, 'unisono_unique_')";
        let rows = self.rows(sql, &[Parameter::text(self.schema), Parameter::text(place)]).await?;
        Ok(rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_>>()?)
    }

    /// The names and definitions of indexes of ours on a table.
    pub(crate) async fn indexes(&self, place: &str) -> Result<Vec<String>, Failed> {
        let sql = "SELECT i.indexname::text FROM pg_indexes i WHERE i.schemaname = $1 AND i.tablename = $2 \
                   AND (starts_with(i.indexname, 'unisono_index_') OR starts_with(i.indexname, 'unisono_unique_'))";
        let rows = self.rows(sql, &[Parameter::text(self.schema), Parameter::text(place)]).await?;
        Ok(rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_>>()?)
    }
}
