//! The fault suite: real nodes, a real Redis, real faults, a history of what every client saw, and a judge.
//!
//! Without arguments it runs the everyday selection, small worlds with short leases, as part of `cargo test`. With
//! `--all` it runs every fault on every store that it makes sense on, at full size and with the default intervals:
//!
//! ```sh
//! cargo test --release --test faults -- --all --runs 20 --jobs 4 --report docs/reliability.md
//! ```
//!
//! The rest of the arguments: `--seed N` (printed with every run), `--small` for the small worlds, `--minutes N` after
//! which no run is begun, and the names of faults, for these alone.

#![allow(clippy::print_stdout, unreachable_pub, reason = "a program of its own, which tells what it does")]

mod brain;
mod faults;
mod history;
mod judge;
mod member;
mod net;
mod report;
mod stores;
#[path = "../it/support/mod.rs"]
#[allow(
    unused_imports,
    unused_macros,
    dead_code,
    reason = "shared with the other tests, and not all of it needed here"
)]
mod support;
mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use faults::Fault;
use futures_util::{FutureExt, StreamExt, stream};
use judge::{Promise, judge};
use stores::Kind;
use world::{Size, World};

/// How long a world works before the fault.
const BEFORE: Duration = Duration::from_secs(2);

/// How long one run may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(300);

/// How many verdicts of one run are printed.
const PRINTED: usize = 12;

/// The command line.
struct Plan {
    all: bool,
    small: bool,
    runs: u64,
    jobs: usize,
    seed: u64,
    names: Vec<String>,
    report: Option<String>,
    /// No run is started after this.
    within: Option<Duration>,
}

/// One run of one fault.
pub struct Run {
    fault: &'static Fault,
    store: Kind,
    seed: u64,
    noticed: Option<Duration>,
    converged: Option<Duration>,
    /// How often each promise was broken.
    broken: BTreeMap<Promise, usize>,
    /// States that clients received.
    states: usize,
    /// Grants of control that clients heard of.
    grants: usize,
    /// The most memory of a node, in MiB.
    memory: u64,
    /// The judge's verdicts, as text.
    said: String,
}

impl Run {
    fn is_good(&self) -> bool {
        self.broken.is_empty() && self.converged.is_some()
    }
}

fn main() -> ExitCode {
    let plan = plan(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("worker threads");
    let runs = runtime.block_on(carry_out(&plan));
    if let Some(path) = &plan.report {
        report::write(path, &runs);
    }
    let bad = runs.iter().filter(|run| !run.is_good()).count();
    println!("{} passed, {bad} failed", runs.len() - bad);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(arguments: impl Iterator<Item = String>) -> Plan {
    let mut plan = Plan {
        all: false,
        small: false,
        runs: 1,
        jobs: 2,
        seed: rand::random_range(0..1_000_000),
        names: vec![],
        report: None,
        within: None,
    };
    let mut arguments = arguments;
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).expect("a number follows");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--all" => plan.all = true,
            "--small" => plan.small = true,
            "--runs" => plan.runs = number(arguments.next()),
            "--jobs" => plan.jobs = usize::try_from(number(arguments.next())).unwrap_or(1),
            "--seed" => plan.seed = number(arguments.next()),
            "--minutes" => plan.within = Some(Duration::from_secs(60 * number(arguments.next()))),
            "--report" => plan.report = arguments.next(),
            name if name.starts_with('-') => {}
            name => plan.names.push(name.to_owned()),
        }
    }
    plan
}

async fn carry_out(plan: &Plan) -> Vec<Run> {
    let began = Instant::now();
    let mut wanted = Vec::new();
    for run in 0..plan.runs {
        for fault in
            faults::ALL.iter().filter(|fault| plan.names.is_empty() || plan.names.iter().any(|n| n == fault.name))
        {
            let stores = if plan.all || !plan.names.is_empty() { fault.stores } else { fault.everyday };
            wanted.extend(stores.iter().map(|store| (fault, *store, plan.seed + run)));
        }
    }
    println!("running {} worlds, {} at a time, seed {}", wanted.len(), plan.jobs, plan.seed);
    let size = if plan.all && !plan.small { Size::FULL } else { Size::QUICK };
    let runs = stream::iter(wanted)
        .take_while(|_| std::future::ready(plan.within.is_none_or(|within| began.elapsed() < within)))
        .map(|(fault, store, seed)| async move {
            let run = tokio::time::timeout(RUN_TIMEOUT, run(fault, store, seed, size));
            // One world that cannot go on must not end the others.
            let run = match AssertUnwindSafe(run).catch_unwind().await {
                Ok(Ok(run)) => run,
                Ok(Err(_)) => Run::failed(fault, store, seed, "it did not end in time"),
                Err(_) => Run::failed(fault, store, seed, "it panicked, see above"),
            };
            println!("{}", report::line(&run));
            run
        })
        .buffer_unordered(plan.jobs);
    runs.collect().await
}

async fn run(fault: &'static Fault, store: Kind, seed: u64, size: Size) -> Run {
    let mut world = World::start(store, size, seed, fault.name == "clocks-apart").await;
    world.work(BEFORE).await;
    (fault.happen)(&mut world).await;
    let (converged, wrong) = world.converge().await;
    let events = world.history.events();
    let verdicts: Vec<_> = judge(&events).into_iter().chain(wrong).collect();
    let mut broken = BTreeMap::new();
    for verdict in &verdicts {
        *broken.entry(verdict.promise()).or_insert(0) += 1;
    }
    let mut said: String = verdicts.iter().take(PRINTED).map(|verdict| format!("\n    {verdict}")).collect();
    if !said.is_empty() {
        let wrong: Vec<usize> = verdicts.iter().filter_map(judge::Verdict::session).collect();
        said += &keep_record(fault, seed, &world, &wrong, &events);
    }
    let is = |test: fn(&history::What) -> bool| events.iter().filter(|event| test(&event.what)).count();
    Run {
        fault,
        store,
        seed,
        noticed: world.noticed(fault.signs),
        converged,
        broken,
        states: is(|what| matches!(what, history::What::Got(_))),
        grants: is(|what| matches!(what, history::What::ClientView(history::Role::Active, _))),
        memory: world.most_memory(),
        said,
    }
}

/// Writes the history of a failed run to a file. Returns the place as text.
fn keep_record(fault: &Fault, seed: u64, world: &World, wrong: &[usize], events: &[history::Event]) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("faults-{}-{}-{seed}.txt", fault.name, world.store.kind));
    let lines: String = events.iter().map(|e| format!("{:?} {} {:?}\n", e.at, e.who.id(), e.what)).collect();
    let documents: String = wrong.iter().map(|session| world.document(*session)).collect();
    let written = std::fs::write(&path, lines + &documents + &world.logs());
    written.map(|()| format!("\n    the record is in {}", path.display())).unwrap_or_default()
}

impl Run {
    fn failed(fault: &'static Fault, store: Kind, seed: u64, why: &str) -> Self {
        let said = format!("\n    {why}");
        let broken = BTreeMap::from([(Promise::Sessions, 1)]);
        Self { fault, store, seed, noticed: None, converged: None, broken, states: 0, grants: 0, memory: 0, said }
    }
}
