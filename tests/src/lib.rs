//! Everything that proves a promise lives in the test targets of this crate: see `behaviour/`.
