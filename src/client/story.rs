//! `incident`: the story of a failure and of everything that followed from it, for somebody who was woken by it.

use std::io::Write;

use serde_json::Value;

use super::history::resumed_from;
use super::tree::state_phrase;
use super::{Api, ClientError, Done, document, text};
use crate::times::timestamp_us;

/// Children and events that are shown. An incident that took thousands along is understood by its beginning, its end
/// and its numbers; all of it is in the JSON.
const AFFECTED_SHOWN: usize = 40;
const EVENTS_FIRST: usize = 60;
const EVENTS_LAST: usize = 20;

/// Children with something to do of their own that are named.
const REMEDIES_SHOWN: usize = 5;

/// `incident`: its story.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn incident(api: &Api, id: &str, json: bool, out: &mut dyn Write) -> Done {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(ClientError::Usage("an incident's id has letters, digits, dashes and dots".to_owned()));
    }
    let story = api.get(&format!("/v1/incidents/{id}"), &[]).await?;
    if json { document(out, &story) } else { tell(out, &story) }
}

fn items<'v>(story: &'v Value, key: &str) -> &'v [Value] {
    story[key].as_array().map_or(&[][..], Vec::as_slice)
}

fn word(value: &Value) -> String {
    text::clean(value.as_str().unwrap_or("-"))
}

/// A path from the tenant on: what stands above is the same everywhere.
fn short(path: &Value) -> String {
    let path = word(path);
    path.strip_prefix("lakefeed/tenants/").map(str::to_owned).unwrap_or(path)
}

fn tell(out: &mut dyn Write, story: &Value) -> Done {
    let lasted = text::span(story["lasted_ms"].as_u64().unwrap_or(0));
    let ending = match story["outcome"].as_str().unwrap_or_default() {
        "recovered" => format!("over: everything came back, {lasted} from the first failure to the last event"),
        "parked" => format!("parked after {lasted}: something stays down until it is tried again"),
        "abandoned" => format!("over after {lasted}, but something could not be killed and was left behind, fenced"),
        "escalated" => format!("gave up after {lasted}: a supervisor's restarts are used up"),
        "stopped" => format!("over after {lasted}: it was stopped"),
        _ => format!("still under way, for {lasted} so far"),
    };
    writeln!(out, "Incident {}\n{ending}", word(&story["incident"]))?;
    cause(out, &story["cause"])?;
    events(out, story)?;
    affected(out, story)?;
    remedies(out, story)
}

fn cause(out: &mut dyn Write, cause: &Value) -> Done {
    writeln!(out, "\nFirst cause")?;
    writeln!(out, "  {}  {} #{}", word(&cause["ts"]), word(&cause["path"]), cause["incarnation"])?;
    if cause["reason"].is_object() {
        writeln!(out, "  {}", text::reason(&cause["reason"]))?;
    }
    for frame in cause["backtrace"].as_str().unwrap_or_default().lines() {
        writeln!(out, "    {}", text::clean(frame))?;
    }
    Ok(())
}

fn events(out: &mut dyn Write, story: &Value) -> Done {
    writeln!(out, "\nWhat happened, in order")?;
    let records = items(story, "records");
    let begin = story["started_at"].as_str().and_then(timestamp_us);
    let hidden = records.len().saturating_sub(EVENTS_FIRST + EVENTS_LAST);
    for (place, record) in records.iter().enumerate() {
        if hidden > 0 && (EVENTS_FIRST..EVENTS_FIRST + hidden).contains(&place) {
            if place == EVENTS_FIRST {
                writeln!(out, "  … {hidden} events more, see --json")?;
            }
            continue;
        }
        let at = record["ts"].as_str().and_then(timestamp_us).zip(begin).map_or(0, |(at, begin)| at - begin);
        let at = format!("+{}", text::span(u64::try_from(at / 1_000).unwrap_or(0)));
        writeln!(out, "  {at:>9}  {}", sentence(record, &story["cause"]))?;
    }
    if story["truncated"] == true {
        writeln!(out, "  … and more, of which nothing is told here")?;
    }
    Ok(())
}

