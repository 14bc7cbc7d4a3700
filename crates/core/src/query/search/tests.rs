use serde_json::json;

use super::*;
use crate::error::ErrorKind;
use crate::fixtures;

fn texts(text: &str) -> Vec<String> {
    super::texts(text)
}

#[test]
fn words_are_runs_of_letters_and_digits_in_lower_case() {
    for (text, expected) in [
        ("Ice-Cream, 2 scoops!", vec!["ice", "cream", "2", "scoops"]),
        ("snake_case don't", vec!["snake", "case", "don", "t"]),
        ("\u{c9}T\u{c9} stra\u{df}e \u{3a3}", vec!["\u{e9}t\u{e9}", "stra\u{df}e", "\u{3c3}"]),
        ("\u{6771}\u{4eac} tower", vec!["\u{6771}\u{4eac}", "tower"]),
        ("  \u{1f600} -- \u{0} ", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(texts(text), expected, "{text}");
    }
    let word = &words("\u{e9}\u{e9} Ab")[1];
    assert_eq!((word.start, word.end), (5, 7));
}

#[test]
fn overlong_words_are_left_out() {
    let (longest, longer) = ("x".repeat(200), "x".repeat(201));
    assert_eq!(texts(&format!("a {longest} {longer} b")), ["a", longest.as_str(), "b"]);
}

#[test]
fn a_search_text_is_read_as_documented() {
    let word = |text: &str| Clause::Word(text.to_owned());
    let prefix = |text: &str| Clause::Prefix(text.to_owned());
    let phrase = |words: &[&str]| Clause::Phrase(words.iter().map(|w| (*w).to_owned()).collect());
    for (text, clauses) in [
        ("red Shoes", vec![word("red"), word("shoes")]),
        ("shel*", vec![prefix("shel")]),
        ("\"ice cream\" red", vec![phrase(&["ice", "cream"]), word("red")]),
        ("ice-cream", vec![phrase(&["ice", "cream"])]),
        ("ice-crea*", vec![word("ice"), prefix("crea")]),
        ("a-b-c*", vec![phrase(&["a", "b"]), prefix("c")]),
        ("\"red\"", vec![word("red")]),
        ("\"red*\"", vec![word("red")]),
        ("\"never closed", vec![phrase(&["never", "closed"])]),
        ("red\"ice cream\"blue", vec![word("red"), phrase(&["ice", "cream"]), word("blue")]),
        ("red RED red", vec![word("red")]),
        ("* red ** AND (NOT)", vec![word("red"), word("and"), word("not")]),
        ("foo-*", vec![word("foo")]),
    ] {
        assert_eq!(Search::parse(text).unwrap().clauses, clauses, "{text}");
    }
}

#[test]
fn a_search_without_words_or_above_a_limit_is_refused() {
    let many: String = (0..33).map(|n| format!("w{n} ")).collect();
    for text in ["", "  ", "*", "\"\"", "-- !", &"x".repeat(201), &"x ".repeat(600), &many] {
        assert_eq!(Search::parse(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
    }
    assert!(Search::parse(&many[..many.len() - 4]).is_ok(), "32 clauses are allowed");
}

#[test]
fn all_clauses_must_match_in_any_search_field() {
    let entity = fixtures::entity();
    let record = fixtures::record(
        &entity,
        &json!({"id": "hidden", "title": "Red shoes", "body": "Made for Running, made of ice and cream", "status": "secret"}),
    );
    for (text, expected) in [
        ("red", true),
        ("RED running", true),
        ("red missing", false),
        ("secret", false),
        ("hidden", false),
        ("run", false),
        ("run*", true),
        ("\"red shoes\"", true),
        ("\"shoes red\"", false),
        ("\"shoes made\"", false),
        ("\"ice cream\"", false),
        ("ice-and", true),
        ("\"made for running made\"", true),
    ] {
        assert_eq!(Search::parse(text).unwrap().matches(&entity, &record), expected, "{text}");
    }
    assert_eq!(Search::parse("made red").unwrap().score(&entity, &record), Some(3.0));
}

#[test]
fn highlights_mark_words_and_escape_everything_else() {
    let entity = fixtures::entity();
    let record = fixtures::record(
        &entity,
        &json!({"id": "a", "title": "<script>alert('Red')</script>", "body": "nothing", "status": "red"}),
    );
    let shown = Search::parse("red script").unwrap().highlight(&entity, &record);
    assert_eq!(shown.len(), 1, "only fields that match");
    assert_eq!(
        shown["title"],
        "&lt;<mark>script</mark>&gt;alert(&#39;<mark>Red</mark>&#39;)&lt;/<mark>script</mark>&gt;"
    );
    let record =
        fixtures::record(&entity, &json!({"id": "a", "title": "ice & ice cream \"cream\""}));
    let shown = Search::parse("\"ice cream\"").unwrap().highlight(&entity, &record);
    assert_eq!(shown["title"], "ice &amp; <mark>ice</mark> <mark>cream</mark> &quot;cream&quot;");
}

#[test]
fn long_texts_are_cut_around_the_first_match() {
    let entity = fixtures::entity();
    for (before, after) in [(0, 1000), (1000, 0), (1000, 1000), (30, 1000), (2, 2)] {
        let body =
            format!("{}needle{}", "\u{e9}t\u{e9} ".repeat(before), " w\u{f6}rd".repeat(after));
        let record = fixtures::record(&entity, &json!({"id": "a", "body": body}));
        let shown = &Search::parse("needle").unwrap().highlight(&entity, &record)["body"];
        let plain = shown.replace("<mark>", "").replace("</mark>", "");
        assert!(shown.contains("<mark>needle</mark>"), "{shown}");
        assert!(plain.chars().count() <= Search::HIGHLIGHT_CHARS + 2, "{}", plain.chars().count());
        assert_eq!(shown.starts_with('\u{2026}'), before > 20, "{shown}");
        assert_eq!(shown.ends_with('\u{2026}'), after > 100, "{shown}");
        assert!(body.contains(plain.trim_matches('\u{2026}')), "{plain}");
    }
    let unbroken = format!("{} needle", "x".repeat(5000));
    let record = fixtures::record(&entity, &json!({"id": "a", "body": unbroken}));
    assert!(
        Search::parse("needle").unwrap().highlight(&entity, &record)["body"]
            .contains("<mark>needle</mark>")
    );
}
