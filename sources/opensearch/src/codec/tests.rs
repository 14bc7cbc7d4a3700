use unisono_core::query::Search;
use unisono_testkit::Generator;

use super::*;

const TYPES: &[FieldType] = &[
    FieldType::String,
    FieldType::Text,
    FieldType::Integer,
    FieldType::Decimal { precision: 18, scale: 4 },
    FieldType::Decimal { precision: 28, scale: 0 },
    FieldType::Decimal { precision: 28, scale: 28 },
    FieldType::Boolean,
    FieldType::Float,
    FieldType::Date,
    FieldType::Timestamp { precision: 6 },
    FieldType::Uuid,
    FieldType::Bytes,
];

#[test]
fn forms_sort_like_values_and_lead_back_to_them() {
    for (seed, ty) in TYPES.iter().enumerate() {
        let mut g = Generator::new(seed as u64);
        let values: Vec<_> = (0..300).map(|_| g.value(ty)).collect();
        let forms: Vec<_> = values.iter().map(|v| to_form(ty, v).unwrap()).collect();
        for (a, x) in values.iter().zip(&forms) {
            let back = from_json(ty, &x.to_json()).unwrap();
            assert!(back.order(a).is_eq(), "{ty}: {a:?} became {back:?}");
            for (b, y) in values.iter().zip(&forms) {
                assert_eq!(x.partial_cmp(y), Some(a.order(b)), "{ty}: {a:?} and {b:?}");
            }
        }
    }
}

#[test]
fn cut_texts_keep_their_order() {
    let start = "k".repeat(KEYWORD_CHARS_MAX - 1);
    let mut texts: Vec<_> = ["", "é", "z", "z\u{1f600}", "é\u{0}", "\u{10ffff}x"]
        .map(|end| format!("{start}{end}"))
        .into();
    texts.sort();
    let heads: Vec<_> = texts.iter().map(|t| head(t).unwrap_or(t)).collect();
    assert!(heads.is_sorted(), "{heads:?}");
    assert!(heads.iter().all(|h| h.len() < 32_766));
    assert_eq!(head(&"é".repeat(KEYWORD_CHARS_MAX)), None, "a whole text is not cut");
}

#[test]
fn a_document_leads_back_to_its_record_and_is_one_line() {
    for seed in 0..40 {
        let mut g = Generator::new(seed);
        let entity = g.entity("thing", &|_| true);
        let layout = Layout::new(&entity);
        for (key, record) in g.records(&entity, 20) {
            let mut line = Vec::new();
            encode(&layout, Version::new(7).unwrap(), &record, &mut line).unwrap();
            assert!(!line.contains(&b'\n'), "seed {seed}");
            let raw: &RawValue = serde_json::from_slice(&line).unwrap();
            let stored = decode(&entity, raw).unwrap().unwrap();
            assert_eq!((stored.key, stored.version.as_u64()), (key, 7), "seed {seed}");
            let texts = [&record, &stored.record].map(|r| json::to_vec(&entity, r));
            assert_eq!(texts[0], texts[1], "seed {seed}");
        }
    }
}

#[test]
fn a_remembered_deletion_is_no_record() {
    let entity = unisono_testkit::Sample::product();
    let mut line = Vec::new();
    encode_deletion(Version::MAX, &mut line);
    let raw: &RawValue = serde_json::from_slice(&line).unwrap();
    assert!(decode(&entity, raw).unwrap().is_none());
    let raw: &RawValue = serde_json::from_str("{\"name\":\"x\"}").unwrap();
    assert!(decode(&entity, raw).is_err(), "somebody else's document");
}

#[test]
fn the_engine_cuts_words_where_we_do() {
    // It cuts at whitespace and at 255 characters: no word may hold the one or the other.
    let nasty = "İstanbul ẞ ﬀ 日本語 x\u{200d}y a\u{0}b é e\u{301} ½ \u{1f600} ".to_owned()
        + &"w".repeat(300);
    for word in unisono_core::query::search::words(&nasty) {
        assert!(!word.text.is_empty() && !word.text.contains(char::is_whitespace), "{word:?}");
        assert!(word.text.len() <= Search::WORD_BYTES_MAX);
    }
}
