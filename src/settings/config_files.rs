//! The files of `config/`: the examples must be valid, and each wrong one must get exactly the messages that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapters::contract::Kind;
use adapters::contract::config::{MapSecrets, Problem};
use adapters::http::Budgets;
use adapters::http_poll::HttpPoll;
use adapters::iqair::Iqair;
use adapters::synthetic::Synthetic;

use super::load;

/// What a wrong file begins with, once for each message, in order.
const EXPECT: &str = "# expect: ";

fn kinds() -> Vec<Arc<dyn Kind>> {
    let budgets = Arc::new(Budgets::default());
    vec![Arc::new(HttpPoll::new(Arc::clone(&budgets))), Arc::new(Iqair::new(budgets)), Arc::new(Synthetic::default())]
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder(name)).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files
}

fn secrets() -> MapSecrets {
    let long = "0123456789abcdef0123456789abcdef";
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let env = [
        ("KEY", "k-1"),
        ("IQAIR_KEY", "k-2"),
        ("FEED_TOKEN", "k-3"),
        ("METER_USER", "u"),
        ("METER_PASSWORD", "p"),
        ("S3_KEY", "k-4"),
        ("S3_SECRET", "s-4"),
        ("HOSTNAME", "node-7"),
        ("LAKEFEED_TOKEN", long),
        ("LAKEFEED_SECRETS_KEY", key),
        ("SHORT", "short"),
        ("EMPTY", ""),
    ];
    MapSecrets { env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), ..MapSecrets::default() }
}

/// Each problem as printed, files without their folders.
fn messages(path: &Path) -> Result<Vec<Problem>, Vec<String>> {
    let show = |problem: Problem| {
        let base = if path.is_dir() { path } else { path.parent().expect("a folder") };
        problem.to_string().replace(&format!("{}/", base.display()), "")
    };
    load(path, &kinds(), &secrets()).map(|(_, warnings)| warnings).map_err(|all| all.into_iter().map(show).collect())
}

#[test]
fn test_every_example_is_valid() {
    let examples = files("examples");
    assert!(examples.len() >= 6);
    for path in examples {
        let warnings = messages(&path).unwrap_or_else(|wrong| panic!("{}: {wrong:#?}", path.display()));
        let codes: Vec<_> = warnings.iter().map(|warning| warning.code).collect();
        let expected: &[&str] = if path.ends_with("many_tenants.toml") { &["CLEAR_TEXT"] } else { &[] };
        assert_eq!(codes, expected, "{}", path.display());
    }
}

#[test]
fn test_the_defaults_are_valid_with_and_without_their_options() {
    let path = folder("default.toml");
    messages(&path).expect("valid");
    let text = fs::read_to_string(&path).expect("readable").replace("#: ", "");
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("all.toml");
    fs::write(&path, text).expect("written");
    messages(&path).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
}

#[test]
fn test_the_defaults_are_the_defaults() {
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("least.toml");
    fs::write(&path, "[lake]\nurl = \"file:lake\"\n").expect("written");
    let read = |path: &Path| load(path, &kinds(), &secrets()).expect("valid").0;
    let (least, written) = (read(&path), read(&folder("default.toml")));
    assert_eq!(least.supervision, written.supervision);
    assert_eq!(least.lake.epoch, written.lake.epoch);
    assert_eq!(least.api, written.api);
    let mut node = written.node;
    node.state_dir.clone_from(&least.node.state_dir);
    assert_eq!(least.node, node);
}

#[test]
fn test_ten_thousand_streams_of_real_kinds_load() {
    use std::fmt::Write as _;
    let mut text = fs::read_to_string(folder("examples").join("iqair.toml")).expect("readable");
    text.push_str(
        &fs::read_to_string(folder("examples").join("current_value.toml"))
            .expect("readable")
            .replace("[lake]\nurl = \"file:lake\"\nepoch = { max_age = \"10s\" }", ""),
    );
    for n in 0..5_000 {
        writeln!(
            text,
            "[stream.\"t{}/i{n}\"]\nadapter = \"IQAIR_DAILY\"\npartitions = [ {{ lat = 1.5, lon = {}.25 }} ]",
            n % 50,
            n % 90
        )
        .expect("text");
        writeln!(text, "[stream.\"t{}/m{n}\"]\nadapter = \"METERS\"\npartitions = [ {{ meter = \"m{n}\" }} ]", n % 50)
            .expect("text");
    }
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("many.toml");
    fs::write(&path, text).expect("written");
    messages(&path).expect("valid");
}

/// With `LAKEFEED_BLESS=1` the messages are written into the files; read the difference before it is committed.
#[test]
fn test_every_wrong_file_gets_exactly_its_messages() {
    let wrong = files("invalid");
    assert!(wrong.len() >= 45, "{} files", wrong.len());
    let mut failures = Vec::new();
    for path in wrong {
        if std::env::var_os("LAKEFEED_BLESS").is_some() {
            bless(&path);
        }
        let expected = expected(&path);
        let found = messages(&path).err().unwrap_or_default();
        if expected != found || found.is_empty() {
            failures.push(format!("{}\nexpected {expected:#?}\nfound {found:#?}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Of a folder, its first file has the messages of all.
fn first_file(path: &Path) -> PathBuf {
    if !path.is_dir() {
        return path.to_owned();
    }
    fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()).min().expect("a file")
}

fn expected(path: &Path) -> Vec<String> {
    let bytes = fs::read(first_file(path)).expect("readable");
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map_while(|line| line.strip_prefix(EXPECT)).map(str::to_owned).collect()
}

/// The number of messages moves the lines that they name, so it is written until it stays.
fn bless(path: &Path) {
    let file = first_file(path);
    for _ in 0..3 {
        let bytes = fs::read(&file).expect("readable");
        let is_message = |line: &&[u8]| line.starts_with(EXPECT.as_bytes());
        let body: Vec<u8> = bytes.split_inclusive(|b| *b == b'\n').skip_while(is_message).flatten().copied().collect();
        let head: String =
            messages(path).err().unwrap_or_default().iter().map(|line| format!("{EXPECT}{line}\n")).collect();
        fs::write(&file, [head.into_bytes(), body].concat()).expect("written");
    }
}
