//! What statements carry and rows hold, in PostgreSQL's binary form, which the codec makes.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use unisono_core::{Error, ErrorKind, Result};

/// One parameter with its type, already in the binary form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameter {
    /// The type that the statement is prepared with.
    pub(crate) ty: Type,
    /// None for null.
    pub(crate) bytes: Option<Vec<u8>>,
    /// What the mark is written as in a condition; `$` stands for the mark.
    pub(crate) cast: Option<&'static str>,
}

impl Parameter {
    /// A value in the binary form of its type.
    pub(crate) fn new(ty: Type, bytes: Option<Vec<u8>>) -> Self {
        Parameter { ty, bytes, cast: None }
    }

    /// Text.
    pub(crate) fn text(text: &str) -> Self {
        Parameter::new(Type::TEXT, Some(text.as_bytes().to_vec()))
    }

    /// A 64-bit number.
    pub(crate) fn integer(n: i64) -> Self {
        Parameter::optional(Some(n))
    }

    /// A 64-bit number, or null.
    pub(crate) fn optional(n: Option<i64>) -> Self {
        Parameter::new(Type::INT8, n.map(|n| n.to_be_bytes().to_vec()))
    }

    /// An array of one dimension, of elements in the binary form of their type.
    pub(crate) fn array(element: &Type, elements: &[Option<Vec<u8>>]) -> Self {
        let size: usize = elements.iter().map(|e| 4 + e.as_ref().map_or(0, Vec::len)).sum();
        let mut out = Vec::with_capacity(20 + size);
        let has_null = elements.iter().any(Option::is_none);
        out.put_i32(i32::from(!elements.is_empty()));
        out.put_i32(i32::from(has_null));
        out.put_u32(element.oid());
        if !elements.is_empty() {
            // A statement is far below 2 GB: the engine bounds batches by count and by bytes.
            out.put_i32(i32::try_from(elements.len()).unwrap_or(i32::MAX));
            out.put_i32(1);
        }
        for element in elements {
            match element {
                None => out.put_i32(-1),
                Some(bytes) => {
                    out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                    out.put_slice(bytes);
                }
            }
        }
        Parameter::new(array_of(element), Some(out))
    }
}

/// The array type of the types that the codec makes.
fn array_of(element: &Type) -> Type {
    match *element {
        Type::INT8 => Type::INT8_ARRAY,
        Type::BOOL => Type::BOOL_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::JSON => Type::JSON_ARRAY,
        _ => Type::TEXT_ARRAY,
    }
}

impl ToSql for Parameter {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        Ok(match &self.bytes {
            None => IsNull::Yes,
            Some(bytes) => {
                out.put_slice(bytes);
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A cell of any type, in its binary form.
pub(crate) struct Cell<'a>(pub(crate) &'a [u8]);

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Cell(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The bytes of a cell; none for null.
pub(crate) fn cell(row: &Row, column: usize) -> Result<Option<&[u8]>> {
    let cell: Option<Cell<'_>> = row.try_get(column).map_err(unexpected)?;
    Ok(cell.map(|cell| cell.0))
}

/// A number, or null.
pub(crate) fn optional_integer(row: &Row, column: usize) -> Result<Option<i64>> {
    row.try_get(column).map_err(unexpected)
}

/// Numbers, or null.
pub(crate) fn optional_integers(row: &Row, column: usize) -> Result<Option<Vec<i64>>> {
    row.try_get(column).map_err(unexpected)
}

/// A number.
pub(crate) fn integer(row: &Row, column: usize) -> Result<i64> {
    row.try_get(column).map_err(unexpected)
}

/// Text, or null.
pub(crate) fn optional_text(row: &Row, column: usize) -> Result<Option<&str>> {
    let bytes = cell(row, column)?;
    bytes
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|e| Error::new(ErrorKind::Corrupt, "stored text is not UTF-8").caused_by(e))
}

/// Text.
pub(crate) fn text(row: &Row, column: usize) -> Result<&str> {
    optional_text(row, column)?
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "stored text is missing"))
}

fn unexpected(native: tokio_postgres::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "the server answered with another type than was asked for")
        .caused_by(native)
}
