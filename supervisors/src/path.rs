//! Where a child stands in the tree.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The place of a child in its tree: the ids from the root down, joined by `/`, as in
/// `lakefeed/tenants/acme/berlin/workers/0`. A clone costs one reference count.
///
/// There is no registry of names: a path says where a child belongs, its incarnation says which life of it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildPath(Arc<str>);

impl ChildPath {
    /// The path of a root.
    pub fn root(id: &str) -> Self {
        Self(id.into())
    }

    /// The path of the child `id` below this one.
    pub fn join(&self, id: &str) -> Self {
        let mut text = String::with_capacity(self.0.len() + 1 + id.len());
        text.push_str(&self.0);
        text.push('/');
        text.push_str(id);
        Self(text.into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChildPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ChildPath {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Serialize for ChildPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
