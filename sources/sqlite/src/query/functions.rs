//! The SQL function `unisono_test(n, column)`: the n-th test of the running statement on one column, by
//! [`eval::matches`], which is what every source must agree with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use unisono_core::query::{Filter, eval};
use unisono_core::{Entity, Error, FieldType, Record, Result, Value};

use crate::codec::{Form, decode};

/// One test of one field.
pub(crate) struct Test {
    entity: Arc<Entity>,
    filter: Filter,
    field: usize,
    ty: FieldType,
    form: Form,
    /// Holds nothing but the field that is being tested.
    record: Record,
}

impl Test {
    /// A test that looks at no other field than the given one.
    pub(crate) fn new(
        entity: &Arc<Entity>,
        filter: &Filter,
        field: usize,
        ty: &FieldType,
        form: Form,
    ) -> Self {
        Test {
            entity: Arc::clone(entity),
            filter: filter.clone(),
            field,
            ty: ty.clone(),
            form,
            record: Record::new(vec![Value::Null; entity.fields().len()]),
        }
    }

    fn passes(&mut self, context: &Context<'_>) -> Result<bool> {
        let value = decode(self.form, &self.ty, context.get_raw(1))
            .map_err(|e| e.of(self.entity.name()))?;
        if let Some(place) = self.record.values_mut().get_mut(self.field) {
            *place = value;
        }
        Ok(eval::matches(&self.entity, &self.filter, &self.record))
    }
}

#[derive(Default)]
struct Running {
    tests: Vec<Test>,
    failure: Option<Error>,
}

/// The tests that the running statement of one connection calls.
#[derive(Clone, Default)]
pub(crate) struct Tests(Arc<Mutex<Running>>);

impl Tests {
    /// Makes the function known to a connection.
    pub(crate) fn register(connection: &Connection) -> rusqlite::Result<Self> {
        let tests = Tests::default();
        let called = tests.clone();
        let flags = FunctionFlags::SQLITE_UTF8
            | FunctionFlags::SQLITE_DETERMINISTIC
            | FunctionFlags::SQLITE_DIRECTONLY;
        connection.create_scalar_function("unisono_test", 2, flags, move |context| {
            called.call(context)
        })?;
        Ok(tests)
    }

    /// The tests of the statement that runs next.
    pub(crate) fn set(&self, tests: Vec<Test>) {
        *self.running() = Running { tests, failure: None };
    }

    /// Why a test could not be made: SQLite carries only its text.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.running().failure.take()
    }

    fn call(&self, context: &Context<'_>) -> rusqlite::Result<bool> {
        let index = usize::try_from(context.get::<i64>(0)?).unwrap_or(usize::MAX);
        let mut running = self.running();
        let Some(test) = running.tests.get_mut(index) else {
            return Err(rusqlite::Error::InvalidFunctionParameterType(
                0,
                rusqlite::types::Type::Integer,
            ));
        };
        test.passes(context).map_err(|error| {
            running.failure = Some(error);
            rusqlite::Error::UserFunctionError("a stored value cannot be decoded".into())
        })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
