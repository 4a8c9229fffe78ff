//! Sessions repaired and compacted.
