//! Ten thousand random requests, signed here and by oauthlib: both must come to the same signature, and oauthlib must take ours.
//!
//! It needs a Python with oauthlib: that of `tests/interop/.venv` (`python3 tests/interop/run.py --install …` makes it), else `python3`. Without
//! one the test says so and is skipped. `ATTACHE_OAUTHLIB_PYTHON` names one that must do, as the gate does.

use attache::attach::oauth1::{Consumer, Form, Method, RsaKey, Signed, Stamp, TokenPair};
use attache::base::ids::random_bytes;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const REQUESTS: usize = 10_000;
/// RSA takes its time.
const RSA_EVERY: usize = 200;
const KEY: &str = include_str!("../src/attach/oauth1/fixtures/rsa.pem");

/// SplitMix64: a request that fails can be made again from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn text(&mut self, most: usize) -> String {
        const LETTERS: &[&str] =
            &["a", "B", "7", "-", ".", "_", "~", "!", "*", "'", "(", ")", " ", "%", "+", "&", "=", "/", "\"", "é", "☃", "𝄞", "\u{1}"];
        (0..self.below(most + 1)).map(|_| self.one(LETTERS)).collect()
    }

    /// One name or value as some client writes it.
    fn escaped(&mut self, text: &str) -> String {
        let strict = percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
        match self.below(3) {
            0 => strict,
            1 => form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            // What may stand as itself in a query.
            _ => [("%21", "!"), ("%2A", "*"), ("%27", "'"), ("%28", "("), ("%29", ")"), ("%2F", "/"), ("%7E", "~"), ("%2D", "-")]
                .iter()
                .fold(strict, |text, (escape, letter)| text.replace(escape, letter)),
        }
    }

    fn pairs(&mut self) -> String {
        let count = self.below(7);
        let mut all: Vec<String> = (0..count)
            .map(|_| {
                let (name, value) = (self.text(4), self.text(8));
                let name = format!("n{name}");
                match self.below(8) {
                    0 => self.escaped(&name),
                    _ => format!("{}={}", self.escaped(&name), self.escaped(&value)),
                }
            })
            .collect();
        if count > 1 && self.below(3) == 0 {
            all.push(all[0].clone());
        }
        all.join("&")
    }

    fn path(&mut self) -> String {
        let count = self.below(4);
        (0..count)
            .map(|_| {
                format!("/{}", self.one(&["a", "K!images", "a%2Fb", "%C3%A9", "x.y~z", "(1)", "v1.1", "a+b", "p;q=1", "'*'", "@me", ""]))
            })
            .collect()
    }
}

fn consumer(random: &mut Random, number: usize) -> Consumer {
    let method = match random.below(5) {
        _ if number.is_multiple_of(RSA_EVERY) => Method::RsaSha1(RsaKey::parse(KEY.into()).expect("a key")),
        0 => Method::HmacSha256,
        1 => Method::Plaintext,
        _ => Method::HmacSha1,
    };
    let realm = (random.below(3) == 0).then(|| "Photos".into());
    Consumer { key: format!("k{}", random.text(6)).into(), secret: random.text(12).into(), method, realm }
}

/// A request, and its header as we make it.
fn request(random: &mut Random, number: usize) -> Value {
    let consumer = consumer(random, number);
    let tls = consumer.method == Method::Plaintext || random.below(2) == 0;
    let host = random.one(&[
        "api.example.com",
        "API.Example.com",
        "h:443",
        "h:80",
        "localhost:8080",
        "127.0.0.1:7080",
        "[::1]:443",
        "[2001:db8::1]",
    ]);
    let (path, query) = (random.path(), random.pairs());
    let method = random.one(&["GET", "POST", "PUT", "DELETE", "PATCH"]);
    let form = (matches!(method, "POST" | "PUT" | "PATCH") && random.below(2) == 0).then(|| random.pairs()).filter(|form| !form.is_empty());
    let token = (random.below(6) > 0).then(|| (format!("t{}", random.text(8)), random.text(12)));
    let verifier = (random.below(5) == 0).then(|| format!("v{}", random.text(6)));
    let signed = Signed {
        method,
        tls,
        private: true,
        host,
        path: &path,
        query: &query,
        form: form.as_ref().map_or(Form::None, |form| Form::Whole(form.as_bytes())),
    };
    let pair = token.as_ref().map(|(token, secret)| TokenPair { token, secret });
    let more: Vec<_> = verifier.iter().map(|verifier| ("oauth_verifier", verifier.as_str())).collect();
    let stamp = Stamp { timestamp: 1 + random.below(2_000_000_000) as i64, nonce: format!("n{}", random.next()) };
    let authorization = consumer.authorization(&signed, pair, &more, &stamp).expect("signed");
    let question = if query.is_empty() { "" } else { "?" };
    json!({
        "method": method, "uri": format!("{}://{host}{path}{question}{query}", if tls { "https" } else { "http" }), "form": form,
        "key": consumer.key, "secret": consumer.secret.expose(), "signature_method": consumer.method.name(),
        "token": token.as_ref().map(|(token, _)| token), "token_secret": token.as_ref().map(|(_, secret)| secret), "verifier": verifier,
        "timestamp": stamp.timestamp.to_string(), "nonce": stamp.nonce, "authorization": authorization.to_str().expect("text"),
    })
}

/// A Python that has oauthlib.
fn python() -> Option<PathBuf> {
    let has = |python: &Path| {
        let asked =
            Command::new(python).args(["-c", "import oauthlib, jwt, cryptography"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    if let Some(named) = std::env::var_os("ATTACHE_OAUTHLIB_PYTHON") {
        // From the folder that the tests run in.
        let named = Path::new(env!("CARGO_MANIFEST_DIR")).join(named);
        assert!(has(&named), "{} has no oauthlib", named.display());
        return Some(named);
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/.venv/bin/python");
    [own, PathBuf::from("python3")].into_iter().find(|python| has(python))
}

#[test]
fn oauthlib_signs_as_we_do_and_takes_what_we_signed() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: no Python with oauthlib is here; `python3 tests/interop/run.py --install …` gets one");
        return;
    };
    let seed = u64::from_le_bytes(random_bytes::<8>());
    let mut random = Random(seed);
    let mut checking = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/oauthlib-server/check.py"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/attach/oauth1/fixtures/rsa.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut input = checking.stdin.take().expect("piped");
    for number in 0..REQUESTS {
        // A check that gave up closes its end; what it says then is what counts.
        if writeln!(input, "{}", request(&mut random, number)).is_err() {
            break;
        }
    }
    drop(input);
    let told = checking.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "seed {seed}: {said}");
    assert_eq!(said.trim(), format!("{REQUESTS} agree"), "seed {seed}");
}
