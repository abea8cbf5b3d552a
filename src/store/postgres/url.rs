//! A PostgreSQL URL as operators know it from libpq, with what its `sslmode` means here.
//!
//! `sslmode=disable` is plain; `require`, `verify-ca` and `verify-full` all verify the server's certificate and its name, for a TLS that trusts
//! anybody keeps nobody out. Without one: plain to loopback and sockets, verified TLS to everywhere else. `sslrootcert` names the authorities.

use crate::base::loopback::is_loopback_host;
use crate::base::secret::Secret;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use url::Url;

/// Why a text is no URL for a store; never with the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    #[error("expected a URL like `postgres://user:password@host/database`")]
    NoUrl,
    #[error("`sslmode` is one of `disable`, `require` and `verify-full`")]
    SslMode,
    #[error("a parameter of the URL is not known: {0}")]
    Parameter(String),
}

#[derive(Clone, PartialEq)]
pub struct PostgresUrl {
    config: Config,
    pub(super) tls: bool,
    /// `sslrootcert`: whom to trust in place of the machine's roots.
    pub root_cert: Option<PathBuf>,
}

impl PostgresUrl {
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &Secret) -> Result<PostgresUrl, UrlFault> {
        let mut url = Url::parse(text.expose()).map_err(|_| UrlFault::NoUrl)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(UrlFault::NoUrl);
        }
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let (mut mode, mut root_cert) = (None, None);
        url.set_query(None);
        for (name, value) in pairs {
            match &*name {
                "sslmode" => mode = Some(value),
                "sslrootcert" => root_cert = Some(PathBuf::from(value)),
                _ => drop(url.query_pairs_mut().append_pair(&name, &value)),
            }
        }
        let mut config = Config::from_str(url.as_str()).map_err(|error| {
            // Its words name the parameter and not its value.
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            UrlFault::Parameter(why)
        })?;
        let is_near = config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => is_loopback_host(name),
            Host::Unix(_) => true,
        });
        let tls = match mode.as_deref() {
            None | Some("prefer" | "allow") => !is_near || root_cert.is_some(),
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => return Err(UrlFault::SslMode),
        };
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        config.application_name("attache").connect_timeout(Duration::from_secs(4));
        config.keepalives(true).keepalives_idle(Duration::from_secs(15)).keepalives_interval(Duration::from_secs(5)).keepalives_retries(2);
        config.tcp_user_timeout(Duration::from_secs(10));
        Ok(PostgresUrl { config, tls, root_cert })
    }

    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }

    /// Where it is, without user and password.
    pub fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("PostgreSQL at {host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl Eq for PostgresUrl {}

/// Never its password.
impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresUrl").field(&self.place()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresUrl, UrlFault> {
        PostgresUrl::parse(&Secret::new(text))
    }

    #[test]
    fn tls_is_the_rule_off_this_machine() {
        for (url, tls) in [
            ("postgres://u:hunter2@127.0.0.1/db", false),
            ("postgres://u@localhost/db", false),
            ("postgres://u@db.example.com/db", true),
            ("postgres://u@db.example.com/db?sslmode=disable", false),
            ("postgres://u@db.example.com/db?sslmode=prefer", true),
            ("postgresql://u@127.0.0.1/db?sslmode=verify-full", true),
            ("postgres://u@127.0.0.1/db?sslrootcert=/etc/ca.pem&sslmode=require", true),
        ] {
            assert_eq!(parse(url).expect(url).tls, tls, "{url}");
        }
        let url =
            parse("postgres://u:hunter2@db.example.com:6432/db?sslrootcert=/etc/ca.pem&target_session_attrs=read-write").expect("a URL");
        assert_eq!(
            (url.place().as_str(), url.root_cert.as_deref()),
            ("PostgreSQL at db.example.com:6432/db", Some(std::path::Path::new("/etc/ca.pem")))
        );
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_none_is_told_without_its_text() {
        assert_eq!(parse("mysql://u:hunter2@h/db").expect_err("refused"), UrlFault::NoUrl);
        assert_eq!(parse("hunter2").expect_err("refused"), UrlFault::NoUrl);
        assert_eq!(parse("postgres://u:hunter2@h/db?sslmode=maybe").expect_err("refused"), UrlFault::SslMode);
        let fault = parse("postgres://u:hunter2@h/db?no_such=hunter2").expect_err("refused");
        assert!(matches!(&fault, UrlFault::Parameter(why) if !why.contains("hunter2")), "{fault}");
    }
}
