//! One good response: its records, its payload, its link to the next.

use std::collections::BTreeMap;

use url::Url;

use super::client::Answer;
use super::guard::same_origin;
use super::request::link_next;
use super::settings::{HttpSettings, NextLink};
use super::workload::header_text;
use crate::contract::{DeadMark, ErrorClass, Payload, SourceError};
use crate::json::{Path, SelectError, not_utf8};

/// Headers that help to understand a payload later. None carries a credential.
const SHOWN_HEADERS: [&str; 7] =
    ["content-type", "content-encoding", "content-language", "etag", "last-modified", "date", "age"];

/// A body that was read.
pub(crate) struct Read<'b> {
    pub(crate) records: Vec<&'b str>,
}

/// Why a body gave no records.
pub(crate) enum Unread {
    /// It broke off where nothing says that it was whole.
    Cut,
    /// It is whole and not what was declared.
    Junk(DeadMark),
}

/// The records of a body.
pub(crate) fn read<'b>(select: &Path, answer: &'b Answer) -> Result<Read<'b>, Unread> {
    let text = std::str::from_utf8(&answer.body).map_err(|_| Unread::Junk(not_utf8()))?;
    match select.records(text) {
        Ok(records) => Ok(Read { records }),
        Err(SelectError::NotJson(error)) if error.is_eof() && !answer.framed => Err(Unread::Cut),
        Err(error) => Err(Unread::Junk(error.into())),
    }
}

/// The payload of a page.
pub(crate) fn payload(settings: &HttpSettings, url: &Url, answer: &Answer) -> Payload {
    let mut meta = BTreeMap::from([("status".to_owned(), answer.status.as_u16().to_string())]);
    meta.extend(settings.shown(url).map(|url| ("url".to_owned(), url)));
    for name in SHOWN_HEADERS {
        let text = header_text(&answer.headers, name).filter(|text| !settings.leaks(text));
        meta.extend(text.map(|text| (name.to_owned(), text)));
    }
    let received_at_us = answer.received_at_us;
    Payload { position: None, received_at_us, meta, bytes: answer.body.clone(), dead: None }
}

/// The link to the next page, on the adapter's own origin.
///
/// # Errors
/// `config` where it leads elsewhere or cannot be read.
pub(crate) fn next_link(settings: &HttpSettings, answer: &Answer, url: &Url) -> Result<Option<Url>, SourceError> {
    let text = match &settings.next {
        None => return Ok(None),
        Some(NextLink::Body(path)) => {
            let body = std::str::from_utf8(&answer.body).ok();
            body.and_then(|body| path.text(body)).map(std::borrow::Cow::into_owned)
        }
        Some(NextLink::Header(name)) => {
            let mut values = answer.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.find_map(|value| link_next(value).map(str::to_owned))
        }
    };
    let Some(text) = text.filter(|text| !text.is_empty() && text != "false") else { return Ok(None) };
    let refused = |message| Err(SourceError::new(ErrorClass::Config, "page_link_refused", message));
    let Ok(mut link) = url.join(&text) else { return refused("the link to the next page cannot be read") };
    link.set_fragment(None);
    if !same_origin(&settings.base, &link) || !link.username().is_empty() || link.password().is_some() {
        return refused("the link to the next page leads to another origin");
    }
    Ok(Some(link))
}
