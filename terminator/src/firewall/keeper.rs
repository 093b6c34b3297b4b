//! `clinch firewall apply` while it runs: keeps the rules in the kernel in step with the
//! configuration and with what names resolve to, and puts them back where somebody took them away.
//!
//! One value that handles one event after the other: a question of control, a second gone by, a
//! signal. Addresses are open before the question is answered. When it ends the rules stay, and what
//! is open runs out: egress is shut in, never let loose.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::ask::{self, Question, Reply};
use super::{Book, Denial, Destination, Kernel, KernelError, Plan, PlanError, Rules, resolvers};
use crate::config::FirewallFormat;
use crate::egress::Resolver;
use crate::limits::{
    FIREWALL_ASK_TIME, FIREWALL_CHECK, FIREWALL_CONNECTIONS, FIREWALL_LOOKUPS, FIREWALL_REREAD,
    FIREWALL_RESOLVE,
};
use crate::observability::events::Occasionally;

/// The rules and what they are made from.
#[derive(Debug)]
pub struct Keeper {
    config: PathBuf,
    /// In place of the configuration's.
    format: Option<FirewallFormat>,
    plan: Plan,
    book: Book,
    kernel: Kernel,
    /// When all was read last, and how long that took.
    read: (Instant, Duration),
    /// When the configuration file and resolv.conf were changed last, as far as was read.
    modified: [Option<SystemTime>; 2],
    checked: Instant,
    /// Names that could not be opened at the last look-up, each with a sentence.
    troubles: BTreeMap<Destination, String>,
}

/// A question with the way back.
struct Asked {
    question: Question,
    reply: oneshot::Sender<Reply>,
}

impl Keeper {
    /// Reads the configuration. `format` takes the place of `firewall.format`. Blocks; nothing is
    /// changed.
    pub fn new(config: &Path, format: Option<FirewallFormat>) -> Result<Self, PlanError> {
        let begun = Instant::now();
        let modified = modified(config);
        let plan = read(config, format)?;
        let now = Instant::now();
        Ok(Self {
            config: config.to_owned(),
            format,
            book: Book::new(&plan),
            kernel: Kernel::new(plan.format),
            plan,
            read: (now, now - begun),
            modified,
            checked: now,
            troubles: BTreeMap::new(),
        })
    }

    /// What it was made from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The rules at this moment.
    pub fn rules(&self) -> Rules {
        Rules {
            uid: self.plan.uid,
            user: self.plan.user.clone(),
            resolvers: self.plan.resolvers.clone(),
            openings: self.book.openings(Instant::now()),
        }
    }

    /// Destinations that are not open although they should be, each with a sentence.
    pub fn troubles(&self) -> impl Iterator<Item = &str> {
        let warnings = self.plan.warnings.iter();
        warnings.chain(self.troubles.values()).map(String::as_str)
    }

    /// Looks up every destination that is a name and opens what it is.
    pub async fn resolve(&mut self) {
        let mut waiting: Vec<Destination> = self.plan.destinations.iter().cloned().collect();
        self.troubles.clear();
        let resolver = Resolver::new(self.plan.resolver.as_ref()).map(Arc::new);
        let mut lookups = JoinSet::new();
        loop {
            while lookups.len() < FIREWALL_LOOKUPS
                && let Some(host) = waiting.pop()
            {
                let resolver = resolver.clone();
                lookups.spawn(async move {
                    let found = match (host.address(), resolver) {
                        (Some(address), _) => Ok(vec![address]),
                        (None, Ok(resolver)) => look_up(&resolver, &host).await,
                        (None, Err(reason)) => Err(reason),
                    };
                    (host, found)
                });
            }
            let (host, found) = match lookups.join_next().await {
                Some(Ok(looked_up)) => looked_up,
                Some(Err(_)) => continue,
                None => return,
            };
            let trouble = match found {
                Ok(addresses) => self.note(&host, &addresses),
                Err(reason) => Some(format!("{host} cannot be resolved: {reason}")),
            };
            if let Some(trouble) = trouble {
                self.troubles.insert(host, trouble);
            }
        }
    }

    fn note(&mut self, host: &Destination, addresses: &[IpAddr]) -> Option<String> {
        let now = Instant::now();
        let admitted = self.book.admit(host, addresses, FIREWALL_RESOLVE, now);
        admitted.err().map(|denial| denial.to_string())
    }

