//! The house's own rules: who may use whom, how long a file may be, and that no test file is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longer files are two things.
const FILE_LINES_MAX: usize = 500;

/// What a room of `src/` must not name, as paths from their first segment. The reasons stand in docs/architecture.md.
/// `adapters::contract` is everyone's; the kinds are nobody's but the composition root's.
const ROOMS: [(&str, &[&str]); 9] = [
    (
        "pipeline",
        &[
            "tokio",
            "ractor",
            "supervisors",
            "object_store",
            "deltalake",
            "sled",
            "reqwest",
            "rdkafka",
            "std::fs",
            "std::net",
            "std::time::SystemTime",
            "std::time::Instant",
            "chrono::Utc::now",
            "rand",
            "crate::lake",
            "crate::checkpoint",
            "crate::streams",
            "crate::control",
            "crate::announce",
            "KINDS",
        ],
    ),
    (
        "lake",
        &[
            "ractor",
            "supervisors",
            "sled",
            "rdkafka",
            "axum",
            "reqwest",
            "crate::streams",
            "crate::control",
            "crate::checkpoint",
            "crate::announce",
            "KINDS",
        ],
    ),
    (
        "checkpoint",
        &["rdkafka", "object_store", "deltalake", "ractor", "crate::lake", "crate::streams", "crate::control", "KINDS"],
    ),
    ("announce", &["sled", "object_store", "deltalake", "crate::control", "crate::streams", "KINDS"]),
    ("streams", &["rdkafka", "sled", "object_store", "deltalake", "axum", "crate::control", "KINDS"]),
    ("control", &["object_store", "deltalake", "sled", "rdkafka", "parquet", "crate::checkpoint", "KINDS"]),
    ("settings", &["tokio", "ractor", "sled", "object_store", "deltalake", "crate::lake", "crate::streams"]),
    (
        "telemetry",
        &["object_store", "deltalake", "rdkafka", "crate::lake", "crate::streams", "crate::control", "KINDS"],
    ),
    (
        "oracle",
        &[
            "object_store",
            "deltalake",
            "buoyant_kernel",
            "tokio",
            "sled",
            "ractor",
            "supervisors",
            "adapters",
            "crate::lake",
            "crate::pipeline",
            "crate::streams",
            "crate::checkpoint",
            "crate::announce",
            "crate::control",
            "crate::settings",
            "crate::names",
            "crate::telemetry",
            "crate::times",
            "crate::app",
        ],
    ),
];

/// What a room may name all the same: types that stand in another room's outward face.
const ALLOWED: [(&str, &str); 1] = [("settings", "crate::streams::api")];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under `folder`, relative to the root, sorted.
fn rust_files(folder: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn all_rust_files() -> Vec<String> {
    ["src", "supervisors", "adapters", "tests"].into_iter().flat_map(rust_files).collect()
}

/// The file without comments and without its `mod tests`.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Files of a room, whether a folder or one file, but its tests.
fn room_files(room: &str) -> Vec<String> {
    let of_tests =
        |file: &String| file.contains("/tests/") || file.ends_with("tests.rs") || file.ends_with("/testing.rs");
    let mut files = rust_files(&format!("src/{room}"));
    files.extend(Some(format!("src/{room}.rs")).filter(|file| root().join(file).exists()));
    files.retain(|file| !of_tests(file));
    files
}

/// Every path that code names, as `use` lines and in full: groups in braces are spread out.
fn named_paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let is_word = rest[..at].chars().last().is_none_or(|c| c.is_whitespace() || c == ')');
        rest = &rest[at + 4..];
        if let Some(end) = rest.find(';').filter(|_| is_word) {
            spread("", &rest[..end], &mut found);
        }
    }
    // Words joined by `::` anywhere else.
    for word in code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        if word.contains("::") && !word.ends_with(':') {
            found.insert(word.to_owned());
        }
    }
    found
}

fn spread(prefix: &str, tree: &str, found: &mut BTreeSet<String>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let group = group.rsplit_once('}').map_or(group, |(inner, _)| inner);
        let (mut depth, mut start) = (0, 0);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    spread(&format!("{prefix}{}", head.trim()), &group[start..i], found);
                    start = i + 1;
                }
                _ => {}
            }
        }
        spread(&format!("{prefix}{}", head.trim()), &group[start..], found);
    } else if !tree.is_empty() {
        found.insert(format!("{prefix}{}", tree.split(" as ").next().unwrap_or_default().trim()));
    }
}

fn is_under(path: &str, banned: &str) -> bool {
    path == banned || path.strip_prefix(banned).is_some_and(|rest| rest.starts_with("::"))
}

