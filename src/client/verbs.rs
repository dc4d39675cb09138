//! Status, tree, and the verbs that change what a stream does.

use std::io::Write;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Api, ClientError, Done, Target, document, stream_path, text};

/// `status`: all streams, or one.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn status(api: &Api, target: Option<&Target>, json: bool, out: &mut dyn Write) -> Done {
    let answer = match target {
        None => api.get("/v1/streams", &[]).await?,
        Some(target) => api.get(&stream_path(&target.id, ""), &[]).await?,
    };
    if json {
        return document(out, &answer);
    }
    let one = [answer.clone()];
    let views = if target.is_some() { &one[..] } else { answer["streams"].as_array().map_or(&[][..], Vec::as_slice) };
    let rows: Vec<Vec<String>> = views.iter().map(status_row).collect();
    text::table(
        out,
        &["STREAM", "ADAPTER", "DESIRED", "ACTUAL", "EPOCH", "LAG", "NEXT", "PARKED", "WAITS FOR"],
        &rows,
    )?;
    Ok(())
}

fn status_row(view: &Value) -> Vec<String> {
    let lag = view["lag_seconds"].as_f64().map_or("-".to_owned(), |lag| format!("{lag:.1} s"));
    let parked = if view["parked"].is_object() { text::reason(&view["parked"]) } else { "-".to_owned() };
    let mut row = vec![format!("{}/{}", text::cell(&view["tenant"]), text::cell(&view["stream"]))];
    row.extend(["adapter", "desired", "actual", "epoch"].map(|key| text::cell(&view[key])));
    row.extend([lag, text::cell(&view["next_at"]), parked, text::cell(&view["waits_for"])]);
    row
}

/// Verbs that need only a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Commit what was collected, hold nothing.
    Stop,
    /// Keep the table, ask the source for nothing.
    Pause,
    /// Run again with what it had.
    Resume,
    /// Restart workers, also parked ones.
    Restart,
    /// Drop the workload in progress.
    Interrupt,
}

impl Verb {
    /// Its method, the end of its path, and what is done when it answers.
    fn parts(self) -> (Method, &'static str, &'static str) {
        match self {
            Self::Stop => (Method::PUT, "/stop", "stopped"),
            Self::Pause => (Method::PUT, "/pause", "paused"),
            Self::Resume => (Method::PUT, "/resume", "running"),
            Self::Restart => (Method::POST, "/restart", "restarted"),
            Self::Interrupt => (Method::POST, "/interrupt", "interrupted"),
        }
    }
}

/// `stop`, `pause`, `resume`, `restart`, `interrupt`. Only the last two take a partition: the desired state is the
/// whole stream's.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn control(api: &Api, verb: Verb, target: &Target, json: bool, out: &mut dyn Write) -> Done {
    let (method, path, done) = verb.parts();
    let query: Vec<(&str, &str)> = target.partition.iter().map(|name| ("partition", name.as_str())).collect();
    if !query.is_empty() && method == Method::PUT {
        return Err(whole_stream_only());
    }
    let answer = api.ask(method, &stream_path(&target.id, path), &query, None).await?;
    if json {
        return document(out, &answer);
    }
    let partition = target.partition.as_ref().map_or(String::new(), |name| format!("/{}", text::clean(name)));
    Ok(writeln!(out, "{}{partition}: {done}", target.id)?)
}

fn whole_stream_only() -> ClientError {
    let message = "start, stop, pause and resume are for a whole stream; restart and interrupt take a partition";
    ClientError::Usage(message.to_owned())
}

/// `start`: with an adapter, or other keys of the message in `data`, the message `worker:start`; without any a known
/// stream runs again with what it had.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn start(
    api: &Api,
    target: &Target,
    adapter: Option<&str>,
    mut data: Map<String, Value>,
    json: bool,
    out: &mut dyn Write,
) -> Done {
    if target.partition.is_some() {
        return Err(whole_stream_only());
    }
    if adapter.is_none() && data.is_empty() {
        return control(api, Verb::Resume, target, json, out).await;
    }
    let adapter = match adapter {
        Some(adapter) => json!(adapter),
        None => api.get(&stream_path(&target.id, ""), &[]).await?["adapter"].clone(),
    };
    data.insert("adapter".to_owned(), adapter);
    data.insert("tenant".to_owned(), json!(target.id.tenant()));
    data.insert("stream".to_owned(), json!(target.id.stream()));
    let message = json!({"pattern": "worker:start", "data": data});
    let answer = api.ask(Method::POST, "/v1/messages", &[], Some(message)).await?;
    if json {
        return document(out, &answer);
    }
    Ok(writeln!(out, "{}", text::cell(&answer["message"]))?)
}
