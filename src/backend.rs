//! Seams.
