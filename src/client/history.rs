//! What happened: restarts, incidents, references; followed where asked for.

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::Format;

use super::{Api, ClientError, Done, FOLLOW_PAUSE, FOLLOW_WAIT, PAGE, Target, document, page, text};

/// Positions that are shown of a checkpoint; a committer's has all of its stream's.
const POSITIONS_SHOWN: usize = 3;

/// What `restarts` looks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartsQuery {
    /// An RFC 3339 time, or a duration before now.
    pub since: Option<String>,
    /// An RFC 3339 time, or a duration before now.
    pub until: Option<String>,
    /// Only these events.
    pub events: Vec<String>,
    /// `TENANT/STREAM`.
    pub stream: Option<String>,
    /// One incident.
    pub incident: Option<String>,
    /// A class of interface §5.
    pub class: Option<String>,
    /// Go on with what comes.
    pub follow: bool,
    /// How a record is printed.
    pub format: Format,
}

/// Takes items of one kind as they come.
type Show<'a> = &'a mut dyn FnMut(&[Value]) -> Done;

/// Pages through `path` from `after`; where it follows, for ever. Returns the last cursor.
async fn walk(
    api: &Api,
    path: &str,
    key: &str,
    query: &[(&str, &str)],
    after: &str,
    follow: bool,
    show: Show<'_>,
) -> Result<String, ClientError> {
    let limit = PAGE.to_string();
    let mut after = after.to_owned();
    let mut wait = false;
    loop {
        let mut query = query.to_vec();
        query.extend([("after", after.as_str()), ("limit", limit.as_str())]);
        if wait {
            query.push(("wait", FOLLOW_WAIT));
        }
        let asked = tokio::time::Instant::now();
        let (items, next) = page(api.get(path, &query).await?, key)?;
        show(&items)?;
        after = next;
        if items.is_empty() {
            if !follow {
                return Ok(after);
            }
            if wait && asked.elapsed() < FOLLOW_PAUSE {
                tokio::time::sleep(FOLLOW_PAUSE).await;
            }
            wait = true;
        }
    }
}

/// Items as one document, as lines while following, or as `line` makes them.
async fn list(
    api: &Api,
    (path, key): (&str, &str),
    query: &[(&str, &str)],
    after: &str,
    (follow, json): (bool, bool),
    line: fn(&Value) -> String,
    out: &mut (dyn Write + Send),
) -> Done {
    let mut all = Vec::new();
    let mut show = |items: &[Value]| -> Done {
        for item in items {
            match (json, follow) {
                (true, false) => all.push(item.clone()),
                (true, true) => writeln!(out, "{item}")?,
                (false, _) => writeln!(out, "{}", line(item))?,
            }
        }
        Ok(out.flush()?)
    };
    let next = walk(api, path, key, query, after, follow, &mut show).await?;
    if json { document(out, &json!({(key): all, "next": next})) } else { Ok(()) }
}

/// `restarts`: the restart log, record by record.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn restarts(api: &Api, query: &RestartsQuery, json: bool, out: &mut (dyn Write + Send)) -> Done {
    let events = Some(query.events.join(",")).filter(|events| !events.is_empty());
    let pairs = [
        ("since", &query.since),
        ("until", &query.until),
        ("event", &events),
        ("stream", &query.stream),
        ("incident", &query.incident),
        ("class", &query.class),
    ];
    let pairs: Vec<(&str, &str)> =
        pairs.iter().filter_map(|(key, value)| value.as_deref().map(|value| (*key, value))).collect();
    let line = match query.format {
        Format::Line => restart_line,
        Format::Long => restart_lines,
        Format::Json => Value::to_string,
    };
    list(api, ("/v1/restarts", "restarts"), &pairs, "", (query.follow, json), line, out).await
}

