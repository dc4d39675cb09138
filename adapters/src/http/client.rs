//! One request on the wire: guarded, bounded, paid for as it arrives.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use reqwest::{Client, Method, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tokio_util::io::StreamReader;
use url::Url;

use super::guard::{Denied, GuardedResolve, Reach, check_url, is_literal_metadata, same_origin};
use super::settings::HttpSettings;
use crate::contract::{Clock, Credits, ErrorClass, Hold, Resolve, SourceError};

/// A connection that is not up by then will not come up; a retry may meet another address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A source that sends no byte for so long hangs, and is asked again as long as the workload's deadline allows.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Idle connections to one host kept for the partitions of an adapter; each costs a descriptor on both sides.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// The body of an error helps to judge it, no more: it may not hold up what its status says for longer than this …
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// … and is read no further than this.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// How much of a body is read before more is paid for.
const READ_BYTES: usize = 16 * 1024;

/// What went wrong on the wire, and whether asking again may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Worth another attempt, not before the wait.
    Retry(SourceError, Option<Duration>),
    /// The workload is over.
    End(SourceError),
    /// The workload's deadline has passed.
    Late,
}

impl Trouble {
    fn transport(code: &str, message: impl Into<String>) -> Self {
        Self::Retry(SourceError::new(ErrorClass::Transient, code, message), None)
    }

    fn end(class: ErrorClass, code: &str, message: impl Into<String>) -> Self {
        Self::End(SourceError::new(class, code, message))
    }
}

/// The clients of one adapter; their connections are shared by its partitions.
#[derive(Debug)]
pub(crate) struct Wire {
    /// For the adapter's own origin.
    own: Client,
    own_reach: Reach,
    /// For everything else.
    other: Client,
    other_reach: Reach,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// For the adapter's own origin only.
    pub(crate) headers: HeaderMap,
}

/// A response whose body has arrived.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// With the content coding undone. Empty where an error's body could not be read.
    pub(crate) body: Bytes,
    /// Whether the transport says where the body ends, so that it is known to be whole.
    pub(crate) framed: bool,
    pub(crate) received_at_us: i64,
}

/// What pays for bodies: the credits, what is held of them, how much of that is for earlier bodies; and the time that
/// is left.
pub(crate) struct Purse<'c> {
    pub(crate) credits: &'c Credits,
    pub(crate) hold: &'c mut Hold,
    pub(crate) spent: usize,
    /// Moves by what is waited for credits: a slow lake is not the source's fault.
    pub(crate) deadline: &'c mut Instant,
}

impl Purse<'_> {
    /// Pays until `bytes` of the present body are covered.
    async fn cover(&mut self, bytes: usize) {
        let missing = (self.spent + bytes).saturating_sub(self.hold.bytes());
        if missing > 0 {
            let begun = Instant::now();
            self.credits.extend(self.hold, missing).await;
            *self.deadline += begun.elapsed();
        }
    }

    /// The output of `future`, if it comes before the deadline.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, Trouble> {
        tokio::time::timeout_at(*self.deadline, future).await.map_err(|_| Trouble::Late)
    }
}

/// Marks that a body has more bytes than allowed.
#[derive(Debug)]
struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is too large")
    }
}

impl Error for TooLarge {}

