//! Questions: one filter language for every source, its parsers, and its reference meaning.

pub mod accumulator;
pub mod aggregate;
pub mod ast;
pub mod cursor;
pub mod eval;
pub mod format;
pub mod parse;
pub mod prefix;
pub mod search;

pub use accumulator::Accumulator;
pub use aggregate::{Aggregate, AggregateOrder, Group, Groups, Metric};
pub use ast::{Comparison, Filter, Hit, Like, Order, Page, Path, Query, Step};
pub use cursor::Cursor;
pub use prefix::successor;
pub use search::Search;
