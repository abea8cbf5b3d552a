//! Names to addresses, with a short memory.
//!
//! The system's own resolver is asked (`getaddrinfo`), so that `/etc/hosts`, `nsswitch` and a cluster's search domains hold. It tells no time to
//! live, hence a memory that is short and fixed: long enough that a burst of connects asks once, short enough that a moved name is followed.
//! Where the resolver fails, what it last said is gone by for a while; and whoever finds all addresses dead asks anew.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is taken without asking again.
const FRESH: Duration = Duration::from_secs(30);
/// How long it stands in for one that does not come.
const STALE: Duration = Duration::from_secs(300);
/// How long a failure is one for others who ask.
const FAILED: Duration = Duration::from_secs(1);
/// How long the resolver is waited for where there is an older answer.
const ASK_FOR: Duration = Duration::from_secs(2);
/// Names remembered. The hosts of connections are many.
const NAMES_MAX: usize = 4096;

pub(super) type Looked = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
type Lookup = dyn Fn(String) -> Looked + Send + Sync;

#[derive(Default)]
struct Known {
    /// Also after a failure that came later.
    addresses: Vec<IpAddr>,
    looked: Option<Instant>,
    failed: Option<(Instant, String)>,
}

type Names = HashMap<Box<str>, Arc<tokio::sync::Mutex<Known>>>;

/// A resolver with its memory; clones share it.
#[derive(Clone)]
pub struct Dns {
    lookup: Arc<Lookup>,
    /// The outer lock is held for a look alone; the inner one while a name is asked for, so that it is asked for once.
    names: Arc<Mutex<Names>>,
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub addresses: Vec<SocketAddr>,
    /// From memory: the name may stand for others by now.
    pub remembered: bool,
}

impl Dns {
    /// Asks the system.
    pub fn system() -> Dns {
        Dns::asking(|host| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((host, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        })
    }

    pub(super) fn asking(lookup: impl Fn(String) -> Looked + Send + Sync + 'static) -> Dns {
        Dns { lookup: Arc::new(lookup), names: Arc::default() }
    }

    /// The addresses of a host, in the resolver's order. `anew`: not from memory, unless the resolver fails.
    ///
    /// # Errors
    /// In the resolver's words.
    pub async fn resolve(&self, host: &str, port: u16, anew: bool) -> Result<Resolved, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Resolved { addresses: vec![(address, port).into()], remembered: false });
        }
        let slot = self.slot(host);
        let mut known = slot.lock().await;
        let now = Instant::now();
        let within = |at: Instant, span: Duration| now.saturating_duration_since(at) < span;
        let mut remembered = !anew && known.looked.is_some_and(|at| within(at, FRESH));
        if !remembered {
            let just_failed = known.failed.as_ref().filter(|(at, _)| within(*at, FAILED)).map(|(_, why)| why.clone());
            let looked = match just_failed {
                Some(why) => Err(why),
                None => self.ask(host, !known.addresses.is_empty()).await.inspect_err(|why| {
                    known.failed = Some((Instant::now(), why.clone()));
                }),
            };
            match looked {
                Ok(addresses) => *known = Known { addresses, looked: Some(Instant::now()), failed: None },
                Err(why) if known.addresses.is_empty() || !known.looked.is_some_and(|at| within(at, STALE)) => return Err(why),
                Err(_) => remembered = true,
            }
        }
        let addresses = known.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        Ok(Resolved { addresses, remembered })
    }

    /// Without end only where nothing else is known: whoever connects has a limit of their own.
    async fn ask(&self, host: &str, has_other: bool) -> Result<Vec<IpAddr>, String> {
        let looking = (self.lookup)(host.to_owned());
        let looked = match has_other {
            true => tokio::time::timeout(ASK_FOR, looking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            false => looking.await,
        };
        looked.map_err(|error| error.to_string())
    }

    fn slot(&self, host: &str) -> Arc<tokio::sync::Mutex<Known>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = names.get(host) {
            return Arc::clone(slot);
        }
        if names.len() >= NAMES_MAX {
            // All of it: what is in use is asked for again, and who is waiting holds a slot of their own.
            names.clear();
        }
        Arc::clone(names.entry(host.into()).or_default())
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    /// Answers 10.0.0.N to the Nth question; the questions from `fails` on fail.
    fn counting(fails: u8) -> (Dns, Arc<AtomicU8>) {
        let asked = Arc::new(AtomicU8::new(0));
        let count = Arc::clone(&asked);
        let dns = Dns::asking(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            Box::pin(async move {
                tokio::task::yield_now().await;
                if number >= fails { Err(io::Error::other("no answer")) } else { Ok(vec![IpAddr::from([10, 0, 0, number])]) }
            })
        });
        (dns, asked)
    }

    fn last(resolved: Result<Resolved, String>) -> (u8, bool) {
        let resolved = resolved.expect("resolved");
        let IpAddr::V4(address) = resolved.addresses[0].ip() else { panic!("an IPv4 address") };
        (address.octets()[3], resolved.remembered)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_once_in_a_while_however_many_want_it() {
        let (dns, asked) = counting(u8::MAX);
        let all = futures_util::future::join_all((0..50).map(|_| dns.resolve("a.test", 1, false))).await;
        assert!(all.into_iter().all(|found| last(found).0 == 1));
        tokio::time::advance(FRESH - Duration::from_secs(1)).await;
        assert_eq!(last(dns.resolve("a.test", 1, false).await), (1, true));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(last(dns.resolve("a.test", 1, false).await), (2, false));
        assert_eq!(last(dns.resolve("a.test", 1, true).await), (3, false));
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_stands_in_for_a_resolver_that_fails_but_not_for_ever() {
        let (dns, asked) = counting(2);
        assert_eq!(last(dns.resolve("a.test", 1, false).await), (1, false));
        tokio::time::advance(FRESH + Duration::from_secs(1)).await;
        assert_eq!(last(dns.resolve("a.test", 1, false).await), (1, true));
        assert_eq!(last(dns.resolve("a.test", 1, true).await), (1, true));
        assert_eq!(asked.load(Ordering::SeqCst), 2, "a failure is not asked for again at once");
        tokio::time::advance(STALE).await;
        assert!(dns.resolve("a.test", 1, false).await.is_err());
        assert!(dns.resolve("b.test", 1, false).await.is_err());
    }

    #[tokio::test]
    async fn memory_is_bounded_and_addresses_are_no_names() {
        let (dns, asked) = counting(1);
        for number in 0..NAMES_MAX * 2 + 1 {
            dns.slot(&format!("{number}.test"));
        }
        assert!(dns.names.lock().expect("unpoisoned").len() <= NAMES_MAX);
        let found = dns.resolve("::1", 7, false).await.expect("an address");
        assert_eq!(found.addresses, ["[::1]:7".parse().expect("valid")]);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }
}
