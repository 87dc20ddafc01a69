//! `relata-train`: fits the experts, one stage after the other, and writes the weight folder.
#![expect(clippy::print_stdout, reason = "a command talks on standard output")]

mod answers;
mod data;
mod in_context;
mod physical;
mod plans;

use std::path::Path;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use relata_experts::train::curve::{self, Point};

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
    /// Train the in-context predictor on synthetic tasks
    InContext(in_context::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().stage {
        Stage::Data(arguments) => data::run(&arguments),
        Stage::Plans(arguments) => plans::run(&arguments),
        Stage::Answers(arguments) => answers::run(&arguments),
        Stage::Physical(arguments) => physical::run(&arguments),
        Stage::InContext(arguments) => in_context::run(&arguments),
    }
}

/// The progress of a stage: a bar, the scores, and at the end the curve.
struct Follower {
    bar: ProgressBar,
    points: Vec<Point>,
}

impl Follower {
    fn new(steps: u64) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta} {msg}")?;
        Ok(Self { bar: ProgressBar::new(steps).with_style(style), points: vec![] })
    }

    /// One that goes on with the curve in `folder`.
    fn resumed(steps: u64, folder: &Path, resume: bool) -> anyhow::Result<Self> {
        let earlier =
            if resume { std::fs::read_to_string(folder.join("curve.csv")).unwrap_or_default() } else { String::new() };
        Ok(Self { points: curve::from_csv(&earlier), ..Self::new(steps)? })
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    fn step(&mut self, point: &Point) {
        // A resumed run repeats the steps since its checkpoint.
        self.points.truncate(self.points.partition_point(|earlier| earlier.step < point.step));
        self.points.push(*point);
        self.bar.set_position(point.step);
        if let Some(score) = point.held_out {
            let (step, loss) = (point.step, point.loss);
            self.bar.suspend(|| println!("step {step}, training loss {loss:.4}, held out {score:.4}"));
        }
    }

    /// Writes the curve to `folder`; `labels` say what it shows.
    fn finish(self, labels: [&str; 2], folder: &Path) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("curve.csv"), curve::to_csv(&self.points))?;
        Ok(curve::plot(&self.points, labels, &folder.join("curve.svg"))?)
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
