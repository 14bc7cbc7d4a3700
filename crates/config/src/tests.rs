use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, OptionType, OptionValue, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Ack, Capability, Error, Field, FieldType, Record, Role, Value};
use unisono_policy::adaptive::AdaptivePolicy;
use unisono_policy::declaration::WarmQuestion;

use super::*;

mod bad;

/// A kind for tests.
struct Kind(&'static str);

const PATH: OptionSpec = OptionSpec {
    name: "path",
    ty: OptionType::Path,
    default: None,
    optional: false,
    doc: "Where it lives.",
};

const DISK: &[OptionSpec] = &[
    PATH,
    OptionSpec {
        name: "pages",
        ty: OptionType::Integer { min: 1, max: 64 },
        default: Some("4"),
        optional: false,
        doc: "How many pages.",
    },
    OptionSpec {
        name: "sync",
        ty: OptionType::Boolean,
        default: Some("true"),
        optional: false,
        doc: "Whether to wait.",
    },
    OptionSpec {
        name: "cache_size",
        ty: OptionType::Size,
        default: Some("32MB"),
        optional: false,
        doc: "How much memory.",
    },
    OptionSpec {
        name: "busy",
        ty: OptionType::Duration,
        default: Some("5s"),
        optional: false,
        doc: "How long to wait.",
    },
    OptionSpec {
        name: "password",
        ty: OptionType::Secret,
        default: None,
        optional: true,
        doc: "What opens it.",
    },
];

const NET: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        ty: OptionType::Secret,
        default: None,
        optional: false,
        doc: "Where it is.",
    },
    OptionSpec {
        name: "replicas",
        ty: OptionType::List,
        default: Some("[]"),
        optional: false,
        doc: "Where it is too.",
    },
    OptionSpec {
        name: "prefix",
        ty: OptionType::String,
        default: Some("u"),
        optional: false,
        doc: "What names begin with.",
    },
    OptionSpec {
        name: "mode",
        ty: OptionType::Choice(&["single", "cluster"]),
        default: Some("single"),
        optional: false,
        doc: "How it is run.",
    },
];

const CAPTURE: &[OptionSpec] = &[OptionSpec {
    name: "capture",
    ty: OptionType::Choice(&["none", "trigger"]),
    default: Some("none"),
    optional: false,
    doc: "Whether writes of others are seen.",
}];

const FORMAT: &[OptionSpec] = &[
    OptionSpec {
        name: "format",
        ty: OptionType::Choice(&["hash", "packed"]),
        default: Some("hash"),
        optional: false,
        doc: "How a record is written.",
    },
    OptionSpec {
        name: "key_template",
        ty: OptionType::String,
        default: None,
        optional: true,
        doc: "What its key is.",
    },
];

#[async_trait]
impl SourceKind for Kind {
    fn name(&self) -> &'static str {
        self.0
    }

    fn summary(&self) -> &'static str {
        "A store for tests."
    }

    fn options(&self) -> &'static [OptionSpec] {
        match self.0 {
            "disk" => DISK,
            "words" => &[PATH],
            "net" => NET,
            _ => &[],
        }
    }

    fn entity_options(&self, role: Role) -> &'static [OptionSpec] {
        match (self.0, role) {
            ("disk", Role::Truth) => CAPTURE,
            ("net", Role::Follower | Role::Cache) => FORMAT,
            _ => &[],
        }
    }

    fn check_entity(
        &self,
        _: Role,
        entity: &unisono_core::Entity,
        options: &Options,
    ) -> Vec<(&'static str, String)> {
        match options.text("key_template") {
            Some(text) if !text.contains(&format!("{{{}}}", entity.key_field().name)) => {
                vec![("key_template", "must contain the key".to_owned())]
            }
            _ => Vec::new(),
        }
    }

    fn capability(&self) -> Capability {
        Capability {
            roles: match self.0 {
                "disk" => &[Role::Truth, Role::Follower, Role::Journal],
                "words" => &[Role::Follower, Role::Vault],
                "net" => &[Role::Follower, Role::Cache],
                _ => &[Role::Truth, Role::Follower, Role::Cache, Role::Journal],
            },
            durable: self.0 != "ram",
            naming: &[],
            query: QueryCapability { search: self.0 == "words", ..QueryCapability::default() },
            apply: ApplyCapability {
                lanes: 1,
                copy_lanes: 1,
                batch_changes_max: 1,
                batch_bytes_max: 1,
                history: false,
            },
            refuses: |role, field| {
                let refused = role == Role::Truth
                    && matches!(field.ty, FieldType::Decimal { precision: 28, .. });
                refused.then(|| "28 digits are too many".to_owned())
            },
        }
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        match options.text("path") {
            Some("forbidden") => vec![("path", "is forbidden".to_owned())],
            _ => Vec::new(),
        }
    }

    async fn open(&self, _: &str, _: &Options, _: &Environment) -> Result<Arc<dyn Source>, Error> {
        Err(Error::internal("not for tests"))
    }
}

