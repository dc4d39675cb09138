//! The whole configuration: files, sections, adapters, streams.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use adapters::contract::Kind;
use adapters::contract::config::{Entry, Mark, Node, Problem, Problems, Reader, SecretSource, Table, Value, nearest};

use super::jobs::{JobReader, Outcome, digest, lay};
use super::sections::{restart, shorten};
use super::{AdapterSettings, Job, RestartSettings, Settings, StreamSettings};
use super::{document, files, lake, sections};
use crate::names::{StreamId, is_adapter_name};
use crate::streams::api::Desired;

/// Reads the TOML file or folder of them at `path` and checks everything, without opening or connecting anything.
///
/// # Errors
/// Everything that is wrong, and every warning, in the order of files and lines. Without an error the warnings come
/// beside the settings.
pub fn load(
    path: &Path,
    kinds: &[Arc<dyn Kind>],
    secrets: &dyn SecretSource,
) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let problems = Problems::default();
    let files = files::read(path, &problems);
    check(&files, kinds, secrets, problems)
}

fn check(
    files: &[files::Source],
    kinds: &[Arc<dyn Kind>],
    secrets: &dyn SecretSource,
    problems: Problems,
) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let documents: Vec<_> = files.iter().map(|file| document::parse(file, &problems)).collect();
    if documents.is_empty() {
        return Err(problems.into_sorted());
    }
    let mut echoes = Echoes { lost: false, told: HashSet::new() };
    let mut tables = Vec::with_capacity(documents.len());
    for document in documents {
        echoes.lost |= document.lost;
        if let Some(header) = &document.table.header {
            let file = &header.file;
            echoes.told.extend(document.told.into_iter().map(|line| (Arc::clone(file), line)));
        }
        tables.push(document.table);
    }
    let root = document::merge(tables, "", &problems);
    let meaning = Problems::default();
    let settings = read(&root, kinds, secrets, &meaning);
    for problem in meaning.into_sorted().into_iter().filter(|problem| !echoes.holds(problem)) {
        problems.push(problem);
    }
    let failed = problems.errors() > 0;
    let problems = problems.into_sorted();
    match settings {
        Some(settings) if !failed => Ok((settings, problems)),
        _ => Err(problems),
    }
}

/// Checks `text` as if it were the only file of a configuration; gives everything wrong and every warning. Reads no
/// file and shows no secret, so that it can serve others than the operator: a reference counts as good where it leads
/// to a file or to a variable that is set.
pub fn check_text(text: &str, kinds: &[Arc<dyn Kind>], secrets: &dyn SecretSource) -> Vec<Problem> {
    let problems = Problems::default();
    let Some(file) = files::from_text("body", text, &problems) else { return problems.into_sorted() };
    let mut references = HashSet::new();
    references_of(&document::parse(&file, &Problems::default()).table, &mut references);
    let found = match check(&[file], kinds, &Unread(secrets), problems) {
        Ok((_, problems)) | Err(problems) => problems,
    };
    let of_stand_in = |problem: &Problem| {
        problem.code != "SECRET_NOT_FOUND" && problem.mark.as_ref().is_some_and(|mark| references.contains(mark))
    };
    found.into_iter().filter(|problem| !of_stand_in(problem)).collect()
}

/// Where references stand.
fn references_of(table: &Table, marks: &mut HashSet<Mark>) {
    table.entries.iter().for_each(|entry| references_in(&entry.node, marks));
}

fn references_in(node: &Node, marks: &mut HashSet<Mark>) {
    match &node.value {
        Value::String(text) if text.starts_with("env:") || text.starts_with("file:") => marks.extend(node.mark.clone()),
        Value::Array(all) => all.iter().for_each(|item| references_in(item, marks)),
        Value::Table(table) => references_of(table, marks),
        _ => {}
    }
}

/// Secrets that are only looked for.
#[derive(Debug)]
struct Unread<'a>(&'a dyn SecretSource);

/// Passes for any secret: long enough for a token, and a key's 64 digits.
const STAND_IN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl SecretSource for Unread<'_> {
    fn env(&self, name: &str) -> Option<String> {
        self.0.env(name).map(|_| STAND_IN.to_owned())
    }

    fn file(&self, _: &Path) -> Result<String, String> {
        Ok(STAND_IN.to_owned())
    }
}

/// What syntax errors make of sound text.
struct Echoes {
    lost: bool,
    told: HashSet<(Arc<str>, usize)>,
}

