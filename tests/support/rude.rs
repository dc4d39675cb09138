//! A proxy without manners, in front of a source.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::aside;
use super::wait::strike_after;

/// Longer requests and answers than the tests make.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What it does to an answer.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Nothing.
    Pass,
    /// The answer comes later.
    Delay(Duration),
    /// The connection ends after so many bytes of the body.
    CutBody(usize),
    /// Nothing is ever answered.
    Hang,
    /// The body comes byte by byte, one a second.
    Drip,
    /// The header promises more bytes than come.
    WrongLength,
    /// The body is whole and is not what was declared.
    Garbage,
    /// Another place is told.
    Redirect(String),
    /// Another status, with one header more and no body.
    Status(u16, &'static str),
}

struct Shared {
    upstream: String,
    manner: Mutex<Manner>,
    requests: Mutex<Vec<Instant>>,
}

/// The running proxy. It ends when dropped.
pub(crate) struct Rude {
    address: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Rude {
    /// In front of `upstream`, well-mannered at first.
    pub(crate) async fn start(upstream: &str) -> Self {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            manner: Mutex::new(Manner::Pass),
            requests: Mutex::new(Vec::new()),
        });
        let of_server = Arc::clone(&shared);
        let (address, server) = aside::serve(async move |listener| {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&of_server);
                // A client that goes away in the middle is no fault of the test.
                tokio::spawn(async move { serve(client, &shared).await.ok() });
            }
        });
        Self { address, shared, server }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Behaves so from the next request on.
    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// When each request came.
    pub(crate) fn requests(&self) -> Vec<Instant> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One request a connection: every answer closes it.
async fn serve(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let request = head(&mut client).await?;
    shared.requests.lock().unwrap().push(Instant::now());
    let manner = shared.manner.lock().unwrap().clone();
    match manner {
        Manner::Hang => {
            // Until the client has enough of it.
            let _ = client.read(&mut [0]).await?;
            return Ok(());
        }
        Manner::Garbage => return client.write_all(answer(200, "", b"<html>it is a trap").as_slice()).await,
        Manner::Status(status, header) => return client.write_all(&answer(status, header, b"")).await,
        Manner::Redirect(to) => return client.write_all(&answer(302, &format!("location: {to}"), b"")).await,
        Manner::Delay(delay) => strike_after(delay).await,
        Manner::Pass | Manner::CutBody(_) | Manner::Drip | Manner::WrongLength => {}
    }
    let (header, body) = fetch(&shared.upstream, &request).await?;
    let length = if matches!(manner, Manner::WrongLength) { body.len() + 7 } else { body.len() };
    let status = header.split("\r\n").next().unwrap_or_default();
    let head =
        format!("{status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    match manner {
        Manner::CutBody(at) => client.write_all(&body[..at.min(body.len().saturating_sub(1))]).await,
        Manner::Drip => {
            for byte in body {
                client.write_all(&[byte]).await?;
                strike_after(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        _ => client.write_all(&body).await,
    }
}

fn answer(status: u16, header: &str, body: &[u8]) -> Vec<u8> {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let length = body.len();
    let mut text =
        format!("HTTP/1.1 {status} X\r\n{header}content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
            .into_bytes();
    text.extend_from_slice(body);
    text
}

/// Up to the end of the header.
async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        bytes.push(byte);
        assert!(bytes.len() < MESSAGE_BYTES_MAX);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks the upstream on a connection of its own.
async fn fetch(upstream: &str, request: &str) -> std::io::Result<(String, Vec<u8>)> {
    let mut server = TcpStream::connect(upstream).await?;
    let lines = request.trim_end().split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let request = format!("{}\r\nconnection: close\r\n\r\n", lines.collect::<Vec<_>>().join("\r\n"));
    server.write_all(request.as_bytes()).await?;
    let header = head(&mut server).await?;
    let mut body = Vec::new();
    server.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut body).await?;
    Ok((header, body))
}
