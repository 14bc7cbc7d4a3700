//! Changes of a configuration file that keep everything else in it as it stands, comments included.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use toml_edit::{DocumentMut, Item, TableLike};
use unisono::core::{Error, ErrorKind, Result};

/// The text with further sources and followers at its end.
///
/// Fails with `invalid_input` if the fragment has anything else.
pub(crate) fn with(text: &str, fragment: &str) -> Result<String> {
    let added = parsed(fragment)?;
    let refused = |what: &str| {
        Error::invalid("only sources and followers can be added")
            .with("found", what)
            .hint("write them as [sources.NAME] and [[entities.ENTITY.followers]]")
    };
    for (section, item) in added.iter() {
        // Whatever stands before the first header would become a part of the last table of the file.
        let is_headed = item.as_table().is_some_and(|table| !table.is_dotted());
        if !["sources", "entities"].contains(&section) || !is_headed {
            return Err(refused(section));
        }
    }
    for (entity, item) in added.get("entities").and_then(Item::as_table).into_iter().flatten() {
        let declared = item.as_table().filter(|table| !table.is_dotted());
        let declared = declared.ok_or_else(|| refused(entity))?;
        if let Some((name, _)) = declared.iter().find(|(name, _)| *name != "followers") {
            return Err(refused(&format!("entities.{entity}.{name}")));
        }
    }
    let separator = if text.ends_with('\n') { "\n" } else { "\n\n" };
    Ok(format!("{text}{separator}{fragment}"))
}

/// The text without a source and what follows there.
pub(crate) fn without(text: &str, source: &str) -> Result<String> {
    let mut document = parsed(text)?;
    let sources = document.get_mut("sources").and_then(Item::as_table_like_mut);
    if sources.and_then(|sources| sources.remove(source)).is_none() {
        return Err(Error::new(ErrorKind::NotFound, "the file declares no such source").at(source));
    }
    let entities = document.get_mut("entities").and_then(Item::as_table_like_mut);
    for (_, declared) in entities.into_iter().flat_map(|entities| entities.iter_mut()) {
        let Some(declared) = declared.as_table_like_mut() else { continue };
        let Some(followers) = declared.get_mut("followers") else { continue };
        let is_other = |follower: &dyn TableLike| {
            follower.get("source").and_then(Item::as_str) != Some(source)
        };
        let left = match followers {
            Item::ArrayOfTables(tables) => {
                tables.retain(|table| is_other(table));
                tables.len()
            }
            Item::Value(toml_edit::Value::Array(values)) => {
                values.retain(|v| v.as_inline_table().is_none_or(|table| is_other(table)));
                values.len()
            }
            _ => continue,
        };
        if left == 0 {
            declared.remove("followers");
        }
    }
    Ok(document.to_string())
}

/// The text in which a follower of an entity is its truth, and the truth the follower.
pub(crate) fn promoted(text: &str, entity: &str, source: &str) -> Result<String> {
    let mut document = parsed(text)?;
    let entities = document.get_mut("entities").and_then(Item::as_table_like_mut);
    let declared = entities.and_then(|all| all.get_mut(entity)).and_then(Item::as_table_like_mut);
    let declared = declared.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the file declares no such entity").with("entity", entity)
    })?;
    let truth = declared.get("truth").and_then(Item::as_str).unwrap_or_default().to_owned();
    let table = declared.get("table").and_then(Item::as_str).map(str::to_owned);
    let follower = declared.get_mut("followers").and_then(|followers| follower(followers, source));
    let follower = follower.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the source is no follower of the entity")
            .at(source)
            .of(entity)
            .hint("declare it as a follower first: the truth moves to one that has everything")
    })?;
    let place = follower.get("table").and_then(Item::as_str).map(str::to_owned);
    set(follower, "source", Some(&truth));
    set(follower, "table", table.as_deref());
    set(declared, "truth", Some(source));
    set(declared, "table", place.as_deref());
    Ok(document.to_string())
}

/// The declaration of a follower, however it is written.
fn follower<'a>(followers: &'a mut Item, source: &str) -> Option<&'a mut dyn TableLike> {
    let is = |table: &dyn TableLike| table.get("source").and_then(Item::as_str) == Some(source);
    match followers {
        Item::ArrayOfTables(tables) => {
            tables.iter_mut().find(|table| is(*table)).map(|table| table as &mut dyn TableLike)
        }
        Item::Value(toml_edit::Value::Array(values)) => values
            .iter_mut()
            .filter_map(|value| value.as_inline_table_mut())
            .find(|table| is(*table))
            .map(|table| table as &mut dyn TableLike),
        _ => None,
    }
}

