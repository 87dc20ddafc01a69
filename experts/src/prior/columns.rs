//! Columns from structural causal models: signals, and the values they turn into.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};

use super::PriorConfig;
use super::calendar::{DAY, civil};
use super::growth::LATENTS;
use super::marginal::Marginal;
use super::random::{Alias, Quantiles, Random, exp, normal_share_below, zipf_weights};
use super::schema::{TableKind, TablePlan, unused};
use super::text::{Vocabulary, write_number};

/// What kind of values a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnKind {
    /// Labels or small numbers for one of up to thousands of classes.
    Category,
    Real,
    Whole,
    /// A few words.
    Title,
    /// A text that few rows share.
    Identifier,
    /// A class that another category decides (city -> country).
    Dependent,
    /// Another column with few or small changes.
    Duplicate,
    /// Numbers that grow with the row.
    Sequence,
    Constant,
    Boolean,
    Date,
}

/// How often each kind occurs, after the types of the corpus' `train` databases.
const KINDS: [(ColumnKind, f64); 11] = [
    (ColumnKind::Category, 0.25),
    (ColumnKind::Real, 0.16),
    (ColumnKind::Whole, 0.19),
    (ColumnKind::Title, 0.09),
    (ColumnKind::Identifier, 0.08),
    (ColumnKind::Dependent, 0.09),
    (ColumnKind::Duplicate, 0.05),
    (ColumnKind::Sequence, 0.03),
    (ColumnKind::Constant, 0.03),
    (ColumnKind::Boolean, 0.02),
    (ColumnKind::Date, 0.02),
];

impl ColumnKind {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Category | Self::Dependent => &[
                "status", "kind", "color", "city", "state", "brand", "grade", "origin", "channel", "segment", "level",
                "zone", "family",
            ],
            Self::Real => {
                &["amount", "price", "weight", "score", "latitude", "distance", "share", "cost", "height", "speed"]
            }
            Self::Whole => {
                &["quantity", "age", "points", "visits", "length", "model_year", "stock", "attempts", "seats"]
            }
            Self::Title => &["title", "description", "full_name", "label", "note"],
            Self::Identifier => &["contact", "reference", "serial", "phone", "url"],
            Self::Duplicate => &["billed", "declared", "previous", "revised"],
            Self::Sequence => &["line_number", "position", "version"],
            Self::Constant => &["tenant", "source", "checked"],
            Self::Boolean => &["is_active", "is_valid", "flagged", "verified"],
            Self::Date => &["created_at", "updated_at", "due_on", "valid_from"],
        }
    }
}

/// What a column that was made can serve another one for.
#[derive(Debug)]
enum Made {
    Numbers { signal: usize, marginal: Marginal, whole: Option<bool> },
    Classes { codes: Vec<u32>, labels: Labels },
}

/// The names of classes: texts or numbers.
#[derive(Debug, Clone)]
enum Labels {
    Texts(Arc<Vec<String>>),
    Numbers { wide: bool, numbers: Arc<Vec<i64>> },
}

impl Labels {
    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Numbers { numbers, .. } => numbers.len(),
        }
    }
}

