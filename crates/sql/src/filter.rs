//! Filters as SQL conditions.
//!
//! SQL's logic has three values and a filter's two. Without negation both find the same rows, as null counts as false
//! in the end; the negation of a test is written `IS NOT TRUE`, which makes two values of three. Negations are first
//! brought down to the tests, as the negation of a condition that finds too much would find too little.

use unisono_core::Value;
use unisono_core::query::{Comparison, Filter, Like, Path, Step, successor};

use crate::dialect::{Condition, Dialect};

/// The condition of a filter. Its parameters are added behind those that are there.
pub fn compile<D: Dialect>(
    dialect: &D,
    filter: &Filter,
    parameters: &mut Vec<D::Parameter>,
) -> Condition {
    Compiler { dialect, parameters }.filter(filter, false)
}

struct Compiler<'a, D: Dialect> {
    dialect: &'a D,
    parameters: &'a mut Vec<D::Parameter>,
}

fn exact(sql: impl Into<String>) -> Condition {
    Condition { sql: sql.into(), narrowed: false }
}

fn anything() -> Condition {
    Condition { sql: "TRUE".into(), narrowed: true }
}

impl<D: Dialect> Compiler<'_, D> {
    fn filter(&mut self, filter: &Filter, negated: bool) -> Condition {
        match filter {
            Filter::All => exact(if negated { "FALSE" } else { "TRUE" }),
            Filter::And(all) if negated => self.join(all, true, " OR ", "FALSE"),
            Filter::And(all) => self.join(all, false, " AND ", "TRUE"),
            Filter::Or(any) if negated => self.join(any, true, " AND ", "TRUE"),
            Filter::Or(any) => self.join(any, false, " OR ", "FALSE"),
            Filter::Not(inner) => self.filter(inner, !negated),
            test => self.test(test, negated),
        }
    }

    fn join(&mut self, filters: &[Filter], negated: bool, word: &str, of_none: &str) -> Condition {
        if filters.is_empty() {
            return exact(of_none);
        }
        let parts: Vec<_> = filters.iter().map(|f| self.filter(f, negated)).collect();
        let narrowed = parts.iter().any(|part| part.narrowed);
        let texts: Vec<_> = parts.into_iter().map(|part| part.sql).collect();
        Condition { sql: format!("({})", texts.join(word)), narrowed }
    }

    fn test(&mut self, test: &Filter, negated: bool) -> Condition {
        let before = self.parameters.len();
        let found = self.native(test).or_else(|| self.nested(test));
        match found {
            Some(condition) if !negated => condition,
            Some(Condition { sql, narrowed: false }) => exact(format!("({sql}) IS NOT TRUE")),
            _ => {
                self.parameters.truncate(before);
                anything()
            }
        }
    }

    /// A test on a column itself.
    fn native(&mut self, test: &Filter) -> Option<Condition> {
        let path = path(test)?;
        if path.step != Step::Whole {
            return None;
        }
        let dialect = self.dialect;
        if matches!(test, Filter::IsNull(_)) {
            return Some(exact(format!("{} IS NULL", dialect.selected(path.field))));
        }
        let column = dialect.comparable(path.field)?;
        match test {
            Filter::Compare(_, comparison, value) => {
                let mark = self.marks(path, &[value])?.concat();
                Some(exact(format!("{column} {} {mark}", sign(*comparison))))
            }
            Filter::In(_, values) if values.is_empty() => Some(exact("FALSE")),
            Filter::In(_, values) => {
                let marks = self.marks(path, &values.iter().collect::<Vec<_>>())?;
                Some(exact(format!("{column} IN ({})", marks.join(", "))))
            }
            Filter::Between(_, low, high) => {
                let marks = self.marks(path, &[low, high])?;
                Some(exact(format!("{column} BETWEEN {}", marks.join(" AND "))))
            }
            Filter::Prefix(_, start) if self.is_text(path) => {
                self.begins_with(path, &column, start).map(exact)
            }
            Filter::Like(_, like) if self.is_text(path) => self.like(path, &column, like),
            Filter::Contains(_, Value::String(part)) if self.is_text(path) => {
                Some(self.matches(&column, &Pattern::containing(part)))
            }
            _ => None,
        }
    }

    /// The marks of values; none if one of them cannot be compared with the column, or is null, which equals nothing.
    fn marks(&mut self, path: &Path, values: &[&Value]) -> Option<Vec<String>> {
        if values.iter().any(|value| value.is_null()) {
            return None;
        }
        let parameters: Option<Vec<_>> =
            values.iter().map(|value| self.dialect.parameter(path.field, value)).collect();
        Some(parameters?.into_iter().map(|parameter| self.bind(parameter)).collect())
    }

    fn bind(&mut self, parameter: D::Parameter) -> String {
        bind(self.dialect, self.parameters, parameter)
    }

    fn is_text(&self, path: &Path) -> bool {
        path.ty(self.dialect.entity()).is_text()
    }

    /// Text that begins with another lies in a range, which an index serves.
    fn begins_with(&mut self, path: &Path, column: &str, start: &str) -> Option<String> {
        let text = |text: &str| Value::String(text.to_owned());
        let low = self.marks(path, &[&text(start)])?.concat();
        let Some(end) = successor(start) else { return Some(format!("{column} >= {low}")) };
        let high = self.marks(path, &[&text(&end)])?.concat();
        Some(format!("({column} >= {low} AND {column} < {high})"))
    }

    fn like(&mut self, path: &Path, column: &str, like: &Like) -> Option<Condition> {
        let pattern = Pattern::parse(&like.0);
        let range = match pattern.literal_start() {
            "" => None,
            start => Some(self.begins_with(path, column, start)?),
        };
        let matches = self.matches(column, &pattern);
        Some(match range {
            None => matches,
            Some(range) => Condition { sql: format!("({range} AND {})", matches.sql), ..matches },
        })
    }

    fn matches(&mut self, column: &str, pattern: &Pattern) -> Condition {
        let text = pattern.to_sql(|literal| self.dialect.stored_text(literal).into_owned());
        let mark = self.bind(self.dialect.pattern(text));
        let matches = format!("{column} LIKE {mark} ESCAPE '|'");
        match self.dialect.irregular(column) {
            Some(irregular) if pattern.is_by_character() => {
                Condition { sql: format!("({matches} OR {irregular})"), narrowed: true }
            }
            _ => exact(matches),
        }
    }

    fn nested(&mut self, test: &Filter) -> Option<Condition> {
        let Compiler { dialect, parameters } = self;
        dialect.nested(test, &mut |parameter| bind(*dialect, parameters, parameter))
    }
}

