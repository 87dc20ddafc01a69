//! Schemas: a directed acyclic graph of tables with keys, sizes, fanouts and names.

use super::PriorConfig;
use super::random::{Alias, Random};

/// What a table is for, which decides its size and its references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableKind {
    /// A short list without references, such as countries.
    Lookup,
    /// Things, such as customers.
    Entity,
    /// Events about things, such as sales.
    Fact,
    /// Pairs or triples of rows of other tables (m:n).
    Link,
    /// More about some rows of one other table (1:0..1).
    Extension,
}

/// How the rows of a table are identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyStyle {
    /// Not at all; only tables that no other table references.
    None,
    /// A number: `wide` for 64 bits, and each number larger than the one before by up to `gap`.
    Numbers { wide: bool, first: i64, gap: usize },
    /// A short text.
    Codes,
    /// By what the row refers to.
    References,
    /// By the first reference and a number among the rows with the same one, as the lines of an order are. The number
    /// has 64 bits where `wide`.
    Numbered { wide: bool },
}

/// In which order rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As they came: keys and times ascend.
    Insertion,
    /// Beside the rows of the same first parent.
    ByParent,
    /// Without order.
    Shuffled,
}

/// How children are shared out among the parents that have any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fanout {
    /// As evenly as whole numbers allow.
    Even,
    /// Each child picks any parent.
    Uniform,
    /// Weights `exp(spread * normal)`.
    LogNormal { spread: f64 },
    /// Weights `1 / rank^exponent`.
    Zipf { exponent: f64 },
}

/// One reference from a table to an earlier table or to itself.
#[derive(Debug, Clone)]
pub(super) struct ReferencePlan {
    /// Index of the referenced table.
    pub(super) table: usize,
    /// Column names here, one per key column there.
    pub(super) columns: Vec<String>,
    pub(super) fanout: Fanout,
    /// Share of the parents that have children at all.
    pub(super) covered: f64,
    /// Whether every one of these parents has a child, as far as there are enough children.
    pub(super) complete: bool,
    /// How far the parent's general popularity decides its rank in this fanout, in [0, 1].
    pub(super) popularity: f32,
    /// Probability that the parent comes from the block that matches the row's other parents.
    pub(super) affinity: f64,
    pub(super) null_share: f64,
    pub(super) dangling_share: f64,
}

/// One table.
#[derive(Debug, Clone)]
pub(super) struct TablePlan {
    pub(super) name: String,
    pub(super) kind: TableKind,
    /// Rows to aim at; links and extensions may come out shorter.
    pub(super) rows: usize,
    pub(super) key: KeyStyle,
    /// Names of the key columns; those of the references where they are the key.
    pub(super) key_columns: Vec<String>,
    pub(super) references: Vec<ReferencePlan>,
    /// Number of columns beside the keys.
    pub(super) columns: usize,
    pub(super) order: RowOrder,
}

#[derive(Debug)]
struct Outline {
    kind: TableKind,
    parents: Vec<usize>,
}

/// Draws the tables of one database, each after those it references.
pub(super) fn draw(config: &PriorConfig, random: &mut Random) -> Vec<TablePlan> {
    let mut outlines = draw_graph(config, random);
    connect(&mut outlines, random);
    let mut names = Names::default();
    let mut plans: Vec<TablePlan> = Vec::with_capacity(outlines.len());
    for index in 0..outlines.len() {
        let is_parent = outlines.iter().any(|outline| outline.parents.contains(&index));
        let plan = draw_table(config, &outlines[index], index, is_parent, &plans, &mut names, random);
        plans.push(plan);
    }
    plans
}