    /// Puts the rules in once.
    pub async fn install(&mut self) -> Result<(), KernelError> {
        let rules = self.rules();
        self.checked = Instant::now();
        self.kernel.install(&rules).await
    }

    /// Keeps them until SIGTERM or SIGINT. [`Keeper::install`] comes first.
    pub async fn run(mut self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let mut hangup = signal(SignalKind::hangup())?;
        let (questions, mut asked) = mpsc::channel(FIREWALL_CONNECTIONS);
        let _listening = match &self.plan.socket {
            Some(path) => {
                let listener = bind(path).map_err(|error| {
                    let path = path.display();
                    io::Error::other(format!("`firewall.socket`, {path}: {error}; its directory must be there (clinch-firewall.service makes it) and writable"))
                })?;
                let allowed = self.plan.asker;
                Some(Aborted(tokio::spawn(listen(listener, allowed, questions))))
            }
            None => None,
        };
        tracing::info!(
            event = "firewall_ready",
            format = self.plan.format.word(),
            user = self.plan.user,
            uid = self.plan.uid,
            destinations = self.plan.destinations.iter().count(),
            "the egress process is pinned"
        );
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(%error, "the service manager cannot be told");
        }
        let mut check = interval(FIREWALL_CHECK);
        let mut look_up = interval(FIREWALL_RESOLVE / 2);
        let alone = self.plan.socket.is_none();
        loop {
            tokio::select! {
                Some(asked) = asked.recv() => {
                    let reply = self.answer(&asked.question).await;
                    // Who asked may have gone.
                    let _ = asked.reply.send(reply);
                }
                _ = check.tick() => self.look_after().await,
                _ = look_up.tick(), if alone => self.look_up_again().await,
                _ = hangup.recv() => self.reread(true).await,
                _ = term.recv() => break,
                _ = int.recv() => break,
            }
        }
        tracing::info!(
            event = "firewall_ending",
            "the rules stay; what is open runs out. `clinch firewall apply --remove` takes them away"
        );
        Ok(())
    }

    async fn answer(&mut self, question: &Question) -> Reply {
        let host = Destination::new(&question.host, question.port);
        if self.plan.destinations.named_by(&host).is_none() {
            self.reread(false).await;
        }
        let (now, ttl) = (Instant::now(), Duration::from_secs(question.ttl));
        let fresh = now.duration_since(self.checked) < FIREWALL_CHECK / 2;
        if fresh && self.book.holds(&host, &question.addresses, now) {
            return Reply::Open(question.addresses.clone());
        }
        match self.book.admit(&host, &question.addresses, ttl, now) {
            Err(denial) => self.refused(&denial),
            Ok(addresses) => match self.enforce().await {
                Ok(()) => {
                    tracing::debug!(event = "firewall_opened", %host, ?addresses, ttl = question.ttl);
                    Reply::Open(addresses)
                }
                Err(error) => {
                    tracing::error!(event = "firewall_failed", "{error}");
                    Reply::Refused(error.to_string())
                }
            },
        }
    }

    fn refused(&self, denial: &Denial) -> Reply {
        tracing::warn!(event = "firewall_refused", "{denial}");
        Reply::Refused(denial.to_string())
    }

    /// Rules and openings are in the kernel when this returns.
    async fn enforce(&mut self) -> Result<(), KernelError> {
        self.book.expire(Instant::now());
        self.checked = Instant::now();
        if self.kernel.in_place().await {
            let openings = self.book.openings(Instant::now());
            if self.kernel.refill(&openings).await.is_ok() {
                return Ok(());
            }
        }
        tracing::warn!(
            event = "firewall_vanished",
            "the rules for the egress process were changed or taken away by somebody else; putting them back"
        );
        self.install().await
    }

    async fn look_after(&mut self) {
        if modified(&self.config) != self.modified {
            self.reread(false).await;
        }
        self.checked = Instant::now();
        if !self.kernel.in_place().await
            && let Err(error) = self.enforce().await
        {
            tracing::error!(event = "firewall_failed", "{error}");
        }
    }

    async fn look_up_again(&mut self) {
        self.reread(false).await;
        let before: Vec<String> = self.troubles.values().cloned().collect();
        self.resolve().await;
        for trouble in self.troubles.values().filter(|t| !before.contains(t)) {
            tracing::warn!(event = "firewall_refused", "{trouble}");
        }
        if let Err(error) = self.enforce().await {
            tracing::error!(event = "firewall_failed", "{error}");
        }
    }

    /// Reads configuration and certificates again; unless `now`, only where that was long ago beside
    /// what it costs.
    async fn reread(&mut self, now: bool) {
        let (last, cost) = self.read;
        if !now && last.elapsed() < FIREWALL_REREAD.max(20 * cost) {
            return;
        }
        let begun = Instant::now();
        self.modified = modified(&self.config);
        let plan = read(&self.config, self.format);
        self.read = (Instant::now(), begun.elapsed());
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!(
                    event = "firewall_plan",
                    "{error}; the rules stay as they are"
                );
                return;
            }
        };
        if plan == self.plan {
            return;
        }
        for warning in &plan.warnings {
            tracing::warn!(event = "firewall_plan", "{warning}");
        }
        tracing::info!(
            event = "firewall_plan",
            destinations = plan.destinations.iter().count(),
            "configuration or certificates changed"
        );
        if (plan.format, &plan.socket, plan.asker)
            != (self.plan.format, &self.plan.socket, self.plan.asker)
        {
            tracing::warn!(
                event = "firewall_plan",
                "`user`, `firewall.format` and `firewall.socket` change with a restart of `clinch firewall apply` only"
            );
        }
        self.book.adopt(&plan);
        self.plan = plan;
        if let Err(error) = self.install().await {
            tracing::error!(event = "firewall_failed", "{error}");
        }
    }
}

