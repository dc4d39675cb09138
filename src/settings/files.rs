//! Finds and reads the files of a configuration.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapters::contract::config::{Mark, Problem, Problems};

/// A configuration is written by people; a longer file is a mistake, and parsing it would take memory that nobody
/// planned for.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// More files than this in one folder is a mistaken path.
const FILES_MAX: usize = 1000;

/// One file as read.
#[derive(Debug)]
pub(super) struct Source {
    /// As the operator named it.
    pub(super) name: Arc<str>,
    /// The folder to which relative paths in it belong.
    pub(super) folder: Arc<Path>,
    /// Its content.
    pub(super) text: String,
}

/// Reads `path`, a file or a folder of `*.toml` in name order. What cannot be read is reported and left out.
pub(super) fn read(path: &Path, problems: &Problems) -> Vec<Source> {
    let files = match list(path) {
        Ok(files) => files,
        Err(problem) => {
            problems.push(*problem);
            return Vec::new();
        }
    };
    files.iter().filter_map(|file| read_one(file).map_err(|problem| problems.push(*problem)).ok()).collect()
}

fn list(path: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
    let found = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    if found.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !found.is_dir() {
        let what = "this is neither a file nor a folder";
        return Err(problem(path, "FILE_NOT_READABLE", what, "a TOML file or a folder of them", "correct the path"));
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| unreadable(path, &e))? {
        let file = entry.map_err(|e| unreadable(path, &e))?.path();
        // Editors leave hidden copies behind, and mounted volumes hidden folders.
        let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") && file.is_file() {
            files.push(file);
        }
        if files.len() > FILES_MAX {
            let what = format!("this folder has more than {FILES_MAX} TOML files");
            return Err(problem(path, "TOO_MANY_FILES", &what, "a folder of settings only", "correct the path"));
        }
    }
    if files.is_empty() {
        let what = "this folder has no TOML files";
        return Err(problem(path, "NO_FILES", what, "at least one file *.toml in it", "correct the path"));
    }
    files.sort();
    Ok(files)
}

fn read_one(path: &Path) -> Result<Source, Box<Problem>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(path));
    }
    let text = String::from_utf8(bytes).map_err(|e| not_utf8(path, e.as_bytes(), e.utf8_error().valid_up_to()))?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    Ok(Source { name: path.to_string_lossy().into(), folder: folder.into(), text })
}

/// A text that came otherwise; `None` after reporting that it is too long.
pub(super) fn from_text(name: &str, text: &str, problems: &Problems) -> Option<Source> {
    if text.len() as u64 > FILE_BYTES_MAX {
        problems.push(*too_large(Path::new(name)));
        return None;
    }
    Some(Source { name: name.into(), folder: Path::new("").into(), text: text.to_owned() })
}

fn too_large(path: &Path) -> Box<Problem> {
    let what = "this file has more than 1 MiB";
    problem(path, "FILE_TOO_LARGE", what, "at most 1 MiB", "split it into a folder of files")
}

fn not_utf8(path: &Path, bytes: &[u8], at: usize) -> Box<Problem> {
    let before = String::from_utf8_lossy(&bytes[..at]);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let mut problem = problem(path, "NOT_UTF8", "these bytes are not UTF-8", "text in UTF-8", "save the file as UTF-8");
    problem.mark = Some(Mark {
        file: path.to_string_lossy().into(),
        line: before.matches('\n').count() + 1,
        col: before[line_start..].chars().count() + 1,
    });
    problem
}

fn unreadable(path: &Path, error: &std::io::Error) -> Box<Problem> {
    let what = format!("this cannot be read: {}", error.kind());
    problem(path, "FILE_NOT_READABLE", &what, "a TOML file or a folder of them", "correct the path or its permissions")
}

fn problem(path: &Path, code: &'static str, what: &str, expected: &str, remedy: &str) -> Box<Problem> {
    let mark = Mark { file: path.to_string_lossy().into(), line: 1, col: 1 };
    Box::new(Problem::of_text(mark, code, what, expected, remedy))
}
