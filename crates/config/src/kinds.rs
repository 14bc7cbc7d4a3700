//! [`Kinds`]: the source kinds that a configuration can name.

use unisono_core::kind::SourceKind;

/// The kinds that a configuration can name.
#[derive(Clone, Copy)]
pub struct Kinds<'a> {
    /// Those that can be used.
    pub built: &'a [&'static dyn SourceKind],
    /// The names of those that the product has and this build has not; the features that add them have the same names.
    pub left_out: &'a [&'static str],
}

impl<'a> From<&'a [&'static dyn SourceKind]> for Kinds<'a> {
    fn from(built: &'a [&'static dyn SourceKind]) -> Self {
        Kinds { built, left_out: &[] }
    }
}

impl<'a, const N: usize> From<&'a [&'static dyn SourceKind; N]> for Kinds<'a> {
    fn from(built: &'a [&'static dyn SourceKind; N]) -> Self {
        Kinds::from(built.as_slice())
    }
}
