//! From templates to URLs and headers, and back to a URL that may be shown.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use url::Url;

use super::settings::{Auth, HttpSettings, Text};
use super::template::{Values, climbs, segment, verbatim};
use crate::contract::config::Secret;
use crate::contract::{ErrorClass, SourceError};

/// A longer URL is refused by most servers.
const URL_BYTES_MAX: usize = 16 * 1024;

fn bad_value(what: &str) -> SourceError {
    let message = format!("{what}: correct the partition's values or the request");
    SourceError::new(ErrorClass::Config, "bad_request_value", message)
}

impl HttpSettings {
    /// The URL of a workload's first request, without credentials.
    ///
    /// # Errors
    /// `config` where a value would climb out of its place in the path.
    pub(crate) fn first_url(&self, values: Values<'_>) -> Result<Url, SourceError> {
        let mut url = self.base.clone();
        let path = self.request.path.render(values, segment);
        if climbs(&path) {
            return Err(bad_value("a value makes a path segment . or .."));
        }
        if !path.is_empty() {
            let slash = if path.starts_with('/') { "" } else { "/" };
            let joined = format!("{}{slash}{path}", self.base.path().trim_end_matches('/'));
            url.set_path(&joined);
        }
        if !self.request.query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            for (name, text) in &self.request.query {
                match text {
                    Text::Template(template) => pairs.append_pair(name, &template.render(values, verbatim)),
                    Text::Secret(secret) => pairs.append_pair(name, secret.reveal()),
                };
            }
        }
        if url.as_str().len() > URL_BYTES_MAX {
            return Err(bad_value("the values make the URL too long"));
        }
        Ok(url)
    }

    /// The headers of every request to the adapter's own origin, without credentials.
    ///
    /// # Errors
    /// `config` where a value cannot stand in a header.
    pub(crate) fn headers(&self, values: Values<'_>) -> Result<HeaderMap, SourceError> {
        let mut headers = HeaderMap::new();
        for (name, text) in &self.request.headers {
            let value = match text {
                Text::Template(template) => HeaderValue::from_str(&template.render(values, verbatim)),
                Text::Secret(secret) => sensitive(secret.reveal()),
            };
            headers.append(name.clone(), value.map_err(|_| bad_value("a value cannot stand in a header"))?);
        }
        Ok(headers)
    }

    /// Adds the credentials, for the adapter's own origin only.
    ///
    /// # Errors
    /// `auth` where a secret cannot stand in a header.
    pub(crate) fn authorize(&self, url: &mut Url, headers: &mut HeaderMap) -> Result<(), SourceError> {
        let refused = |_| {
            let message = "the secret cannot stand in a header: look for line breaks in it";
            SourceError::new(ErrorClass::Auth, "bad_secret", message)
        };
        match &self.auth {
            Auth::Open => {}
            Auth::Query { name, value } => {
                strip_params(url, |param| param == name);
                url.query_pairs_mut().append_pair(name, value.reveal());
            }
            Auth::Header { name, value } => {
                headers.insert(name.clone(), sensitive(value.reveal()).map_err(refused)?);
            }
            Auth::Bearer { token } => {
                let value = sensitive(&format!("Bearer {}", token.reveal())).map_err(refused)?;
                headers.insert(AUTHORIZATION, value);
            }
            Auth::Basic { username, password } => {
                let pair = format!("{}:{}", username.reveal(), password.reveal());
                let value = sensitive(&format!("Basic {}", base64(pair.as_bytes()))).map_err(refused)?;
                headers.insert(AUTHORIZATION, value);
            }
        }
        Ok(())
    }

    /// Every secret that the adapter sends.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let texts = self.request.query.iter().map(|(_, text)| text);
        let texts = texts.chain(self.request.headers.iter().map(|(_, text)| text));
        let username = if let Auth::Basic { username, .. } = &self.auth { Some(username) } else { None };
        texts
            .filter_map(|text| if let Text::Secret(secret) = text { Some(secret) } else { None })
            .chain(self.auth.secret())
            .chain(username.filter(|name| name.reference().is_some()))
    }

    /// Whether `text` holds a secret, plain or percent-encoded.
    pub(crate) fn leaks(&self, text: &str) -> bool {
        self.secrets().any(|secret| {
            let mut encoded = String::new();
            segment(secret.reveal(), &mut encoded);
            let form: String = url::form_urlencoded::byte_serialize(secret.reveal().as_bytes()).collect();
            [secret.reveal(), &encoded, &form].into_iter().any(|form| text.contains(form))
        })
    }

    /// `url` without its secret parameters; `None` where a secret is left in it.
    pub(crate) fn shown(&self, url: &Url) -> Option<String> {
        let mut url = url.clone();
        strip_params(&mut url, |param| {
            let auth = matches!(&self.auth, Auth::Query { name, .. } if name == param);
            auth || self.request.query.iter().any(|(name, text)| name == param && matches!(text, Text::Secret(_)))
        });
        Some(String::from(url)).filter(|text| !self.leaks(text))
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, reqwest::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Removes parameters by name, leaving the others as they are spelled.
fn strip_params(url: &mut Url, gone: impl Fn(&str) -> bool) {
    let Some(query) = url.query() else { return };
    let name_of = |pair: &str| {
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
    };
    let kept: Vec<&str> = query.split('&').filter(|pair| !gone(&name_of(pair))).collect();
    let kept = kept.join("&");
    url.set_query(Some(kept.as_str()).filter(|query| !query.is_empty()));
}

/// RFC 4648 with padding, for one header.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    out
}

/// The target of `rel="next"` in a header of the form of `Link`.
pub(crate) fn link_next(value: &str) -> Option<&str> {
    let mut rest = value;
    while let Some(open) = rest.find('<') {
        let close = open + rest[open..].find('>')?;
        let target = &rest[open + 1..close];
        let params = &rest[close + 1..];
        // A comma within a target is behind its <, so the next link begins at the next < after a comma.
        let end = params.find('<').unwrap_or(params.len());
        let is_next = params[..end].split(';').any(|param| {
            let Some((name, rels)) = param.trim().trim_end_matches(',').split_once('=') else { return false };
            let rels = rels.trim().trim_end_matches(',').trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && rels.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target);
        }
        rest = &params[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_base64_matches_the_rfc() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn test_link_header_gives_its_next() {
        assert_eq!(link_next(r#"<https://a/?p=2>; rel="next""#), Some("https://a/?p=2"));
        assert_eq!(link_next(r#"<https://a/?p=1>; rel="prev", </x,y>; title="q"; rel="last next""#), Some("/x,y"));
        assert_eq!(link_next("<a>; rel=next"), Some("a"));
        assert_eq!(link_next("<a>; REL=NEXT, <b>; rel=last"), Some("a"));
        for none in ["", "<a>", "<a>; rel=prev", "<a", "a; rel=next", r#"<a>; rel="nextish""#] {
            assert_eq!(link_next(none), None, "{none}");
        }
    }

    #[test]
    fn test_params_are_stripped_and_others_stay_as_spelled() {
        let mut url = Url::parse("http://h/?a=%7E&key=1&b=+&k%65y=2&c").expect("a URL");
        strip_params(&mut url, |name| name == "key");
        assert_eq!(url.query(), Some("a=%7E&b=+&c"));
        strip_params(&mut url, |_| true);
        assert_eq!(url.query(), None);
    }
}
