//! What people change while everything runs, told in one place.

/// Takes note of something that was changed.
pub(crate) fn audit(action: &'static str, details: &str) {
    tracing::info!(target: "audit", action, details);
}
