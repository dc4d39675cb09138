//! Streams: desired state, workers, committer, announcer.

pub mod api;
