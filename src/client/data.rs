//! Checkpoints, dead letters and stored records.

use std::io::Write;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Api, ClientError, Done, PAGE, Target, document, page, stream_path, text};

fn show_checkpoint(answer: &Value, json: bool, out: &mut dyn Write) -> Done {
    if json {
        return document(out, answer);
    }
    writeln!(out, "epoch {}, generation {}", text::cell(&answer["epoch"]), text::cell(&answer["generation"]))?;
    let none = Map::new();
    let positions = answer["positions"].as_object().unwrap_or(&none);
    let rows: Vec<Vec<String>> =
        positions.iter().map(|(partition, position)| vec![text::clean(partition), text::cell(position)]).collect();
    text::table(out, &["PARTITION", "POSITION"], &rows)?;
    Ok(())
}

/// `checkpoint show`.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn checkpoint_show(api: &Api, target: &Target, json: bool, out: &mut dyn Write) -> Done {
    show_checkpoint(&api.get(&stream_path(&target.id, "/checkpoint"), &[]).await?, json, out)
}

/// `checkpoint set` of a stopped stream; partitions not named stay.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn checkpoint_set(
    api: &Api,
    target: &Target,
    positions: &[(String, String)],
    json: bool,
    out: &mut dyn Write,
) -> Done {
    let positions: Map<String, Value> =
        positions.iter().map(|(partition, position)| (partition.clone(), json!(position))).collect();
    let path = stream_path(&target.id, "/checkpoint");
    show_checkpoint(&api.ask(Method::PATCH, &path, &[], Some(json!({"positions": positions}))).await?, json, out)
}

/// `checkpoint reset` of a stopped stream: it begins from the beginning.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn checkpoint_reset(api: &Api, target: &Target, json: bool, out: &mut dyn Write) -> Done {
    let path = stream_path(&target.id, "/checkpoint");
    show_checkpoint(&api.ask(Method::DELETE, &path, &[], None).await?, json, out)
}

/// Up to `limit` items from `after` on, and where to go on.
async fn collect(
    api: &Api,
    (path, key): (&str, &str),
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Value>, String), ClientError> {
    let (mut all, mut after) = (Vec::new(), after.unwrap_or("").to_owned());
    while all.len() < limit {
        let ask = (limit - all.len()).min(PAGE).to_string();
        let (items, next) = page(api.get(path, &[("after", after.as_str()), ("limit", &ask)]).await?, key)?;
        after = next;
        if items.is_empty() {
            break;
        }
        all.extend(items);
    }
    Ok((all, after))
}

/// `records`: rows of the stream's table.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn records(
    api: &Api,
    target: &Target,
    after: Option<&str>,
    limit: usize,
    json: bool,
    out: &mut dyn Write,
) -> Done {
    let path = stream_path(&target.id, "/records");
    let (all, next) = collect(api, (&path, "records"), after, limit).await?;
    if json {
        return document(out, &json!({"records": all, "next": next}));
    }
    let mut head: Vec<&str> = Vec::new();
    for key in all.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !head.contains(&key.as_str()) {
            head.push(key);
        }
    }
    let rows: Vec<Vec<String>> =
        all.iter().map(|record| head.iter().map(|key| text::cell(&record[*key])).collect()).collect();
    let names: Vec<String> = head.iter().map(|key| text::clean(key)).collect();
    text::table(out, &names.iter().map(String::as_str).collect::<Vec<_>>(), &rows)?;
    Ok(())
}

/// `dead list`.
///
/// # Errors
/// As [`ClientError`] tells.
pub async fn dead_list(
    api: &Api,
    target: &Target,
    after: Option<&str>,
    limit: usize,
    json: bool,
    out: &mut dyn Write,
) -> Done {
    let path = stream_path(&target.id, "/dead");
    let (all, next) = collect(api, (&path, "dead"), after, limit).await?;
    if json {
        return document(out, &json!({"dead": all, "next": next}));
    }
    let keys = ["id", "_lf_epoch", "_lf_partition", "stage", "code", "message"];
    let rows: Vec<Vec<String>> = all.iter().map(|letter| keys.map(|key| text::cell(&letter[key])).to_vec()).collect();
    text::table(out, &["ID", "EPOCH", "PARTITION", "STAGE", "CODE", "MESSAGE"], &rows)?;
    Ok(())
}

/// `dead show`: all of one dead letter.
///
/// # Errors
/// As [`ClientError`] tells; where none has the id, too.
pub async fn dead_show(api: &Api, target: &Target, id: &str, json: bool, out: &mut dyn Write) -> Done {
    let path = stream_path(&target.id, "/dead");
    let mut after = String::new();
    loop {
        let (items, next) = collect(api, (&path, "dead"), Some(&after), PAGE).await?;
        if let Some(letter) = items.iter().find(|letter| letter["id"].as_str() == Some(id)) {
            if json {
                return document(out, letter);
            }
            let none = Map::new();
            for (key, value) in letter.as_object().unwrap_or(&none) {
                let whole = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                writeln!(out, "{:<16} {}", text::clean(key), text::clean(&whole))?;
            }
            return Ok(());
        }
        if items.is_empty() || next == after {
            let message = "the stream has no dead letter of this id".to_owned();
            return Err(ClientError::Refused { code: "unknown_dead_letter".to_owned(), message, remedy: None });
        }
        after = next;
    }
}
