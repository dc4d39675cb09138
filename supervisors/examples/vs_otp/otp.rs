//! OTP's side of the comparison: Erlang from the system's packages, and our scenarios compiled for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::Kind;
use crate::scenario::{Scenario, What};

const SOURCE: &str = include_str!("vs_otp.erl");

/// A folder with the compiled scenarios, removed when dropped.
pub(crate) struct Otp {
    folder: PathBuf,
    /// Its release, such as `25`.
    pub(crate) release: String,
}

impl Drop for Otp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Otp {
    /// Installs Erlang if it is absent and this user may, and compiles the scenarios.
    pub(crate) fn prepare() -> Result<Self, String> {
        if output(Command::new("erlc").arg("-h")).is_err() {
            install()?;
        }
        let folder = std::env::temp_dir().join(format!("vs_otp.{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| format!("no temporary folder: {error}"))?;
        let mut otp = Self { folder, release: String::new() };
        let source = otp.folder.join("vs_otp.erl");
        std::fs::write(&source, SOURCE).map_err(|error| format!("cannot write the scenarios: {error}"))?;
        output(Command::new("erlc").arg("-o").arg(&otp.folder).arg(&source))?;
        let release = "io:put_chars(erlang:system_info(otp_release)), halt(0).";
        otp.release = output(Command::new("erl").args(["-noshell", "-eval", release]))?;
        Ok(otp)
    }

    /// The figure of one scenario, in a virtual machine of its own with its default number of schedulers.
    pub(crate) fn measure(&self, scenario: Scenario) -> Result<f64, String> {
        let what = match scenario.what {
            What::Restart => "restart",
            What::Rested => "rested",
            What::Storm => "storm",
            What::Group => "group",
            What::StartStop => "start_stop",
            What::Idle => "idle",
        };
        let kind = match scenario.kind {
            Kind::Task => "plain",
            Kind::Actor => "server",
        };
        let mut command = Command::new("erl");
        command.arg("-noshell").arg("-pa").arg::<&Path>(&self.folder);
        command.args(["-s", "vs_otp", "main", what, kind, &scenario.count.to_string()]);
        let text = output(&mut command)?;
        text.trim().parse().map_err(|_| format!("{}: OTP said {text:?}", scenario.name))
    }
}

fn install() -> Result<(), String> {
    let missing = "erlang-base is missing: apt-get install erlang-base";
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        return Err(format!("{missing} (needs root)"));
    }
    output(Command::new("apt-get").arg("update")).map_err(|error| format!("{missing}: {error}"))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "erlang-base"]);
    output(&mut install).map(drop).map_err(|error| format!("{missing}: {error}"))
}

/// What a command prints if it succeeds, what it complains of if not.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
