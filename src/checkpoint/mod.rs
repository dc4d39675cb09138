//! The cache of progress in sled: positions, desired states, announced references, small memories of sources.
//!
//! It may lag and never leads: everything here is written after its truth is in the lake, and whoever reads it must
//! compare with the lake first. So any damage is answered by moving the directory aside and starting empty.
//!
//! sled runs on one thread of its own. 0.34 does not survive a power cut (its flush is no fsync), one leftover
//! `snap.*.generating` file stops it from opening, and so does a full disk: the last resort is to go on without.

mod keep;
mod positions;
mod store;
mod trees;

pub use keep::SledKeep;
pub use positions::{CachedPositions, Meta, Moved};
#[cfg(test)]
pub(crate) use store::unseal;
pub use store::{Cache, OpenReport};
#[cfg(test)]
pub(crate) use trees::{Change, Disk, Entry, Kept, Trees};
