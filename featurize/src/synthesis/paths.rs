//! Where references lead from the entities, and what can be said at each place.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::DataType;

use super::aggregate::Function;
use super::time::is_timed;
use super::{Relations, SynthesisConfig, Task, is_time};

/// Places that are walked to at most, the nearest first: the bound of planning time in large schemas.
const MOST_PLACES: usize = 48;

/// Features of a child's rows that are aggregated at most.
const MOST_OF_CHILD: usize = 40;

/// How a place was reached from the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The entities themselves.
    Entity,
    /// To the row that is referred to, by the place of the reference.
    Forward(usize),
    /// To the rows that refer here.
    Backward(usize),
}

/// One relation as reached along one path.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) table: usize,
    pub(super) step: Step,
    /// The place before this one; the entities' own place is before itself.
    pub(super) before: usize,
    /// Steps from the entities.
    pub(super) level: usize,
    /// Whether an entity has one row here at most.
    pub(super) single: bool,
    /// Whether hidden columns may be read here.
    pub(super) history: bool,
    /// Whether rows have a time here.
    pub(super) timed: bool,
    /// Whether all entities with the same cutoff that get here read the same rows from here on: none of the steps leads
    /// backward to the entities' own relation, of which each leaves its own row out.
    pub(super) shared: bool,
    /// What can be said of a row here.
    pub(super) features: Vec<Description>,
}

/// Something that can be said of a row at some place.
#[derive(Debug, Clone)]
pub(super) struct Description {
    /// The place of the values.
    pub(super) origin: usize,
    /// Its name, as seen from the place that it describes.
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) source: Source,
}

/// What values are while they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Finite Float64.
    Number,
    /// Utf8.
    Category,
    /// Int64, microseconds since 1970-01-01.
    Time,
}

/// How a column is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Number,
    Category,
    Length,
    Time,
}

/// Where a description comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The row's own column.
    Own { column: usize, reading: Reading },
    /// A feature of the row that is referred to.
    Parent { place: usize, feature: usize },
    /// The number of rows that refer to the row.
    Count { place: usize },
    /// The time of the latest of them.
    LatestTime { place: usize },
    /// An aggregate of a feature of theirs.
    Aggregate { place: usize, feature: usize, function: Function },
}

/// All places, breadth first from the entities.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) places: Vec<Place>,
}

impl Paths {
    /// Walk to the depth of the configuration and list what can be said.
    pub(super) fn walk(relations: &Relations, task: &Task, has_cutoff: bool, config: &SynthesisConfig) -> Self {
        let walk = Walk { relations, task, has_cutoff };
        let mut places = vec![walk.place(task.entity, Step::Entity, None, 0)];
        let mut at = 0;
        while at < places.len() {
            if places[at].level < config.depth {
                for (table, step) in walk.steps(&places[at]) {
                    if places.len() < MOST_PLACES {
                        places.push(walk.place(table, step, Some((at, &places[at])), places.len()));
                    }
                }
            }
            at += 1;
        }
        let mut paths = Self { places };
        for at in (1..paths.places.len()).rev() {
            let Place { before, shared, .. } = paths.places[at];
            paths.places[before].shared &= shared;
            let told = walk.told(&paths, at);
            paths.places[before].features.extend(told);
        }
        paths
    }

    /// The features of the entities: the nearest that fit the budget, breadth first.
    pub(super) fn nearest(&self, budget: usize) -> Vec<usize> {
        self.nearest_of(0, budget)
    }