/// Sets a text where it stands, comments beside it included; or takes it out.
fn set(table: &mut dyn TableLike, key: &str, text: Option<&str>) {
    match (table.get_mut(key), text) {
        (Some(Item::Value(there)), Some(text)) => {
            let decor = there.decor().clone();
            *there = text.into();
            *there.decor_mut() = decor;
        }
        (_, Some(text)) => drop(table.insert(key, toml_edit::value(text))),
        (_, None) => drop(table.remove(key)),
    }
}

fn parsed(text: &str) -> Result<DocumentMut> {
    text.parse().map_err(|e: toml_edit::TomlError| {
        Error::invalid("this is not valid TOML").with("reason", e.to_string().trim_end())
    })
}

/// Has a file hold a text, or what it held before, whenever the process ends.
pub(crate) fn replace(file: &Path, text: &str) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Unavailable, "the configuration cannot be written")
            .with("file", file.display())
            .caused_by(e)
    };
    // A link stays one: what it leads to is replaced.
    let file = &fs::canonicalize(file).map_err(failed)?;
    let beside = beside(file);
    let written = (|| {
        let mut made = fs::File::create(&beside)?;
        made.set_permissions(fs::metadata(file)?.permissions())?;
        made.write_all(text.as_bytes())?;
        made.sync_all()?;
        fs::rename(&beside, file)
    })();
    written.map_err(|e| {
        // What is left of it is in nobody's way.
        let _ = fs::remove_file(&beside);
        failed(e)
    })
}

/// A name in the same folder, so that paths in the text mean the same there.
pub(crate) fn beside(file: &Path) -> std::path::PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# Ours.
[sources.main]
kind = "sqlite" # the truth

# Words.
[sources.words]
kind = "tantivy"

[entities.item]
truth = "main"

[[entities.item.followers]]
source = "words"

# The last.
[[entities.item.followers]]
source = "copy"
"#;

    #[test]
    fn what_is_added_stands_at_the_end_and_nothing_else_changes() {
        let fragment = "# Mine.\n[sources.far]\nkind = \"files\"\n[[entities.item.followers]]\nsource = \"far\"\n";
        let text = with(FILE, fragment).unwrap();
        assert_eq!(text, format!("{FILE}\n{fragment}"));
        assert!(parsed(&text).is_ok());
        assert_eq!(without(&text, "far").unwrap().trim_end(), FILE.trim_end());
    }

    #[test]
    fn only_sources_and_followers_are_added() {
        for fragment in [
            "data = \"elsewhere\"",
            "sources.a.kind = \"files\"",
            "sources = { a = { kind = \"files\" } }",
            "[server]\nlisten = \"127.0.0.1:1\"",
            "[entities.item]\ntruth = \"other\"",
            "[entities]\nitem.followers = []",
            "[sources.a",
        ] {
            let error = with(FILE, fragment).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{fragment}");
        }
    }

    #[test]
    fn a_source_goes_with_its_followers_and_their_comments_alone() {
        let text = without(FILE, "words").unwrap();
        for kept in ["# Ours.", "# the truth", "# The last.", "source = \"copy\""] {
            assert!(text.contains(kept), "{text}");
        }
        assert!(!text.contains("words") && !text.contains("# Words."), "{text}");
        assert_eq!(without(FILE, "other").unwrap_err().kind(), ErrorKind::NotFound);
        let inline = "[sources]\na = { kind = \"memory\" }\nb = {}\n[entities.item]\nfollowers = [{ source = \"a\" }, { source = \"b\" }]\n";
        let text = without(inline, "a").unwrap();
        assert!(!text.contains("\"a\"") && text.contains("{ source = \"b\" }"), "{text}");
        assert!(!without(&text, "b").unwrap().contains("followers"));
    }

    #[test]
    fn a_follower_and_the_truth_change_places() {
        let file =
            FILE.replace("truth = \"main\"", "truth = \"main\" # decides\ntable = \"items\"");
        let text = promoted(&file, "item", "copy").unwrap();
        for wanted in [
            "# Ours.",
            "truth = \"copy\" # decides",
            "source = \"words\"",
            "source = \"main\"\ntable = \"items\"",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("truth = \"copy\" # decides\ntable"), "{text}");
        let back = promoted(&text, "item", "main").unwrap();
        assert!(
            back.contains("truth = \"main\" # decides") && back.contains("source = \"copy\""),
            "{back}"
        );
        let inline = "[entities.item]\ntruth = \"a\"\nfollowers = [{ source = \"b\" }]\n";
        let text = promoted(inline, "item", "b").unwrap();
        assert_eq!(text, "[entities.item]\ntruth = \"b\"\nfollowers = [{ source = \"a\" }]\n");
        for (entity, source) in [("item", "other"), ("nothing", "copy")] {
            assert_eq!(promoted(FILE, entity, source).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_file_is_replaced_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("unisono.toml");
        fs::write(&file, "a").unwrap();
        replace(&file, "b").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "b");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
