//! The kinds under test: how each one's server is broken and mended.

/// A follower kind under test.
pub(crate) struct Kind {
    /// Its column in the table, and what `--only` names.
    pub(crate) column: &'static str,
    /// The `kind` of a source.
    pub(crate) kind: &'static str,
    /// Its server; an embedded kind has none.
    pub(crate) server: Option<Server>,
    /// Whether the kind can be a truth that is broken, too.
    pub(crate) truth: bool,
    /// Faults that are not tried, and why.
    pub(crate) without: &'static [(&'static str, &'static str)],
}

/// A server of `engines/NAME`, in an instance of its own. Scripts run in bash with `$DIR`, `$PORT` and `$REPOSITORY`.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    /// Size of the file system that holds its data, in MiB: small, since a full disk is made by filling it.
    pub(crate) disk: u32,
    /// The file with the process id of the server, below its directory.
    pub(crate) pid: &'static str,
    /// The folder with its data, below its directory.
    pub(crate) data: &'static str,
    /// Takes the credentials away and ends the sessions that were begun with them; gives them back.
    pub(crate) credentials: Option<(&'static str, &'static str)>,
    /// What stands for a full disk, and ends it, where filling the disk would leave a server that no longer serves
    /// when there is room again.
    pub(crate) full: Option<(&'static str, &'static str)>,
}

/// Leaves no room on the disk.
pub(crate) const FILL: &str = r#"for block in 1M 4K; do dd if=/dev/zero of="$DISK/ballast-$block" bs=$block 2>/dev/null || true; done"#;

/// The kinds, those that take longest first.
pub(crate) const ALL: &[Kind] = &[
    #[cfg(feature = "opensearch")]
    OPENSEARCH,
    #[cfg(feature = "postgres")]
    POSTGRES,
    #[cfg(feature = "mysql")]
    MYSQL,
    #[cfg(feature = "mongodb")]
    MONGODB,
    #[cfg(feature = "redis")]
    REDIS,
    #[cfg(feature = "s3")]
    S3,
    embedded("sqlite"),
    embedded("tantivy"),
    embedded("files"),
];

const fn embedded(kind: &'static str) -> Kind {
    const OF_UNISONO: &str = "it runs in the process of Unisono, which tests/e2e kills";
    const NO_NETWORK: &str = "no network lies between";
    const WITHOUT: &[(&str, &str)] = &[
        ("killed", OF_UNISONO),
        ("paused", OF_UNISONO),
        ("cut", NO_NETWORK),
        ("delayed", NO_NETWORK),
        ("half-open", NO_NETWORK),
        ("revoked", "no user logs in"),
    ];
    Kind { column: kind, kind, server: None, truth: false, without: WITHOUT }
}

#[cfg(feature = "redis")]
const REDIS: Kind = Kind {
    column: "redis",
    kind: "redis",
    server: Some(Server {
        name: "redis",
        port: 6491,
        disk: 96,
        pid: "single/pid",
        data: "single",
        credentials: Some((
            r#"cli() { REDISCLI_AUTH=admin-secret redis-cli -e --tls --cacert "$DIR/tls/ca.crt" -p "$PORT" "$@"; }
               cli ACL SETUSER app off; cli CLIENT KILL USER app"#,
            r#"REDISCLI_AUTH=admin-secret redis-cli -e --tls --cacert "$DIR/tls/ca.crt" -p "$PORT" ACL SETUSER app on"#,
        )),
        full: None,
    }),
    truth: false,
    without: &[],
};

#[cfg(feature = "mongodb")]
const MONGODB: Kind = Kind {
    column: "mongodb",
    kind: "mongodb",
    server: Some(Server {
        name: "mongodb",
        port: 27217,
        disk: 96,
        pid: "pid",
        data: "data",
        credentials: None,
        // Its store closes when a write fails, and the process lives on without it; a MongoDB would have ended.
        full: Some((
            FILL,
            r#"rm -f "$DISK"/ballast-*; kill -9 "$(cat "$DIR/pid")"; sleep 0.3; "$REPOSITORY/engines/restart" "$DIR""#,
        )),
    }),
    truth: false,
    without: &[("revoked", "the server for tests has no users")],
};

