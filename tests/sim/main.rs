//! The simulator: thousands of small worlds, each of one seed. The rooms, the observers, the queues and the clients are
//! the real ones; the clock, the store, the network and the faults are simulated. The judge is that of the fault suite.
//!
//! ```sh
//! make sim                                            # a minute of new worlds
//! cargo test --release --test sim -- --seconds 600    # ten minutes
//! cargo test --release --test sim -- --seed 42        # one world again, with its trace
//! cargo test --release --test sim -- --mutations      # how soon each mutation is found
//! ```

#![allow(
    clippy::large_enum_variant,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a program of its own, which tells what it does"
)]

mod client;
mod faults;
mod node;
mod people;
mod relay;
mod store;
mod strike;
mod upkeep;
mod world;

#[path = "../faults/brain.rs"]
mod brain;
#[allow(dead_code, reason = "shared with the fault suite, and not all of it needed here")]
#[path = "../faults/history.rs"]
mod history;
#[allow(dead_code, reason = "shared with the fault suite, and not all of it needed here")]
#[path = "../faults/judge.rs"]
mod judge;
#[allow(dead_code, reason = "shared with the other tests, and not all of it needed here")]
#[path = "../it/support"]
mod support {
    pub mod old_script;
}

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use faults::Mutation;
use judge::Verdict;
use world::World;

/// How many worlds `make test` runs.
const USUAL: u64 = 3_000;

/// Seeds that have found a fault of the relay, which is mended. Each of these worlds is run again.
const FOUND: [u64; 31] = [
    1_167, 1_954, 2_235, 2_575, 3_143, 6_843, 8_415, 10_693, 10_893, 10_975, 11_799, 14_914, 21_168, 47_772, 47_790,
    56_127, 66_481, 67_320, 67_431, 79_307, 94_226, 104_311, 123_969, 124_853, 132_233, 139_228, 146_527, 14_446,
    613_484, 705_071, 831_690,
];

/// More such seeds, by what was wrong.
const MENDED: [(&str, &[u64]); 19] = [
    ("a controller's state of its last epoch was refused, and it was not asked again", &[82_318, 356_460, 379_917]),
    ("a frame was refused in doubt, and its sender was not told the truth", &[233_835, 307_687, 3_052_631]),
    ("a new state under way counted as an answer", &[242_565, 350_717, 633_092, 2_046_933, 2_049_007, 2_052_250]),
    ("a late answer counted as an initial push", &[306_187, 3_012_762, 3_064_818]),
    ("a silent take counted as an answer", &[402_868, 461_190, 480_034, 495_400, 496_808]),
    ("a release crossed the news of a grant that its sender did not wait for", &[4_156_926]),
    ("an answer crossed the controller's own state", &[4_015_381, 7_195_237]),
    ("a question counted as asked though nobody was there to be answered", &[550_127]),
    ("what waited while a node stood still was taken for a claim", &[6_003_456]),
    ("a socket that a restored document lacked was not claimed again", &[6_105_630]),
    ("a token was spent by a return whose handshake got no answer", &[6_001_145]),
    ("followers of nobody were not brought up to date when a controller came", &[4_243_928, 4_299_521]),
    ("the new controller was not asked when its predecessor left without an answer", &[3_080_924, 3_179_123]),
    ("a release crossed a grant that had crossed the question for it", &[6_028_248]),
    ("a client came back before the store restored its controller", &[4_108_272, 6_106_256]),
    ("a controller that never asked for control counted as one that did when it came back", &[401_439, 7_146_643]),
    ("a client whose held state was dropped had got no states meanwhile", &[8_138_440]),
    ("a write that was committed after it was looked for was not announced", &[9_092_677, 9_283_068]),
    ("a forgotten follower came back, and there were two of nobody", &[635_695, 2_092_202]),
];

/// The most worlds in which a mutation has to be found.
const MUTANT_WORLDS: u64 = 200_000;

/// The command line.
struct Plan {
    seed: Option<u64>,
    from: u64,
    worlds: u64,
    seconds: u64,
    jobs: u64,
    mutations: bool,
    /// The only mutation to try.
    only: Option<String>,
}

