//! Answers of servers as Rust values.

use redis::Value;
use unisono_core::Result;

use crate::error::unexpected;

/// The elements of a list.
pub(crate) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(parts) => Ok(parts),
        _ => Err(unexpected()),
    }
}

/// Bytes; `None` for nothing.
pub(crate) fn bytes(value: Value) -> Result<Option<Vec<u8>>> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Nil => Ok(None),
        _ => Err(unexpected()),
    }
}

/// Text that must be there.
pub(crate) fn text(value: Value) -> Result<String> {
    let bytes = bytes(value)?.ok_or_else(unexpected)?;
    String::from_utf8(bytes).map_err(|_| unexpected())
}

/// A whole number.
pub(crate) fn number(value: &Value) -> Result<i64> {
    match value {
        Value::Int(n) => Ok(*n),
        _ => Err(unexpected()),
    }
}