impl Echoes {
    /// Something that seems missing may stand where the text could not be read, and a line with a syntax error has
    /// been spoken of.
    fn holds(&self, problem: &Problem) -> bool {
        let absent = ["MISSING_KEY", "UNKNOWN_ADAPTER"].contains(&problem.code);
        let told = |mark: &Mark| self.told.contains(&(Arc::clone(&mark.file), mark.line));
        (self.lost && absent) || problem.mark.as_ref().is_some_and(told)
    }
}

/// `None` where something is wrong; some of it only shows in `problems`.
fn read(root: &Table, kinds: &[Arc<dyn Kind>], secrets: &dyn SecretSource, problems: &Problems) -> Option<Settings> {
    let folder = root.folder.as_deref().unwrap_or_else(|| Path::new(""));
    let reader = Reader::new(root, "", problems, secrets);
    let node = sections::node(reader.section("node"), folder);
    let lake = match reader.section("lake") {
        Some(section) => {
            let lake = lake::read(&section, folder);
            section.finish();
            lake
        }
        None => {
            if !reader.has("lake") {
                problems.push(no_lake(root));
            }
            None
        }
    };
    let api = sections::api(reader.section("api"));
    let supervision = restart(reader.section("supervision"), &RestartSettings::default());
    let all = Reading { jobs: JobReader { kinds, secrets, supervision: &supervision }, problems };
    let adapters = all.adapters(reader.section("adapter").as_ref());
    let streams = all.streams(reader.section("stream").as_ref(), &adapters);
    reader.finish();
    let adapters = adapters.into_iter().map(|(name, adapter)| (name, adapter.settings)).collect();
    Some(Settings { node, lake: lake?, api, supervision, adapters, streams })
}

/// A name with everything escaped that may look like something else, or like nothing.
fn spelled(name: &str) -> String {
    format!("\"{}\"", shorten(name).escape_default())
}

/// What may be right once partitions are there: streams and messages bring their own.
const WITHOUT_PARTITIONS: [&str; 2] = ["UNKNOWN_PLACEHOLDER", "INVALID_PARTITION"];

fn no_lake(root: &Table) -> Problem {
    Problem {
        mark: root.header.clone(),
        code: "MISSING_KEY",
        field: "lake".to_owned(),
        what: "[lake] is missing".to_owned(),
        expected: "expected the place where everything is stored".to_owned(),
        remedy: "add [lake] and url = \"file:lake\" below it".to_owned(),
        warning: false,
    }
}

/// An adapter as first read, alone.
struct Alone {
    settings: AdapterSettings,
    job: Option<Job>,
    /// What is wrong however it is used.
    problems: Vec<Problem>,
    /// What is wrong where nobody brings partitions.
    unfilled: Vec<Problem>,
}

struct Reading<'a> {
    jobs: JobReader<'a>,
    problems: &'a Problems,
}

