//! The SQL shell of hud-analyze.