/// Makes the columns of one table, one after the other.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    config: &'a PriorConfig,
    plan: &'a TablePlan,
    rows: usize,
    vocabulary: &'a Vocabulary,
    event: Option<&'a [i64]>,
    /// What signals can depend on: latents, signals of the parents, and from `first_own` on those of earlier columns.
    pool: Vec<Vec<f32>>,
    first_own: usize,
    made: Vec<Made>,
    columns: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn new(
        config: &'a PriorConfig,
        plan: &'a TablePlan,
        pool: Vec<Vec<f32>>,
        event: Option<&'a [i64]>,
        vocabulary: &'a Vocabulary,
        rows: usize,
    ) -> Self {
        Self { config, plan, rows, vocabulary, event, first_own: pool.len(), pool, made: vec![], columns: 0 }
    }

    /// The signals that the columns of children may depend on.
    pub(super) fn into_signals(mut self) -> Vec<Vec<f32>> {
        let own = self.pool.split_off(self.first_own);
        own.into_iter().take(2).collect()
    }

    /// The next column and its name.
    pub(super) fn next(&mut self, used: &mut Vec<String>, random: &mut Random) -> (String, ArrayRef) {
        let kind = self.draw_kind(random);
        self.columns += 1;
        let name = unused(random.pick(kind.names()), used);
        let signal = self.draw_signal(random);
        let nulls = self.draw_nulls(&signal, random);
        let values = match kind {
            ColumnKind::Category => self.category(&signal, nulls, random),
            ColumnKind::Real | ColumnKind::Whole => {
                let real = kind == ColumnKind::Real;
                let marginal = if real { Marginal::real(random) } else { Marginal::whole(random) };
                let whole = (!real).then(|| random.chance(0.8));
                let values = numbers(&marginal, whole, nulls, &signal);
                // The index that the signal is about to have.
                self.made.push(Made::Numbers { signal: self.pool.len(), marginal, whole });
                values
            }
            ColumnKind::Title => self.titles(&signal, nulls.as_ref(), random),
            ColumnKind::Identifier => self.identifiers(&signal, nulls.as_ref(), random),
            ColumnKind::Dependent => self.dependent(nulls, random),
            ColumnKind::Duplicate => self.duplicate(nulls, random),
            ColumnKind::Sequence => self.sequence(random),
            ColumnKind::Constant => self.constant(nulls, random),
            ColumnKind::Boolean => {
                let share = random.uniform();
                let bits: BooleanBuffer = signal.iter().map(|&s| normal_share_below(s) < share).collect();
                Arc::new(BooleanArray::new(bits, nulls))
            }
            ColumnKind::Date => self.dates(&signal, nulls, random),
        };
        self.pool.push(signal);
        (name, values)
    }

    fn draw_kind(&self, random: &mut Random) -> ColumnKind {
        // Lookups begin with a name, things that happen with when they did.
        if self.columns == 0 && self.plan.kind == TableKind::Lookup && random.chance(0.8) {
            return ColumnKind::Title;
        }
        if self.columns == 0 && self.event.is_some() && random.chance(0.6) {
            return ColumnKind::Date;
        }
        let weights = KINDS.map(|(_, weight)| weight);
        let kind = KINDS[Alias::new(&weights).draw(random)].0;
        let classes = self.made.iter().any(|made| matches!(made, Made::Classes { .. }));
        match kind {
            ColumnKind::Dependent if !classes => ColumnKind::Category,
            ColumnKind::Duplicate if self.made.is_empty() => ColumnKind::Whole,
            _ => kind,
        }
    }

    /// A standardised signal: non-linear functions of a few members of the pool, and noise.
    fn draw_signal(&self, random: &mut Random) -> Vec<f32> {
        let noise = random.pick(&[0.0f32, 0.0, 0.05, 0.1, 0.3, 0.6, 2.0]);
        let mut signal: Vec<f32> = (0..self.rows).map(|_| noise * random.normal()).collect();
        for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
            // Earlier columns and parents are as likely as the latents, of which the first matters most.
            let latent = (0..3).map(|_| random.below(LATENTS)).min().unwrap_or(0);
            let input = if random.chance(0.6) { latent } else { random.below(self.pool.len()) };
            let weight = if random.chance(0.7) { 1.0 } else { -1.0 } * random.between(0.4, 1.6) as f32;
            let shift = 0.7 * random.normal();
            let link: fn(f32, f32) -> f32 = match random.below(10) {
                0..=3 => |x, _| x,
                4 | 5 => |x, _| 2.0 * x / (1.0 + x.abs()),
                6 => |x, shift| (x + shift) * (x + shift) * 0.7,
                7 => |x, shift| if x > shift { 1.0 } else { -1.0 },
                8 => |x, shift| (x - shift).max(0.0) * 1.5,
                // A wave without sine: a triangle of period four.
                _ => |x, shift| (((x + shift) * 0.5).rem_euclid(2.0) - 1.0).abs() * 3.0,
            };
            signal.iter_mut().zip(&self.pool[input]).for_each(|(value, &x)| *value += weight * link(x, shift));
        }
        standardise(&mut signal);
        signal
    }

    /// Which rows are NULL: at random, by the column's own value, or by something else about the row.
    fn draw_nulls(&self, signal: &[f32], random: &mut Random) -> Option<NullBuffer> {
        if !random.chance(self.config.nullable_columns) {
            return None;
        }
        // Most columns lack few values, some lack most.
        let u = random.uniform();
        let share = if random.chance(0.3) { 1.0 - 0.5 * u * u } else { exp(random.between(-7.5, -0.6)) };
        let reason = match random.below(3) {
            0 => None,
            1 => Some(signal),
            _ => Some(&self.pool[random.below(self.pool.len())][..]),
        };
        // The rows above a threshold, and a few others.
        let valid: BooleanBuffer = match reason {
            None => (0..self.rows).map(|_| !random.chance(share)).collect(),
            Some(reason) => reason
                .iter()
                .map(|&x| !random.chance(if normal_share_below(x) > 1.0 - share { 0.9 } else { 0.1 * share }))
                .collect(),
        };
        Some(NullBuffer::new(valid))
    }

    fn category(&mut self, signal: &[f32], nulls: Option<NullBuffer>, random: &mut Random) -> ArrayRef {
        let most = if random.chance(0.6) { 30 } else { 3_000 };
        let levels = random.log_within(&(2..=most)).min(self.rows.max(2));
        let exponent = random.pick(&[0.0, 0.5, 1.0, 1.0, 1.5, 2.5]);
        let quantiles = Quantiles::new(&zipf_weights(levels, exponent));
        // Some classes have an order, as grades do; for the others, the label says nothing.
        let order = if random.chance(0.4) { (0..levels as u32).collect() } else { random.permutation(levels) };
        let codes = signal.iter().map(|&s| order[quantiles.outcome(normal_share_below(s))]).collect();
        let labels = self.draw_labels(levels, random);
        self.classes(codes, labels, nulls)
    }

    fn draw_labels(&self, levels: usize, random: &mut Random) -> Labels {
        if random.chance(0.65) {
            Labels::Texts(Arc::new(self.vocabulary.labels(levels, random)))
        } else {
            let (first, step) = (random.pick(&[0i64, 1, 1, 100, 1001]), random.pick(&[1i64, 1, 1, 10]));
            let numbers = (0..levels as i64).map(|code| first + step * code).collect();
            Labels::Numbers { wide: random.chance(0.8), numbers: Arc::new(numbers) }
        }
    }

    fn classes(&mut self, codes: Vec<u32>, labels: Labels, nulls: Option<NullBuffer>) -> ArrayRef {
        let array: ArrayRef = match &labels {
            Labels::Texts(texts) => {
                build_text(self.rows, nulls.as_ref(), |row, text| text.push_str(&texts[codes[row] as usize]))
            }
            Labels::Numbers { wide: true, numbers } => {
                Arc::new(Int64Array::new(codes.iter().map(|&code| numbers[code as usize]).collect(), nulls))
            }
            Labels::Numbers { wide: false, numbers } => {
                Arc::new(Int32Array::new(codes.iter().map(|&code| numbers[code as usize] as i32).collect(), nulls))
            }
        };
        self.made.push(Made::Classes { codes, labels });
        array
    }

    /// A coarser class that is a function of an earlier category.
    fn dependent(&mut self, nulls: Option<NullBuffer>, random: &mut Random) -> ArrayRef {
        let categories = self.made.iter().filter_map(|made| match made {
            Made::Classes { codes, labels } => Some((codes, labels.len())),
            Made::Numbers { .. } => None,
        });
        // The finest of them: there is most to decide.
        let Some((codes, levels)) = categories.max_by_key(|(_, levels)| *levels) else {
            return self.constant(nulls, random);
        };
        let coarse = (levels / random.within(2..=12)).max(2);
        let class_of: Vec<u32> = (0..levels).map(|_| random.below(coarse) as u32).collect();
        let codes = codes.iter().map(|&code| class_of[code as usize]).collect();
        let labels = self.draw_labels(coarse, random);
        self.classes(codes, labels, nulls)
    }

    /// An earlier column again, with small changes to numbers and few to classes.
    fn duplicate(&mut self, nulls: Option<NullBuffer>, random: &mut Random) -> ArrayRef {
        let changed = random.between(0.0, 0.08);
        match &self.made[random.below(self.made.len())] {
            Made::Numbers { signal, marginal, whole } => {
                let noise = changed as f32;
                let signal: Vec<f32> = self.pool[*signal].iter().map(|s| s + noise * random.normal()).collect();
                numbers(marginal, *whole, nulls, &signal)
            }
            Made::Classes { codes, labels } => {
                let labels = labels.clone();
                let change =
                    |&code: &u32| if random.chance(changed) { random.below(labels.len()) as u32 } else { code };
                let codes = codes.iter().map(change).collect();
                self.classes(codes, labels, nulls)
            }
        }
    }

    fn titles(&self, signal: &[f32], nulls: Option<&NullBuffer>, random: &mut Random) -> ArrayRef {
        // The first word depends on the signal, so a prefix says something about the other columns.
        let firsts = random.log_within(&(5..=self.vocabulary.len()));
        let quantiles = Quantiles::new(&zipf_weights(firsts, 0.8));
        let (start, most) = (random.below(self.vocabulary.len()), random.pick(&[1, 2, 2, 3, 3, 4, 6, 20]));
        build_text(self.rows, nulls, |row, title| {
            let first = start + quantiles.outcome(normal_share_below(signal[row]));
            self.vocabulary.write_title(first, random.within(1..=most), random, title);
        })
    }

    fn identifiers(&self, signal: &[f32], nulls: Option<&NullBuffer>, random: &mut Random) -> ArrayRef {
        let groups = random.within(1..=12);
        let prefixes = self.vocabulary.labels(groups, random);
        let (email, bare, distinct) = (random.chance(0.25), random.chance(0.4), self.rows * random.within(1..=20));
        build_text(self.rows, nulls, |row, text| {
            let group = ((normal_share_below(signal[row]) * groups as f64) as usize).min(groups - 1);
            if email {
                self.vocabulary.write_email(group, random, text);
            } else {
                if !bare {
                    text.push_str(&prefixes[group]);
                    text.push('-');
                }
                write_number(random.below(distinct), 6, text);
            }
        })
    }

    fn sequence(&self, random: &mut Random) -> ArrayRef {
        let every = random.pick(&[1usize, 1, 5, 24]);
        let first = random.below(1000);
        let restart = if random.chance(0.4) { random.log_within(&(2..=1000)) } else { usize::MAX };
        Arc::new(Int64Array::from_iter_values((0..self.rows).map(|row| (first + row / every % restart) as i64)))
    }

    fn constant(&self, nulls: Option<NullBuffer>, random: &mut Random) -> ArrayRef {
        if random.chance(0.5) {
            let text = self.vocabulary.labels(1, random).concat();
            build_text(self.rows, nulls.as_ref(), |_, value| value.push_str(&text))
        } else {
            Arc::new(Int64Array::new(vec![random.below(3) as i64; self.rows].into(), nulls))
        }
    }

    /// The event of the row, something around it, a part of it, or any date where the table has no events.
    fn dates(&self, signal: &[f32], nulls: Option<NullBuffer>, random: &mut Random) -> ArrayRef {
        let (middle, width) = (random.between(9_000.0, 18_000.0), random.between(20.0, 4_000.0));
        let delay = if random.chance(0.6) { 0.0 } else { random.between(0.1, 30.0) * DAY as f64 };
        let mut instant = |row: usize| match self.event {
            Some(event) if delay > 0.0 => event[row] + random.exponential(delay) as i64 / 1_000_000 * 1_000_000,
            Some(event) => event[row],
            None => ((middle + width * f64::from(signal[row])) * 86_400.0) as i64 * 1_000_000,
        };
        let instants: Vec<i64> = (0..self.rows).map(&mut instant).collect();
        let days = instants.iter().map(|instant| instant.div_euclid(DAY));
        match Alias::new(&[0.45, 0.3, 0.1, 0.15]).draw(random) {
            0 => Arc::new(TimestampMicrosecondArray::new(instants.into(), nulls)),
            1 => Arc::new(Date32Array::new(days.map(|day| day as i32).collect(), nulls)),
            2 => build_text(self.rows, nulls.as_ref(), |row, text| {
                let (year, month, day) = civil(instants[row].div_euclid(DAY));
                write_number(year.max(0) as usize, 4, text);
                text.push('-');
                write_number(month as usize, 2, text);
                text.push('-');
                write_number(day as usize, 2, text);
            }),
            _ => Arc::new(Int32Array::new(days.map(|day| civil(day).0).collect(), nulls)),
        }
    }
}