/// Kinds and parents. Three shapes occur: stars around few roots, chains (snowflakes), and free growth in which
/// tables with many children attract more.
fn draw_graph(config: &PriorConfig, random: &mut Random) -> Vec<Outline> {
    let count = random.log_bell_within(&config.tables);
    let roots = ((count as f64 * random.between(0.25, 0.65)) as usize).clamp(1, count.saturating_sub(1).max(1));
    let shape = random.below(3);
    let mut outlines: Vec<Outline> = Vec::with_capacity(count);
    for index in 0..count {
        let kind = match index {
            0 if count > 1 => TableKind::Entity,
            _ if index > 0 && index < roots => random.pick(&[TableKind::Lookup, TableKind::Lookup, TableKind::Entity]),
            _ if index + 1 == count => TableKind::Fact,
            _ => [TableKind::Fact, TableKind::Entity, TableKind::Link, TableKind::Extension]
                [Alias::new(&[0.32, 0.18, 0.44, 0.06]).draw(random)],
        };
        let wanted = match kind {
            _ if index < roots => 0,
            TableKind::Lookup => 0,
            TableKind::Entity => random.within(1..=2),
            TableKind::Fact => random.within(1..=config.max_references),
            TableKind::Link => 2 + usize::from(random.chance(0.15)),
            TableKind::Extension => 1,
        };
        let mut parents: Vec<usize> = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            // A second try avoids most accidental repetitions; the rest are two roles of one table (from, to).
            let mut parent = draw_parent(shape, index, roots, &outlines, random);
            if parents.contains(&parent) && random.chance(0.85) {
                parent = random.below(index);
            }
            if !parents.contains(&parent) || kind == TableKind::Link || random.chance(0.3) {
                parents.push(parent);
            }
        }
        outlines.push(Outline { kind, parents });
    }
    outlines
}

fn draw_parent(shape: usize, index: usize, roots: usize, outlines: &[Outline], random: &mut Random) -> usize {
    match shape {
        0 => random.below(roots.min(index)),
        1 if random.chance(0.7) => index - 1,
        _ => {
            let weights: Vec<f64> = (0..index)
                .map(|parent| 1.0 + outlines.iter().filter(|outline| outline.parents.contains(&parent)).count() as f64)
                .collect();
            Alias::new(&weights).draw(random)
        }
    }
}

/// Adds references until every table can be joined with every other.
fn connect(outlines: &mut [Outline], random: &mut Random) {
    let last = outlines.len() - 1;
    let mut component: Vec<usize> = (0..outlines.len()).collect();
    for (index, outline) in outlines.iter().enumerate() {
        for &parent in &outline.parents {
            let (from, to) = (component[parent], component[index]);
            component.iter_mut().filter(|c| **c == from).for_each(|c| *c = to);
        }
    }
    for index in 0..last {
        if component[index] != component[last] {
            // The last table is a fact, which can refer to anything; sometimes another one can as well.
            let facts: Vec<usize> = (index + 1..=last)
                .filter(|&fact| outlines[fact].kind == TableKind::Fact && component[fact] == component[last])
                .collect();
            let child = random.pick(&facts);
            let (from, to) = (component[index], component[last]);
            component.iter_mut().filter(|c| **c == from).for_each(|c| *c = to);
            outlines[child].parents.push(index);
        }
    }
}

