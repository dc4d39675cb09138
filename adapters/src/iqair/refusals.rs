//! What the API says when it refuses. The body decides before the status: the same code comes with several statuses,
//! and a refusal may be plain text or a bare JSON string.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::contract::ErrorClass;
use crate::http::{Action, Pattern, Rule};
use crate::json::Path;

/// What a refusal means.
enum Means {
    /// The partition is wrong.
    Wrong,
    /// The key is refused.
    Key,
    /// The key is said to be expired; throttled keys have been called so.
    Expired,
    /// Too many calls; how long to wait.
    Limited(u64),
    /// May heal.
    Heals,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Patterns, found anywhere and without regard to case, with the code that goes into the log. The first wins.
const TABLE: [(&str, &str, Means); 16] = [
    ("call_per_minute_limit_reached", "call_per_minute_limit_reached", Means::Limited(MINUTE)),
    ("call_per_day_limit_reached", "call_per_day_limit_reached", Means::Limited(HOUR)),
    ("call_per_month_limit_reached", "call_per_month_limit_reached", Means::Limited(6 * HOUR)),
    // The minute's or the month's: soon enough for the one, seldom enough for the other.
    ("call_limit_reached", "call_limit_reached", Means::Limited(5 * MINUTE)),
    ("too_many_requests", "too_many_requests", Means::Limited(10)),
    ("(city|state|country|station)_not_found", "place_not_found", Means::Wrong),
    ("no_nearest_(station|city)", "nothing_near", Means::Wrong),
    ("node.not.found", "node_not_found", Means::Wrong),
    ("wrong_coordinates", "wrong_coordinates", Means::Wrong),
    ("feature_not_available", "feature_not_available", Means::Key),
    ("api_key_expired", "api_key_expired", Means::Expired),
    ("incorrect_api_key", "incorrect_api_key", Means::Key),
    ("permission_denied", "permission_denied", Means::Key),
    ("payment.required", "payment_required", Means::Key),
    ("^forbidden", "forbidden", Means::Key),
    ("ip_location_failed", "ip_location_failed", Means::Heals),
];

/// The rules of the API, the same for all streams.
pub(super) fn rules() -> Arc<[Rule]> {
    static RULES: LazyLock<Arc<[Rule]>> = LazyLock::new(|| make_rules().into());
    Arc::clone(&RULES)
}

fn make_rules() -> Vec<Rule> {
    // The code stands in the failure body, or is all there is.
    let places = ["$.data.message", "$"];
    let mut rules: Vec<Rule> =
        TABLE.iter().flat_map(|entry| places.iter().filter_map(move |place| rule(entry, place))).collect();
    // A failure with a good status and a code that nobody knows is no observation.
    let unknown = Path::parse("$.status").ok().zip(Pattern::new("^fail").ok());
    rules.extend(unknown.map(|body| Rule {
        status: (200..=299).collect(),
        body: Some(body),
        action: Action::Retry,
        wait: None,
        class: Some(ErrorClass::Data),
        code: "unknown_failure".to_owned(),
        wait_guessed: true,
        suspect_when_throttled: false,
    }));
    rules
}

fn rule((pattern, code, means): &(&str, &str, Means), place: &str) -> Option<Rule> {
    let (action, class, wait) = match means {
        Means::Wrong => (Action::Park, Some(ErrorClass::Config), None),
        Means::Key | Means::Expired => (Action::Park, Some(ErrorClass::Auth), None),
        Means::Limited(seconds) => (Action::RateLimited, None, Some(Duration::from_secs(*seconds))),
        Means::Heals => (Action::Retry, Some(ErrorClass::Transient), None),
    };
    Some(Rule {
        status: Vec::new(),
        body: Some((Path::parse(place).ok()?, Pattern::new(pattern).ok()?)),
        action,
        wait,
        class,
        code: (*code).to_owned(),
        wait_guessed: true,
        suspect_when_throttled: matches!(means, Means::Expired),
    })
}