/// Adds a parameter and answers its mark.
pub(crate) fn bind<D: Dialect>(
    dialect: &D,
    parameters: &mut Vec<D::Parameter>,
    parameter: D::Parameter,
) -> String {
    let mark = dialect.mark(parameters.len() + 1, &parameter);
    parameters.push(parameter);
    mark
}

/// What a test looks at; none for a connective.
fn path(test: &Filter) -> Option<&Path> {
    match test {
        Filter::All | Filter::And(_) | Filter::Or(_) | Filter::Not(_) => None,
        Filter::Compare(path, ..)
        | Filter::In(path, _)
        | Filter::Between(path, ..)
        | Filter::Like(path, _)
        | Filter::Prefix(path, _)
        | Filter::Contains(path, _)
        | Filter::IsNull(path) => Some(path),
    }
}

/// The fields that a filter looks at.
pub(crate) fn fields(filter: &Filter, found: &mut Vec<usize>) {
    match filter {
        Filter::And(all) | Filter::Or(all) => all.iter().for_each(|f| fields(f, found)),
        Filter::Not(inner) => fields(inner, found),
        test => found.extend(path(test).map(|path| path.field)),
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "=",
        Comparison::Ne => "<>",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
    }
}

/// A text pattern in pieces.
struct Pattern(Vec<Piece>);

enum Piece {
    Literal(String),
    Any,
    One,
}

impl Pattern {
    /// From the pattern of [`Like`].
    fn parse(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => pieces.push(Piece::Any),
                '_' => pieces.push(Piece::One),
                c => {
                    let c = if c == '\\' { chars.next().unwrap_or('\\') } else { c };
                    match pieces.last_mut() {
                        Some(Piece::Literal(literal)) => literal.push(c),
                        _ => pieces.push(Piece::Literal(c.into())),
                    }
                }
            }
        }
        Pattern(pieces)
    }

    /// Text with a part anywhere in it.
    fn containing(part: &str) -> Self {
        Pattern(vec![Piece::Any, Piece::Literal(part.to_owned()), Piece::Any])
    }

    /// What every text that matches begins with.
    fn literal_start(&self) -> &str {
        match self.0.first() {
            Some(Piece::Literal(start)) => start,
            _ => "",
        }
    }

    /// The pattern for `LIKE … ESCAPE '|'`.
    fn to_sql(&self, stored: impl Fn(&str) -> String) -> String {
        let mut sql = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Any => sql.push('%'),
                Piece::One => sql.push('_'),
                Piece::Literal(literal) => {
                    for c in stored(literal).chars() {
                        if matches!(c, '%' | '_' | '|') {
                            sql.push('|');
                        }
                        sql.push(c);
                    }
                }
            }
        }
        sql
    }

    /// Whether it goes by single characters, or looks for control characters: other forms of text are made of them,
    /// so that one can be found where a form of another begins or ends.
    fn is_by_character(&self) -> bool {
        self.0.iter().any(|piece| match piece {
            Piece::Any => false,
            Piece::One => true,
            Piece::Literal(literal) => literal.contains(|c: char| c.is_ascii_control()),
        })
    }
}
