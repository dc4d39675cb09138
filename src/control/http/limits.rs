//! Every limit of the API, with its reason.

use std::time::Duration;

/// A request's body, bytes. A start message with 10,000 partitions has some 500 KB.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Read and thrown away after a body was refused, so that the sender gets to read the refusal; beyond it the
/// connection is cut.
pub const DISCARD_BYTES_MAX: usize = 16 << 20;

/// From the first to the last byte of a body. A link of 1 Mbit/s sends the largest in 8 s.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Request line and headers, bytes. Ours have less than 1 KB.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;

/// Until the headers are there; also how long a connection may idle between requests.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// From a request to its answer, besides what it asked to wait. A start is durable in the lake before its answer, so
/// this is the patience with a slow store.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// What a long poll may ask to wait; more is cut to it. Proxies between drop silent connections soon after.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Connections, each with up to [`HEADER_BYTES_MAX`] of buffer: 16 MiB. When one more comes, the one that has been
/// idle longest goes, so slow senders do not keep others out.
pub const CONNECTIONS_MAX: usize = 512;

/// Requests at a time, long polls included; more get 429. Below [`CONNECTIONS_MAX`], so that some connection is
/// always idle.
pub const REQUESTS_MAX: usize = 256;

/// Requests for health at a time, beside the others: a busy node still answers its supervisor.
pub const HEALTH_REQUESTS_MAX: usize = 32;

/// Long polls at a time; more get 429. Leaves half of [`REQUESTS_MAX`] to everything else.
pub const LONG_POLLS_MAX: usize = 128;

/// Followers (server-sent events) at a time; more get 429.
pub const FOLLOWERS_MAX: usize = 64;

/// A follower gets a sign of life this often.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Items of one page; more is cut to it.
pub const PAGE_MAX: usize = 1_000;

/// Items of a page where the request does not say.
pub const PAGE_DEFAULT: usize = 100;

/// How long answers under way may take once the node stops.
pub const DRAIN: Duration = Duration::from_secs(2);