/// A numeric column: 64 or 32 bits wide where it is `whole`, floating point otherwise.
fn numbers(marginal: &Marginal, whole: Option<bool>, nulls: Option<NullBuffer>, signal: &[f32]) -> ArrayRef {
    let values = signal.iter().map(|&s| marginal.value(s));
    match whole {
        None => Arc::new(Float64Array::new(values.collect(), nulls)),
        Some(true) => Arc::new(Int64Array::new(values.map(|value| value as i64).collect(), nulls)),
        Some(false) => Arc::new(Int32Array::new(values.map(|value| value as i32).collect(), nulls)),
    }
}

/// Makes mean zero and deviation one; a signal without variance becomes zero.
fn standardise(signal: &mut [f32]) {
    let count = signal.len().max(1) as f64;
    let mean = signal.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = signal.iter().map(|&x| (f64::from(x) - mean) * (f64::from(x) - mean)).sum::<f64>() / count;
    let scale = if variance > 1e-12 { 1.0 / variance.sqrt() } else { 0.0 };
    signal.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale) as f32);
}

/// A text column; `write` appends the text of a row to an empty string and is not asked for NULLs.
pub(super) fn build_text(
    rows: usize,
    nulls: Option<&NullBuffer>,
    mut write: impl FnMut(usize, &mut String),
) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(rows, rows * 12);
    let mut text = String::new();
    for row in 0..rows {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            builder.append_null();
        } else {
            text.clear();
            write(row, &mut text);
            builder.append_value(&text);
        }
    }
    Arc::new(builder.finish())
}
