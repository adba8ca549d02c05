//! A store in Postgres (13 or newer), shared by any number of processes on any number of hosts.
//!
//! Connections: commits have one, so that a run's commits reach the server in their order; creations,
//! messages and interventions have one, where requests of many callers gather and go together; leases have
//! one, so that no heartbeat waits behind a long batch; questions have one. With a smaller pool they share.
//! Requests are pipelined; each is one statement and one transaction, save interventions, migrations and commits
//! without entries. (Over tables in parts a batch is a statement and a transaction for each run: `flavour.rs`.) None waits on the server for a run that somebody else has locked (`around.rs`).
//!
//! Time is the server's, unless a test gives an instant. A wait for a lost connection is bounded, and
//! what was under way when it was lost is answered with [`StoreError::Unavailable`]: whether it took place
//! is not known then, and the fence of the next commit finds out.

mod around;
mod certificate;
mod claim;
mod commit;
mod contract;
mod create;
mod error;
mod flavour;
mod floors;
mod hints;
mod inbox;
mod intervene;
mod lane;
mod link;
mod lists;
mod migrate;
mod options;
mod outside;
mod owners;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is the report"
)]
mod plans;
mod query;
mod row;
mod schedules;
mod sql;
mod streams;
mod tls;

use std::future::ready;
use std::str::FromStr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use duramen_core::store::{
    Created, Delivered, Delivery, Hint, NewMessage, NewRun, StoreError, StoreFuture,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslNegotiation, TargetSessionAttrs};

pub use crate::flavour::Flavour;
pub use crate::options::{Isolation, Names, PostgresOptions, Statements, TABLES, Tls, Verify};

use crate::around::{Errand, Locked, around_locks, once};
use crate::error::Fault;
use crate::floors::Floors;
use crate::hints::Hints;
use crate::lane::{Lane, Pace};
use crate::link::{Counters, Link, Target};
use crate::migrate::MIGRATIONS;
use crate::sql::Book;

/// Half-open connections are noticed by the kernel after about this long, whoever waits.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What was sent to the server since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub statements: u64,
    pub round_trips: u64,
    /// Statements that the server asked to be repeated (40001, 40P01).
    pub repeated: u64,
    pub connects: u64,
}

/// A Postgres store; see the module's head.
pub struct PostgresStore {
    inner: Arc<Inner>,
    creations: Lane<NewRun, Created>,
    messages: Lane<NewMessage, Delivered>,
    handle: Handle,
    applied: Vec<String>,
    background: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("place", &self.inner.target.place)
            .finish_non_exhaustive()
    }
}

/// What requests need, whoever has outlived whom.
struct Inner {
    target: Arc<Target>,
    names: Names,
    book: Book,
    links: Vec<Link>,
    floors: Floors,
    locked: Locked,
    /// None if hints are not wanted or cannot cross a pooler.
    hints: Option<Arc<Hints>>,
    closed: std::sync::atomic::AtomicBool,
}

/// What a connection is for.
#[derive(Clone, Copy)]
enum Use {
    Commit,
    Write,
    Lease,
    Read,
}

impl Inner {
    fn link(&self, purpose: Use) -> &Link {
        &self.links[purpose as usize % self.links.len()]
    }

    fn error(&self, fault: Fault) -> StoreError {
        if self.closed.load(Relaxed) {
            return StoreError::Closed;
        }
        self.target.error(fault)
    }
}

impl PostgresStore {
    /// Connects, and checks or migrates the schema.
    ///
    /// `url` is a libpq URL or keyword string. The future must be polled on a tokio runtime with I/O, and
    /// the store goes on using that runtime.
    ///
    /// # Errors
    ///
    /// The URL cannot be read, the server cannot be reached, or its schema does not fit this build.
    pub async fn connect(url: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        let mut config = Config::from_str(url).map_err(|error| StoreError::Invalid {
            // The parser's words name the part that is wrong, never its value.
            reason: format!(
                "the URL of the Postgres store cannot be read: {}",
                error::describe(&error)
            ),
        })?;
        complete(&mut config);
        let place = place(&config);
        let target = Arc::new(Target {
            tls: tls::connector(
                &options.tls,
                config.get_ssl_negotiation() == SslNegotiation::Direct,
            )?,
            statements: options.statements,
            isolation: options.isolation,
            flavour: options.flavour.map_or_else(OnceLock::new, OnceLock::from),
            patience: options.lock_timeout,
            timeout: options.timeout,
            place,
            counters: Counters::default(),
            config,
        });
        let links: Vec<Link> = (0..options.pool_size.clamp(1, 4))
            .map(|_| Link::new(Arc::clone(&target)))
            .collect();
        let link = &links[Use::Lease as usize % links.len()];
        let applied = open(link, &options.names, options.migrate)
            .await
            .map_err(|fault| target.error(fault))?;
        let flavour = settle(link, &target, &options.names)
            .await
            .map_err(|fault| target.error(fault))?;
        let hinting = options.notify && options.statements == Statements::Named;
        let inner = Arc::new(Inner {
            hints: hinting.then(|| Arc::new(Hints::new(Arc::clone(&target), &options.names))),
            book: Book::new(&options.names, flavour),
            names: options.names,
            links,
            floors: Floors::default(),
            locked: Locked::default(),
            target,
            closed: false.into(),
        });
        let handle = Handle::current();
        let (for_runs, for_messages) = (Arc::clone(&inner), Arc::clone(&inner));
        Ok(Self {
            creations: Lane::start(&handle, move |batch: Arc<Vec<NewRun>>, pace| {
                let inner = Arc::clone(&for_runs);
                async move {
                    let created = inner
                        .create(&batch, pace)
                        .await
                        .map_err(|fault| inner.error(fault))?;
                    // A run that its creator drives is nobody else's business.
                    let left = |one: &Created| {
                        one.is_new() && one.row().is_some_and(|row| row.owner.is_none())
                    };
                    if created.iter().flatten().any(left) {
                        inner.hint(Hint::Due);
                    }
                    Ok(created)
                }
            }),
            messages: Lane::start(&handle, move |batch: Arc<Vec<NewMessage>>, pace| {
                let inner = Arc::clone(&for_messages);
                async move {
                    let delivered = inner
                        .deliver(&batch, pace)
                        .await
                        .map_err(|fault| inner.error(fault))?;
                    let told = || delivered.iter().flatten();
                    if told().any(|one| one.result == Delivery::Delivered) {
                        inner.hint(Hint::Due);
                    }
                    // For a driver elsewhere to look at.
                    let taken = [Delivery::Delivered, Delivery::Buffered];
                    if told().any(|one| one.owner.is_some() && taken.contains(&one.result)) {
                        inner.hint(Hint::Unread);
                    }
                    Ok(delivered)
                }
            }),
            inner,
            handle,
            applied,
            background: Mutex::default(),
        })
    }

