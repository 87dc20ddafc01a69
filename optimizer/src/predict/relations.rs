//! The tables of a session as relations: which table the entities are rows of, the keys and the times.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Constraint, ResolvedTableReference, TableReference};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::SessionContext;
use relata_featurize::foreign_key::{self, foreign_keys};
use relata_featurize::profile::TableProfile;
use relata_featurize::synthesis::{Reference, Relation, Relations, infer_time};

use super::lineage::{BaseColumn, Lineage};
use super::{PredictTask, no_prediction};
use crate::optimizer::tables;
use crate::{Relata, RelataError, Result};

/// The tables that a prediction may read.
pub(super) struct Database {
    pub(super) relations: Relations,
    /// Their full names.
    names: Vec<ResolvedTableReference>,
    providers: Vec<Arc<dyn TableProvider>>,
    /// The table that keys come from or that the task names.
    root: usize,
}

/// The table that the entities are rows of.
pub(super) struct Entity {
    pub(super) table: usize,
    pub(super) key: Vec<String>,
}

impl Database {
    /// The tables beside the one that keys come from or that the task names: all of its schema but views.
    pub(super) async fn open(
        relata: &Relata,
        session: &SessionState,
        task: &PredictTask,
        keys: &[Lineage],
    ) -> Result<Self> {
        let catalog = &session.config_options().catalog;
        let resolved = |name: TableReference| name.resolve(&catalog.default_catalog, &catalog.default_schema);
        let root = match &task.entity {
            Some(name) => resolved(name.clone()),
            None => key_columns(keys).ok_or_else(unknown_entity)?.0.clone(),
        };
        let ctx = SessionContext::new_with_state(session.clone());
        let mut database = Self { relations: Relations::default(), names: vec![], providers: vec![], root: 0 };
        for (name, provider) in tables(&ctx).await? {
            let name = resolved(name);
            let beside = name.catalog == root.catalog && name.schema == root.schema;
            if name == root || (beside && provider.table_type() != TableType::View) {
                let source = provider_as_source(Arc::clone(&provider));
                let reference = TableReference::from(name.clone());
                database.relations.tables.push(Relation { reference, source, key: vec![], time: None });
                database.names.push(name);
                database.providers.push(provider);
            }
        }
        database.root = match (database.place(&root), &task.entity) {
            (Some(place), _) => place,
            (None, Some(_)) => return Err(RelataError::NoTable(root.to_string())),
            (None, None) => return Err(unknown_entity()),
        };
        database.relations.references = database.declared(relata, resolved);
        if database.relations.references.is_empty() {
            database.relations.references = database.inferred(relata, session).await;
        }
        database.find_times(task, resolved)?;
        Ok(database)
    }

    /// Place of a table.
    pub(super) fn place(&self, name: &ResolvedTableReference) -> Option<usize> {
        self.names.iter().position(|other| other == name)
    }

    /// Columns as the synthesis names them; those of other tables are left out.
    pub(super) fn places(&self, columns: impl IntoIterator<Item = BaseColumn>) -> BTreeSet<(usize, String)> {
        columns.into_iter().filter_map(|base| Some((self.place(&base.table)?, base.column))).collect()
    }

    /// The table of a column that the user names, and the column.
    ///
    /// # Errors
    /// When there is no such table or column.
    pub(super) fn named(
        &self,
        column: &Column,
        resolved: impl Fn(TableReference) -> ResolvedTableReference,
    ) -> Result<(usize, String)> {
        let Some(table) = &column.relation else {
            return Err(no_prediction(format!("the column {} is named without its table", column.name)));
        };
        let place = self.place(&resolved(table.clone())).ok_or_else(|| RelataError::NoTable(table.to_string()))?;
        if self.providers[place].schema().index_of(&column.name).is_err() {
            return Err(no_prediction(format!("{table} has no column {}", column.name)));
        }
        Ok((place, column.name.clone()))
    }

    /// The table that the entities are rows of, with its key. Columns that refer to another table by a foreign key, and are no
    /// key of their own, stand for the rows that they refer to.
    pub(super) fn entity(&mut self, task: &PredictTask, keys: &[Lineage], given: &[String]) -> Result<Entity> {
        let direct = key_columns(keys).and_then(|(table, columns)| Some((self.place(table)?, columns)));
        let wanted = task.entity.is_some().then_some(self.root);
        self.find_keys();
        let entity = match (direct, wanted) {
            (Some((table, key)), None) => self.referred(table, &key).unwrap_or(Entity { table, key }),
            (Some((table, key)), Some(wanted)) if table == wanted => Entity { table, key },
            (Some((table, key)), Some(wanted)) => match self.referred(table, &key) {
                Some(entity) if entity.table == wanted => entity,
                _ => self.by_name(wanted, given)?,
            },
            (None, Some(wanted)) => self.by_name(wanted, given)?,
            (None, None) => return Err(unknown_entity()),
        };
        let relation = &mut self.relations.tables[entity.table];
        if relation.key.is_empty() {
            relation.key.clone_from(&entity.key);
        }
        Ok(entity)
    }

    /// Whether rows of a table are events: they have a time, refer to others, and nothing refers to them.
    pub(super) fn is_event(&self, table: usize) -> bool {
        let references = &self.relations.references;
        self.relations.tables[table].time.is_some()
            && references.iter().any(|reference| reference.table == table)
            && references.iter().all(|reference| reference.references != table)
    }

