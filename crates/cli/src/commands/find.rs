//! `unisono find`: records that match, as a table or as JSON lines.

use unisono::core::query::Query;
use unisono::core::{Error, Result};

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::Object;
use crate::terminal::output::note;
use crate::terminal::text;

/// Find records
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The entity
    entity: String,
    /// Filters as in the URL, such as `status=eq.paid` or `amount=gt.100`; all must hold
    #[arg(value_name = "FIELD=OPERATOR.VALUE")]
    filters: Vec<String>,
    /// Only records that match these words
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// The order, such as `-created_at` or `created_at.desc`; several are separated by commas
    #[arg(long, value_name = "FIELDS", allow_hyphen_values = true)]
    order: Option<String>,
    /// How many records at most; 0 for all
    #[arg(long, value_name = "RECORDS", default_value_t = 20)]
    limit: usize,
    /// Only these fields, separated by commas
    #[arg(long, value_name = "FIELDS")]
    fields: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let parameters = parameters(&args)?;
    let work = async |target: &dyn Target| find(&args, &parameters, target, session).await;
    session.on_target(&args.connect, work).await?;
    Ok(exit::OK)
}

/// The arguments as URL parameters, but limit and cursor.
fn parameters(args: &Args) -> Result<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    for filter in &args.filters {
        let (field, test) = filter.split_once('=').ok_or_else(|| {
            Error::invalid("a filter is FIELD=OPERATOR.VALUE")
                .with("filter", filter)
                .hint("for example status=eq.paid; to search for words use --search")
        })?;
        parameters.push((field.to_owned(), test.to_owned()));
    }
    let mut add = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            parameters.push((name.to_owned(), value.clone()));
        }
    };
    add("q", &args.search);
    add("fields", &args.fields);
    add("order", &args.order.as_deref().map(order));
    Ok(parameters)
}

/// `-price` is `price.desc` in the URL.
fn order(text: &str) -> String {
    let fields = text.split(',').map(str::trim).map(|field| match field.strip_prefix('-') {
        Some(field) => format!("{field}.desc"),
        None => field.to_owned(),
    });
    fields.collect::<Vec<_>>().join(",")
}

async fn find(
    args: &Args,
    parameters: &[(String, String)],
    target: &dyn Target,
    session: &Session,
) -> Result<()> {
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut cursor: Option<String> = None;
    let mut records = Vec::new();
    let mut more = true;
    while more && left > 0 {
        let mut asked = parameters.to_vec();
        asked.push(("limit".into(), left.min(Query::LIMIT_MAX).to_string()));
        asked.extend(cursor.take().map(|cursor| ("cursor".into(), cursor)));
        let page = target.find(&args.entity, &asked).await?;
        cursor = page.next;
        more = cursor.is_some();
        left -= page.items.len().min(left);
        for item in page.items {
            if session.output.is_json() {
                session.output.line(item.get())?;
            } else {
                records.push(Object::of(&item)?);
            }
        }
    }
    if !session.output.is_json() {
        show(&records, more, session)?;
    }
    Ok(())
}

fn show(records: &[Object], more: bool, session: &Session) -> Result<()> {
    let first = records.first().into_iter().flat_map(|first| &first.0);
    let heading: Vec<&str> = first.map(|(name, _)| name.as_str()).collect();
    let cell =
        |record: &Object, field: &&str| record.get(field).map(text::cell).unwrap_or_default();
    let rows =
        records.iter().map(|record| heading.iter().map(|field| cell(record, field)).collect());
    session.output.table(&heading, rows.collect())?;
    let all = if more { "; there are more: use --limit" } else { "" };
    note(format_args!("{} records{all}", text::count(records.len() as u64)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_minus_means_descending() {
        assert_eq!(order("-price,name"), "price.desc,name");
        assert_eq!(order("price.desc"), "price.desc");
    }
}
