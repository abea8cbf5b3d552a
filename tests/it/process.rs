//! The real program as a child process.

use crate::wire::until;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
    // A clean environment, so that the machine's own cannot reach in.
    command.args(args).current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// Runs to the end with this on standard input.
pub fn run_with(folder: &Path, args: &[&str], input: &str) -> Finished {
    let mut child = command(folder, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("ended");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Finished { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub fn run(folder: &Path, args: &[&str]) -> Finished {
    run_with(folder, args, "")
}

/// A program that runs until it is told to stop; dropping it kills it.
pub struct Process {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

impl Process {
    pub fn spawn(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = command(folder, args);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("spawned");
        let (out, err) = (gather(child.stdout.take().expect("piped")), gather(child.stderr.take().expect("piped")));
        Process { child, out, err }
    }

    /// The same, by a shell that does `first` and then becomes the program.
    pub fn spawn_by_shell(folder: &Path, first: &str, args: &[&str]) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{first} \"$0\" \"$@\""), env!("CARGO_BIN_EXE_attache")]).args(args).current_dir(folder).env_clear();
        command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("spawned");
        let (out, err) = (gather(child.stdout.take().expect("piped")), gather(child.stderr.take().expect("piped")));
        Process { child, out, err }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        self.out.lock().expect("unpoisoned").clone()
    }

    pub fn err(&self) -> String {
        self.err.lock().expect("unpoisoned").clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signalled");
    }

    /// Whether the signal has a handler by now; until then it would end the program.
    pub fn catches(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running program");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("there");
        u64::from_str_radix(caught.trim(), 16).expect("a mask") >> (signal.as_raw() - 1) & 1 == 1
    }

    /// Its memory in use, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running program");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Where it listens, once it is ready: the proxy's address and the admin's.
    pub async fn ready(&mut self) -> (SocketAddr, SocketAddr) {
        let mut ended = None;
        until("the program is ready", async || {
            ended = self.child.try_wait().expect("asked");
            ended.is_some() || self.err().contains("attache is ready")
        })
        .await;
        let log = self.err();
        assert!(ended.is_none(), "it ended: {log}");
        let line = log.lines().find(|line| line.contains("attache is ready")).expect("there");
        let address = |name: &str| {
            let text = line.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
            let text = text.trim_start_matches(['=', '"', ':']).trim_start_matches("http://").trim_start_matches("https://");
            text.split([' ', '"', ',']).next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"))
        };
        (address("proxy"), address("admin"))
    }

    /// Waits for its end; the exit code, `None` if a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("the program ends", async || {
            status = self.child.try_wait().expect("asked");
            status.is_some()
        })
        .await;
        status.expect("ended").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text: Arc<Mutex<String>> = Arc::default();
    let kept = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            text.lock().expect("unpoisoned").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    kept
}