/// `disk` is durable, `ram` is not, `words` searches, `net` is a server.
const KINDS: &[&dyn SourceKind] = &[&Kind("disk"), &Kind("ram"), &Kind("words"), &Kind("net")];

struct Fixed;

impl Lookup for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "DB" => Some("db/main".to_owned()),
            "PAGES" => Some("9".to_owned()),
            "OFF" => Some("false".to_owned()),
            "WORD" => Some("seven".to_owned()),
            "SECRET" => Some("net://host".to_owned()),
            _ => None,
        }
    }

    fn file(&self, path: &str) -> Result<String, String> {
        if path == "/run/secrets/db" {
            Ok("hunter2\n".to_owned())
        } else {
            Err("no such file".to_owned())
        }
    }
}

fn check(text: &str) -> Result<Configuration, Problems> {
    let kinds = Kinds { built: KINDS, left_out: &["tape"] };
    parse(text, "unisono.toml", kinds, &Fixed)
}

fn good(text: &str) -> Configuration {
    check(text).unwrap_or_else(|problems| panic!("{problems}\n\nin\n{text}"))
}

/// What the manual shows, as far as this release has it.
const SHOP: &str = r#"
data = "var"

[server]
listen = "127.0.0.1:3000"

[sources.main]
kind = "disk"
path = "${DB}.db"
pages = "${PAGES}"
sync = "${OFF}"
password = "${file:/run/secrets/db}"

[sources.memory]
kind = "ram"

[sources.search]
kind = "words"
path = "${INDEX:-data/search}"

[entities.product]
key   = "id"
truth = "main"
[entities.product.fields]
id       = "string"
name     = { type = "string", search = true, required = true }
about    = "text"
price    = "decimal(12,2)"        # exact everywhere, a string in JSON
stock    = { type = "integer", default = 3 }
tags     = "json"
status   = { type = "string", enum = ["new", "old"], default = "new", max_length = 8 }
made     = { type = "timestamp(3)", default = 2026-01-01T00:00:00Z }
rate     = { type = "decimal(4,3)", default = 0.125 }
[entities.product.cache]
source = "memory"
ttl    = "90s"
[[entities.product.followers]]
source = "search"
index  = "products"
where  = "record.stock > 0"

[entities.order]
truth = "main"
table = "orders"
[entities.order.fields]
id           = "uuid"
user_id      = { type = "string", index = true }
created_at   = "timestamp"
total_amount = "decimal(12,2)"
labels       = { type = "list", of = "string" }
[entities.order.fields.items]
type = "list"
of   = { product_id = { type = "string", required = true }, quantity = "integer", amount = "decimal(12,2)" }

[log]
retention = "30d"
"#;

#[test]
fn the_sources_of_the_manual_are_read_with_their_options() {
    let c = good(SHOP);
    assert_eq!(c.data, PathBuf::from("var"));
    assert_eq!(c.warnings, Problems::default());
    let main = &c.declaration.sources["main"];
    assert_eq!(&*main.kind, "disk");
    assert_eq!(main.options.text("path"), Some("db/main.db"));
    assert_eq!(main.options.integer("pages"), Some(9));
    assert!(!main.options.boolean("sync"));
    assert_eq!(main.options.0["cache_size"], OptionValue::Integer(32 << 20));
    assert_eq!(main.options.duration("busy"), Some(Duration::from_secs(5)));
    assert_eq!(main.options.text("password"), Some("hunter2"));
    assert_eq!(c.declaration.sources["search"].options.text("path"), Some("data/search"));
}

