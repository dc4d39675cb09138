//! The lake: raw segments, tables, the commit protocol.