impl Wire {
    /// Clients that find names by `names`.
    ///
    /// # Errors
    /// `resource` where no client can be made.
    pub(crate) fn new(settings: &HttpSettings, names: &Arc<dyn Resolve>) -> Result<Self, SourceError> {
        let network = settings.network;
        let private = network.allow_private || settings.origin_trusted;
        let own_reach = Reach { private, metadata: settings.origin_trusted && is_literal_metadata(&settings.base) };
        let other_reach = Reach { private: network.allow_private, metadata: false };
        let client = |reach| {
            Client::builder()
                .user_agent(concat!("lakefeed/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .no_proxy()
                .no_gzip()
                .no_deflate()
                .no_brotli()
                .https_only(network.https_only)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
                .dns_resolver(Arc::new(GuardedResolve { names: Arc::clone(names), reach }))
                .build()
                .map_err(|_| SourceError::new(ErrorClass::Resource, "no_client", "an HTTP client could not be made"))
        };
        Ok(Self { own: client(own_reach)?, own_reach, other: client(other_reach)?, other_reach })
    }

    /// Sends `ask` and takes the whole body.
    pub(crate) async fn send(
        &self,
        settings: &HttpSettings,
        ask: &Ask,
        purse: &mut Purse<'_>,
        clock: &dyn Clock,
    ) -> Result<Answer, Trouble> {
        let own = same_origin(&settings.base, &ask.url);
        let (client, reach) = if own { (&self.own, self.own_reach) } else { (&self.other, self.other_reach) };
        check_url(&ask.url, reach).map_err(|denied| denied_trouble(&denied))?;
        let mut url = ask.url.clone();
        let mut headers = HeaderMap::new();
        if own {
            headers.clone_from(&ask.headers);
            settings.authorize(&mut url, &mut headers).map_err(Trouble::End)?;
        }
        // After the adapter's own headers: an encoding that cannot be undone must not be asked for.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br"));
        let request = client.request(ask.method.clone(), url).headers(headers);
        let sent = purse.in_time(request.send()).await?;
        let response = sent.map_err(|error| send_trouble(&error, &ask.url))?;
        take(response, settings.network.max_body, purse, clock).await
    }
}

/// Takes status, headers and body of a response.
async fn take(
    response: Response,
    max_body: usize,
    purse: &mut Purse<'_>,
    clock: &dyn Clock,
) -> Result<Answer, Trouble> {
    let (status, headers) = (response.status(), response.headers().clone());
    let whole_known = response.content_length().is_some() || headers.contains_key(TRANSFER_ENCODING);
    // HTTP/2 frames every body.
    let framed = whole_known || response.version() >= Version::HTTP_2;
    let empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    let body = if empty {
        Bytes::new()
    } else if status.is_success() {
        body(response, &headers, max_body, purse).await?
    } else {
        let read = body(response, &headers, max_body.min(ERROR_BODY_MAX), purse);
        match tokio::time::timeout(ERROR_BODY_WAIT, read).await {
            Ok(Ok(body)) => body,
            Ok(Err(Trouble::Late)) => return Err(Trouble::Late),
            // The status alone is enough.
            Ok(Err(_)) | Err(_) => Bytes::new(),
        }
    };
    // Compressed bodies carry their own end.
    let framed = framed || headers.contains_key(CONTENT_ENCODING);
    Ok(Answer { status, headers, body, framed, received_at_us: clock.now_us() })
}

async fn body(
    response: Response,
    headers: &HeaderMap,
    max_body: usize,
    purse: &mut Purse<'_>,
) -> Result<Bytes, Trouble> {
    let too_large = || {
        let message = format!("the body has more than max_body = {max_body} bytes");
        Trouble::end(ErrorClass::Data, "body_too_large", message)
    };
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > max_body) {
        return Err(too_large());
    }
    let mut reader = decoded(response, headers, max_body)?;
    let mut body = BytesMut::new();
    loop {
        // Paid for before it is read, but no further ahead than one read.
        purse.cover(body.len() + READ_BYTES).await;
        body.reserve(READ_BYTES);
        let mut next = (&mut reader).take(READ_BYTES as u64);
        match purse.in_time(next.read_buf(&mut body)).await? {
            Ok(0) => break,
            Ok(_) if body.len() > max_body => return Err(too_large()),
            Ok(_) => {}
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<TooLarge>()) => return Err(too_large()),
            Err(error) => return Err(body_trouble(&error)),
        }
    }
    purse.hold.shrink_to(purse.spent + body.len());
    Ok(body.freeze())
}

/// The body with its content coding undone; at most `max_body` bytes of it as they come over the wire.
fn decoded(
    response: Response,
    headers: &HeaderMap,
    max_body: usize,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, Trouble> {
    let mut come = 0;
    let chunks =
        response.bytes_stream().map_err(|error| io::Error::other(error.without_url())).and_then(move |chunk| {
            come += chunk.len();
            futures::future::ready(if come > max_body { Err(io::Error::other(TooLarge)) } else { Ok(chunk) })
        });
    let raw = StreamReader::new(Box::pin(chunks));
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map_or("identity", |value| value.to_str().unwrap_or("?")).trim().to_ascii_lowercase();
    let reader: Pin<Box<dyn AsyncRead + Send>> = match (coding.as_str(), codings.next()) {
        ("identity" | "", None) => Box::pin(raw),
        ("gzip" | "x-gzip", None) => {
            let mut gzip = GzipDecoder::new(raw);
            gzip.multiple_members(true);
            Box::pin(gzip)
        }
        ("deflate", None) => Box::pin(ZlibDecoder::new(raw)),
        ("br", None) => Box::pin(BrotliDecoder::new(raw)),
        _ => {
            let message = "the body has a content coding that was not asked for";
            return Err(Trouble::end(ErrorClass::Data, "content_coding", message));
        }
    };
    Ok(reader)
}

fn denied_trouble(denied: &Denied) -> Trouble {
    Trouble::end(ErrorClass::Config, "address_denied", denied.to_string())
}

/// Errors before the head of a response. The client's own text is not used: it may name the URL.
fn send_trouble(error: &reqwest::Error, url: &Url) -> Trouble {
    let host = url.host_str().unwrap_or("the host");
    if let Some(denied) = cause::<Denied>(error) {
        return denied_trouble(denied);
    }
    if error.is_timeout() {
        return Trouble::transport("timeout", format!("{host} did not answer in time"));
    }
    if error.is_connect() {
        let why = cause::<io::Error>(error).map_or("no connection", |error| kind_text(error.kind()));
        return Trouble::transport("connect", format!("{host} cannot be reached: {why}"));
    }
    if error.is_builder() {
        return Trouble::end(ErrorClass::Config, "bad_request", "the request cannot be sent over this connection");
    }
    Trouble::transport("transport", format!("{host} broke off before an answer"))
}

fn body_trouble(error: &io::Error) -> Trouble {
    let timed_out = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
    if timed_out.is_some_and(reqwest::Error::is_timeout) {
        return Trouble::transport("timeout", "the body stopped coming");
    }
    Trouble::transport("body_cut", "the body broke off, or its content coding is damaged")
}

fn kind_text(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        _ => "no connection",
    }
}

/// The first `T` among the causes of `error`.
fn cause<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