#[test]
fn the_entities_of_the_manual_are_read() {
    let c = good(SHOP);
    let product = &c.declaration.entities["product"];
    assert_eq!((&*product.truth, &product.table), ("main", &None));
    let cache = product.cache.as_ref().unwrap();
    assert_eq!((cache.ttl, cache.negative_ttl), (Duration::from_secs(90), Duration::from_secs(10)));
    let [follower] = product.followers.as_slice() else { panic!("one follower") };
    assert_eq!((&*follower.source, follower.place.as_deref()), ("search", Some("products")));
    assert_eq!(follower.filter.as_ref().unwrap().text(), "record.stock > 0");

    let entity = &product.entity;
    let names: Vec<&str> = entity.fields().iter().map(|f| &*f.name).collect();
    assert_eq!(names, ["id", "name", "about", "price", "stock", "tags", "status", "made", "rate"]);
    let field = |name: &str| entity.field(name).unwrap().clone();
    assert!(
        field("id").required
            && field("name").required
            && field("name").search
            && field("about").search
    );
    assert_eq!(field("price").ty, FieldType::Decimal { precision: 12, scale: 2 });
    assert_eq!(field("stock").default, Some(Value::Integer(3)));
    assert_eq!(field("status").allowed, ["new", "old"].map(|s| Value::String(s.to_owned())));
    assert_eq!(
        field("made").default,
        Some(Value::Timestamp("2026-01-01T00:00:00Z".parse().unwrap()))
    );
    assert_eq!(field("rate").default, Some(Value::Decimal("0.125".parse().unwrap())));

    let order = &c.declaration.entities["order"];
    assert_eq!(order.table.as_deref(), Some("orders"));
    assert_eq!(
        order.entity.field("labels").unwrap().ty,
        FieldType::List(Box::new(FieldType::String))
    );
    let lines: Arc<[Field]> = Arc::new([
        Field { required: true, ..Field::new("product_id", FieldType::String) },
        Field::new("quantity", FieldType::Integer),
        Field::new("amount", FieldType::Decimal { precision: 12, scale: 2 }),
    ]);
    assert_eq!(order.entity.field("items").unwrap().ty, FieldType::Objects(lines));
    assert_eq!(c.declaration.log.retention, Duration::from_secs(30 * 86_400));
}

const NETWORK: &str = r#"
[sources.main]
kind = "disk"
path = "m"
[sources.net]
kind = "net"
url = "net://a"
replicas = ["net://b", "net://c"]
[sources.near]
kind = "net"
url = "net://a"
prefix = "near"
mode = "cluster"
[entities.order]
truth = "main"
capture = "trigger"
fields = { id = "string" }
cache = { source = "near", key_template = "o:{id}" }
[[entities.order.followers]]
source = "net"
collection = "orders"
format = "packed"
[entities.note]
truth = "main"
fields = { id = "string" }
"#;

#[test]
fn what_a_kind_adds_for_an_entity_is_read_with_its_defaults() {
    let c = good(NETWORK);
    let net = &c.declaration.sources["net"].options;
    assert_eq!(net.list("replicas"), ["net://b", "net://c"]);
    assert_eq!(net.text("mode"), Some("single"));
    let near = &c.declaration.sources["near"].options;
    assert_eq!(near.0["replicas"], OptionValue::List(Vec::new()));
    assert_eq!(near.text("mode"), Some("cluster"));
    let order = &c.declaration.entities["order"];
    assert_eq!(order.truth_options.text("capture"), Some("trigger"));
    let follower = &order.followers[0];
    assert_eq!(follower.place.as_deref(), Some("orders"));
    assert_eq!(follower.options.text("format"), Some("packed"));
    assert_eq!(follower.options.text("key_template"), None);
    let cache = order.cache.as_ref().unwrap();
    assert_eq!(cache.options.text("format"), Some("hash"));
    assert_eq!(cache.options.text("key_template"), Some("o:{id}"));
    assert_eq!(c.declaration.entities["note"].truth_options.text("capture"), Some("none"));
}

#[test]
fn a_truth_is_required_and_other_sources_are_not_unless_said_so() {
    let required = |text: &str| {
        let c = good(text);
        ["main", "net", "near"].map(|name| c.declaration.sources[name].required)
    };
    assert_eq!(required(NETWORK), [true, false, false]);
    let said = NETWORK
        .replace("path = \"m\"", "path = \"m\"\nrequired = false")
        .replace("prefix =", "required = true\nprefix =");
    assert_eq!(required(&said), [false, false, true]);
}