impl Plan {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1)
        };
        let number = |name: &str| value(name)?.parse().ok();
        Self {
            seed: number("--seed"),
            from: number("--from").unwrap_or(0),
            worlds: number("--worlds").unwrap_or(USUAL),
            seconds: number("--seconds").unwrap_or(0),
            jobs: number("--jobs").unwrap_or(2),
            mutations: arguments.iter().any(|argument| argument == "--mutations"),
            only: value("--only").cloned(),
        }
    }
}

fn main() -> ExitCode {
    let plan = Plan::read();
    if let Some(seed) = plan.seed {
        return replay(seed);
    }
    if plan.mutations {
        return find_mutations(&plan);
    }
    let began = Instant::now();
    let mut wrong: Vec<(u64, Vec<Verdict>)> = FOUND
        .iter()
        .chain(MENDED.iter().flat_map(|(_, seeds)| *seeds))
        .map(|seed| (*seed, run(*seed, None)))
        .filter(|(_, verdicts)| !verdicts.is_empty())
        .collect();
    let (ran, found) = run_many(&plan, None);
    wrong.extend(found);
    let seconds = began.elapsed().as_secs_f64();
    println!("{ran} worlds in {seconds:.1} s, {:.0} a second", f64::from(u32::try_from(ran).unwrap()) / seconds);
    for (seed, verdicts) in &wrong {
        println!("seed {seed}: {verdicts:?}");
        println!("    again, with its trace: cargo test --release --test sim -- --seed {seed}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one world. With a mutation only what the same world without it does not show counts.
fn run(seed: u64, mutation: Option<Mutation>) -> Vec<Verdict> {
    let verdicts = judged(|| World::new(seed, mutation, false));
    let own_fault = mutation.is_none() || verdicts.is_empty();
    if own_fault || judged(|| World::new(seed, mutation, false).mended()).is_empty() { verdicts } else { Vec::new() }
}

/// Runs a world to its end. A world that panics has broken a promise too.
fn judged(world: impl FnOnce() -> World + std::panic::UnwindSafe) -> Vec<Verdict> {
    let ended = std::panic::catch_unwind(|| world().run().verdicts);
    ended.unwrap_or_else(|_| {
        let who = history::Who { session: 0, client: 0 };
        vec![Verdict::Hurt { who, how: "the world panicked".to_owned() }]
    })
}

/// Runs worlds of new seeds on all cores, until there were enough of them. With a mutation it stops at the first find.
fn run_many(plan: &Plan, mutation: Option<Mutation>) -> (u64, Vec<(u64, Vec<Verdict>)>) {
    let (next, stop) = (AtomicU64::new(plan.from), AtomicBool::new(false));
    let end = (plan.seconds > 0).then(|| Instant::now() + Duration::from_secs(plan.seconds));
    let found = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = end.map_or(seed >= plan.from + plan.worlds, |end| Instant::now() >= end);
                    if over {
                        next.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                    let verdicts = run(seed, mutation);
                    if !verdicts.is_empty() {
                        found.lock().unwrap().push((seed, verdicts));
                        stop.fetch_or(mutation.is_some(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    (next.load(Ordering::Relaxed) - plan.from, found.into_inner().unwrap())
}

/// Runs one world again, and prints what happened in it.
fn replay(seed: u64) -> ExitCode {
    let ended = World::new(seed, None, true).run();
    for line in &ended.trace {
        println!("{line}");
    }
    println!("seed {seed}: {:?}", ended.verdicts);
    if ended.verdicts.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs worlds with each mutation until the judge finds it.
fn find_mutations(plan: &Plan) -> ExitCode {
    let mut missed = false;
    let wanted = |mutation: &Mutation| plan.only.as_ref().is_none_or(|only| *only == format!("{mutation:?}"));
    for mutation in Mutation::ALL.into_iter().filter(wanted) {
        let began = Instant::now();
        let plan = Plan { worlds: MUTANT_WORLDS, seconds: 0, seed: None, only: None, ..*plan };
        let (ran, found) = run_many(&plan, Some(mutation));
        let seconds = began.elapsed().as_secs_f64();
        match found.first() {
            Some((seed, verdicts)) => {
                println!("{mutation:?}: found after {ran} worlds, {seconds:.1} s, seed {seed}: {:?}", verdicts[0]);
            }
            None => {
                println!("{mutation:?}: NOT found in {ran} worlds, {seconds:.1} s");
                missed = true;
            }
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
