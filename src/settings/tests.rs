//! Settings as a whole: files on disk, through `load`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::config::{MapSecrets, Problem, Reader, Value};
use adapters::contract::{Cadence, Decode, Env, Kind, Mount, Partition, Position, Replay, Rows, Source, SourceError};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use super::*;
use crate::streams::api::Desired;

/// A kind that reads a little of everything, so that these tests do not move with the real kinds.
#[derive(Debug)]
pub(super) struct Fake;

#[derive(Debug)]
struct FakeMount {
    partitions: Vec<Partition>,
}

impl Kind for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn read(&self, adapter: &Reader<'_>) -> Option<Arc<dyn Mount>> {
        let good = adapter.duration("interval").is_some() | !adapter.has("interval");
        adapter.duration("timeout");
        adapter.string("base_url");
        adapter.section("request").map(|r| (r.string("path"), r.finish()));
        adapter.section("auth").map(|r| (r.string("type"), r.secret("value"), r.finish()));
        adapter.sections("budgets").into_iter().for_each(|r| {
            r.secret("key");
            r.finish();
        });
        let partitions = adapter.sections("partitions").into_iter().map(|reader| {
            let values = reader.entries().filter_map(|entry| match &entry.node.value {
                Value::String(_) => Some((entry.key.clone(), reader.string(&entry.key)?)),
                Value::Integer(number) => Some((entry.key.clone(), number.to_string())),
                _ => {
                    reader.wrong(&entry.key, "WRONG_TYPE", "a partition's value", "expected text", "quote it");
                    None
                }
            });
            Partition::from_values(values.collect::<BTreeMap<_, _>>())
        });
        let partitions = partitions.collect();
        good.then(|| Arc::new(FakeMount { partitions }) as Arc<dyn Mount>)
    }
}

#[async_trait]
impl Mount for FakeMount {
    fn replay(&self) -> Replay {
        Replay::Replayable
    }

    fn cadence(&self) -> Cadence {
        Cadence::Continuous
    }

    fn partitions(&self) -> Vec<Partition> {
        self.partitions.clone()
    }

    fn schema(&self) -> Option<SchemaRef> {
        None
    }

    fn decoder(&self) -> Arc<dyn Decode> {
        Arc::new(FakeDecode)
    }

    async fn open(&self, _: &Partition, _: Option<&Position>, _: Env) -> Result<Box<dyn Source>, SourceError> {
        Err(SourceError::new(adapters::contract::ErrorClass::Config, "fake", "never opened"))
    }
}

#[derive(Debug)]
struct FakeDecode;

impl Decode for FakeDecode {
    fn decode(&self, _: &[adapters::contract::Payload], _: Option<&SchemaRef>) -> Rows {
        unreachable!("never opened")
    }
}

pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(Fake)]
}

pub(super) fn secrets() -> MapSecrets {
    let env = [("KEY", "k-123"), ("TOKEN", "0123456789abcdef0123"), ("LAKE", "s3://bucket/x")];
    MapSecrets { env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), ..MapSecrets::default() }
}