impl Reading<'_> {
    fn adapters(&self, section: Option<&Reader<'_>>) -> BTreeMap<String, Alone> {
        let mut adapters = BTreeMap::new();
        let Some(section) = section else { return adapters };
        let mut lower = BTreeMap::new();
        for entry in section.entries() {
            let Value::Table(table) = &entry.node.value else {
                self.not_a_table(section, entry, "kind = \"…\"");
                continue;
            };
            if !is_adapter_name(&entry.key) {
                let what = format!("{} cannot name an adapter", spelled(&entry.key));
                self.at_key(
                    entry,
                    section,
                    "INVALID_NAME",
                    what,
                    "[A-Za-z0-9][A-Za-z0-9_-]{0,62}",
                    "choose such a name",
                );
            }
            if let Some(twin) = lower.insert(entry.key.to_lowercase(), entry.key.clone()) {
                let what = format!("{} and {twin} differ only in case", section.path_of(&entry.key));
                let expected = "names that make different streams in lower case";
                self.at_key(entry, section, "AMBIGUOUS_NAME", what, expected, "rename one of them");
            }
            adapters.insert(entry.key.clone(), self.adapter(&entry.key, table, &section.path_of(&entry.key)));
        }
        adapters
    }

    fn adapter(&self, name: &str, table: &Table, path: &str) -> Alone {
        let own = Problems::default();
        let Outcome { job, kind, allow } = self.jobs.read(name, table, path, &own);
        let settings = AdapterSettings {
            name: name.to_owned(),
            kind,
            table: table.clone(),
            allow,
            supervision: self.jobs.supervision.clone(),
            digest: digest(format!("{:?}", self.jobs.supervision).as_bytes(), table, self.jobs.secrets),
        };
        let open = table.get("partitions").is_none();
        let (unfilled, problems): (Vec<_>, Vec<_>) =
            own.into_sorted().into_iter().partition(|problem| open && WITHOUT_PARTITIONS.contains(&problem.code));
        problems.iter().for_each(|problem| self.problems.push(problem.clone()));
        Alone { settings, job, problems, unfilled }
    }

    fn streams(
        &self,
        section: Option<&Reader<'_>>,
        adapters: &BTreeMap<String, Alone>,
    ) -> BTreeMap<StreamId, StreamSettings> {
        let mut streams = BTreeMap::new();
        let Some(section) = section else { return streams };
        for entry in section.entries() {
            let Value::Table(table) = &entry.node.value else {
                self.not_a_table(section, entry, "adapter = \"…\"");
                continue;
            };
            let id = entry.key.parse::<StreamId>();
            if let Err(error) = &id {
                let what = format!("{} {} is not a valid name", error.what, spelled(&error.name));
                let remedy = "write [stream.\"tenant/name\"] with such names";
                self.at_key(entry, section, "INVALID_NAME", what, error.expected, remedy);
            }
            let stream = self.stream(table, &section.path_of(&entry.key), adapters);
            if let (Ok(id), Some(stream)) = (id, stream) {
                streams.insert(id, stream);
            }
        }
        streams
    }

    fn stream(&self, table: &Table, path: &str, adapters: &BTreeMap<String, Alone>) -> Option<StreamSettings> {
        let reader = Reader::new(table, path, self.problems, self.jobs.secrets);
        let name = reader.string_required("adapter", "the name of an adapter", "\"NAME\"");
        let states = [("running", Desired::Running), ("paused", Desired::Paused), ("stopped", Desired::Stopped)];
        let state = reader.choice("state", &states).unwrap_or(Desired::Running);
        let narrowed = reader.node("partitions").is_some() | reader.node("restart").is_some();
        let name = name?;
        let adapter = adapters.get(&name);
        if adapter.is_none() {
            let names: Vec<&str> = adapters.keys().map(String::as_str).collect();
            let remedy = nearest(&name, names.iter().copied());
            let remedy = match (remedy, names.is_empty()) {
                (Some(near), _) => format!("did you mean {near}?"),
                (None, true) => "add [adapter.NAME] first".to_owned(),
                (None, false) => "correct the name".to_owned(),
            };
            let what = format!("{} is {}", reader.path_of("adapter"), reader.shown("adapter", &name));
            let expected = match names.len() {
                0 => "expected an adapter, of which there are none".to_owned(),
                1 => format!("expected {}", names[0]),
                2..=10 => format!("expected one of {}", names.join(", ")),
                count => format!("expected one of the {count} adapters"),
            };
            reader.wrong("adapter", "UNKNOWN_ADAPTER", what, expected, remedy);
        }
        reader.finish();
        let adapter = adapter?;
        let job = if narrowed {
            self.narrowed(&name, adapter, table, path)
        } else {
            adapter.unfilled.iter().for_each(|problem| self.problems.push(problem.clone()));
            adapter.job.clone()
        };
        // The state counts at first sight only, so another one is no change of the stream.
        let mut counted = table.clone();
        counted.entries.retain(|entry| entry.key != "state");
        let digest = digest(&adapter.settings.digest.0, &counted, self.jobs.secrets);
        Some(StreamSettings { adapter: name, state, table: table.clone(), job: job?, digest })
    }

    /// Reads the adapter again with the stream's own keys laid over it, and reports what was not wrong before.
    fn narrowed(&self, name: &str, adapter: &Alone, own: &Table, path: &str) -> Option<Job> {
        let mut table = adapter.settings.table.clone();
        lay(&mut table, own);
        let found = Problems::default();
        let job = self.jobs.read(name, &table, path, &found).job;
        let known: BTreeSet<_> = adapter.problems.iter().map(|problem| (&problem.mark, problem.code)).collect();
        let found = found.into_sorted();
        for problem in found.iter().filter(|problem| !known.contains(&(&problem.mark, problem.code))) {
            self.problems.push(problem.clone());
        }
        job
    }

    fn not_a_table(&self, section: &Reader<'_>, entry: &Entry, example: &str) {
        let path = section.path_of(&entry.key);
        let what = format!("{path} is {}", entry.node.value.type_name());
        let remedy = format!("write [{path}] and {example} below it");
        section.wrong(&entry.key, "WRONG_TYPE", what, "expected a table", remedy);
    }

    fn at_key(
        &self,
        entry: &Entry,
        section: &Reader<'_>,
        code: &'static str,
        what: String,
        expected: &str,
        remedy: &str,
    ) {
        self.problems.push(Problem {
            mark: entry.mark.clone(),
            code,
            field: section.path_of(&entry.key),
            what,
            expected: format!("expected {expected}"),
            remedy: remedy.to_owned(),
            warning: false,
        });
    }
}
