//! Configurations with one mistake each. `§` stands before the place that the problem must name; it is not part of
//! the text. A text that begins with `+` follows a good one.

use super::check;
use crate::Severity;

const BASE: &str = r#"
[sources.main]
kind = "disk"
path = "m"
[sources.ram]
kind = "ram"
[sources.find]
kind = "words"
path = "f"
[entities.product]
truth = "main"
cache = { source = "ram" }
fields = { id = "string", name = "text", stock = "integer" }
[[entities.product.followers]]
source = "find"
"#;

/// An entity with something personal, and what it takes for that.
macro_rules! personal {
    ($entity:literal) => {
        concat!(
            "+[sources.keys]\nkind = \"disk\"\npath = \"k\"\n[personal]\nkeys = \"keys\"\n",
            "secret = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n",
            "[entities.p]\ntruth = \"main\"\n",
            "fields = { id = \"string\", name = \"string\", note = \"text\", age = \"integer\" }\n",
            $entity
        )
    };
}

/// An entity with a follower that has a `map`.
macro_rules! mapped {
    ($follower:literal, $rest:literal) => {
        concat!(
            "+[entities.m]\ntruth = \"main\"\n",
            "fields = { id = \"string\", name = \"string\", n = { type = \"integer\", required = true } }\n",
            "followers = [{ source = \"find\", ", $follower, " }]\n", $rest
        )
    };
}