    /// The row that columns refer to, unless they are the key of their own table.
    fn referred(&self, table: usize, columns: &[String]) -> Option<Entity> {
        let own = &self.relations.tables[table].key;
        if same_columns(own, columns) {
            return None;
        }
        let reference = self
            .relations
            .references
            .iter()
            .find(|reference| reference.table == table && same_columns(&reference.columns, columns))?;
        let pair = |column: &String| {
            let place = reference.columns.iter().position(|own| own == column)?;
            Some(reference.referenced[place].clone())
        };
        Some(Entity { table: reference.references, key: columns.iter().map(pair).collect::<Option<_>>()? })
    }

    /// A key by the names that the query gives it, or else the table's primary key.
    fn by_name(&self, table: usize, given: &[String]) -> Result<Entity> {
        let schema = self.providers[table].schema();
        if given.iter().all(|name| schema.index_of(name).is_ok()) {
            return Ok(Entity { table, key: given.to_vec() });
        }
        let key = &self.relations.tables[table].key;
        if key.len() == given.len() {
            return Ok(Entity { table, key: key.clone() });
        }
        let (name, given) = (&self.relations.tables[table].reference, given.join(", "));
        Err(no_prediction(format!("{given} is no key of {name}: name the columns as they are called there")))
    }

    /// The foreign keys that were declared.
    fn declared(&self, relata: &Relata, resolved: impl Fn(TableReference) -> ResolvedTableReference) -> Vec<Reference> {
        let mut references: Vec<Reference> = vec![];
        for key in relata.foreign_keys.iter() {
            let place = |name: &TableReference| self.place(&resolved(name.clone()));
            let (Some(table), Some(references_to)) = (place(&key.table), place(&key.references)) else { continue };
            let there = |table: usize, columns: &[String]| {
                let schema = self.providers[table].schema();
                columns.iter().all(|column| schema.index_of(column).is_ok())
            };
            let reference = Reference {
                table,
                columns: key.columns.clone(),
                references: references_to,
                referenced: key.referenced.clone(),
            };
            let pairs = !key.columns.is_empty() && key.columns.len() == key.referenced.len();
            let identity = table == references_to && key.columns == key.referenced;
            let usable = pairs && !identity && there(table, &key.columns) && there(references_to, &key.referenced);
            if usable && !references.contains(&reference) {
                references.push(reference);
            }
        }
        references
    }

    /// The foreign keys that the profiles suggest; tables without a profile are profiled first, and those that cannot be have
    /// none.
    async fn inferred(&self, relata: &Relata, session: &SessionState) -> Vec<Reference> {
        let alone = relata.profiles.session(session).unwrap_or_else(|| session.clone());
        let (mut profiles, mut members): (Vec<Arc<TableProfile>>, Vec<usize>) = (vec![], vec![]);
        for (place, provider) in self.providers.iter().enumerate() {
            if relata.profiles.get(provider).is_none() {
                let name = TableReference::from(self.names[place].clone());
                relata.profile_provider(alone.clone(), name, Arc::clone(provider), false).await;
            }
            if let Some(table) = relata.profiles.get(provider) {
                profiles.push(Arc::clone(&table.profile));
                members.push(place);
            }
        }
        let names = |table: usize, columns: &[usize]| {
            let schema = self.providers[table].schema();
            columns.iter().map(|column| schema.field(*column).name().clone()).collect()
        };
        let reference = |key: foreign_key::ForeignKey| {
            let (table, references) = (members[key.table], members[key.references]);
            Reference {
                table,
                columns: names(table, &key.columns),
                references,
                referenced: names(references, &key.referenced),
            }
        };
        foreign_keys(&profiles, &[]).into_iter().map(reference).collect()
    }

    /// Primary keys: those that the tables declare, or else the columns that others refer to.
    fn find_keys(&mut self) {
        for (place, relation) in self.relations.tables.iter_mut().enumerate() {
            let schema = self.providers[place].schema();
            let constraints =
                self.providers[place].constraints().into_iter().flat_map(|constraints| constraints.iter());
            let declared = constraints.filter_map(|constraint| match constraint {
                Constraint::PrimaryKey(columns) => Some(columns),
                Constraint::Unique(_) => None,
            });
            let declared: Option<Vec<String>> = declared
                .map(|columns| columns.iter().map(|column| schema.field(*column).name().clone()).collect())
                .next();
            let referenced = || {
                let into = self.relations.references.iter().find(|reference| reference.references == place);
                into.map(|reference| reference.referenced.clone())
            };
            relation.key = declared.or_else(referenced).unwrap_or_default();
        }
    }

    /// When rows came to be: the first column of times, or what the task says.
    fn find_times(
        &mut self,
        task: &PredictTask,
        resolved: impl Fn(TableReference) -> ResolvedTableReference + Copy,
    ) -> Result<()> {
        for (relation, provider) in self.relations.tables.iter_mut().zip(&self.providers) {
            relation.time = infer_time(&provider.schema());
        }
        for table in &task.timeless {
            let place = self.place(&resolved(table.clone())).ok_or_else(|| RelataError::NoTable(table.to_string()))?;
            self.relations.tables[place].time = None;
        }
        for column in &task.time {
            let (place, name) = self.named(column, resolved)?;
            self.relations.tables[place].time = Some(name);
        }
        Ok(())
    }
}

fn unknown_entity() -> RelataError {
    no_prediction("the key columns of the target query do not belong to one table; name the table of the entities")
}

/// The one table that keys come from, and their columns there.
fn key_columns(keys: &[Lineage]) -> Option<(&ResolvedTableReference, Vec<String>)> {
    let direct: Vec<&BaseColumn> = keys.iter().map(|key| key.direct.as_ref()).collect::<Option<_>>()?;
    let table = &direct.first()?.table;
    let one = direct.iter().all(|base| base.table == *table);
    one.then(|| (table, direct.iter().map(|base| base.column.clone()).collect()))
}

fn same_columns(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().all(|column| b.contains(column))
}
