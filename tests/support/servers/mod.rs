//! Real servers: installed once into a cache folder of the home directory, started on a free port, stopped when dropped.

pub(crate) mod clouds;
pub(crate) mod install;
pub(crate) mod mirror;
pub(crate) mod s3;
pub(crate) mod toxiproxy;

pub(crate) use clouds::{azurite, gcs};
pub(crate) use s3::{ACCESS_KEY, S3, SECRET_KEY, minio, versitygw};
pub(crate) use toxiproxy::{Proxy, Toxic, toxiproxy};

/// What was got, or `None` and why on stderr. Where it has to be there, in CI, its lack is a failure.
pub(crate) fn had<T>(what: &str, got: Result<T, String>) -> Option<T> {
    match got {
        Ok(got) => Some(got),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{what} cannot be had: {why}");
            skipped(what, &why);
            None
        }
    }
}

/// Says that a test cannot be run here and why: for what a machine may well not allow, in CI too.
pub(crate) fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
}
