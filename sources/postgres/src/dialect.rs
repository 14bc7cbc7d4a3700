//! How the shared SQL speaks of a table.

use std::borrow::Cow;
use std::sync::Arc;

use unisono_core::query::Filter;
use unisono_core::{Entity, Value};
use unisono_sql::{Condition, Dialect, text};

use crate::codec::{Form, encode};
use crate::parameter::Parameter;
use crate::query::nested;
use crate::table::Table;

impl Dialect for Table {
    type Parameter = Parameter;

    fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    fn table(&self) -> &str {
        &self.name
    }

    fn selected(&self, field: usize) -> &str {
        self.columns.get(field).map_or("NULL", |c| c.selected())
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn mark(&self, number: usize, parameter: &Parameter) -> String {
        let mark = format!("${number}");
        parameter.cast.map_or(mark.clone(), |cast| cast.replace('$', &mark))
    }

    fn comparable(&self, field: usize) -> Option<Cow<'_, str>> {
        let column = self.columns.get(field).filter(|c| c.form != Form::Json)?;
        Some(Cow::Borrowed(&column.compared))
    }

    fn parameter(&self, field: usize, value: &Value) -> Option<Parameter> {
        let column = self.columns.get(field).filter(|c| c.form != Form::Json)?;
        let bytes = encode(&column.ty, value).ok()??;
        Some(Parameter { cast: column.cast(), ..Parameter::new(column.form.wire(), Some(bytes)) })
    }

    fn pattern(&self, pattern: String) -> Parameter {
        Parameter::text(&pattern)
    }

    fn stored_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        text::escape(text)
    }

    fn irregular(&self, column: &str) -> Option<String> {
        Some(format!("{column} LIKE '%' || chr(1) || '%'"))
    }

    fn order(&self, column: &str, descending: bool) -> String {
        format!("{column}{}", if descending { " DESC NULLS LAST" } else { " NULLS FIRST" })
    }

    fn nested(
        &self,
        test: &Filter,
        bind: &mut dyn FnMut(Parameter) -> String,
    ) -> Option<Condition> {
        nested::condition(self, test, bind)
    }
}