fn read(config: &Path, format: Option<FirewallFormat>) -> Result<Plan, PlanError> {
    let mut plan = Plan::read(config)?;
    plan.format = format.unwrap_or(plan.format);
    Ok(plan)
}

fn modified(config: &Path) -> [Option<SystemTime>; 2] {
    let of = |path: &Path| std::fs::metadata(path).ok()?.modified().ok();
    [of(config), of(Path::new(resolvers::FILE))]
}

async fn look_up(resolver: &Resolver, host: &Destination) -> Result<Vec<IpAddr>, String> {
    match timeout(FIREWALL_ASK_TIME, resolver.look_up(&host.host)).await {
        Ok(found) => found.map(|found| found.addresses),
        Err(_) => Err(format!("no answer in {FIREWALL_ASK_TIME:?}")),
    }
}

/// The socket, in place of one that a predecessor left. Its directory says who may come near; who
/// connects is looked at, too.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
    Ok(listener)
}

/// Takes questions from root and from `allowed`, and hands them on.
async fn listen(listener: UnixListener, allowed: Option<u32>, questions: mpsc::Sender<Asked>) {
    let strangers = Occasionally::every(STRANGERS);
    let room = Arc::new(Semaphore::new(FIREWALL_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(event = "firewall_failed", "nobody can ask: {error}");
                tokio::time::sleep(FIREWALL_ASK_TIME).await;
                continue;
            }
        };
        let uid = stream.peer_cred().map(|peer| peer.uid());
        if !uid
            .as_ref()
            .is_ok_and(|uid| *uid == 0 || Some(*uid) == allowed)
        {
            if let Some(suppressed) = strangers.admit(Instant::now()) {
                tracing::warn!(
                    event = "firewall_stranger",
                    ?uid,
                    suppressed,
                    "somebody who is not clinch asked for an opening, and was turned away"
                );
            }
            continue;
        }
        let questions = questions.clone();
        tokio::spawn(async move {
            // Broken talk is the asker's loss.
            let _ = timeout(FIREWALL_ASK_TIME, serve(stream, questions)).await;
            drop(place);
        });
    }
}

async fn serve(mut stream: UnixStream, questions: mpsc::Sender<Asked>) -> io::Result<()> {
    let question = ask::receive(&mut stream).await?;
    let (reply, answer) = oneshot::channel();
    let asked = Asked { question, reply };
    if questions.send(asked).await.is_err() {
        return Ok(());
    }
    match answer.await {
        Ok(answer) => ask::send(&mut stream, &answer).await,
        Err(_) => Ok(()),
    }
}

/// Between two lines about strangers, who can connect as often as they like.
const STRANGERS: Duration = Duration::from_secs(60);

/// A task that ends with its owner.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}
