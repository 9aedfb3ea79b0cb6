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
    for file in files("src", "rs") {
        let text = fs::read_to_string(&file).unwrap().replace("\n/// ", " ").replace("\n//! ", " ");
        for reference in text.split("docs/protocol.md, \"").skip(1) {
            let section = reference.split('"').next().unwrap();
            let exists = headings.iter().any(|heading| heading.trim_start_matches(['#', ' ']) == section);
            assert!(exists, "{} refers to \"{section}\"", file.display());
        }
    }
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
