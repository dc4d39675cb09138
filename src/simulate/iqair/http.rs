//! One connection: just enough of HTTP/1.1, with every byte in our own hands, since faults lie between the bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::Shared;
use super::answer::{Answer, Asked, Manner, http_date};
use super::truth::{Ending, Handed};

/// A longer head of a request is refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A connection on which nothing is asked for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// A slow body comes in so many drops.
const DROPS: usize = 8;
/// A hanging answer ends at last even where the client never goes.
const HANG_MAX: Duration = Duration::from_secs(600);

/// Serves `stream` until it ends.
pub(super) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    // Small answers must not wait for one another.
    let _ = stream.set_nodelay(true);
    let (mut from, mut to) = stream.split();
    let mut read = BytesMut::new();
    loop {
        let head = tokio::select! {
            head = read_head(&mut from, &mut read) => head,
            () = tokio::time::sleep(IDLE_MAX) => return,
            () = shared.stop.cancelled() => return,
        };
        let Ok(Some(head)) = head else { return };
        let Some((asked, keep)) = parse_head(&head) else {
            let _ = write(&mut to, &Answer::fail(400, "bad_request"), &shared, false, &mut || {}).await;
            return;
        };
        let ending = respond(&asked, keep, &mut from, &mut to, &mut read, &shared).await;
        if !keep || ending != Ending::Whole {
            return;
        }
    }
}

/// The bytes up to the empty line; `None` where the client went instead.
async fn read_head(from: &mut ReadHalf<'_>, read: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = read.split_to(end);
            read.advance(4);
            return Ok(Some(head));
        }
        if read.len() > HEAD_BYTES_MAX || from.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

/// What is asked, and whether the connection stays open. Only GET without a body is understood.
fn parse_head(head: &[u8]) -> Option<(Asked, bool)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    if method != "GET" || !target.starts_with('/') {
        return None;
    }
    let close = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close"));
    Some((Asked::parse(target)?, version == "HTTP/1.1" && !close))
}

/// Answers one request and records how that went.
async fn respond(
    asked: &Asked,
    keep: bool,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    read: &mut BytesMut,
    shared: &Shared,
) -> Ending {
    let partition = asked.partition();
    let station = asked.station(shared);
    let ticket = shared.truth.arrived(&partition, station.ok(), shared.clock.now_us());
    let answer = asked.answer(shared, station, ticket.nth);
    let mut handing = None;
    // A client with the last byte may ask again at once, so what the answer means must stand in the record before.
    let mut before_last = || {
        shared.truth.ended(&ticket, Ending::Whole, answer.window);
        let Some((station, tick, observation)) = answer.hands.clone() else { return };
        let (partition, at_us) = (partition.clone(), shared.clock.now_us());
        handing = Some(shared.truth.handing(Handed { station, partition, tick, at_us, sent: false, observation }));
    };
    let ending = tokio::select! {
        biased;
        () = client_left(from, read) => Ending::ClientLeft,
        () = shared.stop.cancelled() => Ending::Ended,
        result = write(to, &answer, shared, keep, &mut before_last) => result.unwrap_or(Ending::ClientLeft),
    };
    shared.truth.ended(&ticket, ending, None);
    if let Some(handing) = handing {
        shared.truth.handed_over(handing, ending == Ending::Whole);
    }
    ending
}

/// Ends when the client closes its side. What it sends early is kept for the next request.
async fn client_left(from: &mut ReadHalf<'_>, read: &mut BytesMut) {
    while read.len() <= HEAD_BYTES_MAX {
        match from.read_buf(read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Writes the answer in its manner; `before_last` is called where the next write makes it whole.
async fn write(
    to: &mut WriteHalf<'_>,
    answer: &Answer,
    shared: &Shared,
    keep: bool,
    before_last: &mut (dyn FnMut() + Send),
) -> io::Result<Ending> {
    let mut bytes = head(answer, shared, keep).into_bytes();
    let mut drops = answer.body.chunks(answer.body.len().div_ceil(DROPS).max(1)).peekable();
    match answer.manner {
        Manner::Never => {
            tokio::time::sleep(HANG_MAX).await;
            return Ok(Ending::Ended);
        }
        Manner::Half => {
            bytes.extend_from_slice(&answer.body[..answer.body.len() / 2]);
            to.write_all(&bytes).await?;
            return Ok(Ending::Ended);
        }
        Manner::InDrops => {
            to.write_all(&bytes).await?;
            while let Some(drop) = drops.next() {
                tokio::time::sleep(shared.options.slow / DROPS as u32).await;
                if drops.peek().is_none() {
                    before_last();
                }
                to.write_all(drop).await?;
            }
        }
        Manner::AtOnce => {
            bytes.extend_from_slice(&answer.body);
            before_last();
            to.write_all(&bytes).await?;
        }
    }
    to.flush().await?;
    Ok(Ending::Whole)
}

fn head(answer: &Answer, shared: &Shared, keep: bool) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let connection = if keep { "keep-alive" } else { "close" };
    let date = http_date(shared.clock.now_us());
    head.push_str(&format!(
        "date: {date}\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n",
        answer.body.len()
    ));
    head
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Internal Server Error",
    }
}