#[cfg(feature = "postgres")]
const POSTGRES: Kind = Kind {
    column: "postgres",
    kind: "postgres",
    server: Some(Server {
        name: "postgres",
        port: 5641,
        disk: 300,
        pid: "run/n0.pid",
        data: "n0",
        credentials: Some((
            r#"export PGPASSWORD=super-secret
               psql -qv ON_ERROR_STOP=1 "host=127.0.0.1 port=$PORT user=postgres dbname=postgres sslmode=verify-full sslrootcert=$DIR/tls/ca.crt" \
                 -c "ALTER ROLE app PASSWORD 'changed'" -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'""#,
            r#"export PGPASSWORD=super-secret
               psql -qv ON_ERROR_STOP=1 "host=127.0.0.1 port=$PORT user=postgres dbname=postgres sslmode=verify-full sslrootcert=$DIR/tls/ca.crt" \
                 -c "ALTER ROLE app PASSWORD 'app-secret'""#,
        )),
        full: None,
    }),
    truth: true,
    without: &[],
};

#[cfg(feature = "mysql")]
const MYSQL: Kind = Kind {
    column: "mysql",
    kind: "mysql",
    server: Some(Server {
        name: "mysql",
        port: 3451,
        disk: 400,
        pid: "primary/pid",
        data: "primary/data",
        credentials: Some((
            r#"mariadb --no-defaults -uroot -proot-secret -S "$DIR/primary/sock" \
                 -e "ALTER USER app@'127.0.0.1' ACCOUNT LOCK; KILL HARD CONNECTION USER app@'127.0.0.1'""#,
            r#"mariadb --no-defaults -uroot -proot-secret -S "$DIR/primary/sock" -e "ALTER USER app@'127.0.0.1' ACCOUNT UNLOCK""#,
        )),
        full: None,
    }),
    truth: true,
    without: &[],
};

#[cfg(feature = "opensearch")]
const OPENSEARCH: Kind = Kind {
    column: "opensearch",
    kind: "opensearch",
    server: Some(Server {
        name: "opensearch",
        port: 9291,
        disk: 400,
        pid: "node.pid",
        data: "home",
        credentials: Some((
            r#"sed -i s/app-secret/changed-secret/ "$DIR/proxy.cfg"; kill -9 "$(cat "$DIR/proxy.pid")"; sleep 0.2
               "$REPOSITORY/engines/restart" "$DIR""#,
            r#"sed -i s/changed-secret/app-secret/ "$DIR/proxy.cfg"; kill -9 "$(cat "$DIR/proxy.pid")"; sleep 0.2
               "$REPOSITORY/engines/restart" "$DIR""#,
        )),
        // What OpenSearch itself does at its flood stage, and undoes when there is room again.
        full: Some((
            r#"curl -fsS --cacert "$DIR/tls/ca.crt" -u app:app-secret -X PUT "https://127.0.0.1:$PORT/t*/_settings?expand_wildcards=all" \
                 -H content-type:application/json -d '{"index.blocks.read_only_allow_delete": true}'"#,
            r#"curl -fsS --cacert "$DIR/tls/ca.crt" -u app:app-secret -X PUT "https://127.0.0.1:$PORT/t*/_settings?expand_wildcards=all" \
                 -H content-type:application/json -d '{"index.blocks.read_only_allow_delete": null}'"#,
        )),
    }),
    truth: false,
    without: &[],
};

#[cfg(feature = "s3")]
const S3: Kind = Kind {
    column: "s3",
    kind: "s3",
    server: Some(Server {
        name: "s3",
        port: 19800,
        disk: 128,
        pid: "pid",
        data: "data",
        credentials: Some((
            r#"sed -i s/tester-secret/changed-secret/ "$DIR/pid.launch"; kill -9 "$(cat "$DIR/pid")"; sleep 0.2
               "$REPOSITORY/engines/restart" "$DIR""#,
            r#"sed -i s/changed-secret/tester-secret/ "$DIR/pid.launch"; kill -9 "$(cat "$DIR/pid")"; sleep 0.2
               "$REPOSITORY/engines/restart" "$DIR""#,
        )),
        full: None,
    }),
    truth: false,
    without: &[],
};
