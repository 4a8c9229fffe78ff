#!/usr/bin/env bash
# rustc for the workspace's crates (RUSTC_WORKSPACE_WRAPPER): lints and compiles at once. `cargo clippy` checks every
# dependency once more, which takes three minutes. Not sh: dash drops variables like CARGO_BIN_EXE_hud-record.
exec clippy-driver "$@" -Dwarnings
