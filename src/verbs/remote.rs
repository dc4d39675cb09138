//! Verbs that ask a running node.

use std::io::{IsTerminal, Write};

use adapters::contract::{Clock, SystemClock};
use serde_json::{Map, Value, json};

use crate::cli::{Checkpoint, ClientArgs, Dead, StartArgs, Verb, exit, output};
use crate::client::{self, Api, ClientError, RestartsQuery, Screen, TreeAsk};
use crate::names::{StreamId, Target};
use crate::run::chain;
use crate::times::timestamp;

/// Where the token is: arguments can be seen by others.
const TOKEN: &str = "LAKEFEED_TOKEN";

/// Asks the node; the exit code.
pub(super) async fn ask(verb: Verb, json: bool) -> u8 {
    match dispatch(verb, json).await {
        Ok(()) => exit::DONE,
        Err(e) if e.is_closed_pipe() => exit::DONE,
        Err(e) => {
            output::error_line(&chain(&e));
            e.exit_code()
        }
    }
}

fn api(args: &ClientArgs) -> Result<Api, ClientError> {
    Api::new(&args.api, std::env::var(TOKEN).ok().as_deref())
}

fn whole(stream: &StreamId) -> Target {
    Target { id: stream.clone(), partition: None }
}

async fn dispatch(verb: Verb, json: bool) -> Result<(), ClientError> {
    let out = &mut std::io::stdout();
    match verb {
        Verb::Status(args) => {
            client::status(&api(&args.client)?, args.stream.as_ref().map(whole).as_ref(), json, out).await
        }
        Verb::Tree(args) => {
            let ask = TreeAsk {
                stream: args.stream,
                depth: args.depth,
                only: args.only,
                limit: args.limit,
                watch: args.watch.then_some(args.every),
            };
            client::tree(&api(&args.client)?, &ask, &screen, json, out).await
        }
        Verb::Restarts(args) => {
            let query = RestartsQuery {
                since: args.since.map(|since| since.to_string()),
                until: args.until.map(|until| until.to_string()),
                events: args.event,
                stream: args.stream.map(|id| id.to_string()),
                incident: args.incident,
                class: args.class,
                follow: args.follow,
                format: args.format,
            };
            client::restarts(&api(&args.client)?, &query, json, out).await
        }
        Verb::Incident(args) => client::incident(&api(&args.client)?, &args.id, json, out).await,
        Verb::Start(args) => start(&args, json, out).await,
        Verb::Stop(args) => control(client::Verb::Stop, &whole(&args.stream), &args.client, json, out).await,
        Verb::Pause(args) => control(client::Verb::Pause, &whole(&args.stream), &args.client, json, out).await,
        Verb::Resume(args) => control(client::Verb::Resume, &whole(&args.stream), &args.client, json, out).await,
        Verb::Restart(args) => control(client::Verb::Restart, &args.target, &args.client, json, out).await,
        Verb::Interrupt(args) => control(client::Verb::Interrupt, &args.target, &args.client, json, out).await,
        Verb::Checkpoint(which) => checkpoint(which, json, out).await,
        Verb::Dead(Dead::List(args)) => {
            let (api, stream) = (api(&args.client)?, whole(&args.stream));
            client::dead_list(&api, &stream, cursor(&args.after), args.limit as usize, json, out).await
        }
        Verb::Dead(Dead::Show(args)) => {
            client::dead_show(&api(&args.client)?, &whole(&args.stream), &args.id, json, out).await
        }
        Verb::References(args) => {
            let (api, stream) = (api(&args.client)?, args.stream.as_ref().map(whole));
            client::references(&api, stream.as_ref(), cursor(&args.after), (args.follow, json), out).await
        }
        Verb::Records(args) => {
            let (api, stream) = (api(&args.client)?, whole(&args.stream));
            client::records(&api, &stream, cursor(&args.after), args.limit as usize, json, out).await
        }
        // These are started before anybody asks a node.
        Verb::Run(_) | Verb::Validate(_) | Verb::Demo(_) | Verb::Simulate(_) | Verb::Lake(_) | Verb::Bench(_) => Ok(()),
    }
}

/// The terminal on stdout, if it is one.
fn screen() -> Screen {
    let size = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    let size = size.map(|(width, height)| (usize::from(width.0), usize::from(height.0)));
    let now = timestamp(SystemClock.now_us());
    Screen { size, color: size.is_some() && std::env::var_os("NO_COLOR").is_none(), now }
}

fn cursor(after: &str) -> Option<&str> {
    Some(after).filter(|after| !after.is_empty())
}

async fn control(
    verb: client::Verb,
    target: &Target,
    args: &ClientArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), ClientError> {
    client::control(&api(args)?, verb, target, json, out).await
}

async fn start(args: &StartArgs, json: bool, out: &mut dyn Write) -> Result<(), ClientError> {
    let millis = |d: std::time::Duration| json!(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let keys = [
        ("interval", args.interval.map(millis)),
        ("timeout", args.timeout.map(millis)),
        ("endpoint", args.endpoint.as_deref().map(Value::from)),
        ("bucket_name", args.bucket_name.as_deref().map(Value::from)),
        ("partitions", args.partitions.clone()),
    ];
    let data: Map<_, _> = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    client::start(&api(&args.client)?, &whole(&args.stream), args.adapter.as_deref(), data, json, out).await
}

async fn checkpoint(which: Checkpoint, json: bool, out: &mut dyn Write) -> Result<(), ClientError> {
    match which {
        Checkpoint::Show(args) => client::checkpoint_show(&api(&args.client)?, &whole(&args.stream), json, out).await,
        Checkpoint::Set(args) => {
            let positions: Vec<_> = args.positions.into_iter().map(|p| (p.partition, p.position)).collect();
            client::checkpoint_set(&api(&args.client)?, &whole(&args.stream), &positions, json, out).await
        }
        Checkpoint::Reset(args) => client::checkpoint_reset(&api(&args.client)?, &whole(&args.stream), json, out).await,
    }
}