fn draw_table(
    config: &PriorConfig,
    outline: &Outline,
    index: usize,
    is_parent: bool,
    plans: &[TablePlan],
    names: &mut Names,
    random: &mut Random,
) -> TablePlan {
    let name = names.table(outline, plans, random);
    let rows = draw_rows(config, outline, plans, random);
    let mut used: Vec<String> = vec![];
    let key = match outline.kind {
        TableKind::Extension => KeyStyle::References,
        TableKind::Link if random.chance(0.95) => KeyStyle::References,
        _ if !is_parent && random.chance(0.06) => KeyStyle::None,
        // Keys of more than three columns are rare.
        TableKind::Fact | TableKind::Entity
            if outline.parents.first().is_some_and(|&parent| plans[parent].key_columns.len() < 3)
                && random.chance(0.45) =>
        {
            KeyStyle::Numbered { wide: random.chance(0.7) }
        }
        _ if rows < 5_000 && random.chance(0.15) => KeyStyle::Codes,
        _ => KeyStyle::Numbers {
            // Numbers of 32 bits last for so many rows with any gap.
            wide: random.chance(0.8) || rows > 100_000_000,
            first: random.pick(&[1, 1, 1, 0, 1_000, 100_000]),
            gap: random.pick(&[1, 1, 1, 2, 10]),
        },
    };
    let mut key_columns = match key {
        KeyStyle::None | KeyStyle::References | KeyStyle::Numbered { .. } => vec![],
        KeyStyle::Codes => vec![if random.chance(0.5) { "code".to_owned() } else { format!("{name}_code") }],
        KeyStyle::Numbers { .. } => vec![if random.chance(0.3) { "id".to_owned() } else { format!("{name}_id") }],
    };
    used.extend(key_columns.iter().cloned());

    let mut references: Vec<ReferencePlan> = vec![];
    for &parent in &outline.parents {
        let numbered = matches!(key, KeyStyle::Numbered { .. }) && references.is_empty();
        let is_key = numbered || key == KeyStyle::References;
        references.push(draw_reference(config, parent, &plans[parent], is_key, &mut used, random));
    }
    let single_key = matches!(key, KeyStyle::Numbers { .. } | KeyStyle::Codes);
    if single_key && rows > 1 && random.chance(0.04) {
        let columns = vec![unused(&format!("parent_{}", key_columns[0]), &mut used)];
        references.push(ReferencePlan {
            table: index,
            columns,
            fanout: Fanout::Uniform,
            covered: 1.0,
            complete: false,
            popularity: 0.0,
            affinity: 0.0,
            null_share: random.between(0.01, 0.5),
            dangling_share: 0.0,
        });
    }
    match key {
        KeyStyle::References => {
            key_columns = references.iter().flat_map(|reference| reference.columns.clone()).collect();
        }
        KeyStyle::Numbered { .. } => {
            key_columns = references.iter().take(1).flat_map(|reference| reference.columns.clone()).collect();
            let name = if random.chance(0.5) { "number".to_owned() } else { format!("{name}_number") };
            key_columns.push(unused(&name, &mut used));
        }
        KeyStyle::None | KeyStyle::Numbers { .. } | KeyStyle::Codes => {}
    }
    let order = match outline.kind {
        _ if matches!(key, KeyStyle::Numbered { .. }) && random.chance(0.7) => RowOrder::ByParent,
        TableKind::Link | TableKind::Fact if !outline.parents.is_empty() => {
            random.pick(&[RowOrder::Insertion, RowOrder::Insertion, RowOrder::ByParent, RowOrder::Shuffled])
        }
        _ => random.pick(&[RowOrder::Insertion, RowOrder::Insertion, RowOrder::Insertion, RowOrder::Shuffled]),
    };
    let most = match outline.kind {
        TableKind::Lookup => config.max_columns.min(4),
        TableKind::Link => config.max_columns.min(3),
        _ => config.max_columns,
    };
    // Links often carry nothing of their own.
    let bare = outline.kind == TableKind::Link && random.chance(0.35);
    let likely = random.log_within(&(most.min(3)..=most));
    let columns = if bare { 0 } else { random.log_within(&(1..=likely)) };
    TablePlan { name, kind: outline.kind, rows, key, key_columns, references, columns, order }
}

fn draw_rows(config: &PriorConfig, outline: &Outline, plans: &[TablePlan], random: &mut Random) -> usize {
    let (least, most) = (*config.rows.start(), *config.rows.end());
    match outline.kind {
        TableKind::Lookup => random.log_within(&(3.min(most)..=200.min(most))),
        TableKind::Entity => random.log_within(&((least / 20).max(10).min(most)..=(most / 10).max(10).min(most))),
        TableKind::Fact => random.log_within(&config.rows),
        TableKind::Link => {
            // At most half of the pairs that there are.
            let pairs = outline.parents.iter().map(|&parent| plans[parent].rows as f64).product::<f64>() / 2.0;
            random.log_within(&config.rows).min(pairs.min(1e9) as usize).max(1)
        }
        TableKind::Extension => {
            let parent = plans[outline.parents[0]].rows;
            ((parent as f64 * random.between(0.3, 1.2).min(1.0)) as usize).max(1)
        }
    }
}