    /// Of the features at a place, the nearest that fit a budget, breadth first.
    ///
    /// As long as there are farther ones each distance takes half of what is left, and shares it evenly among its paths.
    fn nearest_of(&self, place: usize, budget: usize) -> Vec<usize> {
        let features = &self.places[place].features;
        let mut distances: BTreeMap<usize, BTreeMap<(bool, usize), Vec<usize>>> = BTreeMap::new();
        for (index, feature) in features.iter().enumerate() {
            let origin = &self.places[feature.origin];
            let path = (!origin.single, feature.origin);
            distances.entry(origin.level).or_default().entry(path).or_default().push(index);
        }
        let own = self.places[place].level;
        let (mut left, mut farther) = (budget, features.len());
        let mut kept = vec![];
        for (distance, paths) in distances {
            let here: usize = paths.values().map(Vec::len).sum();
            farther -= here;
            let share = if distance == own { left } else { left.div_ceil(2).max(left.saturating_sub(farther)) };
            let share = share.min(here);
            left -= share;
            let each = even_shares(&paths.values().map(Vec::len).collect::<Vec<_>>(), share);
            kept.extend(paths.values().zip(each).flat_map(|(path, most)| path[..most].iter().copied()));
        }
        kept
    }
}

/// How many each of several takes when all take turns until nothing is left.
fn even_shares(sizes: &[usize], mut left: usize) -> Vec<usize> {
    let mut shares = vec![0; sizes.len()];
    while left > 0 && shares != sizes {
        for (share, size) in shares.iter_mut().zip(sizes) {
            if *share < *size && left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

struct Walk<'a> {
    relations: &'a Relations,
    task: &'a Task,
    has_cutoff: bool,
}

impl Walk<'_> {
    fn place(&self, table: usize, step: Step, before: Option<(usize, &Place)>, at: usize) -> Place {
        let backward = matches!(step, Step::Backward(_));
        // Without a cutoff the times of other relations would have to be joined for the sake of a few features.
        let own_time = self.relations.tables[table].time.is_some();
        let timed = own_time || (self.has_cutoff && is_timed(self.relations, table));
        let mut place = Place {
            table,
            step,
            before: before.map_or(0, |(at, _)| at),
            level: before.map_or(0, |(_, place)| place.level + 1),
            single: !backward && before.is_none_or(|(_, place)| place.single),
            history: backward && self.has_cutoff && timed,
            timed,
            shared: before.is_some() && (!backward || table != self.task.entity),
            features: vec![],
        };
        place.features = self.own(&place, at);
        place
    }

    /// Where a place leads to.
    fn steps(&self, place: &Place) -> Vec<(usize, Step)> {
        let mut steps = vec![];
        let references = || self.relations.references.iter().enumerate();
        for (index, reference) in references() {
            // The row that was come from, again.
            let back = place.step == Step::Backward(index);
            if reference.table == place.table
                && !back
                && self.may_read(place, &reference.columns)
                && self.is_settled(reference)
            {
                steps.push((reference.references, Step::Forward(index)));
            }
        }
        for (index, reference) in references() {
            let history = self.has_cutoff && is_timed(self.relations, reference.table);
            let hidden = reference.columns.iter().any(|column| self.task.hides(reference.table, column));
            if reference.references == place.table
                && (!hidden || history)
                && self.may_read(place, &reference.referenced)
            {
                steps.push((reference.table, Step::Backward(index)));
            }
        }
        steps
    }

    fn may_read(&self, place: &Place, columns: &[String]) -> bool {
        place.history || !columns.iter().any(|column| self.task.hides(place.table, column))
    }

    /// A row's own columns.
    fn own(&self, place: &Place, at: usize) -> Vec<Description> {
        let relation = &self.relations.tables[place.table];
        let mut features = vec![];
        for (column, field) in relation.source.schema().fields().iter().enumerate() {
            let is_key = self.is_key(place.table, field.name()) && !is_time(field.data_type());
            if is_key || !self.may_read(place, std::slice::from_ref(field.name())) {
                continue;
            }
            for &reading in readings(field.data_type()) {
                let (form, name) = match reading {
                    Reading::Number => (Form::Number, field.name().clone()),
                    Reading::Category => (Form::Category, field.name().clone()),
                    Reading::Length => (Form::Number, format!("LENGTH({})", field.name())),
                    Reading::Time => (Form::Time, field.name().clone()),
                };
                features.push(Description { origin: at, name, form, source: Source::Own { column, reading } });
            }
        }
        features
    }

    fn is_key(&self, table: usize, column: &String) -> bool {
        let relation = &self.relations.tables[table];
        let refers = |reference: &super::Reference| {
            (reference.table == table && reference.columns.contains(column))
                || (reference.references == table && reference.referenced.contains(column))
        };
        relation.key.contains(column)
            || (self.task.entity == table && self.task.entity_key.contains(column))
            || self.relations.references.iter().any(refers)
    }

    /// What a place says of the rows of the place before it.
    fn told(&self, paths: &Paths, at: usize) -> Vec<Description> {
        let place = &paths.places[at];
        let prefix = self.step_name(place);
        let nearest = paths.nearest_of(at, MOST_OF_CHILD);
        if let Step::Forward(_) = place.step {
            let pass = |feature: usize| {
                let Description { origin, name, form, .. } = &place.features[feature];
                let name = format!("{prefix}.{name}");
                Description { origin: *origin, name, form: *form, source: Source::Parent { place: at, feature } }
            };
            return nearest.into_iter().map(pass).collect();
        }
        let number = |name: String, source: Source| Description { origin: at, name, form: Form::Number, source };
        let mut told = vec![number(format!("{prefix}.COUNT(*)"), Source::Count { place: at })];
        if place.timed && self.relations.tables[place.table].time.is_none() {
            let latest = number(format!("{prefix}.LATEST_TIME"), Source::LatestTime { place: at });
            told.push(Description { form: Form::Time, ..latest });
        }
        let mut aggregates = vec![];
        for feature in nearest {
            let Description { origin, name, form, source } = &place.features[feature];
            let functions = Function::of(*form, *source).iter().filter(|f| **f != Function::Latest || place.timed);
            for (rank, &function) in functions.enumerate() {
                let form = function.form(*form);
                let name = format!("{prefix}.{}({name})", function.name());
                let source = Source::Aggregate { place: at, feature, function };
                aggregates.push((rank, Description { origin: *origin, name, form, source }));
            }
        }
        // A first aggregate of every column comes before the second one of any.
        aggregates.sort_by_key(|(rank, _)| *rank);
        told.extend(aggregates.into_iter().map(|(_, feature)| feature));
        told
    }

    /// Whether later rows cannot change which row is referred to: there is one at most, or the earliest is known.
    fn is_settled(&self, reference: &super::Reference) -> bool {
        let (table, columns) = (reference.references, &reference.referenced);
        let time = self.relations.tables[table].time.as_ref();
        !self.has_cutoff
            || self.relations.is_key(table, columns)
            || !is_timed(self.relations, table)
            || time.is_some_and(|time| !columns.contains(time) && !self.task.hides(table, time))
    }

    /// The other relation's name, with the referring columns where its name alone does not tell the reference.
    fn step_name(&self, place: &Place) -> String {
        let name = self.relations.tables[place.table].reference.table();
        let (Step::Forward(index) | Step::Backward(index)) = place.step else { return name.to_string() };
        let reference = &self.relations.references[index];
        let ends = |other: &&super::Reference| {
            let pair = (other.table, other.references);
            pair == (reference.table, reference.references) || pair == (reference.references, reference.table)
        };
        let alone =
            reference.table != reference.references && self.relations.references.iter().filter(ends).count() == 1;
        if alone { name.to_string() } else { format!("{name}[{}]", reference.columns.join(", ")) }
    }
}

fn readings(data_type: &DataType) -> &'static [Reading] {
    match data_type {
        DataType::Dictionary(_, values) => readings(values),
        DataType::Boolean => &[Reading::Category],
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => &[Reading::Category, Reading::Length],
        other if is_time(other) => &[Reading::Time],
        other if other.is_numeric() => &[Reading::Number],
        _ => &[],
    }
}
