//! The options of a source under test: the declared defaults, and for a server what `engines/up` has written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use toml::Value;
use unisono_core::kind::{OptionSpec, OptionType, OptionValue, Options};

/// The declared defaults, with a place for the data where a path is required.
pub(crate) fn embedded(specs: &[OptionSpec]) -> Options {
    let mut options = defaults(specs);
    for spec in specs.iter().filter(|s| required(s) && s.ty == OptionType::Path) {
        options.0.insert(spec.name.to_owned(), OptionValue::Text("store".into()));
    }
    options
}

/// The declared defaults under what `source.toml` of a running engine says, with a namespace of their own.
pub(crate) fn server(engine: &str, specs: &[OptionSpec]) -> Result<Options, String> {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join(engine).join("source.toml");
    let text = std::fs::read_to_string(&file).map_err(|error| {
        format!("{}: {error}\n    start it: engines/up {engine}", file.display())
    })?;
    let wrong = |what: String| format!("{}: {what}", file.display());
    let table: toml::Table = toml::from_str(&text.replace("{namespace}", &namespace()))
        .map_err(|error| wrong(error.to_string()))?;
    let mut options = defaults(specs);
    for (name, given) in &table {
        let Some(spec) = specs.iter().find(|s| s.name == name) else {
            return Err(wrong(format!("`{name}` is not an option of the kind")));
        };
        let Some(value) = value(spec.ty, given) else {
            return Err(wrong(format!("`{name}` must be {:?}", spec.ty)));
        };
        options.0.insert(name.clone(), value);
    }
    match specs.iter().find(|s| required(s) && !options.0.contains_key(s.name)) {
        Some(spec) => Err(wrong(format!("`{}` is required", spec.name))),
        None => Ok(options),
    }
}

/// A name that no other case has, such as `t1234_7`: at most 20 lowercase letters, digits and underscores.
fn namespace() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn required(spec: &OptionSpec) -> bool {
    spec.default.is_none() && !spec.optional
}

fn defaults(specs: &[OptionSpec]) -> Options {
    let default = |spec: &OptionSpec| {
        // A default is written as in TOML, but for its quotes: a bare word stands for itself.
        let text = spec.default?;
        let table = toml::from_str::<toml::Table>(&format!("default = {text}"));
        let bare = || Value::String(text.trim_matches('"').to_owned());
        let given = table.ok().and_then(|mut t| t.remove("default")).unwrap_or_else(bare);
        Some((spec.name.to_owned(), value(spec.ty, &given)?))
    };
    Options(specs.iter().filter_map(default).collect::<BTreeMap<_, _>>())
}

/// A value as the type wants it; none if it is of another.
fn value(ty: OptionType, given: &Value) -> Option<OptionValue> {
    Some(match (ty, given) {
        (OptionType::Choice(words), Value::String(word)) if !words.contains(&word.as_str()) => {
            return None;
        }
        (
            OptionType::String | OptionType::Path | OptionType::Secret | OptionType::Choice(_),
            Value::String(text),
        ) => OptionValue::Text(text.clone()),
        (OptionType::List, Value::Array(all)) => {
            let texts = all.iter().map(|v| v.as_str().map(str::to_owned));
            OptionValue::List(texts.collect::<Option<_>>()?)
        }
        (OptionType::Boolean, Value::Boolean(yes)) => OptionValue::Boolean(*yes),
        (OptionType::Integer { .. } | OptionType::Size, Value::Integer(n)) => {
            OptionValue::Integer(*n)
        }
        (OptionType::Size, Value::String(text)) => {
            OptionValue::Integer(i64::try_from(scaled(text)?).ok()?)
        }
        (OptionType::Duration, Value::String(text)) => {
            OptionValue::Duration(Duration::from_millis(scaled(text)?))
        }
        _ => return None,
    })
}

/// A number with the unit of a size (in bytes) or of a duration (in milliseconds).
fn scaled(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" | "ms" => 1,
        "kB" | "KB" | "s" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}
