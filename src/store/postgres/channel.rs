//! How a replica learns of the others' changes: LISTEN on a connection of its own, and a count that shows when something was missed.
//!
//! A change is told in the transaction that makes it, so that it comes in the order of the commits. When the channel breaks, or the count moved on
//! without it, whoever watches is told that anything may have changed: at the break, every second while it lasts, and once it is mended.

use super::{PostgresUrl, Shared, batch};
use crate::store::StoreError;
use deadpool_postgres::Pool;
use futures_util::{StreamExt, stream};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How often the count is compared.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one look, and the answer to the channel's own sign of life, may take: a half-open connection is noticed within their sum.
const WITHIN: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_millis(250);
const SWEEP_EVERY: Duration = Duration::from_secs(300);

pub(super) struct Channel {
    pub(super) pool: Pool,
    pub(super) url: PostgresUrl,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) shared: Arc<Shared>,
}

/// A connection that listens, and what it hears.
struct Listening {
    client: Client,
    heard: mpsc::UnboundedReceiver<String>,
    driver: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Channel {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the first connection cannot be had.
    pub(super) async fn start(self) -> Result<JoinHandle<()>, StoreError> {
        let first = self.listen().await?;
        Ok(tokio::spawn(self.run(first)))
    }

    async fn listen(&self) -> Result<Listening, StoreError> {
        let config = self.url.config();
        let late = || StoreError::Unavailable(format!("{}: no connection within {} s", self.shared.place, WITHIN.as_secs()));
        let (tell, heard) = mpsc::unbounded_channel();
        let failed = |error: tokio_postgres::Error| self.shared.unavailable(&error);
        let (client, driver) = if self.url.tls {
            let connecting = config.connect(MakeRustlsConnect::new(ClientConfig::clone(&self.tls)));
            let (client, connection) = timeout(WITHIN, connecting).await.map_err(|_| late())?.map_err(failed)?;
            (client, tokio::spawn(drive(connection, tell)))
        } else {
            let (client, connection) = timeout(WITHIN, config.connect(NoTls)).await.map_err(|_| late())?.map_err(failed)?;
            (client, tokio::spawn(drive(connection, tell)))
        };
        let listening = Listening { client, heard, driver };
        timeout(WITHIN, listening.client.batch_execute("LISTEN attache")).await.map_err(|_| late())?.map_err(failed)?;
        Ok(listening)
    }

    async fn run(self, first: Listening) {
        let mut listening = Some(first);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The highest place that was heard, and the count at the last look.
        let (mut heard_to, mut counted) = (0, None);
        let mut swept = Instant::now();
        loop {
            let message = async {
                match &mut listening {
                    Some(listening) => listening.heard.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = message => match message {
                    Some(payload) => heard_to = self.hear(&payload).unwrap_or(0).max(heard_to),
                    None => {
                        tracing::warn!(store = %self.shared.place, "the store's channel broke: changes are looked for every second until it is back");
                        listening = None;
                        self.shared.tell_doubt();
                    }
                },
                _ = looks.tick() => {
                    if let Some(open) = &listening
                        && !matches!(timeout(WITHIN, open.client.batch_execute("")).await, Ok(Ok(())))
                    {
                        tracing::warn!(store = %self.shared.place, "the store's channel does not answer: it is made anew");
                        listening = None;
                        self.shared.tell_doubt();
                    }
                    let now = self.look().await;
                    // What was counted a look ago was committed or nothing since: it must have been heard by now.
                    let missed = match (counted, now, &listening) {
                        (Some(before), Some(_), Some(_)) => before > heard_to,
                        (Some(before), Some(now), None) => now != before,
                        _ => false,
                    };
                    if missed {
                        self.shared.tell_doubt();
                        heard_to = counted.unwrap_or(0).max(heard_to);
                    }
                    counted = now.or(counted);
                    if listening.is_none() {
                        tokio::time::sleep(RETRY_AFTER).await;
                        if let Ok(again) = self.listen().await {
                            tracing::info!(store = %self.shared.place, "the store's channel is back");
                            listening = Some(again);
                            heard_to = self.look().await.unwrap_or(heard_to);
                            self.shared.tell_doubt();
                        }
                    }
                    if swept.elapsed() > SWEEP_EVERY {
                        swept = Instant::now();
                        self.sweep().await;
                    }
                }
            }
        }
    }

    /// Passes one change on, unless it is our own, which its writer has told. Answers its place among all.
    fn hear(&self, payload: &str) -> Option<i64> {
        let (who, place, change) = batch::parse(payload)?;
        if who != self.shared.me {
            let _ = self.shared.changes.send(change);
        }
        Some(place)
    }

    /// The count of changes; `None`, and the store said to be down, where it cannot be had.
    async fn look(&self) -> Option<i64> {
        let looked = timeout(WITHIN, async {
            let client = self.pool.get().await.map_err(|error| self.shared.unavailable(&error))?;
            // A sequence that was never used has not been called once.
            let query = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attache.changes";
            let row = client.query_typed_one(query, &[]).await.map_err(|error| self.shared.unavailable(&error))?;
            row.try_get::<_, i64>(0).map_err(|error| self.shared.unavailable(&error))
        })
        .await;
        match looked {
            Ok(Ok(count)) => {
                self.shared.set_down(None);
                Some(count)
            }
            Ok(Err(error)) => {
                let StoreError::Unavailable(why) = error else { return None };
                self.shared.set_down(Some(why));
                None
            }
            Err(_) => {
                self.shared.set_down(Some(format!("{}: no answer within {} s", self.shared.place, WITHIN.as_secs())));
                None
            }
        }
    }

    /// Leases that ended long ago are nobody's.
    async fn sweep(&self) {
        if let Ok(client) = self.pool.get().await {
            let _ = timeout(WITHIN, client.batch_execute("DELETE FROM attache.leases WHERE until < clock_timestamp() - interval '1 hour'"))
                .await;
        }
    }
}

/// Drives the connection and passes on what it hears, until it ends.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, tell: mpsc::UnboundedSender<String>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
    while let Some(Ok(message)) = messages.next().await {
        if let AsyncMessage::Notification(notification) = message
            && tell.send(notification.payload().to_owned()).is_err()
        {
            return;
        }
    }
}
