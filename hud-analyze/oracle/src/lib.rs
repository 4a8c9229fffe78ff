//! Tests alone: every view of hud-analyze is held to a slow and obvious reading of the same rows.
