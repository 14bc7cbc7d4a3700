//! Questions: one filter language for every source, its parsers, and its reference meaning.

pub mod aggregate;
pub mod ast;
pub mod cursor;
pub mod eval;
pub mod parse;
pub mod search;

pub use aggregate::{Aggregate, AggregateOrder, Group, Groups, Metric};
pub use ast::{Comparison, Filter, Hit, Like, Order, Page, Path, Query, Step};
pub use cursor::Cursor;
pub use search::Search;
