//! Gets what tests need: Go programs, packages of the system, Python and Node packages. Each once, whoever asks first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Where everything that is installed stays between runs.
fn cache() -> Result<PathBuf, String> {
    let home = std::env::var_os("HOME").ok_or("no HOME")?;
    let folder = Path::new(&home).join(".cache/lakefeed");
    fs::create_dir_all(folder.join("bin")).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// Holds the lock under which something of this name is installed, until it is dropped. All test processes of the
/// machine share it, so that nothing is built twice side by side.
fn lock(name: &str) -> Result<File, String> {
    let path = cache()?.join(format!("{name}.lock"));
    let file = File::create(path).map_err(|error| error.to_string())?;
    file.lock().map_err(|error| error.to_string())?;
    Ok(file)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.output().map_err(|error| format!("{name} cannot be run: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let last: Vec<_> = said.lines().rev().take(5).collect();
    Err(format!("{name} failed with {}: {}", ended.status, last.into_iter().rev().collect::<Vec<_>>().join(" | ")))
}

fn is_there(program: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {program}")]).output().is_ok_and(|out| out.status.success())
}

/// Whether this process may mount, install and trace.
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

/// A program of the system, from the package `package` where it is not there yet.
pub(crate) fn system(program: &str, package: &str) -> Result<(), String> {
    if is_there(program) {
        return Ok(());
    }
    if !is_root() || !is_there("apt-get") {
        return Err(format!("{program} is not installed and cannot be"));
    }
    let _lock = lock("apt")?;
    if is_there(program) {
        return Ok(());
    }
    // Somebody else may be installing; dpkg waits for him.
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "-y", "--no-install-recommends", package]))
}

/// The binary `name` in the cache folder, built by `go install` from `module` where it is not there yet; `built` is
/// what Go calls it.
pub(crate) fn go_program(name: &str, module: &str, built: &str) -> Result<PathBuf, String> {
    let binary = cache()?.join("bin").join(name);
    let _lock = lock(name)?;
    if binary.exists() {
        return Ok(binary);
    }
    system("go", "golang")?;
    // Built beside its place and moved there, so that a test that is killed leaves no half of it.
    let staging = TempDir::new().map_err(|error| error.to_string())?;
    let install = ["install", "-ldflags=-s -w", module];
    run(Command::new("go").args(install).env("GOBIN", staging.path()).env("CGO_ENABLED", "0"))?;
    let beside = binary.with_extension("new");
    fs::copy(staging.path().join(built), &beside).map_err(|error| error.to_string())?;
    fs::rename(beside, &binary).map_err(|error| error.to_string())?;
    Ok(binary)
}

/// A Python with `packages` (`name==version`), in an environment of its own named `name`.
pub(crate) fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = cache()?.join(name);
    let _lock = lock(name)?;
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    if fs::read_to_string(&ready).is_ok_and(|text| text == packages.join(" ")) {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&folder);
    system("python3", "python3-venv")?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(packages))?;
    fs::write(ready, packages.join(" ")).map_err(|error| error.to_string())?;
    Ok(python)
}

/// The folder with the Node packages that `lock` pins for `package`, in which `name` is one.
pub(crate) fn node_packages(name: &str, package: &str, lock: &str) -> Result<PathBuf, String> {
    let folder = cache()?.join(name);
    let _lock = self::lock(name)?;
    let ready = folder.join("ready");
    if fs::read_to_string(&ready).is_ok_and(|text| text == lock) {
        return Ok(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    system("node", "nodejs")?;
    system("npm", "npm")?;
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for (file, text) in [("package.json", package), ("package-lock.json", lock)] {
        fs::write(folder.join(file), text).map_err(|error| error.to_string())?;
    }
    let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    run(Command::new("npm").args(install).current_dir(&folder))?;
    fs::write(ready, lock).map_err(|error| error.to_string())?;
    Ok(folder)
}
