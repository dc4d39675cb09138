//! All verbs of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use super::bench::Bench;
use super::values::{self, Position, Since};
use crate::names::{StreamId, Target};
use crate::streams::api::TREE_STATES;
use crate::telemetry::restarts::{CLASSES, EVENTS};

/// Feeds a data lake from outside sources: supervised, exactly once, and able to say why something failed.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "lakefeed",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Example: lakefeed demo --for 20s\n\n\
                  Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration, 3 node not reachable,\n\
                  4 not allowed, 70 the root supervisor gave up"
)]
pub struct Cli {
    /// Print JSON on stdout: one document, or one a line where it follows
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Run the node: SIGTERM drains and ends it, SIGHUP applies the changed configuration
    #[command(after_help = "Example: lakefeed run -c /etc/lakefeed")]
    Run(ConfigArgs),
    /// Check a configuration without starting anything, and print everything that is wrong
    #[command(after_help = "Example: lakefeed validate -c lakefeed.toml")]
    Validate(ConfigArgs),
    /// Run the main job on embedded defaults, with faulty sources, and prove that nothing was lost or doubled
    #[command(after_help = "Example: lakefeed demo --for 20s --seed 7 --data /tmp/demo")]
    Demo(DemoArgs),
    /// Stand in for an outside source
    #[command(
        subcommand,
        after_help = "Example: lakefeed simulate iqair --stations 5 --faults hang=0.01,http_500=0.05"
    )]
    Simulate(Simulate),
    /// Show what every stream should be and is
    #[command(after_help = "Example: lakefeed status --json")]
    Status(StatusArgs),
    /// Show the supervision tree
    #[command(after_help = "Example: lakefeed tree --only trouble --watch")]
    Tree(TreeArgs),
    /// Show what failed and came back, newest last
    #[command(after_help = "Example: lakefeed restarts --since 1h --class auth --follow")]
    Restarts(RestartsArgs),
    /// Tell the story of one incident: first cause, who was restarted because of it, what each resumed from, what to do
    #[command(after_help = "Example: lakefeed incident 01JD8Z3V5Q")]
    Incident(IncidentArgs),
    /// Start a stream, or change it where it runs
    #[command(after_help = "Example: lakefeed start acme/berlin --adapter IQAIR_DAILY --interval 30m")]
    Start(StartArgs),
    /// Stop a stream: it holds nothing afterwards, and what was collected is committed
    #[command(after_help = "Example: lakefeed stop acme/berlin")]
    Stop(StreamArgs),
    /// Pause a stream: it keeps its table and asks its source for nothing
    #[command(after_help = "Example: lakefeed pause acme/berlin")]
    Pause(StreamArgs),
    /// Let a paused stream go on
    #[command(after_help = "Example: lakefeed resume acme/berlin")]
    Resume(StreamArgs),
    /// Restart the workers of a stream, parked and waiting ones too
    #[command(after_help = "Example: lakefeed restart acme/berlin/lat=52.52,lon=13.4")]
    Restart(TargetArgs),
    /// Drop the workload in progress; the schedule goes on
    #[command(after_help = "Example: lakefeed interrupt acme/berlin")]
    Interrupt(TargetArgs),
    /// Show or change where a stream goes on
    #[command(subcommand, after_help = "Example: lakefeed checkpoint show acme/berlin")]
    Checkpoint(Checkpoint),
    /// Look at records that could not be taken
    #[command(subcommand, after_help = "Example: lakefeed dead list acme/berlin")]
    Dead(Dead),
    /// Show what was published, in order
    #[command(after_help = "Example: lakefeed references --stream acme/berlin --follow")]
    References(ReferencesArgs),
    /// Show what is stored, in pages
    #[command(after_help = "Example: lakefeed records acme/berlin --limit 10")]
    Records(PageArgs),
    /// Look after the lake itself
    #[command(subcommand, after_help = "Example: lakefeed lake check -c lakefeed.toml")]
    Lake(Lake),
    /// Measure what this machine can do, as ratios in one run
    #[command(subcommand, after_help = "Example: lakefeed bench ingest --json")]
    Bench(Bench),
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// A TOML file, or a folder of them that are merged in name order
    #[arg(short = 'c', long = "config", value_name = "PATH")]
    pub config: PathBuf,
}

