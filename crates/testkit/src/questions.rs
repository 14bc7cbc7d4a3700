//! Random queries, searches and aggregates that are valid for an entity.

use rand::Rng;
use rand::seq::IndexedRandom;
use unisono_core::query::{Aggregate, AggregateOrder, Filter, Metric, Order, Path, Query, Step};
use unisono_core::{Entity, FieldType, Record};

use crate::Generator;
use crate::values::WORDS;

impl Generator {
    /// A query without search: filter, order, limit.
    pub fn query(&mut self, entity: &Entity, records: &[&Record]) -> Query {
        let filter = match self.rng.random_bool(0.2) {
            true => Filter::All,
            false => self.filter(entity, records, 3),
        };
        let scalars: Vec<_> = scalar_fields(entity).collect();
        let count = self.rng.random_range(0..3_usize).min(scalars.len());
        let chosen: Vec<_> = scalars.choose_multiple(&mut self.rng, count).copied().collect();
        let order = chosen
            .into_iter()
            .map(|field| Order { path: Path::whole(field), descending: self.rng.random() })
            .collect();
        let limit = *self.pick(&[1, 2, 7, 50, Query::LIMIT_MAX]);
        Query { filter, order, limit, ..Query::all() }
    }

    /// A search text of words, prefixes and phrases.
    pub fn search(&mut self) -> String {
        let clause = |g: &mut Self| {
            let (a, b) = (*g.pick(WORDS), *g.pick(WORDS));
            match g.rng.random_range(0..6) {
                0 => format!("{}*", a.chars().take(2).collect::<String>()),
                1 => format!("\"{a} {b}\""),
                2 => a.to_uppercase(),
                _ => a.to_owned(),
            }
        };
        let count = self.rng.random_range(1..3);
        (0..count).map(|_| clause(self)).collect::<Vec<_>>().join(" ")
    }

    /// Up to three fields that facets can count.
    pub fn facets(&mut self, entity: &Entity) -> Vec<usize> {
        let scalars: Vec<_> = scalar_fields(entity).collect();
        let count = self.rng.random_range(0..4_usize).min(scalars.len());
        scalars.choose_multiple(&mut self.rng, count).copied().collect()
    }

    /// An aggregate; half of those that can unnest a list of objects do.
    ///
    /// It is never ordered by a sum or mean of floats: those may differ in the last digit between sources.
    pub fn aggregate(&mut self, entity: &Entity, records: &[&Record]) -> Aggregate {
        let lists: Vec<_> =
            (0..entity.fields().len()).filter(|n| lines(entity, *n).is_some()).collect();
        let unnest = lists.choose(&mut self.rng).copied().filter(|_| self.rng.random());
        let mut paths: Vec<_> = scalar_fields(entity).map(Path::whole).collect();
        if let Some(field) = unnest {
            let fields = lines(entity, field).unwrap_or_default();
            paths.extend((0..fields).map(|n| Path { field, step: Step::Each(n) }));
        }
        let groups = self.rng.random_range(0..3_usize).min(paths.len());
        let mut group_by: Vec<_> = paths.choose_multiple(&mut self.rng, groups).cloned().collect();
        let json = (0..entity.fields().len()).find(|n| entity.fields()[*n].ty == FieldType::Json);
        if let Some(field) = json.filter(|_| unnest.is_none() && self.rng.random_bool(0.3)) {
            let path = self.json_path(field);
            // Members can be grouped by, the whole field cannot.
            group_by.extend(Some(path).filter(|p| p.step != Step::Whole));
        }
        let metrics: Vec<_> = (0..self.rng.random_range(1..4))
            .map(|n| (format!("m{n}"), self.metric(entity, &paths)))
            .collect();
        let mut order = Vec::new();
        for (index, (_, metric)) in metrics.iter().enumerate() {
            if !is_float_total(entity, metric) && self.rng.random_bool(0.3) {
                order.push(AggregateOrder::Metric { index, descending: self.rng.random() });
            }
        }
        if !group_by.is_empty() && self.rng.random_bool(0.3) {
            let index = self.rng.random_range(0..group_by.len());
            order.push(AggregateOrder::Group { index, descending: self.rng.random() });
        }
        let filter = self.filter(entity, records, 2);
        let limit = *self.pick(&[1, 3, 100, Aggregate::LIMIT_MAX]);
        Aggregate { filter, unnest, group_by, metrics, order, limit }
    }

    fn metric(&mut self, entity: &Entity, paths: &[Path]) -> Metric {
        let path = self.pick(paths).clone();
        match (self.rng.random_range(0..5), path.ty(entity).is_number()) {
            (0, _) => Metric::Count,
            (1, _) => Metric::Min(path),
            (2, _) => Metric::Max(path),
            (3, true) => Metric::Avg(path),
            (_, true) => Metric::Sum(path),
            _ => Metric::Count,
        }
    }
}

/// Whether a metric adds up floats.
fn is_float_total(entity: &Entity, metric: &Metric) -> bool {
    matches!(metric, Metric::Sum(p) | Metric::Avg(p) if *p.ty(entity) == FieldType::Float)
}

fn scalar_fields(entity: &Entity) -> impl Iterator<Item = usize> {
    entity.fields().iter().enumerate().filter(|(_, f)| f.ty.is_scalar()).map(|(n, _)| n)
}

/// The number of declared parts, if the field is a list of objects.
fn lines(entity: &Entity, field: usize) -> Option<usize> {
    match &entity.fields()[field].ty {
        FieldType::Objects(fields) => Some(fields.len()),
        _ => None,
    }
}