#[test]
fn a_secret_of_the_file_is_never_shown() {
    for text in [
        // The secret is what is wrong, or stands beside it, or under a misspelt name, or nothing can be read.
        "[sources.a]\nkind = \"disk\"\npath = \"p\"\npassword = [\"hunter2\"]\n",
        "[sources]\na = { kind = \"disk\", pth = \"p\", password = \"hunter2\" }\n",
        "[sources]\na = { kind = \"disk\", password = 'hunter2' }\n",
        "[sources.a]\nkind = \"disk\"\npath = \"p\"\npasword = \"hunter2\"\n",
        "[sources]\na = { kind = \"dsik\", password = \"hunter2\" }\n",
        "[sources]\na = { password = \"hunter2\" }\n",
        "[sources.a]\nkind = \"net\"\nurl = \"net://me:hunter2@host\n",
        "[sources.a]\nkind = \"net\"\nurl=net://me:hunter2@host\n",
        "[sources]\na = { kind = \"net\", url = \"u\", replicas = [\"net://me:hunter2@b\", 3] }\n",
        "[sources]\na = { kind = \"tape\", url = \"net://me:hunter2@host\" }\n",
        "[sources]\na = \"net://me:hunter2@host\"\n",
        "sources = [\"net://me:hunter2@host\"]\n",
    ] {
        let problems = check(text).unwrap_err();
        let shown = format!("{problems}{}", problems.to_json());
        assert!(!shown.contains("hunter2"), "{shown}\n\nof\n{text}");
    }
    let problems = check("[sources]\na = { kind = \"disk\", password = \"hünter\", pagse = 3 }\n")
        .unwrap_err();
    let errors: Vec<_> = problems.0.iter().filter(|p| p.severity == Severity::Error).collect();
    let place = errors.last().unwrap().place.as_ref().unwrap();
    assert_eq!(place.text, "a = { kind = \"disk\", password = \"******\", pagse = 3 }");
    assert_eq!((place.column, place.length), (43, 5));
}

#[test]
fn defaults_are_those_of_the_declaration_and_safe() {
    let c = good("");
    assert_eq!(c.declaration.log, unisono_policy::declaration::LogDeclaration::default());
    assert_eq!(
        good("[log]").declaration.log,
        unisono_policy::declaration::LogDeclaration::default()
    );
    for sweep in [&c, &good("[sweep]")].map(|c| &c.declaration.sweep) {
        assert_eq!(*sweep, unisono_policy::declaration::SweepDeclaration::default());
    }
    assert!(c.server.listen.ip().is_loopback());
    assert_eq!(c.server.listen.port(), 3000);
    assert_eq!((c.server.body_bytes_max, c.server.header_bytes_max), (8 << 20, 16 << 10));
    assert_eq!(
        (c.server.request_timeout, c.server.header_timeout),
        (Duration::from_secs(30), Duration::from_secs(10))
    );
    assert_eq!((c.server.connections_max, c.server.requests_max), (1024, 512));
    assert_eq!(c.server, good("[server]").server);
    assert_eq!(c.data, PathBuf::from("."));
}

#[test]
fn tokens_say_who_may_do_what() {
    let text = format!(
        "{SHOP}\n[[server.tokens]]\nname = \"shop\"\nhash = \"sha256:{}\"\nexpires = 2027-01-01T00:00:00Z\n\
         entities = [\"prod*\"]\naccess = \"write\"\n[[server.tokens]]\nname = \"ops\"\nhash = \"sha256:{}\"\n",
        "0f".repeat(32),
        "AB".repeat(32)
    );
    let c = good(&text);
    let [shop, ops] = c.server.tokens.as_slice() else { panic!("two tokens") };
    assert_eq!((&*shop.name, shop.hash, shop.access), ("shop", [0x0f; 32], Access::Write));
    assert_eq!(shop.expires, Some("2027-01-01T00:00:00Z".parse().unwrap()));
    assert!(shop.covers("product") && !shop.covers("order"));
    assert_eq!((ops.hash, ops.access, ops.expires), ([0xab; 32], Access::Read, None));
    assert!(ops.covers("product") && ops.covers("order"));
    assert!(Access::Admin > Access::Write && Access::Write > Access::Read);
}

