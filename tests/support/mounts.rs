//! File systems of a test's own, where this machine lets them be mounted.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::servers::install;

/// Something mounted, until it is dropped.
pub(crate) struct Mounted {
    at: PathBuf,
    _own: Option<TempDir>,
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let ended = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&ended.stderr).trim()))
}

impl Mounted {
    /// An empty file system in memory that holds so many MiB.
    pub(crate) fn tmpfs(mib: u32) -> Result<Self, String> {
        let own = TempDir::new().map_err(|error| error.to_string())?;
        let at = own.path().to_owned();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", at.to_str().unwrap()])?;
        Ok(Self { at, _own: Some(own) })
    }

    /// The file system in `image`, at `at`.
    pub(crate) fn image(image: &Path, at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()])?;
        Ok(Self { at: at.to_owned(), _own: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// `ro` or `rw`. Refused while a file is open for writing.
    pub(crate) fn remount(&self, mode: &str) -> Result<(), String> {
        run("mount", &["-o", &format!("remount,{mode}"), self.at.to_str().unwrap()])
    }

    /// Takes all space that is left, down to the last byte.
    pub(crate) fn fill(&self) {
        let mut ballast = OpenOptions::new().create(true).append(true).open(self.at.join("ballast")).unwrap();
        for size in [1 << 18, 1 << 12, 1] {
            let bytes = vec![1; size];
            while ballast.write(&bytes).is_ok_and(|written| written > 0) {}
        }
    }

    /// Gives it back.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.at.join("ballast")).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: what still holds a file there is on its way out.
        let _ = run("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

/// A fresh image of `kind` (`ext4`, `xfs`) in `folder`.
pub(crate) fn image(kind: &str, folder: &Path) -> Result<PathBuf, String> {
    // xfs makes none below 300 MiB; nearly all of either is a hole.
    let (mib, package, args): (u64, _, &[&str]) = match kind {
        "xfs" => (320, "xfsprogs", &["-q", "-f"]),
        _ => (96, "e2fsprogs", &["-q", "-F"]),
    };
    let program = format!("mkfs.{kind}");
    install::system(&program, package)?;
    let path = folder.join(format!("{kind}.img"));
    let file = File::create(&path).map_err(|error| error.to_string())?;
    file.set_len(mib << 20).map_err(|error| error.to_string())?;
    run(&program, &[args, &[path.to_str().unwrap()]].concat())?;
    Ok(path)
}

/// What is on the disk of `image` now, whatever the kernel still holds for it.
pub(crate) fn copy_image(image: &Path, to: &Path) {
    run("cp", &["--sparse=always", image.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
}
