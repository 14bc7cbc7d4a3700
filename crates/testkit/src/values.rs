//! Random values of every type: half of them ordinary and likely to collide, half of them known to cause trouble.

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value as Json, json};
use unisono_core::{Date, Decimal, FieldType, Timestamp, Uuid, Value};

use crate::Generator;

/// Words of ordinary texts, and of searches that should find them.
pub(crate) const WORDS: &[&str] = &[
    "red", "green", "lamp", "table", "desk", "Lamp", "ice", "cream", "shelf", "STRASSE", "café",
    "x1", "42",
];

/// Texts that have broken stores: empty, NUL, combining marks, wildcards, quotes, other planes, surrogate order.
const TEXTS: &[&str] = &[
    "",
    " ",
    "\u{0}",
    "a\u{0}b",
    "é",
    "e\u{301}",
    "ß",
    "ẞ",
    "İ",
    "ﬀ",
    "%",
    "_",
    "\\",
    "a%b_c\\d",
    "'",
    "\"",
    "''; --",
    "null",
    "NaN",
    "0",
    "-0",
    "\u{feff}x",
    "\u{1f600}",
    "\u{ffff}",
    "\u{e000}",
    "\t\r\n",
    "a ",
    " a",
    "A",
    "a",
    "aa",
    "\u{200d}",
    "日本語",
    "[1]",
    "{}",
    "<b>&amp;",
    "1e5",
    "true",
    "\u{7f}",
    "\u{10ffff}",
];

const INTEGERS: &[i64] = &[
    0,
    -1,
    1,
    i64::MIN,
    i64::MAX,
    i64::MIN + 1,
    9_007_199_254_740_992,
    9_007_199_254_740_993,
    -9_007_199_254_740_993,
    4_294_967_296,
    2_147_483_648,
    -2_147_483_649,
];

const FLOATS: &[f64] = &[
    0.0,
    -0.0,
    0.1,
    -0.1,
    1.5,
    1e15,
    -1e15,
    9_007_199_254_740_993.0,
    1e-7,
    5e-324,
    2.225_073_858_507_201e-308,
    123_456_789.123_456_79,
    1.0 / 3.0,
];

const MICROS: &[i64] = &[
    0,
    -1,
    1,
    253_402_300_799_999_999,
    -62_167_219_200_000_000,
    951_826_553_000_000,
    -1_000_000,
    1_767_225_600_123_456,
];

const DAYS: &[i32] = &[0, -1, 2_932_896, -719_528, 11_016, 19_782];

impl Generator {
    /// A value of a type; never null.
    pub fn value(&mut self, ty: &FieldType) -> Value {
        let nasty = self.rng.random_bool(0.5);
        match ty {
            FieldType::String => Value::String(self.string(nasty)),
            FieldType::Text => Value::String(self.text(nasty)),
            FieldType::Integer => Value::Integer(match nasty {
                true => *self.pick(INTEGERS),
                false => self.rng.random_range(-5..20),
            }),
            FieldType::Decimal { precision, scale } => {
                Value::Decimal(self.decimal(*precision, *scale, nasty))
            }
            FieldType::Boolean => Value::Boolean(self.rng.random()),
            FieldType::Float => Value::Float(match nasty {
                true => *self.pick(FLOATS),
                false => f64::from(self.rng.random_range(-20..20)) / 4.0,
            }),
            FieldType::Date => Value::Date(self.date(nasty)),
            FieldType::Timestamp { precision } => {
                Value::Timestamp(self.timestamp(*precision, nasty))
            }
            FieldType::Uuid => Value::Uuid(self.uuid(nasty)),
            FieldType::Bytes => Value::Bytes(self.bytes(nasty)),
            FieldType::Json => Value::Json(self.json()),
            FieldType::List(of) => {
                let length = self.rng.random_range(0..4);
                Value::List((0..length).map(|_| self.value(of)).collect())
            }
            FieldType::Objects(fields) => {
                let length = self.rng.random_range(0..4);
                let row = |g: &mut Self| fields.iter().map(|f| g.field_value(f)).collect();
                Value::Objects((0..length).map(|_| row(self)).collect())
            }
        }
    }