#[test]
fn a_public_address_is_allowed_with_tokens_and_encryption() {
    let token = format!("[[server.tokens]]\nname = \"a\"\nhash = \"sha256:{}\"\n", "00".repeat(32));
    let tls = "[server.tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    let c = good(&format!("[server]\nlisten = \"0.0.0.0:443\"\n{tls}{token}"));
    assert_eq!(c.server.tls.unwrap().key, PathBuf::from("k.pem"));
    good(&format!("[server]\nlisten = \"[::]:80\"\nplain_http = true\n{token}"));
    good("[server]\nlisten = \"[::1]:80\"\n");
    good("[server]\nlisten = \"localhost:80\"\n");
}

#[test]
fn routes_give_entities_further_paths() {
    let c = good(&format!(
        "{SHOP}\n[[server.routes]]\npath = \"/products\"\nentity = \"product\"\nenvelope = true\n\
         [[server.routes]]\npath = \"/shop/v1/products\"\nentity = \"product\"\n"
    ));
    let [plain, deep] = c.server.routes.as_slice() else { panic!("two routes") };
    assert_eq!((&*plain.path, &*plain.entity, plain.envelope), ("/products", "product", true));
    assert_eq!((&*deep.path, deep.envelope), ("/shop/v1/products", false));
}

#[test]
fn warnings_do_not_stop_a_configuration() {
    let c = good(
        "[sources.ram]\nkind = \"ram\"\n[sources.spare]\nkind = \"ram\"\n\
         [entities.note]\ntruth = \"ram\"\nfields = { id = \"string\" }\n",
    );
    let found: Vec<_> =
        c.warnings.0.iter().map(|p| (p.place.as_ref().unwrap().line, p.message.as_str())).collect();
    assert_eq!(
        found,
        [
            (3, "no entity uses the source `spare`"),
            (6, "the truth `ram` (ram) forgets everything when the process ends"),
        ]
    );
    assert_eq!((c.warnings.errors(), c.warnings.warnings()), (0, 2));
    assert_eq!(good("").warnings.0[0].message, "no entity is declared");
}

#[test]
fn a_region_is_that_of_the_process_or_of_a_source() {
    let text = "region = \"${HERE:-eu}\"\n[sources.ram]\nkind = \"ram\"\nregion = \"us\"\n[sources.far]\nkind = \"ram\"\n\
         [entities.note]\ntruth = \"ram\"\nfields = { id = \"string\" }\n";
    let c = good(text);
    assert_eq!(c.declaration.region.as_deref(), Some("eu"));
    assert_eq!(c.declaration.sources["ram"].region.as_deref(), Some("us"));
    assert!(c.declaration.is_far("ram") && !c.declaration.is_far("far"));
    let alone = good(&text.replace("region = \"us\"\n", ""));
    let warning = &alone.warnings.0[0];
    assert_eq!(warning.message, "the region `eu` decides nothing: no source names one");
    assert_eq!((warning.place.as_ref().unwrap().line, &*warning.key), (1, "region"));
    assert!(!alone.declaration.is_far("ram"));
}

#[test]
fn a_problem_is_shown_with_its_line_and_a_caret() {
    let problems = check("[sources.main]\nkind = \"disk\"\npath = \"x\"\npagse = 3\n").unwrap_err();
    let shown = problems.0.iter().find(|p| p.severity == Severity::Error).unwrap().to_string();
    assert_eq!(
        shown,
        "error: unknown key `pagse`\n --> unisono.toml:4:1\n  |\n4 | pagse = 3\n  | ^^^^^\n  = help: did you mean `pages`?"
    );
    assert!(problems.to_string().ends_with("1 error, 2 warnings"), "{problems}");
}

#[test]
fn columns_count_characters_and_carets_stay_below_them() {
    let problems =
        check("[sources.main]\nkind = \"disk\"\npath = \"x\"\npages = 3 # ü\nsync\t= \"ä\"\n")
            .unwrap_err();
    let first = problems.0.iter().find(|p| p.severity == Severity::Error).unwrap();
    let place = first.place.as_ref().unwrap();
    assert_eq!(
        (place.line, place.column, place.length, place.text.as_str()),
        (5, 8, 3, "sync = \"ä\"")
    );
}

#[test]
fn problems_have_a_json_form() {
    let problems = check("[server]\nlisten = \"here\"\n").unwrap_err();
    let json = problems.to_json();
    let error = json.as_array().unwrap().iter().find(|p| p["severity"] == "error").unwrap();
    assert_eq!(
        *error,
        serde_json::json!({
            "severity": "error",
            "message": "`here` is not an address and port",
            "hint": "write it like \"127.0.0.1:3000\" or \"[::1]:3000\"",
            "key": "server.listen",
            "file": "unisono.toml", "line": 2, "column": 10, "length": 6, "text": "listen = \"here\"",
        })
    );
    let error = Error::from(problems);
    assert_eq!(error.kind(), unisono_core::ErrorKind::InvalidConfig);
    assert_eq!(error.detail("at"), Some("unisono.toml:2:10"));
}

