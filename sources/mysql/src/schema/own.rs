//! The source's own tables.

use std::collections::HashSet;

use unisono_core::source::Binding;
use unisono_core::{Capture, Role, Uuid};

use crate::capture;
use crate::error::Failed;
use crate::literal::text;
use crate::pool::Session;
use crate::schema::found::word;

/// Their names and columns. `unisono_schema` says which declared types the data was written under.
const TABLES: &[(&str, &str)] = &[
    (
        "unisono_schema",
        "`entity` VARCHAR(48) PRIMARY KEY, `place` VARCHAR(64) NOT NULL, `fields` LONGTEXT NOT NULL, \
         `adopted` TINYINT(1) NOT NULL",
    ),
    (
        "unisono_log",
        "`position` BIGINT PRIMARY KEY, `entity` VARCHAR(48) NOT NULL, `key` VARCHAR(512) NOT NULL, \
         `operation` VARCHAR(8) NOT NULL, `replaced` BIGINT, `previous` BIGINT, `image` LONGTEXT, \
         `time` BIGINT NOT NULL, `actor` LONGTEXT, `trace` LONGTEXT",
    ),
    (
        "unisono_head",
        "`only` TINYINT PRIMARY KEY, `log` CHAR(36) NOT NULL, `trimmed` BIGINT NOT NULL, `position` BIGINT NOT NULL, \
         `fences` LONGTEXT",
    ),
    (
        // By the hash of the key, which can be longer than an index allows.
        "unisono_outcomes",
        "`hash` BINARY(32) PRIMARY KEY, `key` LONGTEXT NOT NULL, `fingerprint` BINARY(16) NOT NULL, \
         `first` BIGINT NOT NULL, `changes` BIGINT NOT NULL, `time` BIGINT NOT NULL, \
         INDEX unisono_first (`first`), INDEX unisono_time (`time`)",
    ),
    (
        "unisono_state",
        "`space` VARCHAR(64) NOT NULL, `name` VARCHAR(700) NOT NULL, `value` LONGTEXT NOT NULL, \
         PRIMARY KEY (`space`, `name`)",
    ),
    ("unisono_checkpoints", "`entity` VARCHAR(48) PRIMARY KEY, `checkpoint` LONGTEXT"),
    (
        "unisono_tombstones",
        "`entity` VARCHAR(48) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, `key` VARCHAR(700) NOT NULL, `version` BIGINT NOT NULL, \
         PRIMARY KEY (`entity`, `key`), INDEX unisono_version (`entity`, `version`)",
    ),
];

/// Makes those that are missing, the head of the log, and the rows that checkpoints are locked by.
pub(super) async fn prepare(session: &mut Session, bindings: &[Binding]) -> Result<(), Failed> {
    let sets = session
        .run(
            "SELECT table_name FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name LIKE 'unisono\\_%'",
        )
        .await?;
    let there: HashSet<String> =
        sets.iter().flatten().map(|row| word(row, 0)).collect::<Result<_, _>>()?;
    let collation = session.connection().server.collation;
    let captures = bindings.iter().any(|b| Capture::of(&b.options).is_some());
    let of_capture = if captures { capture::TABLES } else { &[] };
    let wanted = TABLES.iter().chain(of_capture);
    for (name, columns) in wanted.filter(|(name, _)| !there.contains(*name)) {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {name} ({columns}) ENGINE = InnoDB ROW_FORMAT = DYNAMIC \
             DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}"
        );
        session.run(&sql).await?;
    }
    let sets = session
        .run(
            "SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() \
             AND table_name = 'unisono_head' AND column_name = 'fences'",
        )
        .await?;
    if sets.iter().flatten().next().is_none() {
        // Made by a version that moved no truths.
        session.run("ALTER TABLE unisono_head ADD COLUMN `fences` LONGTEXT").await?;
    }
    if captures {
        session
            .run("INSERT IGNORE INTO unisono_sequencer VALUES (1, '', UTC_TIMESTAMP(6), 0)")
            .await?;
    }
    let sets =
        session.run("SELECT 1 FROM unisono_head; SELECT `entity` FROM unisono_checkpoints").await?;
    let (head, known) = match &sets[..] {
        [head, known] => (head.first(), known.as_slice()),
        _ => (None, Default::default()),
    };
    if head.is_none() {
        // A log that has changes but no head was damaged by somebody; another head would hide that.
        let sql = format!(
            "INSERT INTO unisono_head (`only`, `log`, `trimmed`, `position`) SELECT 1, {}, 0, 0 FROM DUAL \
             WHERE NOT EXISTS (SELECT 1 FROM unisono_log)",
            text(&Uuid::now_v7().to_string())
        );
        session.run(&sql).await?;
    }
    let known: HashSet<String> = known.iter().map(|row| word(row, 0)).collect::<Result<_, _>>()?;
    let is_new = |b: &&Binding| b.role == Role::Follower && !known.contains(&**b.entity.name());
    for binding in bindings.iter().filter(is_new) {
        let entity = text(binding.entity.name());
        session
            .run(&format!("INSERT INTO unisono_checkpoints (`entity`) VALUES ({entity})"))
            .await?;
    }
    Ok(())
}
