//! Threads of their own for the servers of tests: a test that reads a lake holds its thread meanwhile, and what a node
//! asks then has to be answered all the same.

use std::net;
use std::sync::LazyLock;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

static ASIDE: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// Serves on a free port of the loopback: its address, and the task that is to be aborted at the end.
pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
    server: impl FnOnce(TcpListener) -> F + Send + 'static,
) -> (String, JoinHandle<()>) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, ASIDE.spawn(async move { server(TcpListener::from_std(listener).unwrap()).await }))
}
