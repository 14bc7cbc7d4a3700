//! One connection: how it is opened, set up, and asked.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::time::timeout;
use unisono_core::{Error, ErrorKind};

use crate::error::{Failed, timed_out, translate};
use crate::literal::{quote, text};

/// The oldest releases whose text comparison is exact: collations that neither fold case nor ignore blanks at the end.
const MARIADB_MIN: (u16, u16, u16) = (10, 6, 0);
const MYSQL_MIN: (u16, u16, u16) = (8, 0, 19);
/// Text is put in order by this many of its first bytes: as many as the sort buffer of `session_sql` holds for each of
/// the criteria of an order.
const SORTED_BYTES: u32 = 1 << 16;

/// How long a transaction may wait for its own process, in seconds.
const IDLE_SECONDS: u32 = 10;

/// How often a transaction that met others is tried; all its waits for locks take no longer than one exchange may.
pub(crate) const ATTEMPTS: usize = 4;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything; a missing database is made.
    Write,
    /// Snapshots.
    Read,
    /// Snapshots of a read replica.
    Replica,
}

/// The engine at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Name and version, for people.
    pub(crate) engine: String,
    /// The collation that compares text by its characters' numbers and nothing else.
    pub(crate) collation: &'static str,
    /// The longest text of an exchange, in bytes.
    pub(crate) packet_bytes_max: usize,
    /// How long one lock is waited for, in seconds.
    pub(crate) lock_seconds: u64,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    conn: Conn,
    /// Longest wait for one exchange.
    limit: Duration,
    pub(crate) server: Server,
}

impl Connection {
    /// Opens and sets up a connection, within `connect`; each later exchange must end within `request`.
    pub(crate) async fn open(
        opts: &Opts,
        access: Access,
        connect: Duration,
        request: Duration,
    ) -> Result<Self, Failed> {
        let opening = open(opts, access, request);
        match timeout(connect, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(timed_out(connect, "connect_timeout")),
        }
        .map_err(|failed| failed.with_server(&address(opts)))
    }

    /// Runs statements, separated by semicolons, in one exchange; answers the rows of each that has columns.
    ///
    /// The statements after one that fails are not run.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Vec<Vec<Row>>, Failed> {
        let mut sets = Vec::new();
        let mut gather = |set: usize, row: Row| {
            if sets.len() <= set {
                sets.resize_with(set + 1, Vec::new);
            }
            if let Some(rows) = sets.get_mut(set) {
                rows.push(row);
            }
            Ok(())
        };
        let count = self.each(sql, &mut gather).await?;
        sets.resize_with(count, Vec::new);
        Ok(sets)
    }

    /// Like [`Connection::run`], but gives each row, with the number of its result, to a function as it arrives.
    ///
    /// If the function fails, the connection must not be used any more. Answers the number of results.
    pub(crate) async fn each(
        &mut self,
        sql: &str,
        each: &mut (dyn FnMut(usize, Row) -> unisono_core::Result<()> + Send),
    ) -> Result<usize, Failed> {
        let exchange = async {
            let mut result = self.conn.query_iter(sql).await?;
            let mut sets = 0;
            loop {
                let has_columns = !result.columns_ref().is_empty();
                while let Some(row) = result.next().await? {
                    each(sets, row)?;
                }
                sets += usize::from(has_columns);
                if result.is_empty() {
                    // The failure of a statement that is not the first is kept until one asks for its rows.
                    result.next().await?;
                    return Ok(sets);
                }
            }
        };
        match timeout(self.limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out(self.limit, "request_timeout")),
        }
    }
}

async fn open(opts: &Opts, access: Access, request: Duration) -> Result<Connection, Failed> {
    provide_cryptography();
    let conn = match Conn::new(opts.clone()).await {
        Err(mysql_async::Error::Server(e)) if e.code == 1049 && access == Access::Write => {
            make_database(opts).await?;
            Conn::new(opts.clone()).await
        }
        conn => conn,
    };
    let mut conn = conn.map_err(translate)?;
    let facts: Option<(String, usize)> =
        conn.query_first("SELECT version(), @@max_allowed_packet").await?;
    let (version, packet_bytes_max) = facts.unwrap_or_default();
    let lock_seconds = (request.as_secs() / ATTEMPTS as u64).clamp(1, 1 << 20);
    let server = Server { packet_bytes_max, lock_seconds, ..identify(&version)? };
    conn.query_drop(session_sql(&server, access)).await?;
    Ok(Connection { conn, limit: request, server })
}

