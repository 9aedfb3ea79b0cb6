//! The documents say what the code says.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use gitorial_relay::protocol::{CloseReason, ErrorCode, FrameType};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|_| panic!("there is no {path}"))
}

fn files(under: &str, kind: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(under)]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.path().extension().is_some_and(|ending| ending == kind) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// The sources of the relay.
fn product() -> Vec<PathBuf> {
    ["src", "core/src"].iter().flat_map(|folder| files(folder, "rs")).collect()
}

#[test]
fn the_protocol_has_every_close_code_error_code_and_frame_type() {
    let protocol = read("docs/protocol.md");
    for reason in CloseReason::ALL {
        let row = format!("| {} | `{}` |", reason.code(), reason.text());
        assert!(protocol.contains(&row), "docs/protocol.md lacks {row}");
    }
    for code in ErrorCode::ALL {
        assert!(protocol.contains(&format!("| `{}` |", code.code())), "docs/protocol.md lacks {}", code.code());
    }
    for kind in FrameType::ALL.iter().filter(|kind| **kind != FrameType::Unknown) {
        assert!(protocol.contains(&format!("| `{}` |", kind.wire())), "docs/protocol.md lacks {}", kind.wire());
    }
}

#[test]
fn every_section_that_the_code_refers_to_exists() {
    let protocol = read("docs/protocol.md");
    let headings: Vec<&str> = protocol.lines().filter_map(|line| line.strip_prefix('#')).collect();
    for file in product() {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!', ' '])).collect();
        let text = lines.join(" ");
        for reference in text.split("docs/protocol.md, \"").skip(1) {
            let section = reference.split('"').next().unwrap();
            let exists = headings.iter().any(|heading| heading.trim_start_matches(['#', ' ']) == section);
            assert!(exists, "{} refers to \"{section}\"", file.display());
        }
    }
}

/// A walk through the code is worth nothing if it names what is gone.
#[test]
fn every_function_that_the_architecture_names_exists() {
    let sources: Vec<String> = product().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let architecture = read("ARCHITECTURE.md");
    let names: Vec<&str> = architecture.split('`').skip(1).step_by(2).collect();
    let functions = names.iter().filter_map(|name| name.split_once("::")).filter(|(owner, function)| {
        let lower = |text: &str| text.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
        lower(function) && owner.chars().all(char::is_alphanumeric)
    });
    let mut found = 0;
    for (owner, function) in functions {
        let defines = |text: &String| {
            let named = |line: &str| line.starts_with("impl") || line.contains("trait ") || line.contains("struct ");
            let of_owner = text.lines().any(|line| named(line) && line.contains(owner));
            let here = [format!("fn {function}("), format!("fn {function}<"), format!(" {function}: ")];
            (of_owner || owner.starts_with(char::is_lowercase))
                && here.iter().any(|definition| text.contains(definition))
        };
        assert!(sources.iter().any(defines), "ARCHITECTURE.md names {owner}::{function}, which does not exist");
        found += 1;
    }
    assert!(found > 20, "only {found} functions are named");
}

#[test]
fn the_readme_has_every_setting() {
    let readme = read("README.md");
    for line in read("config.example.toml").lines() {
        let setting = line.trim_start_matches("#: ");
        let Some((name, _)) = setting.split_once(" = ") else { continue };
        if name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') {
            assert!(readme.contains(&format!("| `{name}` |")), "README.md lacks the setting {name}");
        }
    }
}

/// The document's rights are those that tests/it/least_rights.rs runs two nodes with.
#[test]
fn the_nodes_of_compose_have_the_documented_rights_in_redis() {
    let operations = read("docs/operations.md");
    let (_, command) = operations.split_once("redis-cli ACL SETUSER relay on '>PASSWORD' ").unwrap();
    let rights = command.split_once("```").unwrap().0.replace(['\'', '\\'], " ");
    let documented: Vec<&str> = rights.split_whitespace().collect();
    let compose = read("deploy/compose.yaml");
    let items = compose.lines().filter_map(|line| Some(line.trim().strip_prefix("- ")?.trim_matches('"')));
    let words: Vec<&str> = items.skip_while(|word| !word.starts_with(">${REDIS_PASSWORD")).skip(1).collect();
    assert_eq!(words[..documented.len()], documented);
    assert!(words[documented.len()].starts_with("--"), "no right beyond them");
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut documents = files("docs", "md");
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "helm/gitorial-relay/README.md",
        "sdk/README.md",
        "sdk/API.md",
        "examples/website/README.md",
        "examples/vscode-extension/README.md",
    ];
    documents.extend(others.map(|name| root().join(name)));
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                let there = document.parent().unwrap().join(target);
                assert!(there.exists(), "{} links to {link}", document.display());
            }
        }
    }
}