/// One event as a sentence.
fn sentence(record: &Value, cause: &Value) -> String {
    let who = format!("{} #{}", short(&record["path"]), record["incarnation"]);
    let because = match &record["because_of"] {
        Value::String(_) => format!(", because of {}", short(&record["because_of"])),
        _ => String::new(),
    };
    let under = match &record["strategy"] {
        Value::String(_) => format!(" under {}", word(&record["strategy"])),
        _ => String::new(),
    };
    let delay = record["delay_ms"].as_u64().map(text::span);
    match record["event"].as_str().unwrap_or_default() {
        "failed" if record["ts"] == cause["ts"] && record["path"] == cause["path"] => {
            format!("{who} failed: the first cause")
        }
        "failed" if record["reason"] == cause["reason"] => format!("{who} failed the same way{because}"),
        "failed" => format!("{who} failed: {}{because}", text::reason(&record["reason"])),
        "restarting" => {
            let attempt = text::cell(&record["attempt"]);
            format!("{who} is to be restarted{under} in {}, attempt {attempt}", delay.unwrap_or_default())
        }
        "restarted" | "started" => {
            let after = record["recovered_in_ms"].as_u64().map(|ms| format!(" after {}", text::span(ms)));
            let from = match &record["resumed_from"] {
                Value::Object(_) => format!(", from {}", resumed_from(&record["resumed_from"])),
                _ => String::new(),
            };
            let under = if because.is_empty() { String::new() } else { format!("{under}{because}") };
            format!("{who} runs again{}{from}{under}", after.unwrap_or_default())
        }
        "stopped" => format!("{who} was stopped{because}"),
        "parked" => match delay {
            Some(delay) => format!("{who} is parked and tried again in {delay}"),
            None => format!("{who} is parked until somebody restarts it"),
        },
        "probed" => format!("{who} is tried again"),
        "abandoned" => format!("{who} could not be killed: it is left behind and nothing that it still does counts"),
        "escalated" => format!("{who} gives up{under}{because}: its restarts are used up"),
        other => format!("{who} {}", text::clean(other)),
    }
}

fn affected(out: &mut dyn Write, story: &Value) -> Done {
    writeln!(out, "\nWho was affected")?;
    let children = items(story, "affected");
    let rows: Vec<Vec<String>> = children.iter().take(AFFECTED_SHOWN).map(affected_row).collect();
    let mut table = Vec::new();
    text::table(&mut table, &["CHILD", "WHY", "RESTARTS", "WENT ON FROM", "BACK AFTER", "NOW"], &rows)?;
    for line in String::from_utf8_lossy(&table).lines() {
        writeln!(out, "  {line}")?;
    }
    let more = children.len().saturating_sub(AFFECTED_SHOWN);
    if more > 0 {
        writeln!(out, "  … {more} more, see --json")?;
    }
    Ok(())
}

fn affected_row(child: &Value) -> Vec<String> {
    let why = match child["failures"].as_u64() {
        Some(0) | None if child["because_of"].is_string() && child["strategy"].is_string() => {
            format!("{} of {}", word(&child["strategy"]), short(&child["because_of"]))
        }
        Some(0) | None => "taken along".to_owned(),
        Some(1) => "failed".to_owned(),
        Some(failures) => format!("failed {failures} times"),
    };
    let back = child["recovered_in_ms"].as_u64().map_or("-".to_owned(), text::span);
    let from = if child["resumed_from"].is_object() { resumed_from(&child["resumed_from"]) } else { "-".to_owned() };
    let now = if child["now"].is_object() { state_phrase(&child["now"]) } else { word(&child["outcome"]) };
    vec![short(&child["path"]), why, text::cell(&child["restarts"]), from, back, now]
}

fn remedies(out: &mut dyn Write, story: &Value) -> Done {
    writeln!(out, "\nWhat to do")?;
    match &story["remedy"] {
        Value::String(_) => writeln!(out, "  {}", word(&story["remedy"]))?,
        _ => writeln!(out, "  Nothing is known to do.")?,
    }
    let children = items(story, "affected");
    for child in children.iter().filter(|child| child["remedy"].is_string()).take(REMEDIES_SHOWN) {
        writeln!(out, "  {}: {}", short(&child["path"]), word(&child["remedy"]))?;
    }
    for child in children.iter().filter(|child| is_parked(child)).take(REMEDIES_SHOWN) {
        if let Some(target) = target(&short(&child["path"])) {
            writeln!(out, "  Once its cause is removed: lakefeed restart {target}")?;
        }
    }
    Ok(())
}

fn is_parked(child: &Value) -> bool {
    let now = child["now"]["state"].as_str();
    now.map_or_else(|| child["outcome"] == "parked", |state| state == "parked")
}

