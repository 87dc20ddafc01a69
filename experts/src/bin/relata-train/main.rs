//! `relata-train`: fits the experts, one stage after the other, and writes the weight folder.
#![expect(clippy::print_stdout, reason = "a command talks on standard output")]

mod answers;
mod data;
mod physical;
mod plans;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fits the experts, one stage after the other.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    stage: Stage,
}

#[derive(Debug, Subcommand)]
enum Stage {
    /// Pre-train the data expert: restore histograms and masked cells of tables
    Data(data::Arguments),
    /// Fit the experts above it to labelled plans
    Plans(plans::Arguments),
    /// Fit the answer head on top to aggregates
    Answers(answers::Arguments),
    /// Fit the physical-plan expert to executed plans
    Physical(physical::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().stage {
        Stage::Data(arguments) => data::run(&arguments),
        Stage::Plans(arguments) => plans::run(&arguments),
        Stage::Answers(arguments) => answers::run(&arguments),
        Stage::Physical(arguments) => physical::run(&arguments),
    }
}

/// The commit of the source: `RELATA_COMMIT`, or what git says.
fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("RELATA_COMMIT") {
        return Some(commit);
    }
    let output = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command line.
fn command() -> String {
    std::env::args().collect::<Vec<_>>().join(" ")
}