#[test]
fn a_file_is_loaded_with_paths_below_its_folder() {
    let folder = std::env::temp_dir().join(format!("unisono-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("unisono.toml");
    std::fs::write(&path, "[server.tls]\ncertificate = \"c.pem\"\nkey = \"/etc/k.pem\"\n").unwrap();
    let c = load(&path, KINDS, &Process).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(c.data, folder.join("."));
    let tls = c.server.tls.unwrap();
    assert_eq!((tls.certificate, tls.key), (folder.join("c.pem"), PathBuf::from("/etc/k.pem")));

    let problems = load(&path, KINDS, &Process).unwrap_err();
    assert!(problems.0[0].message.contains("cannot be read"), "{problems}");
}

#[test]
fn the_example_is_valid_and_names_every_option() {
    let text = example(KINDS);
    let c = good(&text);
    assert_eq!(c.warnings, Problems::default());
    assert_eq!(&*c.declaration.entities["product"].truth, "disk");
    for option in [
        "plain_http",
        "retention",
        "certificate",
        "expires",
        "negative_ttl",
        "cache_size",
        "folder",
        "max_length",
    ] {
        assert!(text.contains(option), "{option}");
    }
    // What is commented out is valid too, except that a follower has one place and some values depend on others.
    let uncommented = text.lines().filter_map(|line| match line.strip_prefix("# ") {
        Some(rest) if rest.contains("warm_questions") => None,
        Some(rest) if rest.starts_with('[') => Some(rest),
        Some(rest)
            if rest
                .split(" = ")
                .next()
                .is_some_and(|k| k.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
                && rest.contains(" = ") =>
        {
            let others = [
                "index",
                "folder",
                "collection",
                "password",
                "key_template",
                "after",
                "region",
                "ack =",
                "older_wins",
                "streams =",
            ];
            let behind = ["journal", "flush_after", "pending_max", "age_alert"];
            let questions = ["query", "count", "aggregate"];
            let unlike = others.iter().chain(&behind).chain(&questions);
            (!unlike.into_iter().any(|k| rest.starts_with(k))).then_some(rest)
        }
        _ => Some(line),
    });
    let text = uncommented.collect::<Vec<_>>().join("\n");
    let problems = check(&text).err().unwrap_or_default();
    // The other one of two truths and the keys are not among the examples: each kind is shown once.
    let expected = [
        "is used by",
        "unknown source `branch`",
        "unknown source `keys`",
        "two truths that follow each other",
    ];
    let is_new = |p: &&Problem| !expected.iter().any(|part| p.message.contains(part));
    let unknown: Vec<_> = problems.0.iter().filter(is_new).collect();
    assert!(unknown.is_empty(), "{problems}\n{text}");
}

#[test]
fn the_schema_knows_the_same_keys() {
    let schema = schema(KINDS);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let server = &schema["properties"]["server"]["properties"];
    assert_eq!(server["listen"]["default"], "127.0.0.1:3000");
    assert_eq!(server["requests_max"]["default"], 512);
    assert_eq!(
        server["tokens"]["items"]["properties"]["entities"]["default"],
        serde_json::json!(["*"])
    );
    assert_eq!(server["tls"]["required"], serde_json::json!(["certificate", "key"]));
    let kinds =
        schema["properties"]["sources"]["additionalProperties"]["oneOf"].as_array().unwrap();
    assert_eq!(kinds.len(), 4);
    assert_eq!(kinds[0]["properties"]["kind"]["const"], "disk");
    assert_eq!(kinds[0]["properties"]["cache_size"]["default"], "32MB");
    assert_eq!(kinds[0]["required"], serde_json::json!(["kind", "path"]));
    let entity = &schema["properties"]["entities"]["additionalProperties"];
    assert_eq!(entity["required"], serde_json::json!(["truth", "fields"]));
    let follower = &entity["properties"]["followers"]["items"];
    assert_eq!(follower["additionalProperties"], false);
    assert_eq!(follower["required"], serde_json::json!(["source"]));
    // What any kind adds is known, whichever source is meant.
    assert_eq!(entity["properties"]["capture"]["default"], "none");
    assert_eq!(
        follower["properties"]["format"]["anyOf"][0]["enum"],
        serde_json::json!(["hash", "packed"])
    );
    assert_eq!(kinds[3]["properties"]["replicas"]["default"], serde_json::json!([]));
}

#[test]
fn questions_of_a_cache_are_read_in_the_shape_of_the_interface() {
    let text = r#"
        [sources.main]
        kind = "disk"
        path = "m"
        [sources.ram]
        kind = "ram"
        [entities.a]
        truth = "main"
        fields = { id = "string", n = "integer", made = "timestamp" }
        [entities.a.cache]
        source = "ram"
        where = "record.n > 3 || record.made > now - duration('1h')"
        results = "60s"
        [[entities.a.cache.warm_questions]]
        query = { where = { field = "n", op = "gt", value = 3 }, order = ["-n"], limit = 7 }
        [[entities.a.cache.warm_questions]]
        count = { where = { field = "made", op = "gt", value = 2026-01-01T00:00:00Z } }
        [[entities.a.cache.warm_questions]]
        aggregate = { group_by = ["n"], metrics = { how_many = "count" } }
    "#;
    let c = good(text);
    let cache = c.declaration.entities["a"].cache.as_ref().unwrap();
    assert!(cache.filter.as_ref().unwrap().text().starts_with("record.n > 3"));
    let [
        WarmQuestion::Query(query),
        WarmQuestion::Count { filter, search: None },
        WarmQuestion::Aggregate(groups),
    ] = cache.warm_questions.as_slice()
    else {
        panic!("{:?}", cache.warm_questions)
    };
    assert_eq!((query.limit, query.order.len()), (7, 1));
    assert_ne!(*filter, unisono_core::query::Filter::All);
    assert_eq!((groups.group_by.len(), &*groups.metrics[0].0), (1, "how_many"));
}

#[test]
fn a_journal_is_needed_and_may_keep_several_entities() {
    let text = r#"
        [sources.main]
        kind = "disk"
        path = "m"
        [sources.queue]
        kind = "disk"
        path = "q"
        [entities.a]
        truth = "main"
        fields = { id = "string" }
        write = { strategy = "write_behind", journal = "queue", flush_after = "10ms", pending_max = 7, hold = "1s" }
        [entities.b]
        truth = "main"
        fields = { id = "string" }
        write = { strategy = "write_behind", journal = "queue" }
    "#;
    let c = good(text);
    assert_eq!(c.warnings, Problems::default());
    let write = &c.declaration.entities["a"].write;
    let behind = write.behind.as_ref().unwrap();
    assert_eq!((&*behind.journal, behind.pending_max), ("queue", 7));
    assert_eq!(behind.flush_after, Duration::from_millis(10));
    assert_eq!((behind.age_alert, write.hold), (Duration::from_secs(30), Duration::from_secs(1)));
    assert!(c.declaration.sources["queue"].required, "what was acknowledged is there");
    let forgetful = text.replace("kind = \"disk\"\n        path = \"q\"", "kind = \"ram\"");
    let warnings = good(&forgetful).warnings.to_string();
    assert!(warnings.contains("the journal `queue` (ram) forgets everything"), "{warnings}");
}

/// An entity with followers on two sources.
fn replicated(entity: &str, first: &str, second: &str) -> Configuration {
    good(&format!(
        r#"
        region = "eu"
        [sources.main]
        kind = "disk"
        path = "m"
        [sources.find]
        kind = "words"
        path = "f"
        region = "us"
        [sources.copy]
        kind = "disk"
        path = "c"
        [entities.a]
        truth = "main"
        fields = {{ id = "string", amount = "integer" }}
        {entity}
        [[entities.a.followers]]
        source = "find"
        {first}
        [[entities.a.followers]]
        source = "copy"
        {second}
        "#
    ))
}

#[test]
fn followers_say_how_they_are_fed() {
    let c = replicated(
        "ack = [\"copy\", \"main\"]\nack_timeout = \"2s\"",
        "where = \"record.amount > 10\"\nafter = \"copy\"\npriority = -3",
        "default = true\nbatch = { size = 50, bytes = \"1MB\", age = \"100ms\" }",
    );
    let a = &c.declaration.entities["a"];
    assert_eq!(
        (a.ack.ack.to_string(), a.ack.timeout),
        ("copy main".into(), Duration::from_secs(2))
    );
    let [find, copy] = a.followers.as_slice() else { panic!("two followers") };
    assert_eq!((find.delivery.after.as_deref(), find.delivery.priority), (Some("copy"), -3));
    let batch = copy.delivery.batch;
    assert_eq!((batch.size, batch.bytes), (Some(50), Some(1 << 20)));
    assert_eq!(batch.age, Duration::from_millis(100));
    let rest = copy.filter.as_ref().unwrap();
    let holds = |amount| {
        let record = Record::new(vec![Value::String("x".into()), amount]);
        (find.filter.as_ref().unwrap().holds(&a.entity, &record), rest.holds(&a.entity, &record))
    };
    assert_eq!(holds(Value::Integer(11)), (true, false));
    assert_eq!(holds(Value::Integer(10)), (false, true));
    assert_eq!(holds(Value::Null), (false, true), "what cannot be decided is not lost");
}

#[test]
fn a_strategy_stands_for_fields() {
    let of = |strategy: &str| {
        let c = replicated(&format!("strategy = \"{strategy}\""), "", "");
        let a = &c.declaration.entities["a"];
        assert_eq!(a.strategy.map(|s| s.name), Some(strategy));
        let deliveries: Vec<_> = a.followers.iter().map(|f| f.delivery.clone()).collect();
        (a.ack.ack.clone(), deliveries)
    };
    assert_eq!(of("quorum").0, Ack::Count(2));
    assert_eq!(of("parallel").0, Ack::All);
    assert_eq!(of("cascade").1[1].after.as_deref(), Some("find"));
    let priorities = |strategy| of(strategy).1.iter().map(|d| d.priority).collect::<Vec<_>>();
    assert_eq!(priorities("priority"), [2, 1]);
    assert_eq!(priorities("geographic"), [0, 1], "one is far");
    assert_eq!(of("batch").1[0].batch.age, Duration::from_secs(1));
    let none = replicated("", "", "");
    assert_eq!(none.declaration.entities["a"].strategy, None);
}

#[test]
fn what_adapts_has_limits() {
    let of = |entity: &str| {
        let c = replicated(entity, "batch = { size = 9, age = \"20ms\" }", "");
        (c.declaration.entities["a"].ack.ack.clone(), c.declaration.entities["a"].adaptive)
    };
    assert_eq!(of("strategy = \"adaptive\""), (Ack::All, Some(AdaptivePolicy::default())));
    let given = "strategy = \"adaptive\"\nadaptive = { latency = \"30ms\", lag = \"1m\" }";
    let millis = Duration::from_millis;
    let limits = AdaptivePolicy { latency: millis(30), lag: millis(60_000), dwell: millis(10_000) };
    assert_eq!(of(given), (Ack::All, Some(limits)));
    assert_eq!(of("strategy = \"quorum\""), (Ack::Count(2), None));
}

#[test]
fn what_may_not_lie_somewhere_is_kept_out_by_every_condition_there() {
    let rules = "[[entities.a.residency]]\nregion = \"us\"\nforbid = \"record.amount > 10\" \n\
         [[entities.a.residency]]\nsource = \"copy\"\nforbid = \"record.id == 'x' // here\"";
    let second = format!("default = true\n{rules}");
    let c = replicated("", "where = \"record.amount > 5\"", &second);
    let a = &c.declaration.entities["a"];
    let holds = |id: &str, amount| {
        let record = Record::new(vec![Value::String(id.into()), amount]);
        a.followers.iter().map(|f| f.filter.as_ref().unwrap().holds(&a.entity, &record)).collect()
    };
    let of = |id, amount| -> Vec<bool> { holds(id, amount) };
    assert_eq!(of("y", Value::Integer(7)), [true, false]);
    assert_eq!(of("y", Value::Integer(11)), [false, true], "the default follower may have it");
    assert_eq!(of("x", Value::Integer(11)), [false, false], "nobody may");
    assert_eq!(of("y", Value::Null), [false, true]);
    let plain = replicated("", "", rules);
    let a = &plain.declaration.entities["a"];
    let record = Record::new(vec![Value::String("y".into()), Value::Null]);
    let find = a.followers[0].filter.as_ref().unwrap();
    assert!(!find.holds(&a.entity, &record), "what cannot be decided is forbidden");
}
