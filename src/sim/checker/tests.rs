//! Broken histories, each caught by its check.
