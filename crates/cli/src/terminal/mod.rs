//! What people and programs see: results on standard output, progress and messages on standard error.

pub(crate) mod hangup;
pub(crate) mod interrupt;
pub(crate) mod object;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod text;

pub(crate) use hangup::Hangup;
pub(crate) use interrupt::Interrupt;
pub(crate) use object::Object;
pub(crate) use output::Output;
pub(crate) use progress::Progress;
