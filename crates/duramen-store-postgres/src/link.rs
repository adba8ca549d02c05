//! One connection that comes back: requests share it, pipelined, in the order in which they are made.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use duramen_core::store::StoreError;
use futures_util::future::join3;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedRwLockWriteGuard, RwLock};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Fault, store_error};
use crate::flavour::Flavour;
use crate::migrate;
use crate::options::{Isolation, Statements};
use crate::sql::{Sql, settings};

/// After a lost connection requests wait this long for a new one before they fail.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a statement waits for a lock on the server, with all others of its connection behind it. Statements pass
/// over runs that others have locked; this is for ids that are about to be created, and for rows beside the runs.
const LOCK_WAIT: Duration = Duration::from_millis(10);
/// Between two attempts to get at a row that others have locked.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_LOCK_PAUSE: Duration = Duration::from_millis(500);

/// How often a statement is tried again that the server refused with 40001 or 40P01: under READ COMMITTED
/// that hardly happens; SERIALIZABLE refuses more the more there is going on.
pub(crate) const REPEATS: u32 = 6;

pub(crate) type Params<'p> = [&'p (dyn ToSql + Sync)];

/// Where the server is and how it is talked to.
pub(crate) struct Target {
    pub(crate) config: Config,
    pub(crate) tls: MakeRustlsConnect,
    pub(crate) statements: Statements,
    pub(crate) isolation: Isolation,
    /// Known when the tables were looked at.
    pub(crate) flavour: OnceLock<Flavour>,
    /// How long requests come back for runs that others have locked.
    pub(crate) patience: Duration,
    pub(crate) timeout: Duration,
    /// Host, port and database for messages; no password.
    pub(crate) place: String,
    pub(crate) counters: Counters,
}

/// What was sent to the server since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Statements of the store (not those that set a session up).
    pub(crate) statements: AtomicU64,
    /// Times that something was sent and its answer waited for.
    pub(crate) round_trips: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) connects: AtomicU64,
}

impl Target {
    fn settings(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        settings(self.flavour.get().copied().unwrap_or(Flavour::Plain))
    }

    pub(crate) fn error(&self, fault: Fault) -> StoreError {
        store_error(&self.place, fault, migrate::MIGRATIONS.needed())
    }
}

/// Takes the payload of a notification.
pub(crate) type Hear = Box<dyn Fn(&str) + Send + Sync>;

pub(crate) struct Session {
    client: Client,
    /// Statements of this session by their texts' addresses, which live as long as the store.
    prepared: Mutex<BTreeMap<usize, Arc<OnceCell<Statement>>>>,
    driver: AbortHandle,
    /// Single statements share the session; a transaction of several has it to itself.
    gate: Arc<RwLock<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Otherwise a connection whose peer is gone for good would be waited for for ever.
        self.driver.abort();
    }
}

pub(crate) struct Link {
    target: Arc<Target>,
    slot: AsyncMutex<Slot>,
}

#[derive(Default)]
struct Slot {
    session: Option<Arc<Session>>,
    /// When the last attempt to connect was given up, and why.
    given_up: Option<(Instant, StoreError)>,
}

