//! Checks the arrows of ARCHITECTURE.md: which part may name which, and what must stay absent.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; its helpers are nobody's API"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sources(under: &str) -> Vec<(PathBuf, String)> {
    sources_in("src", under)
}

fn sources_in(folder: &str, under: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.path().extension().is_some_and(|kind| kind == "rs") {
                let name = entry.path().strip_prefix(&root).unwrap().to_path_buf();
                // Code after the start of the unit tests is not part of the product.
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
                found.push((name, text));
            }
        }
    }
    found.retain(|(name, _)| name.starts_with(under) || name.with_extension("").starts_with(under));
    assert!(!found.is_empty(), "there is no {folder}/{under}");
    found
}

/// Asserts that no line of code in `parts` names any of `words`. Comments may.
fn never(parts: &[&str], words: &[&str]) {
    for (name, text) in parts.iter().flat_map(|part| sources(part)) {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "src/{}: {word:?} does not belong here: {line}", name.display());
            }
        }
    }
}

/// Every crate that the package at `manifest` is built with, as cargo resolves it: `{lib}` and `{p}` are its name as code
/// writes it, and its name with its version.
fn crates(manifest: &str, format: &str, options: &[&str]) -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", format]);
    let found = cargo.args(options).arg("--manifest-path").arg(manifest).output().expect("cargo runs");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let lines = String::from_utf8_lossy(&found.stdout).into_owned();
    lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_core_is_built_without_io_or_randomness() {
    let crates = crates("core/Cargo.toml", "{lib}", &[]);
    assert!(crates.contains("serde_json"), "{crates:?}");
    for absent in ["tokio", "axum", "hyper", "fred", "rand", "getrandom", "parking_lot", "rustix", "tracing"] {
        assert!(!crates.contains(absent), "the core is built with {absent}");
    }
}

/// `connection` tells a frame over the limit by the type of the error inside axum's.
#[test]
fn axum_and_the_relay_use_the_same_tungstenite() {
    let crates = crates("Cargo.toml", "{p}", &[]);
    let found: Vec<_> = crates.iter().filter(|name| name.starts_with("tungstenite ")).collect();
    assert_eq!(found.len(), 1, "the versions of tokio-tungstenite in Cargo.toml and in axum differ: {found:?}");
}

#[test]
fn no_rule_asks_for_the_generation_of_a_client() {
    for (name, text) in sources_in("core/src", "control") {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let asks = line.contains("dialect") || line.contains("modern") && !line.contains("modern = ");
            let noted = line.trim() == "modern: false,";
            assert!(!asks || noted, "core/src/{}: {line}", name.display());
        }
    }
}

#[test]
fn the_core_reads_no_clock_and_waits_for_nothing() {
    for (name, text) in sources_in("core/src", "") {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in [
                "Instant::now",
                "SystemTime::now",
                "async ",
                ".await;",
                ".await?",
                "std::thread",
                "std::net",
                "std::fs",
            ] {
                assert!(!line.contains(word), "core/src/{}: {word:?} does not belong here: {line}", name.display());
            }
        }
    }
}

/// The parts of the library, from the outside to the inside, as ARCHITECTURE.md draws them. The core is below all. The
/// parts of one row do not name each other.
const LAYERS: [&[&str]; 8] = [
    &["node"],
    &["http"],
    &["connection", "drain"],
    &["relay"],
    &["presence", "hub"],
    &["store", "broker"],
    &["redis"],
    &["metrics", "clock", "random", "region"],
];

/// Whether this code names the module `crate::part`.
fn names_part(text: &str, part: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1)).any(|rest| {
        let listed = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        let mut named = listed.unwrap_or(rest).split(',').map(|name| name.trim());
        let first =
            |name: &str| name.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next() == Some(part);
        if listed.is_some() { named.any(first) } else { named.next().is_some_and(first) }
    })
}

#[test]
fn each_part_names_only_parts_below_it() {
    for (depth, parts) in LAYERS.iter().enumerate() {
        let others: Vec<_> = LAYERS[..=depth].concat().into_iter().collect();
        for (name, text) in parts.iter().flat_map(|part| sources(part)).filter(|(name, _)| !name.ends_with("tests.rs"))
        {
            let own =
                name.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            for above in others.iter().filter(|part| **part != own) {
                assert!(!names_part(&text, above), "src/{} names {above}", name.display());
            }
        }
    }
}

#[test]
fn the_hub_never_waits() {
    never(&["hub"], &[".await", "async "]);
}

#[test]
fn fred_is_named_only_in_the_redis_backends() {
    let all: Vec<_> = sources("").into_iter().map(|(name, _)| name).collect();
    let may = ["redis", "store/redis", "broker/redis"];
    for name in all.iter().filter(|name| !may.iter().any(|may| name.with_extension("").starts_with(may))) {
        never(&[name.with_extension("").to_str().unwrap()], &["fred::"]);
    }
}

#[test]
fn axum_is_named_only_where_clients_are_served() {
    for part in ["relay", "hub", "store", "broker", "presence", "node", "drain", "config", "metrics", "clock"] {
        never(&[part], &["axum::"]);
    }
}

/// The settings and the command line belong to the program. An application that embeds the library builds neither.
#[test]
fn the_library_is_built_without_the_programs_crates() {
    let crates = crates("Cargo.toml", "{lib}", &["--no-default-features"]);
    assert!(crates.contains("axum"), "{crates:?}");
    for absent in ["anyhow", "clap", "clap_complete", "toml", "tracing_subscriber", "opentelemetry"] {
        assert!(!crates.contains(absent), "the library is built with {absent}");
    }
}

#[test]
fn the_operators_commands_use_only_the_wire() {
    let inside = ["relay", "hub", "store", "broker", "presence", "control", "session", "node", "connection", "http"];
    let inside = inside.map(|part| format!("gitorial_relay::{part}::"));
    let inside: Vec<&str> = inside.iter().map(String::as_str).chain(["gitorial_relay::Node", "fred", "axum"]).collect();
    never(&["cli"], &inside);
}

#[test]
fn no_state_is_global() {
    for (name, text) in sources("") {
        let global = ["static ", "LazyLock", "OnceLock", "thread_local!"];
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let declares =
                global.iter().any(|word| line.trim_start().starts_with(word) || line.contains(&format!("pub {word}")));
            assert!(!declares, "src/{}: {line}", name.display());
        }
    }
}