/// How to reach the node. Its token is taken from the environment only: arguments can be seen by others.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The node's address; the token is taken from LAKEFEED_TOKEN
    #[arg(
        long,
        value_name = "URL",
        env = "LAKEFEED_API",
        default_value = "http://127.0.0.1:7400",
        value_parser = values::api_url
    )]
    pub api: String,
}

/// `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How long to run
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub duration: Duration,
    /// Decides which faults come when
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The folder for lake and state; a new temporary one by default
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `simulate`.
#[derive(Debug, Clone, Subcommand)]
pub enum Simulate {
    /// The IQAir API, with faults
    #[command(
        after_help = "Example: lakefeed simulate iqair --listen 127.0.0.1:7410 --stations 5 --faults hang=0.01,http_500=0.05"
    )]
    Iqair(SimulateIqairArgs),
}

/// `simulate iqair`.
#[derive(Debug, Clone, Args)]
pub struct SimulateIqairArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7410")]
    pub listen: SocketAddr,
    /// Decides observations and faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How many stations there are
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub stations: u32,
    /// How often each station has a new observation
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub tick: Duration,
    /// Faults and how often each comes, for example slow=0.1,hang=0.01,cut=0.05,http_500=0.05,http_429=0.02,garbage=0.02
    #[arg(long, value_name = "SPEC")]
    pub faults: Option<String>,
    /// Write what was handed over to this file, one JSON document a line
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

/// `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// One stream; all by default
    #[arg(value_name = "TENANT/STREAM")]
    pub stream: Option<StreamId>,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `restarts`.
#[derive(Debug, Clone, Args)]
pub struct RestartsArgs {
    /// Not older than this: a duration like 10m, or a time in RFC 3339
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Not newer than this
    #[arg(long, value_name = "WHEN", conflicts_with = "follow")]
    pub until: Option<Since>,
    /// Only these events, with commas between
    #[arg(long, value_name = "EVENT", value_delimiter = ',', value_parser = PossibleValuesParser::new(EVENTS))]
    pub event: Vec<String>,
    /// Of this stream only
    #[arg(long, value_name = "TENANT/STREAM")]
    pub stream: Option<StreamId>,
    /// Of this incident only
    #[arg(long, value_name = "ID")]
    pub incident: Option<String>,
    /// Of this class only
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(CLASSES))]
    pub class: Option<String>,
    /// Wait for more and print them as they come
    #[arg(long)]
    pub follow: bool,
    /// One line a record, several lines with what to do, or one JSON document a line
    #[arg(long, value_name = "FORMAT", default_value = "line", value_enum)]
    pub format: Format,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// How `restarts` prints a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// One line.
    #[default]
    Line,
    /// Several lines.
    Long,
    /// One JSON document a line.
    Json,
}

