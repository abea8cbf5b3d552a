//! Refreshes that no call begins. Time is real while sockets are at work, and is moved in between.

use super::*;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The upkeep under way, and how its config changes.
struct Kept {
    task: JoinHandle<()>,
    reg: Arc<Mutex<Registration>>,
    generation: watch::Sender<u64>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    /// Under way, and with its schedule read where it wants one.
    async fn kept(&self, change: impl FnOnce(&mut Registration)) -> Kept {
        let mut reg = Registration::clone(&self.reg);
        change(&mut reg);
        let wants = reg.refresh.ahead || reg.keep_alive.is_some();
        let reg = Arc::new(Mutex::new(reg));
        let (generation, generations) = watch::channel(0);
        let live = Arc::clone(&reg);
        let registrations = move || {
            let reg = live.lock().expect("unpoisoned").clone();
            Registrations::from([(Arc::clone(&reg.id), Arc::new(reg))])
        };
        let task = tokio::spawn(Arc::clone(&self.keeper).upkeep(registrations, generations));
        if wants {
            self.scanned(1).await;
        }
        Kept { task, reg, generation }
    }

    async fn scanned(&self, times: usize) {
        until("the schedule is read", async || self.store.scans.load(Ordering::SeqCst) >= times).await;
    }

    /// Moves both clocks, while no socket is at work.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    async fn posted(&self, count: usize) {
        until("the refresh", async || self.posts() == count && self.keeper.is_idle()).await;
    }

    /// Time for a refresh that must not come.
    async fn nothing_comes(&self) {
        let before = self.posts();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(self.posts(), before);
    }
}

#[tokio::test]
async fn a_token_is_fresh_before_anyone_asks() {
    let world = World::after(0).await;
    let _kept = world.kept(|reg| reg.refresh.ahead = true).await;
    world.pass(Duration::from_secs(3200)).await;
    world.nothing_comes().await;
    assert_eq!(world.posts(), 0, "not before its margin");
    world.pass(Duration::from_secs(101)).await;
    world.posted(1).await;
    assert_eq!(world.stored().await.expect("stored").access_token, "A1".into());
    // And so on, an hour later.
    world.pass(Duration::from_secs(5)).await;
    world.nothing_comes().await;
    world.pass(Duration::from_secs(3300)).await;
    world.posted(2).await;
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R2".into()));
}

#[tokio::test]
async fn a_grant_that_nobody_uses_is_kept_alive() {
    let world = World::empty().await;
    world.put(&Connection { expires_at: None, ..connection() }).await;
    let _kept = world.kept(|reg| reg.keep_alive = Some(7 * DAY)).await;
    world.pass(6 * DAY).await;
    world.nothing_comes().await;
    assert_eq!(world.posts(), 0);
    world.pass(DAY + Duration::from_secs(1)).await;
    world.posted(1).await;
    assert_eq!(world.stored().await.expect("stored").refresh_token, Some("R1".into()));
}

#[tokio::test]
async fn connections_that_come_and_go_are_followed() {
    let world = World::empty().await;
    let _kept = world.kept(|reg| reg.refresh.ahead = true).await;
    world.put(&connection()).await;
    let other = ConnectionKey::new("acme", "adam", "default");
    world.put(&Connection { key: other.clone(), id: "con_2".into(), ..connection() }).await;
    world.pass(Duration::from_secs(3)).await;
    world.nothing_comes().await;
    world.records.delete_connection(&other).await.expect("deleted");
    world.keeper.forget(other.borrow());
    world.nothing_comes().await;
    world.pass(HOUR).await;
    world.posted(1).await;
    assert_eq!(world.endpoint.seen()[0].form["refresh_token"], "R0");
    assert_eq!(world.stored().await.expect("stored").access_token, "A1".into());
}