/// What `lakefeed restart` takes for the child at this path below the tenants.
fn target(path: &str) -> Option<String> {
    let mut segments = path.splitn(4, '/');
    let (tenant, stream) = (segments.next()?, segments.next()?);
    match (segments.next(), segments.next()) {
        (Some("workers"), Some(id)) => {
            let partition = id.replace("%2F", "/").replace("%25", "%");
            let plain = partition.chars().all(|c| c.is_ascii_alphanumeric() || "=,._-/".contains(c));
            // What a shell would read otherwise is left to the person.
            Some(if plain { format!("{tenant}/{stream}/{partition}") } else { format!("{tenant}/{stream}") })
        }
        _ => Some(format!("{tenant}/{stream}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(story: &Value) -> String {
        let mut out = Vec::new();
        tell(&mut out, story).expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    fn record(ms: u32, path: &str, event: &str) -> Value {
        json!({"ts": format!("2026-11-21T13:31:08.{ms:03}000Z"), "path": format!("lakefeed/tenants/{path}"),
            "incarnation": 1, "event": event, "attempt": 1})
    }

    /// A committer's panic that takes the workers along.
    fn cascade() -> Value {
        let path = "acme/berlin/committer";
        let mut failed = record(0, path, "failed");
        failed["reason"] = json!({"class": "bug", "code": "panic", "message": "boom (at src/x.rs:7)"});
        failed["backtrace"] = json!("0: lakefeed::x\n1: lakefeed::y\u{1b}[31m");
        let mut restarting = record(1, path, "restarting");
        restarting["delay_ms"] = json!(200);
        restarting["strategy"] = json!("rest_for_one");
        let mut stopped = record(3, "acme/berlin/workers", "stopped");
        stopped["because_of"] = failed["path"].clone();
        let mut back = record(205, path, "restarted");
        back["recovered_in_ms"] = json!(205);
        back["resumed_from"] = json!({"epoch": 7, "positions": {"a": "1", "b": "2", "c": "3", "d": "4"}});
        let mut along = record(210, "acme/berlin/workers", "restarted");
        along["strategy"] = json!("rest_for_one");
        along["because_of"] = failed["path"].clone();
        let affected = json!([
            {"path": failed["path"], "failures": 1, "restarts": 1, "recovered_in_ms": 205, "outcome": "recovered",
                "resumed_from": back["resumed_from"], "now": {"state": "running", "uptime_ms": 61_000}},
            {"path": along["path"], "failures": 0, "restarts": 1, "outcome": "recovered", "strategy": "rest_for_one",
                "because_of": failed["path"]},
        ]);
        json!({"incident": "i1", "started_at": failed["ts"], "last_at": along["ts"], "lasted_ms": 210,
            "outcome": "recovered", "cause": failed, "remedy": "Report it.", "affected": affected,
            "records": [failed, restarting, stopped, back, along], "truncated": false})
    }

    #[test]
    fn test_story_is_told_in_order_from_cause_to_remedy() {
        let expected = "\
Incident i1
over: everything came back, 210 ms from the first failure to the last event

First cause
  2026-11-21T13:31:08.000000Z  lakefeed/tenants/acme/berlin/committer #1
  bug panic: boom (at src/x.rs:7)
    0: lakefeed::x
    1: lakefeed::y\u{fffd}[31m

What happened, in order
      +0 ms  acme/berlin/committer #1 failed: the first cause
      +1 ms  acme/berlin/committer #1 is to be restarted under rest_for_one in 200 ms, attempt 1
      +3 ms  acme/berlin/workers #1 was stopped, because of acme/berlin/committer
    +205 ms  acme/berlin/committer #1 runs again after 205 ms, from epoch 7, a=1, b=2, c=3 and 1 more
    +210 ms  acme/berlin/workers #1 runs again under rest_for_one, because of acme/berlin/committer

Who was affected
  CHILD                  WHY                                    RESTARTS  WENT ON FROM                        BACK AFTER  NOW
  acme/berlin/committer  failed                                 1         epoch 7, a=1, b=2, c=3 and 1 more  205 ms      running 61.0 s
  acme/berlin/workers    rest_for_one of acme/berlin/committer  1         -                                  -           recovered

What to do
  Report it.
";
        assert_eq!(squeezed(&told(&cascade())), squeezed(expected));
    }

    /// Without the widths of columns.
    fn squeezed(text: &str) -> String {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
    }

    #[test]
    fn test_story_of_thousands_is_bounded_and_ends_with_its_end() {
        let mut story = cascade();
        let records: Vec<_> =
            (0..10_000).map(|n| record(n % 1_000, &format!("acme/s{n}/workers/main"), "failed")).collect();
        let affected: Vec<_> =
            records.iter().map(|r| json!({"path": r["path"], "failures": 1, "outcome": "parked"})).collect();
        story["records"] = json!(records);
        story["affected"] = json!(affected);
        let text = told(&story);
        assert!(text.lines().count() < 200, "{}", text.lines().count());
        assert!(text.contains("9920 events more") && text.contains("acme/s9999/workers/main #1 failed"), "{text}");
        assert!(text.contains("9960 more, see --json"));
        assert_eq!(text.matches("lakefeed restart acme/s").count(), REMEDIES_SHOWN);
    }

    #[test]
    fn test_story_names_what_the_restart_verb_takes() {
        assert_eq!(target("acme/berlin/workers/lat=1,lon=2%2Fx").as_deref(), Some("acme/berlin/lat=1,lon=2/x"));
        assert_eq!(target("acme/berlin/workers/a;b").as_deref(), Some("acme/berlin"));
        assert_eq!(target("acme/berlin/committer").as_deref(), Some("acme/berlin"));
        assert_eq!(target("acme"), None);
    }
}
