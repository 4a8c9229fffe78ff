//! Development commands, run as `cargo xtask <command>`.

mod bench;
mod build_ebpf;
mod debian;
mod demo;
mod dist;
mod fixtures;
mod fuzz;
mod kernels;
mod queries;
mod results;
mod rustc;
mod setup;
mod sh;
mod soak;
mod synth;
mod targets;
mod test;
mod toolchain;
mod truth;
mod watch;
mod words;

use std::process::ExitCode;

use clap::Parser;

/// hud's development commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    BuildEbpf(build_ebpf::Args),
    Setup(setup::Args),
    Demo(demo::Args),
    Dist(dist::Args),
    Test(test::Args),
    Targets(targets::Args),
    Bench(bench::Args),
    Truth(truth::Args),
    Soak(soak::Args),
    Synth(synth::Args),
    Fuzz(fuzz::Args),
    Kernels(kernels::Args),
    Queries(queries::Args),
}

fn main() -> ExitCode {
    let result = if rustc::is_wrapper() {
        rustc::exec()
    } else {
        match Command::parse() {
            Command::BuildEbpf(args) => build_ebpf::run(&args),
            Command::Setup(args) => setup::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Dist(args) => dist::run(&args),
            Command::Test(args) => test::run(&args),
            Command::Targets(args) => targets::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Truth(args) => truth::run(&args),
            Command::Soak(args) => soak::run(&args),
            Command::Synth(args) => synth::run(&args),
            Command::Fuzz(args) => fuzz::run(&args),
            Command::Kernels(args) => kernels::run(&args),
            Command::Queries(args) => queries::run(&args),
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