/// Text, message, hint.
const BAD: &[(&str, &str, &str)] = &[
    // TOML itself.
    ("a = 1\n§a = 2\n", "this is not TOML: duplicate key", ""),
    ("[server§\n", "this is not TOML: unclosed table, expected `]`", ""),
    ("listen = §nowhere\n", "this is not TOML", ""),
    ("+[log]\nchanges_max = §99999999999999999999\n", "does not fit into 64 bits", ""),
    // What followers keep otherwise.
    (mapped!("map = { name = §7 }", ""), "takes a value in CEL, not", ""),
    (mapped!("map = { colour = §\"'red'\" }", ""), "has no field `colour`", "declare it"),
    (mapped!("map = { id = §\"'x'\" }", ""), "`id` is the key", ""),
    (mapped!("map = { n = §\"null\" }", ""), "`n` is required, and cannot be null", ""),
    (
        mapped!("map = { name = \"record.name\", n = §\"record.name\" }", ""),
        "`n` is a field of type integer, and gets string",
        "",
    ),
    (mapped!("map = { n = §\"record.colour\" }", ""), "colour", ""),
    (
        mapped!("map = { n = \"7\" }", "read = §{ quorum = 2 }\n"),
        "`quorum` is 2, and 1 to 1 sources keep records as they are",
        "followers with a `map` do not count",
    ),
    (
        mapped!(
            "map = { n = \"7\" }",
            "read = §{ rules = [{ name = \"r\", ask = [\"find\"] }] }\n"
        ),
        "the rule `r` asks `find`, whose `map` makes other records",
        "only = true",
    ),
    (
        mapped!(
            "map = { n = \"7\" }",
            "cache = { source = \"ram\", results = \"1s\" }\nread = §{ rules = [{ name = \"r\", ask = [\"find\"], only = true }] }\n"
        ),
        "kept answers (`results`) would answer for the rule `r`",
        "leave out `results`",
    ),
    (
        "+[streams.s]\ntruth = \"main\"\nfollowers = [{ source = \"find\", map = §{ type = \"'x'\" } }]\n",
        "events are kept as they were appended",
        "projection",
    ),
    // What is personal.
    (
        personal!("personal = { fields = [\"name\", §\"age\"], subject = \"id\" }\n"),
        "`age` is not of type string, text or json",
        "",
    ),
    (
        personal!("personal = { fields = [\"name\"], subject = §\"user\" }\n"),
        "`user` is not a field of the entity",
        "",
    ),
    (
        personal!("personal = §{ fields = [\"note\"], subject = \"id\" }\n"),
        "`note` is searched, and no follower has it as it is",
        "`clear = true`",
    ),
    (
        personal!(
            "personal = { fields = [\"name\"], subject = \"id\" }\nfollowers = [{ source = \"find\", where = §\"record.name == 'x'\" }]\n"
        ),
        "`name` is personal, and sources see it encrypted",
        "not personal",
    ),
    (
        personal!("followers = [§{ source = \"find\", clear = true }]\n"),
        "`clear` is for entities with personal fields",
        "declare `personal`",
    ),
    (
        "+[entities.p]\ntruth = \"main\"\nfields = { id = \"string\", name = \"string\" }\npersonal = §{ fields = [\"name\"], subject = \"id\" }\n",
        "personal fields need keys",
        "add [personal]",
    ),
    (
        "+[personal]\nkeys = \"main\"\nsecret = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n[entities.p]\ntruth = \"main\"\nfields = { id = \"string\", name = \"string\" }\npersonal = §{ fields = [\"name\"], subject = \"id\" }\n",
        "the truth would keep the data and the keys to it",
        "another source",
    ),
    (
        "+[personal]\nkeys = \"main\"\nsecret = §\"c2hvcnQ=\"\n",
        "32 to 64 bytes in Base64",
        "openssl rand",
    ),
    // Keys.
    ("+[§servr]\nlisten = \"127.0.0.1:1\"\n", "unknown key `servr`", "did you mean `server`?"),
    ("+[server]\n§lisen = \"127.0.0.1:1\"\n", "unknown key `lisen`", "did you mean `listen`?"),
    ("+[log]\n§zzz = 1\n", "unknown key `zzz`", "known here are retention, changes_max, outcomes"),
    ("+[sampler]\none_in = §0\n", "0 is not between 1 and 1000000000", ""),
    (
        "+[hooks.a]\nurl = §\"http://example.org/\"\nsecret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3\"\n",
        "the URL of a hook begins with https://",
        "a receiver on this machine",
    ),
    (
        "+[hooks.a]\nurl = \"https://example.org/\"\nsecret = §\"whsec_c2hvcnQ=\"\n",
        "24 to 64 bytes in Base64",
        "openssl rand",
    ),
    (
        "+[hooks.a]\nurl = \"https://example.org/\"\nsecret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3\"\non = [§\"divergenc\"]\n",
        "`divergenc` is not one of divergence, dead_letter",
        "did you mean `divergence`?",
    ),
    (
        "+[hooks.a]\nurl = \"https://example.org/\"\nsecret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3\"\nentities = [§\"prodct\"]\n",
        "`prodct` is no declared entity",
        "did you mean `product`?",
    ),
    (
        "+§[projections.sold]\nfrom = \"product\"\n",
        "the rows are kept nowhere",
        "name a source that keeps them",
    ),
    (
        "+[entities.b]\n§partitions = \"x\"\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`partitions` is not available in this release",
        "",
    ),
    (
        "+[entities.b]\nread = { quorum = §2 }\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`quorum` is 2, and 1 to 1 sources keep the entity",
        "add followers",
    ),
    (
        "+[[entities.product.residency]]\nsource = §\"fnd\"\nforbid = \"true\"\n",
        "the entity is not kept in `fnd`",
        "did you mean `find`?",
    ),
    (
        "+[[entities.product.residency]]\nsource = §\"main\"\nforbid = \"true\"\n",
        "`main` is the truth, which holds every record",
        "name another truth",
    ),
    (
        "+[[entities.product.residency]]\nregion = §\"us\"\nforbid = \"true\"\n",
        "no source that keeps the entity is in the region `us`",
        "remove the rule",
    ),
    (
        "+[[entities.product.residency]]\nsource = \"find\"\nforbid = §\"record.nam == 'x'\"\n",
        "nam",
        "",
    ),
    // When a writer is answered.
    (
        "+[entities.b]\nack = §2\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`ack` is 2, and 1 to 1 sources keep the entity",
        "add followers",
    ),
    (
        "+[entities.b]\nack = §0\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`ack` is 0, and 1 to 1",
        "the truth is one of them",
    ),
    (
        "+[entities.b]\nack = §\"al\"\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "the entity has no follower `al`",
        "did you mean `all`?",
    ),
    (
        "+[entities.b]\nack = [\"finder\", §\"findr\"]\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n",
        "the entity has no follower `findr`",
        "did you mean `finder`?",
    ),
    (
        "+[entities.b]\nack = §true\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`ack` takes truth, all, a number of sources or a list of followers, not true or false",
        "",
    ),
    (
        "+[entities.b]\nstrategy = §\"quorun\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "`quorun` is not one of",
        "did you mean `quorum`?",
    ),
    (
        "+[entities.b]\nstrategy = \"quorum\"\nack = §\"all\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the strategy `quorum` says itself when a write is answered",
        "remove `ack`",
    ),
    (
        "+[entities.b]\nstrategy = \"parallel\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\nafter = §\"finder\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the strategy `parallel` delivers to all followers at the same time",
        "remove `after`",
    ),
    (
        "+[entities.b]\nstrategy = \"adaptive\"\nack = §2\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the strategy `adaptive` decides itself when a write is answered",
        "remove `ack`",
    ),
    (
        "+[entities.b]\nstrategy = \"quorum\"\nadaptive = §{ lag = \"2s\" }\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "`adaptive` is for the strategy adaptive",
        "set strategy = \"adaptive\"",
    ),
    (
        "+[entities.b]\nstrategy = \"adaptive\"\nack_timeout = \"50ms\"\nadaptive = { latency = §\"50ms\" }\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "a writer would wait for `ack_timeout` before a follower is too slow",
        "make `latency` shorter",
    ),
    (
        "+[entities.b]\nstrategy = \"adaptive\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nbatch = §{ age = \"100ms\" }\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "changes gather here for as long as `latency` of `adaptive` lets a follower take",
        "make `age` shorter",
    ),
    (
        "+[entities.b]\nstrategy = \"adaptive\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nafter = §\"ram2\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the strategy `adaptive` delivers to all followers at the same time",
        "remove `after`",
    ),
    (
        "+[entities.b]\nstrategy = §\"adaptive\"\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "the strategy `adaptive` needs followers to decide about",
        "declare a follower",
    ),
    (
        "+[entities.b]\nstrategy = §\"adaptive\"\nwrite = { strategy = \"write_behind\", journal = \"q\" }\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[sources.q]\nkind = \"disk\"\npath = \"q\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n",
        "`ack` waits for followers, and `write_behind` answers before the truth",
        "choose another strategy of writing",
    ),
    (
        "+[entities.b]\nstrategy = \"cascade\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nafter = §\"ram2\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the strategy `cascade` puts each follower after the one declared before it",
        "remove `after`",
    ),
    (
        "+[entities.b]\nstrategy = §\"geographic\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the strategy `geographic` needs the `region` of this process",
        "set `region`",
    ),
    (
        "+[entities.b]\nstrategy = §\"conditional\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nwhere = \"true\"\n[[entities.b.followers]]\nsource = \"ram2\"\nwhere = \"false\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the strategy `conditional` needs a follower for what satisfies no condition",
        "default = true",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\nafter = §\"findr\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "the entity has no follower `findr`",
        "did you mean `finder`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nafter = §\"ram2\"\n[[entities.b.followers]]\nsource = \"ram2\"\nafter = \"finder\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "comes `after` itself",
        "remove one",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nwhere = \"true\"\ndefault = §true\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "`default` and `where` exclude each other",
        "remove one",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\ndefault = §true\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "`default` is for what no follower with a `where` holds, and none has one",
        "remove it",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nbatch = { §sise = 3 }\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "unknown key `sise`",
        "did you mean `size`?",
    ),
    (
        "+[entities.b]\nack = \"all\"\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\nbatch = §{ age = \"5s\" }\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "changes gather here for as long as `ack_timeout`",
        "make `age` shorter",
    ),
    (
        "+[entities.b]\nack = §2\nwrite = { strategy = \"write_behind\", journal = \"q\" }\ntruth = \"main\"\nfields = { id = \"string\" }\n[[entities.b.followers]]\nsource = \"finder\"\n[[entities.b.followers]]\nsource = \"ram2\"\n[sources.q]\nkind = \"disk\"\npath = \"q\"\n[sources.finder]\nkind = \"words\"\npath = \"g\"\n[sources.ram2]\nkind = \"ram\"\n",
        "`ack` waits for followers, and `write_behind` answers before the truth",
        "remove ack",
    ),
    // Options of an entity, by the kind of the source.
    (
        "+[[entities.product.followers]]\nsource = \"ram2\"\n§key_template = \"order:{id}\"\n[sources.ram2]\nkind = \"ram\"\n",
        "`key_template` is not for the kind of this source",
        "it is for net",
    ),
    (
        "+[entities.b]\n§capture = \"trigger\"\ntruth = \"ram\"\nfields = { id = \"string\" }\n",
        "`capture` is not for the kind of this source",
        "it is for disk",
    ),
    (
        "+[entities.b]\n§captrue = \"trigger\"\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "unknown key `captrue`",
        "did you mean `capture`?",
    ),
    (
        "+[entities.b]\ncapture = §\"trigerg\"\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`trigerg` is not one of none, trigger",
        "did you mean `trigger`?",
    ),
    (
        "+[entities.b]\ncapture = \"trigger\"\ntruth = §\"mian\"\nfields = { id = \"string\" }\n",
        "unknown source `mian`",
        "did you mean `main`?",
    ),
    (
        "+[[entities.product.followers]]\nsource = \"net\"\nkey_template = §\"order\"\n[sources.net]\nkind = \"net\"\nurl = \"n\"\n",
        "`key_template` must contain the key",
        "",
    ),
    (
        "+[[entities.product.followers]]\nsource = \"net\"\n§fromat = \"hash\"\n[sources.net]\nkind = \"net\"\nurl = \"n\"\n",
        "unknown key `fromat`",
        "did you mean `format`?",
    ),
    // Writing behind.
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nwrite = { strategy = §\"write_behind\" }\n",
        "`write_behind` needs a `journal`",
        "name a source of a kind that can be a journal",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nwrite = { strategy = \"write_behind\", journal = §\"find\" }\n",
        "`find` cannot be a journal: the kind words can be follower",
        "sources that can be a journal: main, ram",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nwrite = { strategy = \"write_behind\", journal = §\"main\" }\n",
        "`main` keeps `b` already",
        "name another source",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nwrite = { strategy = \"write_behind\", journal = §\"mian\" }\n",
        "unknown source `mian`",
        "did you mean `main`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nwrite = { pending_max = §5 }\n",
        "`pending_max` is for the strategy write_behind",
        "set strategy = \"write_behind\"",
    ),
    // Caches.
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", where = §\"record.stok > 0\" }\n",
        "`record.stok` is not declared",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", made = \"timestamp\" }\ncache = { source = \"ram\", where = §\"record.made > now - 3600\" }\n",
        "arithmetic takes a number, not a timestamp",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", made = \"timestamp\" }\n[[entities.b.followers]]\nsource = \"find\"\nwhere = §\"record.made > now - duration('1h')\"\n",
        "`now` is not available here",
        "only the `where` of a cache",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", warm_questions = §[{ count = {} }] }\n",
        "`warm_questions` needs `results`",
        "set results = \"60s\"",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", results = \"60s\", warm_questions = [{ count = {} }, §{}] }\n",
        "a question is one of `query`, `count` and `aggregate`",
        "a table of its own",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", results = \"60s\", warm_questions = [§{ query = {}, count = {} }] }\n",
        "a question is one of `query`, `count` and `aggregate`",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", results = \"60s\", warm_questions = [{ §qurey = {} , count = {} }] }\n",
        "unknown key `qurey`",
        "did you mean `query`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", results = \"60s\", warm_questions = [{ count = §{ where = { field = \"ix\", op = \"eq\", value = 1 } } }] }\n",
        "",
        "did you mean",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", results = \"60s\", warm_questions = [{ count = §{ limit = 3 } }] }\n",
        "`limit`: a count takes `where` and `search` only",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", results = \"60s\", warm_questions = [{ aggregate = §{ metrics = { n = { sum = \"id\" } } } }] }\n",
        "cannot be added up",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\ncache = { source = \"ram\", results = \"60s\", warm_questions = [{ query = §3 }] }\n",
        "the body is not a JSON object",
        "",
    ),
    // Types and bounds of values.
    ("server = §3\n", "takes a table, not a whole number", ""),
    ("+[server]\nlisten = §3000\n", "`listen` takes text in quotes, not a whole number", ""),
    ("+[server]\nlisten = §\"\"\n", "`listen` is empty", ""),
    ("+[server]\nlisten = §\"3000\"\n", "`3000` is not an address and port", "write it like"),
    (
        "+[server]\nbody_bytes_max = §\"8 megabytes\"\n",
        "`body_bytes_max` takes a size such as \"64MB\", not \"8 megabytes\"",
        "",
    ),
    ("+[server]\nbody_bytes_max = §\"10B\"\n", "10B is not between 1KB and 1GB", ""),
    ("+[server]\nrequest_timeout = §30\n", "`request_timeout` takes a duration such as", ""),
    ("+[server]\nrequest_timeout = §\"0s\"\n", "0ms is not between 10ms and 1d", ""),
    ("+[server]\nrequests_max = §0\n", "0 is not between 1 and 1000000", ""),
    ("+[server]\nrequests_max = §\"12\"\n", "takes a whole number, not \"12\"", ""),
    (
        "+[server]\nrequests_max = §\"${WORD}\"\n",
        "takes a whole number, which the replaced text is not",
        "",
    ),
    ("+[server]\nplain_http = §\"yes\"\n", "`plain_http` takes true or false", ""),
    // Replacement.
    ("+[server]\nlisten = §\"${NOPE}\"\n", "the environment variable `NOPE` is not set", ""),
    (
        "+[server]\nlisten = §\"${file:/nope}\"\n",
        "the file `/nope` cannot be read: no such file",
        "",
    ),
    ("+[server]\nlisten = §\"${DB\"\n", "`${` has no closing `}`", ""),
    // Access.
    ("+§[server.tls]\ncertificate = \"c.pem\"\n", "`key` is missing", ""),
    (
        "+[server]\nlisten = §\"0.0.0.0:80\"\nplain_http = true\n",
        "can be reached from other machines, and there are no tokens",
        "or listen on 127.0.0.1:80",
    ),
    (
        "+[server]\nlisten = §\"0.0.0.0:80\"\n[[server.tokens]]\nname = \"a\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n",
        "there is no TLS",
        "plain_http = true",
    ),
    (
        "+[[server.tokens]]\nname = \"a\"\nhash = §\"secret\"\n",
        "this is not the hash of a token",
        "never write the token itself",
    ),
    (
        "+[[server.tokens]]\nname = \"a\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\naccess = §\"wirte\"\n",
        "`wirte` is not one of read, write, admin",
        "did you mean `write`?",
    ),
    (
        "+[[server.tokens]]\nname = \"a\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\nentities = [\"*\", §\"prodct\"]\n",
        "`prodct` is no declared entity",
        "did you mean `product`?",
    ),
    (
        "+[[server.tokens]]\nname = \"a\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\nexpires = §\"soon\"\n",
        "`soon` is not a time",
        "",
    ),
    // Routes.
    ("+§[[server.routes]]\npath = \"/p\"\n", "`entity` is missing", ""),
    (
        "+[[server.routes]]\npath = \"/p\"\nentity = §\"prodct\"\n",
        "`prodct` is no declared entity",
        "did you mean `product`?",
    ),
    (
        "+[[server.routes]]\npath = §\"products\"\nentity = \"product\"\n",
        "`products` does not begin with /",
        "write \"/products\"",
    ),
    (
        "+[[server.routes]]\npath = §\"/products/\"\nentity = \"product\"\n",
        "`/products/` ends with /",
        "write \"/products\"",
    ),
    (
        "+[[server.routes]]\npath = §\"/products/{id}\"\nentity = \"product\"\n",
        "`/products/{id}` is not a path for records",
        "such as \"/shop/products\"",
    ),
    (
        "+[[server.routes]]\npath = §\"/shop/../products\"\nentity = \"product\"\n",
        "is not a path for records",
        "",
    ),
    (
        "+[[server.routes]]\npath = §\"/v1/goods\"\nentity = \"product\"\n",
        "`/v1/goods` collides with a path of the server: it has /v1 for itself",
        "begin with another word than v1, admin",
    ),
    (
        "+[[server.routes]]\npath = \"/p\"\nentity = \"product\"\n[[server.routes]]\npath = §\"/p\"\nentity = \"product\"\n",
        "`/p` collides with the route `/p`",
        "give one of them another",
    ),
    (
        "+[[server.routes]]\npath = \"/p\"\nentity = \"product\"\n[[server.routes]]\npath = §\"/p/new\"\nentity = \"product\"\n",
        "`/p/new` collides with the route `/p`",
        "every path one segment below it",
    ),
    (
        "+[[server.routes]]\npath = \"/p\"\nentity = \"product\"\nenvelope = §\"on\"\n",
        "`envelope` takes true or false",
        "",
    ),
    // Regions.
    ("region = §3\n", "`region` takes text in quotes", ""),
    ("+[sources.x]\nkind = \"ram\"\nregion = §\"\"\n", "`region` is empty", ""),
    // Sources.
    ("§[sources.main]\npath = \"x\"\n", "`kind` is missing", ""),
    (
        "[sources.main]\nkind = §\"dsik\"\npath = \"x\"\n",
        "unknown kind `dsik`",
        "did you mean `disk`?",
    ),
    (
        "[sources.main]\nkind = §\"kafka\"\nurl = \"x\"\n",
        "the kind `kafka` is not available in this release",
        "kinds are disk, ram, words, net, tape",
    ),
    (
        "[sources.main]\nkind = §\"tape\"\nurl = \"x\"\n",
        "the kind `tape` is not in this build",
        "build with `--features tape`",
    ),
    ("[sources.main]\nkind = \"ram\"\nrequired = §1\n", "`required` takes true or false", ""),
    (
        "[sources.main]\nkind = \"net\"\nurl = \"u\"\nreplicas = [\"a\", §3]\n",
        "takes text, not a whole number",
        "",
    ),
    (
        "[sources.main]\nkind = \"net\"\nurl = \"u\"\nmode = §\"sinlge\"\n",
        "`sinlge` is not one of single, cluster",
        "did you mean `single`?",
    ),
    (
        "[sources.main]\nkind = \"net\"\n§read_only = true\nurl = \"u\"\n",
        "`read_only` is not available",
        "",
    ),
    (
        "[sources.a]\nkind = \"net\"\nurl = \"u\"\n[sources.§b]\nkind = \"net\"\nurl = \"u\"\n",
        "keeps its data in the same place as `a`",
        "a place of its own",
    ),
    ("§[sources.main]\nkind = \"disk\"\n", "`path` is missing", ""),
    (
        "[sources.main]\nkind = \"disk\"\npath = \"x\"\n§replicas = []\n",
        "`replicas` is not available in this release",
        "",
    ),
    (
        "[sources.main]\nkind = \"disk\"\npath = \"x\"\npages = §65\n",
        "65 is not between 1 and 64",
        "",
    ),
    (
        "[sources.main]\nkind = \"disk\"\npath = \"x\"\npassword = §12\n",
        "`password` takes text in quotes",
        "",
    ),
    ("[sources.main]\nkind = \"disk\"\npath = §\"forbidden\"\n", "`path` is forbidden", ""),
    ("[sources.§Main]\nkind = \"ram\"\n", "`Main` cannot be the name of a source", ""),
    (
        "+[sources.§other]\nkind = \"disk\"\npath = \"./m/\"\n",
        "keeps its data in the same place as `main`",
        "",
    ),
    // Entities and their sources.
    (
        "+[entities.§Thing]\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`Thing` cannot be the name of an entity",
        "",
    ),
    (
        "+[entities.§changes]\ntruth = \"main\"\nfields = { id = \"string\" }\n",
        "`changes` cannot be the name of an entity: /v1/changes is taken",
        "another name",
    ),
    ("+§[entities.b]\nfields = { id = \"string\" }\n", "`truth` is missing", ""),
    ("+§[entities.b]\ntruth = \"main\"\n", "`fields` is missing", ""),
    ("+[entities.b]\ntruth = \"main\"\nfields = §{}\n", "at least one field", ""),
    (
        "+[entities.b]\ntruth = §\"mian\"\nfields = { id = \"string\" }\n",
        "unknown source `mian`",
        "did you mean `main`?",
    ),
    (
        "+[entities.b]\ntruth = §\"warehouse\"\nfields = { id = \"string\" }\n",
        "unknown source `warehouse`",
        "declare it as [sources.warehouse]",
    ),
    (
        "+[entities.b]\ntruth = §\"find\"\nfields = { id = \"string\" }\n",
        "`find` cannot be a truth: the kind words can be follower",
        "sources that can be a truth: main, ram",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\ncache = { source = §\"find\" }\nfields = { id = \"string\" }\n",
        "`find` cannot be a cache",
        "sources that can be a cache: ram",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nread = { strategy = §\"cahce_first\" }\n",
        "`cahce_first` is not one of cache_first, database_first, parallel",
        "did you mean `cache_first`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nread = { rules = [{ name = \"r\", ask = [§\"mian\"] }] }\n",
        "the entity has no place `mian` to ask",
        "did you mean `main`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nread = { rules = [{ name = \"r\", ask = §[] }] }\n",
        "a rule names at least one place to ask",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nread = { rules = [{ name = \"r\", when = §\"request.criterias > 1\", ask = [\"truth\"] }] }\n",
        "`request.criterias` is not declared",
        "did you mean `criteria`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nread = { rules = [{ name = \"r\", when = §\"record.id == 'x'\", ask = [\"truth\"] }] }\n",
        "`record` is not known",
        "conditions use `request`",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nwrite = { hold = §\"long\" }\n",
        "`hold` takes a duration",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\ncache = { source = \"ram\", ttl = §\"fast\" }\nfields = { id = \"string\" }\n",
        "`ttl` takes a duration",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\ncache = { source = \"ram\", lease = §\"5m\" }\nfields = { id = \"string\" }\n",
        "5m is not between 0ms and 1m",
        "",
    ),
    (
        "+[[entities.product.followers]]\nsource = §\"main\"\n",
        "`main` keeps `product` already",
        "a source keeps an entity once",
    ),
    ("+[[entities.product.followers]]\nsource = §\"find\"\n", "`find` keeps `product` already", ""),
    (
        "+[entities.b]\ntruth = §\"main\"\ntable = \"product\"\nfields = { id = \"string\" }\n",
        "`product` in `main` is used by `product` already",
        "another table",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\ntable = §\"My Table\"\nfields = { id = \"string\" }\n",
        "`My Table` cannot be used here",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nfollowers = [{ source = \"find\", index = \"i\", folder = §\"f\" }]\n",
        "only one of `table`, `index`, `folder` and `collection`",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nfollowers = [{ source = \"find\", where = §\"record.stok > 1\" }]\n",
        "`record.stok` is not declared",
        "declared are id",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nfollowers = [{ source = \"find\", where = §\"record.id >\" }]\n",
        "the condition is not valid CEL",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\" }\nfollowers = §\"find\"\n",
        "takes a list, not text",
        "",
    ),
    // Keys and fields.
    (
        "+[entities.b]\ntruth = \"main\"\nkey = §\"di\"\nfields = { id = \"string\" }\n",
        "the key `di` is not among the fields",
        "did you mean `id`?",
    ),
    (
        "+§[entities.b]\ntruth = \"main\"\nfields = { name = \"string\" }\n",
        "the key `id` is not among the fields",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nkey = §\"at\"\nfields = { at = \"date\" }\n",
        "the key `at` is of type date",
        "string, integer or uuid",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { §id = { type = \"string\", default = \"x\" } }\n",
        "a key cannot have a default",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", §Name = \"string\" }\n",
        "`Name` cannot be the name of a field",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"strnig\" }\n",
        "unknown type `strnig`",
        "did you mean `string`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"varchar(20)\" }\n",
        "unknown type `varchar`",
        "did you mean `string`?",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"string(20)\" }\n",
        "`string` takes nothing in parentheses",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"decimal\" }\n",
        "needs its digits",
        "decimal(12,2)",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"decimal(29,2)\" }\n",
        "needs its digits",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"decimal(2,3)\" }\n",
        "needs its digits",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"timestamp(9)\" }\n",
        "keeps 0 to 6 digits",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", §n = \"decimal(28,2)\" }\n",
        "`main` (disk) cannot keep the field `n` as a truth: 28 digits are too many",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §\"list\" }\n",
        "a list needs the type of its elements",
        "of = \"string\"",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"list\", of = §\"json\" } }\n",
        "a list cannot hold `json`",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"list\", of = { a = { type = §\"list\", of = \"string\" } } } }\n",
        "objects of a list cannot hold lists",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"list\", of = { a = { type = \"string\", unique = §true } } } }\n",
        "`unique` is not available for the fields of a list's objects",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"string\", of = §\"string\" } }\n",
        "`of` is only for type list",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §{ search = true } }\n",
        "`type` is missing",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = §3 }\n",
        "a field is a type or a table, not a whole number",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"json\", unique = §true } }\n",
        "`unique` is for single values, not for json",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"integer\", search = §true } }\n",
        "`search` is for string and text, not for integer",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"integer\", max_length = §3 } }\n",
        "`max_length` is for text, bytes and lists",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"integer\", default = §\"x\" } }\n",
        "the value is not a value of type integer",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"decimal(4,2)\", default = §1.234 } }\n",
        "more than 2 digits after the point",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"string\", enum = [\"a\"], default = §\"b\" } }\n",
        "the default is not one of the allowed values",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"integer\", enum = [1, §\"x\"] } }\n",
        "the value is not a value of type integer",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"integer\", enum = [1, §1] } }\n",
        "given twice",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"integer\", enum = §[] } }\n",
        "`enum` allows nothing",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"json\", enum = §[1] } }\n",
        "`enum` is for single values",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"string\", §pattern = \"x\" } }\n",
        "`pattern` is not available in this release",
        "",
    ),
    (
        "+[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = { type = \"string\", enum = [\"ä€\", §3] } }\n",
        "the value is not a value of type string",
        "",
    ),
    // Two truths.
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = §\"main\"\n",
        "`main` keeps `b` already",
        "name another source",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = §\"othr\"\n",
        "unknown source `othr`",
        "did you mean `other`?",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = §\"find\"\n",
        "`find` cannot be a truth",
        "",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = \"other\"\nprefer = §\"ram\"\n",
        "`ram` is not one of the two truths",
        "the two truths are main and other",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = \"other\"\nfields = { n = §\"countr\" }\n",
        "`n` takes one of last_writer, counter",
        "did you mean `counter`?",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = \"other\"\nfields = §{ t = \"max\" }\n",
        "the field `t` cannot be a max, which is for numbers",
        "",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = \"other\"\nfields = §{ n = \"counter\" }\n",
        "the field `n` is a counter and must be `required`",
        "",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = \"other\"\ngroups = §[[\"n\", \"x\"]]\n",
        "the field `x` is not declared",
        "",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = \"other\"\nolder_wins = §\"older.n > newest.n\"\n",
        "`newest` is not known",
        "",
    ),
    (
        "+[sources.other]\nkind = \"disk\"\npath = \"o\"\n[entities.b]\ntruth = \"main\"\nfields = { id = \"string\", n = \"integer\", t = \"text\" }\n[entities.b.sync]\nwith = \"other\"\nprefer = \"main\"\nolder_wins = §\"older.n > newer.n\"\n",
        "`prefer` and `older_wins` both decide the same",
        "remove one",
    ),
];

#[test]
fn every_mistake_is_found_at_its_place_and_alone() {
    let mut wrong = String::new();
    for (case, message, hint) in BAD {
        let marked = match case.strip_prefix('+') {
            Some(rest) => format!("{BASE}{rest}"),
            None => (*case).to_owned(),
        };
        let text = marked.replace('§', "");
        let problems = check(&text).err().unwrap_or_default();
        let errors: Vec<_> = problems.0.iter().filter(|p| p.severity == Severity::Error).collect();
        let place = marked.split_once('§').map(|(before, _)| {
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            (before.matches('\n').count() + 1, column)
        });
        let as_expected = matches!(errors.as_slice(), [error] if error.message.contains(message)
            && error.hint.as_deref().unwrap_or_default().contains(hint)
            && place.is_none_or(|place| error.place.as_ref().is_some_and(|p| (p.line, p.column) == place)));
        if !as_expected {
            wrong += &format!("{case}expected at {place:?}: {message}\n{problems}\n==========\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(BAD.len() >= 80);
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = BASE
        .replace("\"string\"", "\"strnig\"")
        .replace("source = \"ram\"", "source = \"rma\"")
        + "[server]\nlisten = 1\n[log]\nretention = \"x\"\n[entities.c]\ntruth = \"main\"\nfields = { id = \"string\", f = 1 }\n";
    let problems = check(&text).unwrap_err();
    let lines: Vec<_> = problems.0.iter().map(|p| p.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [12, 13, 17, 19, 22], "{problems}");
}