/// `tree`.
#[derive(Debug, Clone, Args)]
pub struct TreeArgs {
    /// Of this stream only
    #[arg(long, value_name = "TENANT/STREAM")]
    pub stream: Option<StreamId>,
    /// So many levels below the root
    #[arg(long, value_name = "N")]
    pub depth: Option<u32>,
    /// Only what is in one of these states, with commas between, and what it hangs on; trouble = what needs a look
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = PossibleValuesParser::new(TREE_STATES))]
    pub only: Vec<String>,
    /// At most so many nodes, first those in trouble; by default 200, with --json all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Draw it again and again until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// How often --watch draws
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub every: Duration,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `incident`.
#[derive(Debug, Clone, Args)]
pub struct IncidentArgs {
    /// As `lakefeed restarts` prints it
    #[arg(value_name = "ID")]
    pub id: String,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `start`.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// The stream
    #[arg(value_name = "TENANT/STREAM")]
    pub stream: StreamId,
    /// The adapter; by default the one that the stream has
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Poll this often instead
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub interval: Option<Duration>,
    /// Give one workload this long instead
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Ask this endpoint instead, where the adapter's allow.endpoints covers it
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The first segment of the epoch records' path
    #[arg(long = "bucket", value_name = "NAME")]
    pub bucket_name: Option<String>,
    /// These partitions instead, as a JSON array of objects
    #[arg(long, value_name = "JSON", value_parser = values::partitions)]
    pub partitions: Option<serde_json::Value>,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A verb on one stream.
#[derive(Debug, Clone, Args)]
pub struct StreamArgs {
    /// The stream
    #[arg(value_name = "TENANT/STREAM")]
    pub stream: StreamId,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A verb on one stream or one of its partitions.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The stream, or one of its partitions
    #[arg(value_name = "TENANT/STREAM[/PARTITION]")]
    pub target: Target,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `checkpoint`.
#[derive(Debug, Clone, Subcommand)]
pub enum Checkpoint {
    /// Show the last epoch and its positions
    #[command(after_help = "Example: lakefeed checkpoint show acme/berlin")]
    Show(StreamArgs),
    /// Set positions of a stopped stream; partitions that are not named stay
    #[command(after_help = "Example: lakefeed checkpoint set acme/feed feed=main=4711")]
    Set(CheckpointSetArgs),
    /// Let a stopped stream begin anew
    #[command(after_help = "Example: lakefeed checkpoint reset acme/feed")]
    Reset(StreamArgs),
}

/// `checkpoint set`.
#[derive(Debug, Clone, Args)]
pub struct CheckpointSetArgs {
    /// The stream, which must be stopped
    #[arg(value_name = "TENANT/STREAM")]
    pub stream: StreamId,
    /// Where partitions go on
    #[arg(value_name = "PARTITION=POSITION", required = true)]
    pub positions: Vec<Position>,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `dead`.
#[derive(Debug, Clone, Subcommand)]
pub enum Dead {
    /// List dead letters: when, where, stage, code, message
    #[command(after_help = "Example: lakefeed dead list acme/berlin --limit 20")]
    List(PageArgs),
    /// Show one dead letter whole, with its bytes
    #[command(after_help = "Example: lakefeed dead show acme/berlin 12.0")]
    Show(DeadShowArgs),
}

/// `dead show`.
#[derive(Debug, Clone, Args)]
pub struct DeadShowArgs {
    /// The stream
    #[arg(value_name = "TENANT/STREAM")]
    pub stream: StreamId,
    /// As `dead list` prints it
    #[arg(value_name = "ID")]
    pub id: String,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A page of something of one stream.
#[derive(Debug, Clone, Args)]
pub struct PageArgs {
    /// The stream
    #[arg(value_name = "TENANT/STREAM")]
    pub stream: StreamId,
    /// Go on after this cursor, which the page before named as next
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    pub after: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `references`.
#[derive(Debug, Clone, Args)]
pub struct ReferencesArgs {
    /// Of this stream only
    #[arg(long, value_name = "TENANT/STREAM")]
    pub stream: Option<StreamId>,
    /// Go on after this cursor; with --stream, after this epoch
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    pub after: String,
    /// Wait for more and print them as they come
    #[arg(long)]
    pub follow: bool,
    /// How to reach the node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `lake`.
#[derive(Debug, Clone, Subcommand)]
pub enum Lake {
    /// Verify every promise of the lake's layout, and print what is wrong
    #[command(after_help = "Example: lakefeed lake check -c lakefeed.toml")]
    Check(ConfigArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn test_the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn test_every_verb_has_help_with_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example: lakefeed "), "{path}");
            assert!(command.get_about().is_some(), "{path}");
            // What stands in the help must work.
            let example = help.lines().next().unwrap_or_default().trim_start_matches("Example: ");
            if let Err(error) = parse(example) {
                panic!("{example}: {error}");
            }
            command.get_subcommands().for_each(|below| walk(below, &path));
        }
        walk(&Cli::command(), "");
    }

    #[test]
    fn test_wrong_usage_exits_with_two() {
        for line in [
            "lakefeed",
            "lakefeed rum -c x",
            "lakefeed run",
            "lakefeed validate --config",
            "lakefeed stop acme",
            "lakefeed stop acme/berlin/main",
            "lakefeed restart Acme/berlin",
            "lakefeed demo --for 5",
            "lakefeed restarts --class sad",
            "lakefeed restarts --event broken",
            "lakefeed restarts --until 1h --follow",
            "lakefeed restarts --format verse",
            "lakefeed tree --only sad",
            "lakefeed records acme/berlin --limit 0",
            "lakefeed tree --api ftp://x",
            "lakefeed checkpoint set acme/feed",
            "lakefeed bench",
            "lakefeed simulate iqair --stations 0",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(super::super::exit::USAGE), "{line}");
        }
    }

    #[test]
    fn test_json_may_stand_anywhere() {
        for line in ["lakefeed --json status", "lakefeed status --json", "lakefeed bench ingest --json"] {
            assert!(parse(line).expect(line).json, "{line}");
        }
    }
}
