//! `tree`: the live supervision tree, drawn once or again and again.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::{Api, ClientError, Done, document, text};
use crate::names::StreamId;

/// Nodes that are asked for where nobody says how many: some screens.
const NODES_SHOWN: u32 = 200;

/// Lines of a drawing on what is no terminal, for every node and some more.
const LINES_MAX: usize = 100_000;

/// A line on what is no terminal is cut here: messages may have 2,000 characters.
const LINE_CHARS_MAX: usize = 400;

/// What `tree` looks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeAsk {
    /// Of this stream only.
    pub stream: Option<StreamId>,
    /// Levels below the root.
    pub depth: Option<u32>,
    /// Only these states.
    pub only: Vec<String>,
    /// At most so many nodes; by default 200 for people, all with JSON.
    pub limit: Option<u32>,
    /// Draw again and again at this distance.
    pub watch: Option<Duration>,
}

/// What is drawn on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns and lines of a terminal; `None` where the output is none.
    pub size: Option<(usize, usize)>,
    /// Colours may be used.
    pub color: bool,
    /// The time, as it stands above a drawing.
    pub now: String,
}

/// `tree`: the supervision tree, or the part that is asked for.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn tree(
    api: &Api,
    ask: &TreeAsk,
    screen: &(dyn Fn() -> Screen + Sync),
    json: bool,
    out: &mut (dyn Write + Send),
) -> Done {
    let pairs = query(ask, json);
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let Some(every) = ask.watch else {
        let answer = api.get("/v1/tree", &pairs).await?;
        return if json { document(out, &answer) } else { Ok(draw(out, &answer, &screen())?) };
    };
    let mut drawn = false;
    loop {
        match api.get("/v1/tree", &pairs).await {
            Ok(answer) if json => document(out, &answer)?,
            Ok(answer) => frame(out, &answer, &screen(), !drawn)?,
            // A node that restarts is away for a moment, and is what somebody who watches wants to see come back.
            Err(away @ ClientError::Unreachable { .. }) if drawn => {
                if !json {
                    writeln!(out, "{away}")?;
                }
            }
            Err(error) => return Err(error),
        }
        out.flush()?;
        drawn = true;
        tokio::time::sleep(every).await;
    }
}

fn query(ask: &TreeAsk, json: bool) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    pairs.extend(ask.stream.as_ref().map(|id| ("stream", id.to_string())));
    pairs.extend(ask.depth.map(|depth| ("depth", depth.to_string())));
    if !ask.only.is_empty() {
        pairs.push(("only", ask.only.join(",")));
    }
    let limit = ask.limit.or((!json).then_some(NODES_SHOWN));
    pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
    pairs
}

/// One drawing of many: over the last one on a terminal, after a line with the time elsewhere.
fn frame(out: &mut dyn Write, root: &Value, screen: &Screen, first: bool) -> io::Result<()> {
    let Some((_, height)) = screen.size else {
        writeln!(out, "--- {}", screen.now)?;
        return draw(out, root, screen);
    };
    let head = format!("lakefeed tree  {}  Ctrl-C ends", screen.now);
    let mut drawing = Vec::new();
    draw(
        &mut drawing,
        root,
        &Screen { size: screen.size.map(|(width, _)| (width, height.saturating_sub(2))), ..screen.clone() },
    )?;
    // Drawn over the last one line by line, so that nothing flickers; what is left of it is removed at the end.
    write!(out, "{}{head}\x1b[K\r\n", if first { "\x1b[2J\x1b[H" } else { "\x1b[H" })?;
    for line in String::from_utf8_lossy(&drawing).lines() {
        write!(out, "{line}\x1b[K\r\n")?;
    }
    write!(out, "\x1b[J")
}

/// The tree, one child a line; no line is wider and no drawing higher than the screen. Shapes are taken as they come: a
/// node has a path, scalars, and children.
///
/// # Errors
/// Where `out` takes nothing more.
pub fn draw(out: &mut dyn Write, root: &Value, screen: &Screen) -> io::Result<()> {
    let (width, height) = screen.size.unwrap_or((LINE_CHARS_MAX, LINES_MAX));
    let mut lines = Vec::new();
    // Each entry: the node, what stands before its line, what stands before its children's. A stack of our own, so
    // that a deep answer cannot exhaust the thread's.
    let mut stack = vec![(root, String::new(), String::new())];
    while let Some((node, before, beneath)) = stack.pop() {
        lines.push(line_of(node, &before));
        let children = node["children"].as_array().map_or(&[][..], Vec::as_slice);
        for (place, child) in children.iter().enumerate().rev() {
            let last = place + 1 == children.len();
            let (own, below) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
            stack.push((child, format!("{beneath}{own}"), format!("{beneath}{below}")));
        }
    }
    let over = lines.len().saturating_sub(height.max(1));
    let shown = if over > 0 { height.max(1) - 1 } else { lines.len() };
    for line in &lines[..shown] {
        writeln!(out, "{}", line.show(width, screen.color))?;
    }
    if over > 0 {
        writeln!(out, "… {} more lines: narrow it with --only, --stream or --depth", lines.len() - shown)?;
    }
    Ok(())
}

