//! Real database servers for tests: started once a test program in a temporary folder, and gone with it. A test asks for a database of its own.
//!
//! What is not there is said, and the test skipped; with `CI` set it is an error. `ATTACHE_TEST_POSTGRES_URL` names a server to use instead.

use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A server that ends, with its folder, when this program does: a shell waits for the end of its input.
struct Server {
    url: String,
    _shell: Child,
}

static POSTGRES: OnceLock<Option<Server>> = OnceLock::new();
static REDIS: OnceLock<Option<Server>> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Said loudly, for a test that is skipped in silence proves nothing.
fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} is not there, and in CI it has to be");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what} is not there");
}

fn find(program: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    // Debian keeps PostgreSQL's programs out of the path.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The number of a user or group that is not root: PostgreSQL runs as none other.
fn nobody() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut parts = line.split(':').skip(2);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody"))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Runs a server under a shell that ends it, and removes its folder, at the end of this program.
fn guarded(folder: &Path, signal: &str, program: &Path, args: &[&str], identity: Option<(u32, u32)>) -> Child {
    let script = format!(
        "folder=$1; shift; \"$@\" >\"$folder/log\" 2>&1 </dev/null & child=$!; cat >/dev/null; kill -{signal} $child; wait $child; rm -rf \"$folder\""
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").arg(folder).arg(program).args(args).stdin(Stdio::piped()).current_dir(folder);
    if let Some((uid, gid)) = identity {
        command.uid(uid).gid(gid);
    }
    command.spawn().expect("a shell")
}

fn start_postgres() -> Option<Server> {
    let (Some(initdb), Some(postgres)) = (find("initdb"), find("postgres")) else {
        missing("PostgreSQL (initdb, postgres)");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder").keep();
    let identity = if Path::new("/root").metadata().is_ok_and(|root| std::os::unix::fs::MetadataExt::uid(&root) == 0) && is_root() {
        nobody()
    } else {
        None
    };
    if let Some((uid, gid)) = identity {
        chown(&folder, Some(uid), Some(gid)).expect("given away");
    }
    let data = folder.join("data");
    let mut made = Command::new(initdb);
    made.arg("-D").arg(&data).args(["-U", "attache", "--auth=trust", "-E", "UTF8", "--no-sync"]).current_dir(&folder).stdout(Stdio::null());
    if let Some((uid, gid)) = identity {
        made.uid(uid).gid(gid);
    }
    assert!(made.status().expect("run").success(), "initdb");
    let port = free_port();
    let (port_text, sockets) = (format!("port={port}"), format!("unix_socket_directories={}", folder.display()));
    let data = data.display().to_string();
    let args = ["-D", &data, "-c", "listen_addresses=127.0.0.1", "-c", &port_text, "-c", &sockets, "-c", "max_connections=300"];
    let shell = guarded(&folder, "QUIT", &postgres, &args, identity);
    Some(Server { url: format!("postgres://attache@127.0.0.1:{port}/postgres"), _shell: shell })
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")))
}

/// The URL of a new, empty database; `None` where there is no PostgreSQL.
pub(super) async fn postgres_url() -> Option<String> {
    let base = match std::env::var("ATTACHE_TEST_POSTGRES_URL") {
        Ok(url) => url,
        Err(_) => tokio::task::spawn_blocking(|| POSTGRES.get_or_init(start_postgres).as_ref().map(|server| server.url.clone()))
            .await
            .expect("started")?,
    };
    let name = format!("attache_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
    // It may be starting still.
    for _ in 0..200 {
        if let Ok((client, connection)) = tokio_postgres::connect(&base, tokio_postgres::NoTls).await {
            let driver = tokio::spawn(connection);
            client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
            driver.abort();
            let (server, _) = base.rsplit_once('/').expect("a URL with a database");
            return Some(format!("{server}/{name}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("PostgreSQL does not answer");
}

fn start_redis() -> Option<Server> {
    let Some(program) = find("redis-server") else {
        missing("redis-server");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder").keep();
    let (port, dir) = (free_port(), folder.display().to_string());
    let port_text = port.to_string();
    let args = [
        "--bind",
        "127.0.0.1",
        "--port",
        &port_text,
        "--dir",
        &dir,
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--databases",
        "512",
    ];
    let shell = guarded(&folder, "KILL", &program, &args, None);
    Some(Server { url: format!("redis://127.0.0.1:{port}"), _shell: shell })
}

/// The URL of a new, empty database; `None` where there is no Redis.
pub(super) async fn redis_url() -> Option<String> {
    let base =
        tokio::task::spawn_blocking(|| REDIS.get_or_init(start_redis).as_ref().map(|server| server.url.clone())).await.expect("started")?;
    let address = base.strip_prefix("redis://").expect("its own URL").to_owned();
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(&address).await.is_ok() {
            return Some(format!("{base}/{}", DATABASES.fetch_add(1, Ordering::Relaxed)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("Redis does not answer");
}