    /// What was sent to the server so far.
    pub fn stats(&self) -> Stats {
        let counters = &self.inner.target.counters;
        Stats {
            statements: counters.statements.load(Relaxed),
            round_trips: counters.round_trips.load(Relaxed),
            repeated: counters.repeated.load(Relaxed),
            connects: counters.connects.load(Relaxed),
        }
    }

    /// Names of the migrations that opening the store applied.
    pub fn applied_on_open(&self) -> &[String] {
        &self.applied
    }

    fn ask<T: Send + 'static, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> StoreFuture<T>
    where
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        if self.inner.closed.load(Relaxed) {
            return refused(StoreError::Closed);
        }
        let inner = Arc::clone(&self.inner);
        let work = work(Arc::clone(&inner));
        let task = self
            .handle
            .spawn(async move { work.await.map_err(|fault| inner.error(fault)) });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl Inner {
    async fn create(&self, batch: &[NewRun], pace: Pace) -> Result<Vec<Option<Created>>, Fault> {
        let errand = create::Creations {
            link: self.link(Use::Write),
            book: &self.book,
            locked: &self.locked,
        };
        self.at_a_pace(&errand, batch, pace).await
    }

    async fn deliver(
        &self,
        batch: &[NewMessage],
        pace: Pace,
    ) -> Result<Vec<Option<Delivered>>, Fault> {
        let errand = inbox::Messages {
            link: self.link(Use::Write),
            book: &self.book,
        };
        self.at_a_pace(&errand, batch, pace).await
    }

    async fn at_a_pace<E: Errand>(
        &self,
        errand: &E,
        batch: &[E::Element],
        pace: Pace,
    ) -> Result<Vec<Option<E::Answer>>, Fault> {
        match pace {
            Pace::Once => once(errand, &self.locked, batch).await,
            Pace::Patient => Ok(self
                .patiently(errand, batch)
                .await?
                .into_iter()
                .map(Some)
                .collect()),
        }
    }

    async fn patiently<E: Errand>(
        &self,
        errand: &E,
        batch: &[E::Element],
    ) -> Result<Vec<E::Answer>, Fault> {
        around_locks(errand, &self.locked, self.target.patience, batch).await
    }

    fn hint(&self, hint: Hint) {
        if let Some(hints) = &self.hints {
            hints.send(hint);
        }
    }
}

/// Connects, and checks or migrates the schema.
async fn open(link: &Link, names: &Names, migrate: bool) -> Result<Vec<String>, Fault> {
    link.open().await?;
    let mut found = migrate::found(link, names).await?;
    let mut applied = Vec::new();
    if migrate && found.lacks(MIGRATIONS) {
        applied = migrate::migrate(link, names).await?.applied;
        found = migrate::found(link, names).await?;
    }
    found.check(MIGRATIONS)?;
    Ok(applied)
}

/// Which flavour it is, now that the tables are there; the session gets what belongs to it.
async fn settle(link: &Link, target: &Target, names: &Names) -> Result<Flavour, Fault> {
    if let Some(flavour) = target.flavour.get() {
        return Ok(*flavour);
    }
    let found = Flavour::found(link, names).await?;
    let flavour = *target.flavour.get_or_init(|| found);
    if flavour == Flavour::Routed {
        link.close().await;
    }
    Ok(flavour)
}

/// What the URL leaves open.
fn complete(config: &mut Config) {
    if config.get_application_name().is_none() {
        config.application_name("duramen");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    // Two hours are the client's own default, which is as good as never.
    if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
        config.keepalives_idle(KEEPALIVE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE / 3);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(3);
    }
    // Of several servers the one that takes writes.
    if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any
    {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
}

/// Hosts, ports and database for messages: no user's secret in it.
fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let mut names: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    if names.is_empty() {
        names = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let with_ports = names.iter().enumerate().map(|(number, name)| {
        let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
        format!("{name}:{port}")
    });
    let hosts: Vec<String> = with_ports.collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or("?");
    format!("postgresql://{}/{database}", hosts.join(","))
}

fn refused<T: Send + 'static>(error: StoreError) -> StoreFuture<T> {
    Box::pin(ready(Err(error)))
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.creations.close();
        self.messages.close();
        for task in self.background() {
            task.abort();
        }
    }
}

impl PostgresStore {
    fn background(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(
            &mut *self
                .background
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