    fn string(&mut self, nasty: bool) -> String {
        match nasty {
            true if self.rng.random_bool(0.02) => "long ".repeat(self.rng.random_range(100..1500)),
            true => (*self.pick(TEXTS)).to_owned(),
            false => (*self.pick(WORDS)).to_owned(),
        }
    }

    fn text(&mut self, nasty: bool) -> String {
        if nasty {
            return self.string(true);
        }
        let length = self.rng.random_range(1..8);
        let words: Vec<_> = WORDS.choose_multiple(&mut self.rng, length).copied().collect();
        words.join(*self.pick(&[" ", "  ", "-", ", ", "\n"]))
    }

    fn decimal(&mut self, precision: u8, scale: u8, nasty: bool) -> Decimal {
        let most = 10_i128.pow(u32::from(precision)) - 1;
        let mantissa = match nasty {
            true => *self.pick(&[most, -most, 0, 1, -1, most / 2 + 1]),
            false => {
                self.rng.random_range(-20..20) * 10_i128.pow(u32::from(scale.saturating_sub(1)))
                    % (most + 1)
            }
        };
        Decimal::from_i128_with_scale(mantissa, u32::from(scale))
    }

    fn date(&mut self, nasty: bool) -> Date {
        let days = if nasty { *self.pick(DAYS) } else { 20_000 + self.rng.random_range(0..10) };
        Date::from_days(days).unwrap_or_else(|_| unreachable!("the days above are within range"))
    }

    fn timestamp(&mut self, precision: u8, nasty: bool) -> Timestamp {
        let micros = match nasty {
            true => *self.pick(MICROS),
            false => 1_700_000_000_000_000 + self.rng.random_range(0..10) * 500_000,
        };
        let unit = 10_i64.pow(6 - u32::from(precision.min(6)));
        Timestamp::from_micros_clamped(micros.div_euclid(unit) * unit)
    }

    fn uuid(&mut self, nasty: bool) -> Uuid {
        match nasty {
            true => *self.pick(&[
                Uuid::nil(),
                Uuid::max(),
                Uuid::from_u128(1 << 127),
                Uuid::from_u128((1 << 127) - 1),
            ]),
            false => Uuid::from_u128(u128::from(self.rng.random_range(0..8_u8)) << 100 | 7),
        }
    }

    fn bytes(&mut self, nasty: bool) -> Vec<u8> {
        match nasty {
            true => self
                .pick(&[&[][..], &[0], &[0xff, 0xfe], &[0x80], b"text", &[0, 0, 1], &[0xc3, 0x28]])
                .to_vec(),
            false => vec![self.rng.random_range(0..4); self.rng.random_range(1..3)],
        }
    }

    /// A JSON value that is not null: objects with a few known names, so that paths find something.
    pub fn json(&mut self) -> Json {
        match self.rng.random_range(0..10) {
            0 => json!([]),
            1 => json!({}),
            2 => self.json_scalar(),
            3 => json!([self.json_scalar(), {"colour": self.json_scalar()}]),
            4 => json!({"": 1, "a.b": 2, "quote\"": 3, "nul\u{0}": 4}),
            5 => {
                json!({"colour": {"name": self.json_scalar(), "list": [self.json_scalar(), null]}})
            }
            _ => json!({"colour": self.json_scalar(), "size": self.json_scalar()}),
        }
    }

    /// A JSON scalar that is not null.
    pub fn json_scalar(&mut self) -> Json {
        let nasty = self.rng.random_bool(0.3);
        match self.rng.random_range(0..8) {
            0 => json!(self.rng.random::<bool>()),
            1 => json!(*self.pick(INTEGERS)),
            2 => json!(*self.pick(FLOATS)),
            3 if nasty => json!(u64::MAX),
            3 | 4 => json!(self.rng.random_range(0..5)),
            _ => json!(self.string(nasty)),
        }
    }
}
