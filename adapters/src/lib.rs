//! How lakefeed reads from the outside world: the contract that every kind of adapter keeps, the suite that proves
//! it, and the kinds themselves, one folder each. Knows nothing of actors, the lake or the cache.

pub mod conformance;
pub mod contract;
pub mod http;
pub mod http_poll;
pub mod iqair;
pub mod json;
pub mod synthetic;