/// One line of the restart log for people; `record` as `GET /v1/restarts` gives it.
pub fn restart_line(record: &Value) -> String {
    let word = |key: &str| text::clean(record[key].as_str().unwrap_or("-"));
    let mut line = format!("{}  {:<10}  {} #{}", word("ts"), word("event"), word("path"), record["incarnation"]);
    if record["reason"].is_object() {
        line.push_str(&format!("  {}", text::reason(&record["reason"])));
    }
    if let Some(attempt) = record["attempt"].as_u64().filter(|attempt| *attempt > 0) {
        line.push_str(&format!("  attempt {attempt}"));
    }
    if let Some(delay) = record["delay_ms"].as_u64() {
        line.push_str(&format!("  again in {}", text::span(delay)));
    }
    if let Some(epoch) = record["resumed_from"]["epoch"].as_u64() {
        line.push_str(&format!("  from epoch {epoch}"));
    }
    if let Some(recovered) = record["recovered_in_ms"].as_u64() {
        line.push_str(&format!("  recovered in {}", text::span(recovered)));
    }
    if record["incident"].is_string() {
        line.push_str(&format!("  incident {}", word("incident")));
    }
    line
}

/// A record in several lines, with everything that it knows.
pub(super) fn restart_lines(record: &Value) -> String {
    let word = |key: &str| text::clean(record[key].as_str().unwrap_or("-"));
    let mut lines = vec![format!("{}  {}  {} #{}", word("ts"), word("event"), word("path"), record["incarnation"])];
    let mut say = |name: &str, what: String| lines.push(format!("    {name:<11}{what}"));
    if record["reason"].is_object() {
        say("why", text::reason(&record["reason"]));
    }
    if record["because_of"].is_string() {
        say("because of", word("because_of"));
    }
    if record["strategy"].is_string() {
        say("strategy", word("strategy"));
    }
    if let Some(attempt) = record["attempt"].as_u64().filter(|attempt| *attempt > 0) {
        say("attempt", attempt.to_string());
    }
    if let Some(delay) = record["delay_ms"].as_u64() {
        say("again in", text::span(delay));
    }
    if record["resumed_from"].is_object() {
        say("from", resumed_from(&record["resumed_from"]));
    }
    if let Some(recovered) = record["recovered_in_ms"].as_u64() {
        say("back after", text::span(recovered));
    }
    if record["incident"].is_string() {
        say("incident", word("incident"));
    }
    for frame in record["backtrace"].as_str().unwrap_or_default().lines() {
        say("", text::clean(frame));
    }
    if record["remedy"].is_string() {
        say("to do", word("remedy"));
    }
    lines.join("\n")
}

/// `epoch 12, berlin=4711`, with the first positions.
pub(super) fn resumed_from(from: &Value) -> String {
    let none = serde_json::Map::new();
    let positions = from["positions"].as_object().unwrap_or(&none);
    let mut shown = format!("epoch {}", text::cell(&from["epoch"]));
    for (partition, position) in positions.iter().take(POSITIONS_SHOWN) {
        shown.push_str(&format!(", {}={}", text::clean(partition), text::cell(position)));
    }
    let more = positions.len().saturating_sub(POSITIONS_SHOWN);
    if more > 0 {
        shown.push_str(&format!(" and {more} more"));
    }
    shown
}

/// `references`: what was published, of one stream or of all.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn references(
    api: &Api,
    stream: Option<&Target>,
    after: Option<&str>,
    (follow, json): (bool, bool),
    out: &mut (dyn Write + Send),
) -> Done {
    let id = stream.map(|target| target.id.to_string());
    let query: Vec<(&str, &str)> = id.iter().map(|id| ("stream", id.as_str())).collect();
    let route = ("/v1/references", "references");
    list(api, route, &query, after.unwrap_or("0"), (follow, json), reference_line, out).await
}

fn reference_line(reference: &Value) -> String {
    let seconds = reference["timestamp"].as_str().and_then(|text| text.parse::<i64>().ok());
    let time = seconds.and_then(|seconds| seconds.checked_mul(1_000_000)).map_or("-".to_owned(), |us| {
        // Whole seconds: the decimals would promise more than is known.
        crate::times::timestamp(us).replace(".000000", "")
    });
    let [tenant, stream, epoch, rows, dead] =
        ["tenant", "stream", "epoch", "rows", "dead"].map(|key| text::cell(&reference[key]));
    let file = text::clean(reference["payload"]["filename"].as_str().unwrap_or("-"));
    format!("{time}  {tenant}/{stream}  epoch {epoch}  {rows} rows  {dead} dead  {file}")
}
