//! Output for people: a line for each run, and the table in docs/reliability.md.

use std::time::Duration;

use super::Run;
use super::faults;
use super::judge::Promise;
use super::stores::Kind;

/// The table stands between these two lines.
const BEGIN: &str = "<!-- the table: written by the fault suite -->";
const END: &str = "<!-- the end of the table -->";

/// One run in one line, and the judge's verdicts below it.
pub fn line(run: &Run) -> String {
    let seconds = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    format!(
        "{} {} over {} (seed {}): noticed {}, converged {}, {} states, {} grants, {} MiB{}",
        if run.is_good() { "ok    " } else { "FAILED" },
        run.fault.name,
        run.store,
        run.seed,
        seconds(run.noticed),
        seconds(run.converged),
        run.states,
        run.grants,
        run.memory,
        run.said,
    )
}

/// Writes the rows that were run into the table of a page, in the place that is marked for it. All other rows stay.
pub fn write(path: &str, runs: &[Run]) {
    let page = std::fs::read_to_string(path).expect("the page is there");
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (known, after) = rest.split_once(END).expect("the place has an end");
    std::fs::write(path, format!("{before}{BEGIN}\n\n{}\n{END}{after}", table(known, runs))).expect("written");
}

fn table(known: &str, runs: &[Run]) -> String {
    let mut table = String::from(
        "| fault | store | runs | noticed: median, max | converged: median, max | states missed | sessions lost | \
         double controllers | other |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for fault in faults::ALL {
        for store in fault.stores {
            let of: Vec<&Run> = runs.iter().filter(|run| run.fault.name == fault.name && run.store == *store).collect();
            let before = known.lines().find(|line| line.starts_with(&format!("| {} | {store} |", fault.says)));
            match (of.is_empty(), before) {
                (false, _) => table += &row(fault.says, *store, &of),
                (true, Some(row)) => table += &format!("{row}\n"),
                (true, None) => {}
            }
        }
    }
    table
}

fn row(says: &str, store: Kind, runs: &[&Run]) -> String {
    let broken = |promise: Promise| runs.iter().filter_map(|run| run.broken.get(&promise)).sum::<usize>();
    format!(
        "| {says} | {store} | {} | {} | {} | {} | {} | {} | {} |\n",
        runs.len(),
        spread(runs.iter().filter_map(|run| run.noticed).collect()),
        spread(runs.iter().filter_map(|run| run.converged).collect()),
        broken(Promise::States),
        broken(Promise::Sessions),
        broken(Promise::Exclusion),
        broken(Promise::Order) + broken(Promise::Truth),
    )
}

/// The median and the greatest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(most)) => format!("{:.1} s, {:.1} s", median.as_secs_f64(), most.as_secs_f64()),
        _ => "–".to_owned(),
    }
}
