//! What happened: restarts, incidents, references; followed where asked for.

use std::io::Write;

use serde_json::{Value, json};

use super::{Api, ClientError, Done, FOLLOW_PAUSE, FOLLOW_WAIT, PAGE, Target, document, page, text};

/// What `restarts` looks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartsQuery {
    /// An RFC 3339 time, or a duration before now.
    pub since: Option<String>,
    /// `TENANT/STREAM`.
    pub stream: Option<String>,
    /// One incident.
    pub incident: Option<String>,
    /// A class of interface §5.
    pub class: Option<String>,
    /// Go on with what comes.
    pub follow: bool,
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

/// Items as one document, as lines while following, or as `line` makes them for people.
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

/// `restarts`: the restart log, one line a record.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn restarts(api: &Api, query: &RestartsQuery, json: bool, out: &mut (dyn Write + Send)) -> Done {
    let pairs =
        [("since", &query.since), ("stream", &query.stream), ("incident", &query.incident), ("class", &query.class)];
    let pairs: Vec<(&str, &str)> =
        pairs.iter().filter_map(|(key, value)| value.as_deref().map(|value| (*key, value))).collect();
    list(api, ("/v1/restarts", "restarts"), &pairs, "", (query.follow, json), restart_line, out).await
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

/// `incident`: its story.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn incident(api: &Api, id: &str, json: bool, out: &mut dyn Write) -> Done {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(ClientError::Usage("an incident's id has letters, digits, dashes and dots".to_owned()));
    }
    let story = api.get(&format!("/v1/incidents/{id}"), &[]).await?;
    if json {
        return document(out, &story);
    }
    let word = |value: &Value| text::clean(value.as_str().unwrap_or("-"));
    let cause = &story["cause"];
    let lasted = text::span(story["lasted_ms"].as_u64().unwrap_or(0));
    writeln!(out, "Incident {}: {}", word(&story["incident"]), word(&story["outcome"]))?;
    writeln!(out, "It began {} with {}", word(&story["started_at"]), word(&cause["path"]))?;
    if cause["reason"].is_object() {
        writeln!(out, "  {}", text::reason(&cause["reason"]))?;
    }
    writeln!(out, "and went on for {lasted}, until {}.", word(&story["last_at"]))?;
    writeln!(out, "\nWho was affected:")?;
    let affected = story["affected"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<String>> = affected.iter().map(affected_row).collect();
    text::table(out, &["CHILD", "WHY", "RESTARTS", "BACK IN", "NOW"], &rows)?;
    writeln!(out, "\nWhat happened, in order:")?;
    for record in story["records"].as_array().map_or(&[][..], Vec::as_slice) {
        writeln!(out, "  {}", restart_line(record))?;
    }
    if story["truncated"] == true {
        writeln!(out, "  … and more")?;
    }
    if story["remedy"].is_string() {
        writeln!(out, "\nWhat to do: {}", word(&story["remedy"]))?;
    }
    Ok(())
}

fn affected_row(child: &Value) -> Vec<String> {
    let why = match child["failures"].as_u64() {
        Some(0) | None => "taken along".to_owned(),
        Some(1) => "failed".to_owned(),
        Some(failures) => format!("failed {failures} times"),
    };
    let back = child["recovered_in_ms"].as_u64().map_or("-".to_owned(), text::span);
    let path = text::clean(child["path"].as_str().unwrap_or("-"));
    vec![path, why, text::cell(&child["restarts"]), back, text::cell(&child["outcome"])]
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