/// How a state is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Good,
    Soon,
    Bad,
    Quiet,
}

impl Tone {
    fn of(node: &Value) -> Self {
        match node["state"].as_str().unwrap_or_default() {
            "running"
                if node["trouble"].is_object()
                    || node["flapping"] == true
                    || node["restarts_warning"] == true
                    || node["waits_for"].is_string() =>
            {
                Self::Soon
            }
            "running" => Self::Good,
            "parked" | "abandoned" => Self::Bad,
            "stopped" => Self::Quiet,
            _ => Self::Soon,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Soon => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Quiet => "\x1b[2m",
        }
    }
}

/// One child in three parts, the middle of which has a colour.
struct Line {
    head: String,
    state: String,
    tone: Tone,
    tail: String,
}

impl Line {
    /// Cut to `width` characters.
    fn show(&self, width: usize, color: bool) -> String {
        let whole = format!("{}{}{}", self.head, self.state, self.tail);
        let over = whole.chars().count() > width;
        let keep = if over { width.saturating_sub(1) } else { width };
        let cut: String = whole.chars().take(keep).collect();
        let mark = if over && width > 0 { "…" } else { "" };
        let from = self.head.len().min(cut.len());
        let to = (self.head.len() + self.state.len()).min(cut.len());
        if !color || from == to {
            return format!("{cut}{mark}");
        }
        format!("{}{}{}\x1b[0m{}{mark}", &cut[..from], self.tone.code(), &cut[from..to], &cut[to..])
    }
}

fn line_of(node: &Value, before: &str) -> Line {
    let path = node["path"].as_str().unwrap_or("?");
    let name = text::clean(path.rsplit('/').next().unwrap_or(path));
    Line { head: format!("{before}{name}  "), state: state_phrase(node), tone: Tone::of(node), tail: tail(node) }
}

/// What a node does, in words.
pub(super) fn state_phrase(node: &Value) -> String {
    let state = text::clean(node["state"].as_str().unwrap_or("?"));
    match state.as_str() {
        "running" => {
            let up = node["uptime_ms"].as_u64().map_or(String::new(), |ms| format!(" {}", text::span(ms)));
            format!("running{up}{}", phase(node))
        }
        "waiting" => {
            let until = text::span(node["until_ms"].as_u64().unwrap_or(0));
            let why = match node["why"].as_str() {
                Some("retry_after") => ", as the source asked",
                Some("paced") => ", its turn in a storm",
                _ => "",
            };
            format!("waiting: attempt {} in {until}{why}", text::cell(&node["attempt"]))
        }
        "parked" => {
            let probe = node["probe_at"].as_str().map_or(String::new(), |at| format!(", tried again {}", clock(at)));
            format!("parked: {}{probe}", text::reason(&node["reason"]))
        }
        _ => state,
    }
}

fn phase(node: &Value) -> String {
    match node["phase"].as_str() {
        Some("waiting") => node["next_at"].as_str().map_or(String::new(), |at| format!(", next {}", clock(at))),
        Some("ended") => ", the source has no more".to_owned(),
        Some(phase) => format!(", {}", text::clean(phase)),
        None => String::new(),
    }
}

/// The time of day of a time in RFC 3339.
fn clock(at: &str) -> String {
    text::clean(at.split_once('T').map_or(at, |(_, time)| time.get(..8).unwrap_or(time)))
}

/// Everything else that its line tells.
fn tail(node: &Value) -> String {
    let number = |key: &str| node[key].as_u64().filter(|number| *number > 0);
    let mut tail = String::new();
    let mut say = |what: String| {
        tail.push_str("  ");
        tail.push_str(&what);
    };
    if let Some(incarnation) = number("incarnation") {
        say(format!("#{incarnation}"));
    }
    if let Some(restarts) = number("restarts") {
        say(format!("restarts {restarts}"));
    }
    if let (Some(used), Some(left)) = (number("restarts_in_window"), node["restarts_left"].as_u64()) {
        say(format!("{used} in window, {left} left"));
    }
    if node["restarts_warning"] == true {
        say("half of them used!".to_owned());
    }
    if node["flapping"] == true {
        say(format!("flapping, {:.1} restarts an hour", node["flap_score"].as_f64().unwrap_or(0.0)));
    }
    if let Some(abandoned) = number("abandoned") {
        say(format!("{abandoned} abandoned"));
    }
    for (key, name) in [("desired", "should be"), ("epoch", "epoch"), ("position", "at")] {
        let quiet = node[key].is_null() || node[key] == "running";
        if !quiet {
            say(format!("{name} {}", text::cell(&node[key])));
        }
    }
    if let Some(lag) = node["lag_seconds"].as_f64() {
        say(format!("lag {lag:.1} s"));
    }
    if let Some(bytes) = number("queue_bytes") {
        say(format!("queue {}", size(bytes)));
    }
    if node["waits_for"].is_string() {
        say(format!("waits for {}", text::cell(&node["waits_for"])));
    }
    match number("failed_workloads") {
        // A parked one has told its reason.
        Some(failed) if node["state"] == "parked" => say(format!("{failed} workloads failed in a row")),
        Some(failed) => say(format!("{failed} failed in a row: {}", text::reason(&node["trouble"]))),
        None if node["trouble"].is_object() && node["state"] != "parked" => say(text::reason(&node["trouble"])),
        None => {}
    }
    if node["last_error"].is_object() && node["state"] != "parked" && node["state"] != "running" {
        say(text::reason(&node["last_error"]));
    }
    if let Some(hidden) = number("hidden") {
        say(format!("… {hidden} more here, below it {}", below(&node["below"])));
    }
    tail
}