impl Link {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            slot: AsyncMutex::default(),
        }
    }

    /// Connects now and says why if that cannot be done; no patience.
    pub(crate) async fn open(&self) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        slot.session = Some(Arc::new(connect(&self.target, None).await?));
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.slot.lock().await.session = None;
    }

    /// The session; a lost one is replaced, with a growing pause between attempts. Whoever has waited here
    /// while another gave up gives up too: a hundred requests do not wait a hundred times.
    async fn session(&self) -> Result<Arc<Session>, Fault> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        if let Some(session) = slot.session.as_ref().filter(|one| !one.is_closed()) {
            return Ok(Arc::clone(session));
        }
        slot.session = None;
        if let Some((at, error)) = &slot.given_up
            && *at > asked
        {
            return Err(Fault::Known(error.clone()));
        }
        let end = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            match connect(&self.target, None).await {
                Ok(session) => {
                    let session = Arc::new(session);
                    slot.session = Some(Arc::clone(&session));
                    slot.given_up = None;
                    return Ok(session);
                }
                Err(fault) if Instant::now() + pause >= end => {
                    let error = self.target.error(fault);
                    slot.given_up = Some((Instant::now(), error.clone()));
                    return Err(Fault::Known(error));
                }
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn forget(&self, lost: &Arc<Session>) {
        let mut slot = self.slot.lock().await;
        if slot
            .session
            .as_ref()
            .is_some_and(|one| Arc::ptr_eq(one, lost))
        {
            slot.session = None;
        }
    }

    /// Runs one statement as a transaction of its own. What the server asks to be tried again is tried
    /// again, a bounded number of times; a row or a table that others have locked is come back for, so that the
    /// connection is free in between.
    pub(crate) async fn run(&self, sql: &Sql, params: &Params<'_>) -> Result<Vec<Row>, Fault> {
        self.come_back(sql, params, Fault::is_locked).await
    }

    /// The same, but a locked row is the caller's concern.
    pub(crate) async fn run_unless_locked(
        &self,
        sql: &Sql,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, Fault> {
        self.come_back(sql, params, Fault::is_of_a_table).await
    }

    async fn come_back(
        &self,
        sql: &Sql,
        params: &Params<'_>,
        waits: impl Fn(&Fault) -> bool,
    ) -> Result<Vec<Row>, Fault> {
        let end = Instant::now() + self.target.timeout;
        let (mut pause, mut repeats) = (LOCK_PAUSE, 0);
        loop {
            match self.run_once(sql, params).await {
                Err(fault) if fault.asks_for_repetition() && repeats < REPEATS => {
                    repeats += 1;
                    self.before_repeating(repeats).await;
                }
                Err(fault) if waits(&fault) && Instant::now() + pause < end => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_LOCK_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// A random pause, longer each time: those who were in each other's way come back apart.
    pub(crate) async fn before_repeating(&self, repeats: u32) {
        self.target.counters.repeated.fetch_add(1, Relaxed);
        let most = 1_000_u64 << repeats.min(5);
        let chance = RandomState::new().build_hasher().finish();
        sleep(Duration::from_micros(chance % most)).await;
    }

    /// The same for what changes nothing: a lost connection is no reason to fail.
    pub(crate) async fn read(&self, sql: &Sql, params: &Params<'_>) -> Result<Vec<Row>, Fault> {
        match self.run(sql, params).await {
            Err(fault) if fault.ends_session() => self.run(sql, params).await,
            other => other,
        }
    }

    async fn run_once(&self, sql: &Sql, params: &Params<'_>) -> Result<Vec<Row>, Fault> {
        let session = self.session().await?;
        let work = async {
            match self.target.statements {
                Statements::Named => {
                    let _shared = session.gate.read().await;
                    session.named(&self.target.counters, sql, params).await
                }
                Statements::Unnamed => {
                    let _alone = session.gate.write().await;
                    session.whole(&self.target, sql, params).await
                }
            }
        };
        self.in_time(&session, work).await
    }

    async fn in_time<T>(
        &self,
        session: &Arc<Session>,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let limit = self.target.timeout;
        let result = timeout(limit, work)
            .await
            .unwrap_or(Err(Fault::Stalled(limit)));
        if result.as_ref().is_err_and(Fault::ends_session) {
            self.forget(session).await;
        }
        result
    }

    /// Runs a command without parameters or rows.
    pub(crate) async fn command(&self, text: &str) -> Result<(), Fault> {
        let session = self.session().await?;
        let work = async {
            let _shared = session.gate.read().await;
            session.batch(text).await
        };
        self.in_time(&session, work).await
    }

    /// Begins a transaction of several statements, which has the session to itself. Nobody else's statements stand
    /// behind these: they wait for locks as long as for anything.
    pub(crate) async fn begin(&self) -> Result<Transaction, Fault> {
        let begin = begin(&self.target, self.target.isolation);
        self.transaction(&format!("{begin}; SET LOCAL lock_timeout = 0"))
            .await
    }

    /// The same for one whose first statement locks rows, so that those after it see what is newer than the locks.
    /// That is so under READ COMMITTED alone, which is as strict as any for whoever works behind locks.
    pub(crate) async fn begin_behind_locks(&self) -> Result<Transaction, Fault> {
        self.transaction(&begin(&self.target, Isolation::ReadCommitted))
            .await
    }

    async fn transaction(&self, begin: &str) -> Result<Transaction, Fault> {
        let session = self.session().await?;
        let alone = Arc::clone(&session.gate).write_owned().await;
        let transaction = Transaction {
            session,
            target: Arc::clone(&self.target),
            ended: false,
            _alone: alone,
        };
        transaction.batch(begin).await?;
        Ok(transaction)
    }
}

/// A transaction under way. If it is dropped before its end, its session ends with it.
pub(crate) struct Transaction {
    session: Arc<Session>,
    target: Arc<Target>,
    ended: bool,
    _alone: OwnedRwLockWriteGuard<()>,
}

impl Transaction {
    pub(crate) async fn run(&self, sql: &Sql, params: &Params<'_>) -> Result<Vec<Row>, Fault> {
        self.target.counters.statements.fetch_add(1, Relaxed);
        self.target.counters.round_trips.fetch_add(1, Relaxed);
        let typed = typed(sql, params);
        self.in_time(self.session.client.query_typed(&sql.text, &typed))
            .await
    }

    pub(crate) async fn batch(&self, text: &str) -> Result<(), Fault> {
        self.in_time(self.session.client.batch_execute(text)).await
    }

    /// Commits what went well, and takes back what did not.
    pub(crate) async fn end<T>(mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        let command = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.batch(command).await;
        self.ended = ended.is_ok();
        let value = result?;
        ended?;
        Ok(value)
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        let limit = self.target.timeout;
        match timeout(limit, work).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Fault::Stalled(limit)),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            // The server takes back what was not committed; the link makes a new session.
            self.session.driver.abort();
        }
    }
}

impl Session {
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(crate) async fn batch(&self, text: &str) -> Result<(), Fault> {
        Ok(self.client.batch_execute(text).await?)
    }

    async fn named(
        &self,
        counters: &Counters,
        sql: &Sql,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, Fault> {
        counters.statements.fetch_add(1, Relaxed);
        if !sql.prepare {
            counters.round_trips.fetch_add(1, Relaxed);
            return Ok(self
                .client
                .query_typed(&sql.text, &typed(sql, params))
                .await?);
        }
        let key = std::ptr::from_ref(sql).addr();
        let known = Arc::clone(self.lock().entry(key).or_default());
        // Of many that come at once the first prepares it, for all.
        let prepare = async || {
            counters.round_trips.fetch_add(1, Relaxed);
            self.client.prepare_typed(&sql.text, &sql.types).await
        };
        let statement = known.get_or_try_init(prepare).await?;
        counters.round_trips.fetch_add(1, Relaxed);
        Ok(self.client.query(statement, params).await?)
    }

    /// The statement between the settings it needs and its commit, in one round trip.
    async fn whole(
        &self,
        target: &Target,
        sql: &Sql,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, Fault> {
        target.counters.statements.fetch_add(1, Relaxed);
        target.counters.round_trips.fetch_add(1, Relaxed);
        let opening = begin(target, target.isolation);
        let typed = typed(sql, params);
        let (began, rows, committed) = join3(
            self.client.batch_execute(&opening),
            self.client.query_typed(&sql.text, &typed),
            self.client.batch_execute("COMMIT"),
        )
        .await;
        began?;
        let rows = rows?;
        committed?;
        Ok(rows)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Arc<OnceCell<Statement>>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn typed<'p>(sql: &Sql, params: &Params<'p>) -> Vec<(&'p (dyn ToSql + Sync), Type)> {
    params
        .iter()
        .copied()
        .zip(sql.types.iter().cloned())
        .collect()
}

/// Begins a transaction that needs nothing of its session.
fn begin(target: &Target, isolation: Isolation) -> String {
    let mut text = format!("BEGIN ISOLATION LEVEL {}", isolation.sql());
    if target.statements == Statements::Unnamed {
        for (name, value) in target.settings() {
            text.push_str("; SET LOCAL ");
            text.push_str(name);
            text.push_str(" = ");
            text.push_str(value);
        }
        text.push_str("; SET LOCAL lock_timeout = ");
        text.push_str(&LOCK_WAIT.as_millis().to_string());
    }
    text
}

/// Makes a session and tells it what [`settings`] say; what it is notified of goes to `hear`.
pub(crate) async fn connect(target: &Target, hear: Option<Hear>) -> Result<Session, Fault> {
    target.counters.connects.fetch_add(1, Relaxed);
    let work = async {
        let (client, mut connection) = target.config.connect(target.tls.clone()).await?;
        let driver = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(hint))) => {
                        if let Some(hear) = &hear {
                            hear(hint.payload());
                        }
                    }
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        tracing::debug!(message = notice.message(), "the server says");
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a connection to the server has ended");
                        break;
                    }
                    None => break,
                }
            }
        })
        .abort_handle();
        let session = Session {
            client,
            prepared: Mutex::default(),
            driver,
            gate: Arc::default(),
        };
        if target.statements == Statements::Named {
            session.batch(&set_up(target)).await?;
        }
        Ok(session)
    };
    timeout(target.timeout, work)
        .await
        .unwrap_or(Err(Fault::Stalled(target.timeout)))
}

fn set_up(target: &Target) -> String {
    let mut text = format!(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {}",
        target.isolation.sql()
    );
    for (name, value) in target.settings() {
        text.push_str("; SET ");
        text.push_str(name);
        text.push_str(" = ");
        text.push_str(value);
    }
    text.push_str("; SET lock_timeout = ");
    text.push_str(&LOCK_WAIT.as_millis().to_string());
    text
}