fn draw_reference(
    config: &PriorConfig,
    table: usize,
    parent: &TablePlan,
    is_key: bool,
    used: &mut Vec<String>,
    random: &mut Random,
) -> ReferencePlan {
    let columns = parent
        .key_columns
        .iter()
        .map(|column| {
            let short = column == "id" || column == "code";
            unused(&if short { format!("{}_{column}", parent.name) } else { column.clone() }, used)
        })
        .collect();
    let fanout = match Alias::new(&[0.1, 0.25, 0.35, 0.3]).draw(random) {
        0 => Fanout::Even,
        1 => Fanout::Uniform,
        2 => Fanout::LogNormal { spread: random.between(0.2, 1.3) },
        _ => Fanout::Zipf { exponent: random.between(*config.zipf_exponent.start(), *config.zipf_exponent.end()) },
    };
    let null_share = if !is_key && random.chance(config.optional_references) {
        let share = random.uniform();
        0.01 + 0.98 * share * share
    } else {
        0.0
    };
    let dangles = !is_key && parent.key_columns.len() == 1 && random.chance(config.dangling_references);
    ReferencePlan {
        table,
        columns,
        fanout,
        covered: if random.chance(0.7) { 1.0 } else { random.between(0.1, 1.0) },
        complete: random.chance(0.5),
        popularity: if random.chance(0.95) { random.between(0.8, 1.0) as f32 } else { 0.0 },
        affinity: if random.chance(0.4) { random.between(0.3, 0.95) } else { 0.0 },
        null_share,
        dangling_share: if dangles { random.between(0.002, 0.2) } else { 0.0 },
    }
}

/// `name`, or the first of its variants that is not in `used`; remembers what it returns.
pub(super) fn unused(name: &str, used: &mut Vec<String>) -> String {
    const ROLES: [&str; 4] = ["other", "origin", "second", "former"];
    let roles =
        ROLES.iter().filter(|_| name.ends_with("_id") || name.ends_with("_code")).map(|role| format!("{role}_{name}"));
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut candidates = std::iter::once(name.to_owned()).chain(roles).chain(numbered);
    let free = candidates.find(|candidate| !used.contains(candidate)).unwrap_or_default();
    used.push(free.clone());
    free
}

/// Names of tables; readable, though nothing but a reader depends on them.
#[derive(Debug, Default)]
struct Names {
    used: Vec<String>,
}

impl Names {
    fn table(&mut self, outline: &Outline, plans: &[TablePlan], random: &mut Random) -> String {
        const LOOKUPS: [&str; 16] = [
            "country",
            "region",
            "category",
            "status",
            "currency",
            "language",
            "genre",
            "department",
            "brand",
            "unit",
            "species",
            "season",
            "team",
            "priority",
            "carrier",
            "licence",
        ];
        const ENTITIES: [&str; 20] = [
            "customer", "product", "supplier", "employee", "student", "film", "artist", "station", "vehicle",
            "hospital", "city", "account", "course", "player", "airport", "molecule", "author", "store", "device",
            "project",
        ];
        const FACTS: [&str; 20] = [
            "sale",
            "payment",
            "rental",
            "vote",
            "flight",
            "measurement",
            "visit",
            "shipment",
            "review",
            "click",
            "trade",
            "enrolment",
            "game",
            "message",
            "reading",
            "booking",
            "claim",
            "task",
            "invoice",
            "session",
        ];
        let base = match outline.kind {
            TableKind::Lookup => random.pick(&LOOKUPS).to_owned(),
            TableKind::Entity => random.pick(&ENTITIES).to_owned(),
            TableKind::Fact => random.pick(&FACTS).to_owned(),
            TableKind::Extension => format!("{}_detail", plans[outline.parents[0]].name),
            TableKind::Link => {
                let (first, second) = (&plans[outline.parents[0]].name, &plans[outline.parents[1]].name);
                if first == second { format!("{first}_pair") } else { format!("{first}_{second}") }
            }
        };
        unused(&base, &mut self.used)
    }
}
