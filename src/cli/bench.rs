//! The arguments of `bench`.

use clap::{Args, Subcommand};

use super::LakeOption;

/// `bench`.
#[derive(Debug, Clone, Subcommand)]
pub enum Bench {
    /// Records through the whole runtime, against the barest loop that does the same
    #[command(
        after_help = "Example: lakefeed bench ingest --json\n         lakefeed bench ingest --lake s3://bucket/tmp \
                            --lake-option endpoint=http://127.0.0.1:9000 --lake-option secret_access_key=env:S3_SECRET"
    )]
    Ingest(BenchIngestArgs),
    /// From SIGKILL to the first new epoch
    #[command(after_help = "Example: lakefeed bench recovery --streams 10000 --json")]
    Recovery(BenchRecoveryArgs),
    /// Polls of many partitions, and how punctual they are
    #[command(after_help = "Example: lakefeed bench polls --partitions 10000 --factor 6")]
    Polls(BenchPollsArgs),
    /// Memory under a source that offers far more than the lake takes
    #[command(after_help = "Example: lakefeed bench memory --json")]
    Memory(BenchMemoryArgs),
    /// Many streams of one small record a second: commits, lag, and what they cost
    #[command(after_help = "Example: lakefeed bench streams --streams 10000 --json")]
    Streams(BenchStreamsArgs),
}

/// `bench ingest`.
#[derive(Debug, Clone, Args)]
pub struct BenchIngestArgs {
    /// Records in each run, rounded up to whole epochs
    #[arg(long, value_name = "N", default_value_t = 2_097_152, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub records: u64,
    /// The size of one record as JSON
    #[arg(long, value_name = "BYTES", default_value_t = 250, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    pub record_bytes: u32,
    /// Partitions of the source, on both sides
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub partitions: u32,
    /// How often each side runs; the medians count
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Where to make the lakes of both sides, as lake.url; a folder for temporary files where absent
    #[arg(long, value_name = "URL")]
    pub lake: Option<String>,
    /// An entry of lake.options; may be given several times
    #[arg(long = "lake-option", value_name = "KEY=VALUE", requires = "lake")]
    pub lake_options: Vec<LakeOption>,
}

/// `bench recovery`.
#[derive(Debug, Clone, Copy, Args)]
pub struct BenchRecoveryArgs {
    /// How often the node is killed
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kills: u32,
    /// Also start a node with so many streams, and tell when its API is up and when it is ready
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub streams: u32,
}

/// `bench polls`.
#[derive(Debug, Clone, Copy, Args)]
pub struct BenchPollsArgs {
    /// Partitions that are polled
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub partitions: u32,
    /// The interval is 60 s divided by this, so that the run is shorter and the load higher
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub factor: u32,
    /// Beats of each partition
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub beats: u32,
}

/// `bench memory`.
#[derive(Debug, Clone, Copy, Args)]
pub struct BenchMemoryArgs {
    /// How long the source presses on the slowed lake
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// How long it presses on a lake that takes nothing, after that
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub stalled: u32,
    /// Idle workers whose memory is measured; 0 leaves that out
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub workers: u32,
}

/// `bench streams`.
#[derive(Debug, Clone, Copy, Args)]
pub struct BenchStreamsArgs {
    /// Streams
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub streams: u32,
    /// How long is measured, once all have come up
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Keep no payloads: one object less for each commit
    #[arg(long)]
    pub raw_off: bool,
}