/// Kinds of adapters: every folder or file of `adapters/src` but what they all stand on.
fn kinds() -> Vec<String> {
    let shared = ["contract", "conformance", "http", "json", "lib"];
    let entries = fs::read_dir(root().join("adapters/src")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let mut kinds: Vec<String> = names.filter(|name| !shared.contains(&name.as_str())).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn test_house_rooms_use_only_what_they_may() {
    let kinds: Vec<String> = kinds().iter().map(|kind| format!("adapters::{kind}")).collect();
    let mut wrong = Vec::new();
    for (room, banned) in ROOMS {
        for file in room_files(room) {
            for path in named_paths(&code_of(Path::new(&file))) {
                let is_kind = banned.contains(&"KINDS") && kinds.iter().any(|kind| is_under(&path, kind));
                let allowed = ALLOWED.iter().any(|(who, what)| *who == room && is_under(&path, what));
                if !allowed && (is_kind || banned.iter().any(|banned| is_under(&path, banned))) {
                    wrong.push(format!("{file} names {path}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "docs/architecture.md tells who may use whom:\n{}", wrong.join("\n"));
}

#[test]
fn test_house_kinds_do_not_know_each_other() {
    // iqair is http_poll with settings of its own.
    let allowed = [("iqair", "http_poll")];
    let kinds = kinds();
    let mut wrong = Vec::new();
    for kind in &kinds {
        let mut files = rust_files(&format!("adapters/src/{kind}"));
        files.extend(Some(format!("adapters/src/{kind}.rs")).filter(|file| root().join(file).exists()));
        for file in files.iter().filter(|file| !file.contains("tests")) {
            let named = named_paths(&code_of(Path::new(file)));
            for other in
                kinds.iter().filter(|other| *other != kind && !allowed.contains(&(kind.as_str(), other.as_str())))
            {
                let other = format!("crate::{other}");
                wrong.extend(
                    named.iter().filter(|path| is_under(path, &other)).map(|path| format!("{file} names {path}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn test_house_path_reader_sees_groups_renames_and_full_paths() {
    let code = "use a::{b, c::{d, e as f}};\npub(crate) use g::h;\nfn x() { crate::lake::open() }";
    let named: Vec<String> = named_paths(code).into_iter().collect();
    assert_eq!(named, ["a::b", "a::c::d", "a::c::e", "crate::lake::open", "g::h"]);
    assert!(is_under("crate::lake::open", "crate::lake") && !is_under("crate::lakes", "crate::lake"));
}

/// Packages that crate `name` depends on as it ships.
fn dependencies(name: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", name, "-e", "normal,build", "--prefix", "none", "-f", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn test_house_crates_have_no_forbidden_dependency() {
    let assert_without = |name: &str, banned: &[&str]| {
        let found = dependencies(name);
        assert!(found.contains(name), "cargo tree knows {name}");
        let wrong: Vec<_> = banned.iter().filter(|banned| found.contains(**banned)).collect();
        assert!(wrong.is_empty(), "{name} depends on {wrong:?}");
    };
    assert_without(
        "supervisors",
        &["adapters", "lakefeed", "object_store", "deltalake", "rdkafka", "sled", "toml", "arrow"],
    );
    assert_without("adapters", &["supervisors", "lakefeed", "ractor", "object_store", "deltalake", "sled"]);
    assert!(dependencies("lakefeed").contains("ractor"), "the look finds what is there");
}

#[test]
fn test_house_files_are_short() {
    let long: Vec<String> = all_rust_files()
        .into_iter()
        .map(|file| (fs::read_to_string(root().join(&file)).unwrap().lines().count(), file))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, file)| format!("{file}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {FILE_LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn test_house_no_test_file_is_forgotten() {
    let declared = |file: &Path| -> String {
        let folder = file.parent().unwrap();
        let parent = ["mod.rs", "main.rs"].iter().map(|name| folder.join(name)).find(|parent| parent.exists());
        fs::read_to_string(parent.unwrap_or_else(|| folder.with_extension("rs"))).unwrap()
    };
    let mut forgotten = Vec::new();
    for file in rust_files("tests") {
        let path = root().join(&file);
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name != "main" && name != "mod" && !declared(&path).contains(&format!("mod {name};")) {
            forgotten.push(file);
        }
    }
    assert!(forgotten.is_empty(), "no module declares {}", forgotten.join(", "));
}

#[test]
fn test_house_wall_clock_and_randomness_come_from_outside() {
    let banned =
        ["SystemTime::now", "Utc::now", "Local::now", "rand::rng()", "rand::random", "thread_rng", "unbounded_channel"];
    // The composition root is where they come from; the oracle and the lines of main are no rooms.
    let outside =
        ["src/app", "src/main.rs", "src/cli", "src/bench", "src/demo", "src/simulate", "adapters/src/contract/env.rs"];
    let mut wrong = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("adapters/src")).chain(rust_files("supervisors/src")) {
        if outside.iter().any(|place| file.starts_with(place)) || file.contains("/tests") {
            continue;
        }
        let code = code_of(Path::new(&file));
        wrong.extend(banned.iter().filter(|word| code.contains(**word)).map(|word| format!("{file} has {word}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
