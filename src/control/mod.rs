//! The control room: messages that start, stop and ask, and the HTTP API around them.

#[cfg(test)]
pub(crate) mod fake;
pub mod http;
pub mod message;
