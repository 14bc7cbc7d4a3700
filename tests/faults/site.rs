//! [`Site`]: where a kind under test keeps its data: a server of its own on a small disk, or a folder on one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use unisono_core::kind::{OptionValue, Options};

use crate::kinds::{FILL, Kind, Server};

/// Size of the disk of an embedded kind, in MiB.
const EMBEDDED_DISK: u32 = 64;

/// What is broken and mended. Everything that it started ends, and its disk is taken away, when it is dropped.
pub(crate) struct Site {
    pub(crate) kind: &'static Kind,
    /// A file system of its own.
    disk: PathBuf,
    /// The directory of the server, or that of the data.
    pub(crate) directory: PathBuf,
}

/// The repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A name that no other scenario has.
pub(crate) fn namespace() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a script to its end; answers what it printed.
fn bash(script: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).stdin(Stdio::null());
    let output = command.envs(variables.iter().copied()).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => Ok(said),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("{script}\n{said}\n{}", errors.trim()))
        }
    }
}

impl Site {
    /// Makes the disk and starts the server, if the kind has one.
    pub(crate) fn start(kind: &'static Kind) -> Result<Self, String> {
        let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
        let disk = PathBuf::from(base).join(format!("faults-{}", kind.column));
        let directory = disk.join("site");
        let site = Site { kind, disk, directory };
        // What a run that was killed has left.
        site.end();
        let size = kind.server.as_ref().map_or(EMBEDDED_DISK, |s| s.disk).to_string();
        site.run(&format!("mkdir -p \"$DISK\"; mount -t tmpfs -o size={size}m tmpfs \"$DISK\""))
            .map_err(|e| format!("a disk of its own needs root and `mount`: {e}"))?;
        match &kind.server {
            Some(server) => {
                let log = site.disk.with_extension("log").display().to_string();
                site.run(&format!(
                    "ALONE=1 \"$REPOSITORY/engines/{}/start\" \"$DIR\" >{log} 2>&1 || {{ tail -n 30 {log} >&2; exit 1; }}",
                    server.name
                ))?;
            }
            None => std::fs::create_dir_all(&site.directory).map_err(|e| e.to_string())?,
        }
        Ok(site)
    }

    /// Runs a script about this site.
    pub(crate) fn run(&self, script: &str) -> Result<String, String> {
        let port = self.kind.server.as_ref().map_or(0, |s| s.port).to_string();
        let (disk, directory) = (self.disk.to_string_lossy(), self.directory.to_string_lossy());
        let copy = self.disk.with_extension("copy");
        bash(
            script,
            &[
                ("DISK", &disk),
                ("DIR", &directory),
                ("COPY", &copy.to_string_lossy()),
                ("PORT", &port),
                ("REPOSITORY", &repository().to_string_lossy()),
            ],
        )
    }

    fn end(&self) {
        let stop = self.kind.server.as_ref().map_or(String::new(), |s| {
            // One that is paused does not end.
            format!("if [ -d \"$DIR\" ]; then kill -CONT $(cat \"$DIR/{}\" 2>/dev/null) 2>/dev/null || true; \"$REPOSITORY/engines/{}/stop\" \"$DIR\"; fi", s.pid, s.name)
        });
        let script = format!(
            "{stop}\nif mountpoint -q \"$DISK\"; then umount -l \"$DISK\"; fi; rm -rf \"$DISK\" \"$COPY\""
        );
        if let Err(error) = self.run(&script) {
            println!("note {}: {error}", self.kind.column);
        }
    }

