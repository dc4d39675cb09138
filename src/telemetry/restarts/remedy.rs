//! What the person on call can do: one sentence for each class, better ones for codes that are well known.

/// The sentence for a failure of `class` with `code`. Every class of interface §5 has one; an unknown class is told
/// as a bug.
#[must_use]
pub fn remedy(class: &str, code: &str) -> &'static str {
    by_code(code).unwrap_or_else(|| by_class(class))
}

fn by_code(code: &str) -> Option<&'static str> {
    Some(match code {
        "incorrect_api_key" | "http_401" | "unauthorized" | "invalid_api_key" => {
            "The source does not accept the key: check what secret_key or auth points to, then send worker:start with the right one or restart the worker."
        }
        "api_key_expired" => {
            "The key has expired: get a new one from the source, put it where secret_key points to, then restart the worker."
        }
        "forbidden" | "http_403" | "permission_denied" | "feature_not_available" => {
            "The key is valid but may not do this: check the plan or the rights of its account, or ask for something else, then restart the worker."
        }
        "call_limit_reached" | "too_many_requests" | "http_429" | "budget_spent" => {
            "The source's limit is used up: polling goes on by itself when it allows it; if this comes often, lengthen interval or set budgets to the plan's limits."
        }
        "timeout" | "deadline" | "workload_timeout" => {
            "The source did not finish in time: see whether it is slow, and raise timeout if its normal answers take that long."
        }
        "connect" | "connection_refused" | "connection" | "dns" | "no_address" => {
            "The source cannot be reached: check its address, name service and firewall; the worker tries again by itself."
        }
        "tls" | "certificate" => {
            "The encrypted connection failed: check the source's certificate and this machine's clock and certificate store."
        }
        "body_cut" | "cut" | "incomplete_body" => {
            "Answers end too early: the source or a proxy between drops connections; the worker asks again by itself."
        }
        "body_too_large" | "inflated_too_large" => {
            "An answer is larger than network.max_body: ask for smaller pages, or raise the limit if such answers are expected."
        }
        "blocked_address" | "private_address" | "redirect_blocked" | "address_not_allowed" => {
            "The address is not allowed: if the source is meant to be private, allow it with network.allow_private and allow.endpoints."
        }
        "not_json" | "decode" | "not_utf8" | "unexpected_content" => {
            "The source answers something that is not what the adapter declares: look at the dead letter, then correct endpoint, records.select or table.schema."
        }
        "city_not_found" | "no_nearest_station" | "station_not_found" => {
            "The source does not know this place: correct the partition's values, then restart the worker."
        }
        "panic" => {
            "The code failed in a way it should not: the worker was restarted from its checkpoint and nothing is lost; if it comes again, report it with this incident."
        }
        "fenced" | "claim_lost" | "newer_generation" => {
            "Another node has taken the stream over: see that only one node runs it, then restart this one's stream if it is the one to keep."
        }
        "disk_full" | "no_space" | "storage_full" => {
            "The disk is full: free space or enlarge it; what waits is committed when there is room again, and nothing is lost."
        }
        "out_of_memory" | "memory" => {
            "Memory has run out: lower node.queue or lake.epoch.max_bytes, or give the process more."
        }
        "too_many_open_files" => {
            "The process may not open more files: raise the limit of open files (ulimit -n) and restart the node."
        }
        "lake_unreachable" | "store_unreachable" => {
            "The lake's store does not answer: check lake.url, its credentials and the network; streams go on by themselves when it is back."
        }
        "lake_permission" | "store_permission" => {
            "The lake's store refuses the write: give the credentials in lake.options the right to put, list and delete, then restart the node."
        }
        "intensity" | "max_restarts" | "restart_limit" => {
            "It failed more often than max_restarts allows: look at the failures of this incident, remove their cause, then restart it by hand."
        }
        "killed" => "It did not stop in its time and was ended; nothing is lost, as it goes on from its checkpoint.",
        _ => return None,
    })
}

fn by_class(class: &str) -> &'static str {
    match class {
        "transient" => {
            "This usually heals by itself and is tried again with growing delays; if it lasts, check the source and the network."
        }
        "rate_limited" => {
            "The source asked for patience: polling goes on when it allows it; lengthen interval or set budgets if this comes often."
        }
        "config" => {
            "Trying again does not help: correct the adapter's or the message's settings, then restart the worker."
        }
        "auth" => "The credentials were refused: renew them where the settings point to, then restart the worker.",
        "data" => {
            "The source gives something else than declared: look at the stream's dead letters, then correct the schema or the source."
        }
        "resource" => {
            "This machine lacks something: check free disk, memory and open files; it is tried again with growing delays."
        }
        "fenced" => "Another owner has taken the stream: see that only one node runs it.",
        "hung" => {
            "It made no progress beyond its timeout and was replaced; if it comes again, check whether the source hangs, and report it with this incident."
        }
        _ => {
            "This should not happen: it goes on from its checkpoint and nothing is lost; report it with this incident and the logs around it."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::restarts::CLASSES;

    #[test]
    fn test_remedy_every_class_has_a_sentence_of_its_own() {
        let mut all: Vec<_> = CLASSES.iter().map(|class| remedy(class, "something_new")).collect();
        assert!(all.iter().all(|text| text.ends_with('.') && text.len() > 30));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), CLASSES.len());
    }

    #[test]
    fn test_remedy_a_known_code_says_more_than_its_class() {
        for (class, code) in [("auth", "incorrect_api_key"), ("bug", "panic"), ("resource", "disk_full")] {
            assert_ne!(remedy(class, code), remedy(class, ""));
        }
    }
}
