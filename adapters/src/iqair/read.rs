//! The keys of `kind = "iqair"`.

use std::sync::Arc;

use super::decode::content_fields;
use super::refusals;
use crate::contract::Partition;
use crate::contract::config::Reader;
use crate::http::read::{budgets, endpoint, network, partitions, schedule, warn_in_clear};
use crate::http::{Auth, HttpSettings, Records, RequestTemplate, Template, Text};
use crate::json::Path;

/// The calls, by the last segment of the endpoint, with what a partition must say.
const CALLS: [(&str, &[&str]); 3] = [
    ("nearest_city", &["lat", "lon"]),
    ("city", &["city", "state", "country"]),
    ("station", &["station", "city", "state", "country"]),
];

/// Everything.
pub(super) fn settings(adapter: &Reader<'_>) -> Option<HttpSettings> {
    let schedule = schedule(adapter);
    let network = network(adapter);
    let base = endpoint(adapter, "endpoint", network.unwrap_or_default(), "https://api.airvisual.com/v2/nearest_city");
    if !adapter.has("secret_key") {
        adapter.missing("secret_key", "the key of the API", "\"env:IQAIR_KEY\"");
    }
    let key = adapter.secret("secret_key");
    let budgets = budgets(adapter);
    let partitions = partitions(adapter);
    let call = base.as_ref().map(|(url, _)| {
        let last = url.path().trim_end_matches('/').rsplit('/').next().unwrap_or("");
        CALLS.iter().find(|(name, _)| *name == last)
    });
    if let Some(None) = call {
        let what = format!("{} ends with none of the known calls", adapter.path_of("endpoint"));
        let remedy = "write endpoint = \"https://api.airvisual.com/v2/nearest_city\"";
        adapter.wrong("endpoint", "INVALID_VALUE", what, "expected …/nearest_city, …/city or …/station", remedy);
    }
    if let (Some((url, _)), Some(_)) = (&base, &key) {
        warn_in_clear(adapter, "endpoint", url);
    }
    let query = match (call.flatten(), &partitions) {
        (Some(call), Some(partitions)) => query(adapter, call, partitions),
        _ => None,
    };
    let (mut base, origin_trusted) = base?;
    let path = base.path().trim_end_matches('/').to_owned();
    base.set_path(&path);
    Some(HttpSettings {
        kind: super::NAME,
        base,
        origin_trusted,
        schedule: schedule?,
        network: network?,
        auth: Auth::Query { name: "key".to_owned(), value: key? },
        budgets: budgets?,
        request: RequestTemplate { query: query?, ..RequestTemplate::bare() },
        records: Arc::new(Records {
            select: Path::parse("$.data").ok()?,
            key: ["current.pollution.ts", "current.weather.ts"]
                .iter()
                .filter_map(|f| Path::parse_field(f).ok())
                .collect(),
            event_time: None,
            content: content_fields(),
            cursor: None,
        }),
        next: None,
        rules: refusals::rules(),
        partitions: partitions?,
    })
}

/// The parameters of `call`, after a look at every partition.
fn query(
    adapter: &Reader<'_>,
    (call, keys): &(&str, &[&str]),
    partitions: &[Partition],
) -> Option<Vec<(String, Text)>> {
    if *call == "nearest_city" && partitions.len() == 1 && partitions[0].values.keys().all(|key| key == "name") {
        return Some(Vec::new());
    }
    let mut good = true;
    for partition in partitions {
        if let Err(what) = check(partition, keys) {
            let what = format!("the partition {} {what}", partition.name);
            let expected = format!("expected {} for {call}", keys.join(", "));
            let example: Vec<_> = keys.iter().map(|key| format!("{key} = {}", example(key))).collect();
            let remedy = format!("write partitions = [ {{ {} }} ]", example.join(", "));
            adapter.wrong("partitions", "INVALID_PARTITION", what, expected, remedy);
            good = false;
        }
    }
    let pair =
        |key: &&str| Some(((*key).to_owned(), Text::Template(Template::parse(&format!("{{part.{key}}}")).ok()?)));
    good.then(|| keys.iter().map(pair).collect()).flatten()
}

fn check(partition: &Partition, keys: &[&str]) -> Result<(), String> {
    if let Some(missing) = keys.iter().find(|key| partition.values.get(**key).is_none_or(String::is_empty)) {
        return Err(format!("has no {missing}"));
    }
    if let Some(foreign) = partition.values.keys().find(|key| *key != "name" && !keys.contains(&key.as_str())) {
        return Err(format!("has {foreign}, which the call does not take"));
    }
    for (key, bound) in [("lat", 90.0), ("lon", 180.0)] {
        let Some(text) = partition.values.get(key).filter(|_| keys.contains(&key)) else { continue };
        if !text.parse().is_ok_and(|degrees: f64| (-bound..=bound).contains(&degrees)) {
            return Err(format!("has a {key} that is not a number from -{bound} to {bound}"));
        }
    }
    Ok(())
}

fn example(key: &str) -> &'static str {
    match key {
        "lat" => "52.52",
        "lon" => "13.40",
        "state" => "\"Attica\"",
        "country" => "\"Greece\"",
        "station" => "\"US Embassy\"",
        _ => "\"Athens\"",
    }
}