/// `19999 running, 1 parked`.
fn below(counts: &Value) -> String {
    let counts = counts.as_object().map(|counts| {
        let mut counts: Vec<_> = counts.iter().map(|(state, count)| (count.as_u64().unwrap_or(0), state)).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.iter().map(|(count, state)| format!("{count} {}", text::clean(state))).collect::<Vec<_>>().join(", ")
    });
    counts.unwrap_or_default()
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(root: &Value, screen: &Screen) -> String {
        let mut out = Vec::new();
        draw(&mut out, root, screen).expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    fn leaf(n: usize, state: &Value) -> Value {
        let mut node = json!({"path": format!("lakefeed/w{n}"), "incarnation": 3, "children": []});
        node.as_object_mut().expect("object").extend(state.as_object().expect("object").clone());
        node
    }

    fn states() -> Value {
        let reason = json!({"class": "auth", "code": "http_401", "message": "the key is wrong"});
        let all = [
            json!({"state": "running", "uptime_ms": 180_000, "phase": "waiting", "next_at": "2026-11-21T13:31:08.5Z",
                "position": "4711", "lag_seconds": 1.54, "queue_bytes": 20_480}),
            json!({"state": "waiting", "until_ms": 1_200, "attempt": 2, "last_error": reason, "restarts": 2,
                "restarts_in_window": 2, "restarts_left": 3}),
            json!({"state": "parked", "reason": reason, "last_error": reason, "probe_at": "2026-11-21T13:46:00Z"}),
            json!({"state": "running", "uptime_ms": 500, "phase": "working", "failed_workloads": 3, "trouble": reason}),
            json!({"state": "abandoned", "abandoned": 1}),
        ];
        let children: Vec<_> = all.iter().enumerate().map(|(n, state)| leaf(n, state)).collect();
        json!({"path": "lakefeed", "state": "running", "uptime_ms": 3_000, "hidden": 2, "below": {"running": 6, "parked": 1},
            "children": children})
    }

    #[test]
    fn test_tree_tells_each_state_in_words() {
        let expected = "\
lakefeed  running 3.0 s  … 2 more here, below it 6 running, 1 parked
├── w0  running 3 min, next 13:31:08  #3  at 4711  lag 1.5 s  queue 20 KiB
├── w1  waiting: attempt 2 in 1.2 s  #3  restarts 2  2 in window, 3 left  auth http_401: the key is wrong
├── w2  parked: auth http_401: the key is wrong, tried again 13:46:00  #3
├── w3  running 500 ms, working  #3  3 failed in a row: auth http_401: the key is wrong
└── w4  abandoned  #3  1 abandoned
";
        assert_eq!(drawn(&states(), &Screen::default()), expected);
    }

    #[test]
    fn test_tree_fits_the_terminal_with_and_without_colours() {
        for color in [false, true] {
            for width in [1, 7, 20, 39, 60] {
                let text = drawn(&states(), &Screen { size: Some((width, 4)), color, ..Screen::default() });
                assert_eq!(text.lines().count(), 4);
                assert!(text.lines().last().is_some_and(|line| line.contains("3 more lines")), "{text}");
                for line in text.lines().take(3) {
                    let mut plain = line.to_owned();
                    for code in ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"] {
                        plain = plain.replace(code, "");
                    }
                    assert!(plain.chars().count() <= width, "{width}: {plain}");
                    assert_eq!(line.contains('\x1b'), color && line != plain);
                    assert!(!plain.contains('\x1b'), "no colour is left open");
                }
            }
        }
    }

    #[test]
    fn test_tree_watch_draws_over_on_a_terminal_and_repeats_elsewhere() {
        let (root, now) = (states(), "12:00".to_owned());
        let mut out = Vec::new();
        let terminal = Screen { size: Some((80, 5)), color: true, now: now.clone() };
        frame(&mut out, &root, &terminal, true).expect("memory");
        frame(&mut out, &root, &terminal, false).expect("memory");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.starts_with("\x1b[2J\x1b[Hlakefeed tree  12:00"), "{text:?}");
        assert_eq!(text.matches("\x1b[2J").count(), 1, "cleared once");
        assert_eq!(text.matches("\x1b[J").count(), 2, "what is left below is removed each time");
        assert!(text.matches("\r\n").count() <= 2 * 5);
        let mut out = Vec::new();
        let plain = Screen { now, ..Screen::default() };
        frame(&mut out, &root, &plain, true).expect("memory");
        frame(&mut out, &root, &plain, false).expect("memory");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(!text.contains('\x1b') && text.matches("--- 12:00\nlakefeed  running").count() == 2, "{text}");
    }
}