#[tokio::test]
async fn an_edit_of_the_config_begins_and_ends_it() {
    let world = World::expired().await;
    let kept = world.kept(|_| {}).await;
    world.nothing_comes().await;
    assert_eq!(world.store.scans.load(Ordering::SeqCst), 0, "nothing is read where nobody wants it");
    kept.reg.lock().expect("unpoisoned").refresh.ahead = true;
    kept.generation.send_replace(1);
    world.posted(1).await;
    kept.reg.lock().expect("unpoisoned").refresh.ahead = false;
    kept.generation.send_replace(2);
    world.nothing_comes().await;
    world.pass(3 * HOUR).await;
    world.nothing_comes().await;
    assert_eq!(world.posts(), 1);
}

/// The watch tells at most its queue's length: what it dropped is found in the store.
#[tokio::test]
async fn changes_that_were_missed_are_read_from_the_store() {
    let world = World::empty().await;
    world.clock.advance(2 * HOUR);
    let _kept = world.kept(|reg| reg.refresh.ahead = true).await;
    // In one go, so that nobody reads in between.
    let writes = async {
        world.records.put_connection(&connection(), Expect::Any).await.expect("written");
        for user in 0..1500 {
            let key = ConnectionKey::new("acme", &format!("u{user}"), "default");
            world.records.put_connection(&Connection { key, expires_at: None, ..connection() }, Expect::Any).await.expect("written");
        }
    };
    tokio::task::unconstrained(writes).await;
    world.nothing_comes().await;
    world.pass(Duration::from_secs(10)).await;
    world.scanned(2).await;
    world.posted(1).await;
    assert_eq!(world.stored().await.expect("stored").access_token, "A1".into());
}

/// Without the limit on background refreshes, or the spread of what is overdue, they would all go out in one moment.
#[tokio::test]
async fn threat_35_what_expired_together_is_refreshed_a_few_at_a_time() {
    let world = World::expired().await;
    for user in 1..200 {
        let key = ConnectionKey::new("acme", &format!("u{user}"), "default");
        world.put(&Connection { key, id: format!("con_{user}").into(), ..connection() }).await;
    }
    world.endpoint.hold();
    let _kept = world.kept(|reg| reg.refresh.ahead = true).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.posts() < 64, "spread over four seconds");
    until("as many as may", async || world.posts() == 64).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.posts(), 64);
    world.endpoint.release();
    for _ in 0..3 {
        let done = tokio::time::timeout(Duration::from_secs(9), world.posted(200)).await;
        if done.is_ok() {
            break;
        }
    }
    assert_eq!(world.posts(), 200, "each once");
}

#[tokio::test]
async fn a_failure_is_waited_out_and_a_circuit_respected() {
    let world = World::expired().await;
    world.endpoint.script([Answer::json(503, "{}").with("retry-after", "200")]);
    let _kept = world.kept(|reg| reg.refresh.ahead = true).await;
    world.posted(1).await;
    until("the failure is on record", async || world.stored().await.is_some_and(|stored| stored.refresh_failures == 1)).await;
    world.pass(Duration::from_secs(3)).await;
    world.nothing_comes().await;
    world.pass(Duration::from_secs(190)).await;
    world.nothing_comes().await;
    assert_eq!(world.posts(), 1);
    for _ in 0..20 {
        world.pass(Duration::from_secs(20)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.posted(2).await;
    assert_eq!(world.stored().await.expect("stored").access_token, "A2".into());
}

/// Without the steady clock in the schedule a clock set forward would have all connections refreshed in one moment, and one set back none for an hour.
#[tokio::test]
async fn threat_34_a_clock_that_jumps_begins_no_storm_ahead_of_calls() {
    let world = World::after(0).await;
    let _kept = world.kept(|reg| reg.refresh.ahead = true).await;
    world.clock.set(START.plus(2 * HOUR));
    world.nothing_comes().await;
    assert_eq!(world.posts(), 0);
    world.clock.set(START.minus(HOUR));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3301)).await;
    tokio::time::resume();
    world.posted(1).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(600)).await;
    tokio::time::resume();
    world.nothing_comes().await;
    assert_eq!(world.posts(), 1);
}