fn write(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

pub(super) fn load_text(text: &str) -> Result<(Settings, Vec<Problem>), Vec<String>> {
    load_files(&[("x.toml", text)])
}

fn load_files(files: &[(&str, &str)]) -> Result<(Settings, Vec<Problem>), Vec<String>> {
    let folder = write(files);
    let prefix = format!("{}/", folder.path().display());
    load(folder.path(), &kinds(), &secrets())
        .map_err(|all| all.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
}

fn codes(all: &[String]) -> Vec<&str> {
    all.iter().map(|line| line.split(": ").nth(1).unwrap_or_default()).collect()
}

const WHOLE: &str = r#"
[node]
name = "n"
drain = "5s"
queue = "64MiB"
[lake]
url = "file:lake"
epoch = { max_age = "2s", max_rows = 10 }
[api]
listen = "0.0.0.0:7400"
token = "env:TOKEN"
[supervision]
max_restarts = 3
backoff = { min = "100ms" }
[adapter.A]
kind = "fake"
interval = "1h"
raw = "off"
restart = { max_restarts = 4 }
allow = { endpoints = ["https://a.example/v2/"], secrets = ["env:KEY"] }
[stream."acme/berlin"]
adapter = "A"
state = "paused"
partitions = [ { name = "x" }, { name = "y" } ]
restart = { backoff = { max = "1m" } }
[stream."acme/main"]
adapter = "A"
"#;

#[test]
fn test_a_whole_configuration_reads() {
    let (settings, warnings) = load_text(WHOLE).expect("valid");
    assert_eq!(warnings.iter().map(|w| w.code).collect::<Vec<_>>(), ["CLEAR_TEXT"]);
    assert_eq!(settings.node.drain, Duration::from_secs(5));
    assert!(settings.node.state_dir.is_absolute() && settings.node.state_dir.ends_with("state"));
    assert!(settings.lake.url.starts_with("file:/") && settings.lake.url.ends_with("/lake"));
    assert_eq!(settings.lake.epoch.max_rows, 10);
    let stream = &settings.streams[&"acme/berlin".parse().expect("valid")];
    assert_eq!(stream.state, Desired::Paused);
    assert_eq!(stream.job.mount.partitions().len(), 2);
    let restart = &stream.job.restart;
    assert_eq!(
        (restart.max_restarts, restart.backoff_min, restart.backoff_max),
        (4, Duration::from_millis(100), Duration::from_secs(60))
    );
    let main = &settings.streams[&"acme/main".parse().expect("valid")];
    assert_eq!(main.job.restart.backoff_max, Duration::from_secs(30));
    assert!(!main.job.raw_kept);
    assert_eq!(settings.adapters["A"].allow.secrets, ["env:KEY"]);
}

#[test]
fn test_files_of_a_folder_merge_and_a_key_in_two_is_wrong_at_the_second() {
    let one = "[lake]\nurl = \"file:lake\"\n[adapter.A]\nkind = \"fake\"\ninterval = \"1s\"\n";
    let two = "[adapter.A]\ntimeout = \"1s\"\ninterval = \"2s\"\n[adapter.B]\nkind = \"fake\"\n";
    let found = load_files(&[("2.toml", two), ("1.toml", one)]).expect_err("a key twice");
    let line = "2.toml:3:1: DUPLICATE_KEY: adapter.A.interval stands in two files, first at 1.toml:5; expected each key \
                once; remove one of them";
    assert_eq!(found, [line]);
    let merged = load_files(&[("1.toml", one), ("2.toml", &two.replace("interval = \"2s\"\n", ""))]).expect("merged");
    assert_eq!(merged.0.adapters.keys().collect::<Vec<_>>(), ["A", "B"]);
    let braces = "[adapter.A]\nrestart = { max_restarts = 1 }\n";
    let found = load_files(&[("1.toml", one), ("2.toml", braces), ("3.toml", braces)]).expect_err("restart twice");
    assert_eq!(codes(&found), ["DUPLICATE_KEY"]);
}

#[test]
fn test_a_syntax_error_hides_no_other_error_and_makes_no_false_one() {
    let text = "[lake]\nurl: file:lake\n[node]\ndrain = 30s\nqueue = \"1MB\"\n[adapter.A]\nkind = \"fake\"\nintervall = \
                \"1h\"\n[adapter.B\nkind = \"fake\"\n[stream.\"t/s\"]\nadapter = \"B\"\n";
    let found = load_text(text).expect_err("wrong");
    assert_eq!(codes(&found), ["SYNTAX", "SYNTAX", "INVALID_SIZE", "UNKNOWN_KEY", "SYNTAX"], "{found:#?}");
}

#[test]
fn test_text_that_is_not_toml_ends_in_a_bounded_list() {
    for text in
        ["{\"a\": 1}", &"- a\n".repeat(500), &"[".repeat(5000), &"a = [".repeat(3000), "\u{0}", "a = \"\"\"", "=", "]"]
    {
        let found = load_text(text).expect_err("wrong");
        assert!((1..=30).contains(&found.len()), "{} for {:.20}", found.len(), text);
    }
}

#[test]
fn test_columns_count_characters() {
    let text =
        "[lake]\nurl = \"file:lake\"\n[node]\n\"ä€\" = 1\nname = \"ä\"  # 𝄞\n[api]\ntoken = { \"ö\" = 1, x = 2 }\n";
    let found = load_text(text).expect_err("wrong");
    assert!(found[0].starts_with("x.toml:4:1: UNKNOWN_KEY"), "{found:?}");
    assert!(found[2].starts_with("x.toml:7:9: WRONG_TYPE"), "{found:?}");
}

#[test]
fn test_an_error_of_an_adapter_is_told_once_however_many_streams_use_it() {
    use std::fmt::Write as _;
    let mut text = "[lake]\nurl = \"file:lake\"\n[adapter.A]\nkind = \"fake\"\ninterval = \"1\"\n".to_owned();
    for n in 0..2000 {
        writeln!(text, "[stream.\"t/s{n}\"]\nadapter = \"A\"\npartitions = [{{ name = \"p\" }}]").expect("text");
    }
    writeln!(text, "[stream.\"t/bad\"]\nadapter = \"A\"\npartitions = [{{ name = 1.5 }}]").expect("text");
    let found = load_text(&text).expect_err("wrong");
    assert_eq!(codes(&found), ["INVALID_DURATION", "WRONG_TYPE"], "{found:#?}");
}

#[test]
fn test_ten_thousand_streams_load() {
    use std::fmt::Write as _;
    let mut text = WHOLE.to_owned();
    for n in 0..10_500 {
        writeln!(text, "[stream.\"t{}/s{n}\"]\nadapter = \"A\"", n % 100).expect("text");
        if n % 2 == 0 {
            writeln!(text, "partitions = [{{ name = \"p\" }}]").expect("text");
        }
    }
    let folder = write(&[("x.toml", &text)]);
    let (settings, _) = load(folder.path(), &kinds(), &secrets()).expect("valid");
    assert_eq!(settings.streams.len(), 10_502);
}

#[test]
fn test_files_that_cannot_be_settings_are_refused() {
    let load = |path: &Path| load(path, &kinds(), &secrets()).expect_err("refused").remove(0).code;
    let folder = write(&[]);
    assert_eq!(load(folder.path()), "NO_FILES");
    assert_eq!(load(&folder.path().join("none.toml")), "FILE_NOT_READABLE");
    fs::write(folder.path().join("a.toml"), [b'#', 0xff]).expect("written");
    assert_eq!(load(folder.path()), "NOT_UTF8");
    fs::write(folder.path().join("a.toml"), vec![b'#'; (1 << 20) + 1]).expect("written");
    assert_eq!(load(folder.path()), "FILE_TOO_LARGE");
}

#[test]
fn test_a_text_from_outside_reads_no_file_and_shows_no_secret() {
    let text = "[lake]\nurl = \"file:lake\"\n[node]\nname = \"file:/etc/hostname\"\nsecrets_key = \"file:k\"\n\
                [adapter.A]\nkind = \"fake\"\nraw = \"file:/etc/passwd\"\non_bad_record = \"env:KEY\"\n\
                base_url = \"env:NONE\"\n";
    let found: Vec<_> = check_text(text, &kinds(), &secrets()).iter().map(ToString::to_string).collect();
    assert_eq!(codes(&found), ["SECRET_NOT_FOUND"], "{found:#?}");
    assert_eq!(check_text(&" ".repeat(2 << 20), &kinds(), &secrets())[0].code, "FILE_TOO_LARGE");
    assert!(check_text("[lake]\nurl = \"file:lake\"\n", &kinds(), &secrets()).is_empty());
}

#[test]
fn test_a_value_behind_a_reference_is_not_shown() {
    let text = "[lake]\nurl = \"file:lake\"\n[node]\nname = \"env:LAKE\"\n[api]\nlisten = \"env:KEY\"\n";
    let found = load_text(text).expect_err("wrong").concat();
    assert!(
        found.contains("what env:KEY leads to") && !found.contains("k-123") && !found.contains("bucket"),
        "{found}"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever stands in a text, it is refused or read, each problem at a place that exists, in one line.
    #[test]
    fn test_no_text_breaks_the_reading(cut in 0..WHOLE.len(), length in 0..60_usize, junk in "\\PC{0,12}|[\\[\\]{}=\".,:\n#'$ -]{0,12}") {
        let mut text = WHOLE.to_owned();
        let end = (cut + length).min(text.len());
        text.replace_range(cut..end, &junk);
        let lines: Vec<&str> = text.split('\n').collect();
        for problem in check_text(&text, &kinds(), &secrets()) {
            let mark = problem.mark.clone().expect("a place");
            proptest::prop_assert!((1..=lines.len()).contains(&mark.line), "{problem}");
            proptest::prop_assert!(mark.col >= 1 && mark.col <= lines[mark.line - 1].chars().count() + 1, "{problem}");
            proptest::prop_assert!(!problem.to_string().contains('\n'), "{problem}");
        }
    }
}
