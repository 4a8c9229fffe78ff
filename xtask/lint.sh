#!/bin/sh
# rustc for the workspace's crates (RUSTC_WORKSPACE_WRAPPER): lints and compiles at once. `cargo clippy` checks every
# dependency once more, which takes three minutes.
exec clippy-driver "$@" -Dwarnings
