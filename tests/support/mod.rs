//! What the integration tests stand on: nodes, waiting, rude servers, real servers, a feed to poll.

pub(crate) mod aside;
pub(crate) mod cli;
pub(crate) mod feed;
pub(crate) mod lab;
pub(crate) mod mounts;
pub(crate) mod node;
pub(crate) mod rude;
pub(crate) mod scripted;
pub(crate) mod servers;
pub(crate) mod tracer;
pub(crate) mod wait;

pub(crate) use lab::{ENDLESS, Lab, Synthetic};
pub(crate) use node::Node;
pub(crate) use wait::{PATIENCE, wait_for};
