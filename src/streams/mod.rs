//! Streams: what each should be, the workers that read, the committer that groups and commits, the announcer that
//! tells. One manager owns one stream; the tree is built in `tree` from the crate `supervisors` alone.

mod announcer;
pub mod api;
mod commit;
mod committer;
mod desired;
mod directory;
mod intake;
mod live;
mod manager;
mod observe;
mod positions;
mod promises;
mod requests;
mod shared;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod view;
mod worker;

pub use directory::{Directory, Entry};
pub use observe::observe;
pub use requests::DirectoryHandle;
pub use shared::{Node, Progress, Shared, Turns};
