//! `relata-train`: fits the experts, one stage after the other, and writes the weight folder.
#![expect(clippy::print_stdout, reason = "a command talks on standard output")]

mod answers;
mod data;
mod in_context;
mod physical;
mod plans;

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use relata_experts::train::curve::{self, Point};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The file of a curve.
const CURVE: &str = "curve.csv";

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

/// The curve of a run, which is kept in the run's folder: a run that is cut off keeps its curve.
struct Curve {
    points: Vec<Point>,
    folder: PathBuf,
}

impl Curve {
    /// An empty one, or to go on with the one in `folder`.
    fn new(folder: &Path, resume: bool) -> Self {
        let earlier = if resume { fs::read_to_string(folder.join(CURVE)).unwrap_or_default() } else { String::new() };
        Self { points: curve::from_csv(&earlier), folder: folder.to_owned() }
    }

    /// Adds a step, and saves the curve where the error on the held-out databases was measured.
    fn add(&mut self, point: &Point, bar: &ProgressBar) {
        // A resumed run repeats the steps since its checkpoint.
        self.points.truncate(self.points.partition_point(|earlier| earlier.step < point.step));
        self.points.push(*point);
        if point.held_out.is_some()
            && let Err(error) = self.save()
        {
            bar.println(format!("cannot write the curve to {}: {error}", self.folder.display()));
        }
    }

    fn save(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.folder.join(CURVE), curve::to_csv(&self.points))
    }

    /// Saves and plots it; `labels` say what it shows.
    fn finish(&self, labels: [&str; 2]) -> anyhow::Result<()> {
        self.save()?;
        Ok(curve::plot(&self.points, labels, &self.folder.join("curve.svg"))?)
    }
}

/// The bar of a run.
fn progress_bar(steps: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta} {msg}")?;
    Ok(ProgressBar::new(steps).with_style(style))
}

/// The progress of a stage: a bar, the scores, and the curve.
struct Follower {
    bar: ProgressBar,
    curve: Curve,
}

impl Follower {
    /// One that keeps its curve in `folder`, or goes on with the curve there.
    fn new(steps: u64, folder: &Path, resume: bool) -> anyhow::Result<Self> {
        Ok(Self { bar: progress_bar(steps)?, curve: Curve::new(folder, resume) })
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    fn step(&mut self, point: &Point) {
        self.curve.add(point, &self.bar);
        self.bar.set_position(point.step);
        if let Some(score) = point.held_out {
            let (step, loss) = (point.step, point.loss);
            self.bar.suspend(|| println!("step {step}, training loss {loss:.4}, held out {score:.4}"));
        }
    }

    /// Keeps the curve; `labels` say what it shows.
    fn finish(self, labels: [&str; 2]) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        self.curve.finish(labels)
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