    fn server(&self) -> Result<&'static Server, String> {
        self.kind.server.as_ref().ok_or_else(|| "an embedded kind has no server".to_owned())
    }

    /// Sends a signal to the server and to the processes that it started.
    pub(crate) fn signal(&self, signal: &str) -> Result<(), String> {
        let file = self.directory.join(self.server()?.pid);
        let pid = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let all = family(pid.trim().parse().map_err(|_| format!("no PID in {}", file.display()))?);
        let all: Vec<String> = all.iter().map(u32::to_string).collect();
        // A child may end by itself meanwhile.
        self.run(&format!("kill -{signal} {} 2>/dev/null || true", all.join(" "))).map(drop)
    }

    /// Starts again what has died, as the service manager of a machine does.
    pub(crate) fn restart(&self) -> Result<(), String> {
        let pid = self.server()?.pid;
        // What was killed is collected a moment later; until then a server takes itself for running.
        self.run(&format!(
            "for wait in $(seq 100); do kill -0 \"$(cat \"$DIR/{pid}\")\" 2>/dev/null || break; sleep 0.1; done; \
             \"$REPOSITORY/engines/restart\" \"$DIR\""
        ))
        .map(drop)
    }

    /// Keeps a copy of the data as it is at one instant. What is embedded must be closed.
    pub(crate) fn copy(&self) -> Result<(), String> {
        let Some(Server { data, .. }) = self.kind.server else {
            return self.run("rm -rf \"$COPY\"; cp -a \"$DIR\" \"$COPY\"").map(drop);
        };
        self.signal("STOP")?;
        let copied = self.run(&format!("rm -rf \"$COPY\"; cp -a \"$DIR/{data}\" \"$COPY\""));
        self.signal("CONT")?;
        copied.map(drop)
    }

    /// Puts the copy in place of the data, with the server down. What is embedded must be closed.
    pub(crate) fn restore(&self) -> Result<(), String> {
        let Some(Server { data, .. }) = self.kind.server else {
            return self.run("rm -rf \"$DIR\"; cp -a \"$COPY\" \"$DIR\"").map(drop);
        };
        self.signal("KILL")?;
        self.run(&format!("sleep 0.3; rm -rf \"$DIR/{data}\"; cp -a \"$COPY\" \"$DIR/{data}\""))?;
        self.restart()
    }

    /// Leaves no room on the disk.
    pub(crate) fn fill(&self) -> Result<(), String> {
        let full = self.kind.server.as_ref().and_then(|s| s.full);
        self.run(full.map_or(FILL, |(fill, _)| fill)).map(drop)
    }

    /// Makes room again, and starts a server that did not live without.
    pub(crate) fn free(&self) -> Result<(), String> {
        match &self.kind.server {
            Some(Server { full: Some((_, free)), .. }) => self.run(free).map(drop),
            Some(_) => self.run("rm -f \"$DISK\"/ballast-*").and_then(|_| self.restart()),
            None => self.run("rm -f \"$DISK\"/ballast-*").map(drop),
        }
    }

    /// Takes the credentials of the user away, or gives them back.
    pub(crate) fn credentials(&self, valid: bool) -> Result<(), String> {
        let (revoke, grant) =
            self.server()?.credentials.ok_or("nothing is known of its credentials")?;
        self.run(if valid { grant } else { revoke }).map(drop)
    }

    /// The options of a source, as lines of TOML, reached by another port than its own.
    pub(crate) fn options(&self, namespace: &str, port: u16) -> Result<String, String> {
        let Some(server) = &self.kind.server else {
            let path = self.directory.join(namespace);
            return Ok(format!("path = \"{}\"\n", path.display()));
        };
        let file = self.directory.join("source.toml");
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let there = format!("127.0.0.1:{}", server.port);
        Ok(text.replace("{namespace}", namespace).replace(&there, &format!("127.0.0.1:{port}")))
    }

    /// Deletes what a namespace holds, as an operator would by mistake.
    pub(crate) async fn wipe(&self, namespace: &str) -> Result<(), String> {
        let Some(server) = &self.kind.server else {
            // Each at one instant: what is written again meanwhile stays. One that the store has just deleted is gone.
            let script = format!(
                "mkdir -p \"$DISK/gone\"; for file in \"$DIR\"/{namespace}*; do mv \"$file\" \"$DISK/gone\" || [ ! -e \"$file\" ]; done; rm -rf \"$DISK/gone\""
            );
            return self.run(&script).map(drop);
        };
        let text = self.options(namespace, server.port)?;
        let table: toml::Table = toml::from_str(&text).map_err(|e| e.to_string())?;
        let text = |(name, value): (String, toml::Value)| {
            Some((name, OptionValue::Text(value.as_str()?.to_owned())))
        };
        let options: BTreeMap<_, _> = table.into_iter().filter_map(text).collect();
        crate::engines::wipe(server.name, &Options(options)).await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process and those below it.
fn family(root: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid: u32| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(pid, _)| pid));
        next += 1;
    }
    found
}