/// The driver takes the process's default provider and cannot be given another. If there is none it would install
/// what it finds compiled in, and panic if that were more than one.
fn provide_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // An error means that somebody else was faster, which is as good.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}

/// Makes the database of the URL.
async fn make_database(opts: &Opts) -> Result<(), Failed> {
    let name = opts.db_name().unwrap_or_default().to_owned();
    let mut conn = Conn::new(OptsBuilder::from_opts(opts.clone()).db_name(None::<String>)).await?;
    let sql =
        format!("CREATE DATABASE IF NOT EXISTS {} DEFAULT CHARACTER SET utf8mb4", quote(&name));
    conn.query_drop(sql).await.map_err(|native| {
        let mut failed = translate(native);
        failed.error = failed.error.with("database", &name);
        failed
    })?;
    conn.disconnect().await?;
    Ok(())
}

/// The engine by its version text, such as `10.11.19-MariaDB` or `8.0.36`; without its limits.
fn identify(version: &str) -> Result<Server, Failed> {
    let is_mariadb = version.contains("MariaDB");
    // Old replication needed MariaDB to pretend to be release 5.5.5.
    let number = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = number
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u16>().unwrap_or_default());
    let mut part = || parts.next().unwrap_or_default();
    let number = (part(), part(), part());
    let (name, least, collation) = match is_mariadb {
        true => ("MariaDB", MARIADB_MIN, "utf8mb4_nopad_bin"),
        false => ("MySQL", MYSQL_MIN, "utf8mb4_0900_bin"),
    };
    if number < least {
        return Err(Error::new(ErrorKind::Unsupported, "the server's release is too old")
            .with("version", version)
            .hint("take MariaDB 10.6 or newer, or MySQL 8.0.19 or newer")
            .into());
    }
    let engine = format!("{name} {}.{}.{}", number.0, number.1, number.2);
    Ok(Server { engine, collation, packet_bytes_max: 0, lock_seconds: 0 })
}

/// What makes sessions alike, whatever the server's own settings are.
fn session_sql(server: &Server, access: Access) -> String {
    let isolation = match access {
        // Locking reads see what is committed, and lock no gaps that others want to insert into.
        Access::Write => "READ COMMITTED",
        Access::Read | Access::Replica => "REPEATABLE READ",
    };
    let seconds = server.lock_seconds;
    let mut sql = format!(
        "SET NAMES utf8mb4 COLLATE {}; SET SESSION TRANSACTION ISOLATION LEVEL {isolation}; \
         SET SESSION sql_mode = {}, time_zone = '+00:00', autocommit = 1, innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}, \
         max_sort_length = {SORTED_BYTES}, sort_buffer_size = {}, group_concat_max_len = 1048576",
        server.collation,
        text(
            "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
        ),
        SORTED_BYTES * 128,
    );
    // A transaction whose process is stopped, or can no longer be reached, must not stop the others for long: even one
    // that only reads holds up every change of its tables.
    if server.engine.starts_with("MariaDB") {
        sql += &format!(", idle_transaction_timeout = {IDLE_SECONDS}");
        // A long list of keys stays a list of keys, which the index answers and whose rows are locked.
        sql += ", in_predicate_conversion_threshold = 0";
    } else {
        // MySQL cannot tell a transaction from a connection in the pool, which is opened again when it is needed.
        sql += &format!(", wait_timeout = {IDLE_SECONDS}");
    }
    sql
}

fn address(opts: &Opts) -> String {
    format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_told_apart_and_old_ones_refused() {
        let engine = |version| {
            identify(version).map(|s| (s.engine, s.collation)).map_err(|f| f.error.kind())
        };
        let mariadb = |name: &str| Ok((name.to_owned(), "utf8mb4_nopad_bin"));
        assert_eq!(engine("10.11.19-MariaDB-0+deb12u1"), mariadb("MariaDB 10.11.19"));
        assert_eq!(engine("5.5.5-10.6.1-MariaDB-log"), mariadb("MariaDB 10.6.1"));
        assert_eq!(engine("8.4.2"), Ok(("MySQL 8.4.2".to_owned(), "utf8mb4_0900_bin")));
        for old in ["5.7.44-log", "8.0.18", "5.5.5-10.3.39-MariaDB", ""] {
            assert_eq!(engine(old), Err(ErrorKind::Unsupported), "{old}");
        }
    }
}
