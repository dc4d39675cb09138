//! Interface §2, "When a source misbehaves": each sentence against a proxy without manners.

use std::time::Duration;

use serde_json::Value;

use crate::support::feed::Feed;
use crate::support::lab::assert_sound;
use crate::support::node::next_beat_in;
use crate::support::rude::{Manner, Rude};
use crate::support::{ENDLESS, Lab, Node, PATIENCE, Synthetic, wait_for};

/// Of a workload that is to run into it: long for an answer of a busy machine, short for a test.
const TIMEOUT: Duration = Duration::from_secs(1);

struct Case {
    source: Feed,
    rude: Rude,
    lab: Lab,
    node: Node,
}

/// A feed behind a proxy, polled every 50 ms, with `more` in its adapter, after its first epoch.
async fn case(total: u64, more: &str) -> Case {
    let source = Feed::start(1, total).await;
    let rude = Rude::start(source.address()).await;
    let config = source.config_with(rude.address(), "50ms").replace("timeout = \"10s\"\n", &format!("{more}\n"));
    let lab = Lab::new(&config);
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after(Feed::STREAM, 0).await;
    Case { source, rude, lab, node }
}

impl Case {
    /// Waits until `more` requests have come.
    async fn requests(&self, more: usize) {
        let before = self.rude.requests().len();
        wait_for(format!("{more} requests"), PATIENCE, async || {
            (self.rude.requests().len() >= before + more).then_some(())
        })
        .await;
    }

    /// From now on all is well; nothing is missing in the end, and only what is spoilt is dead.
    async fn heals(&self, context: &str) {
        self.rude.behave(Manner::Pass);
        let verdict = self.source.whole(&self.lab, &self.node).await;
        assert_sound(&verdict, context);
        assert_eq!(verdict.dead, self.source.bad_total(), "{context}: only what is spoilt is dead");
    }

    async fn events(&self, event: &str) -> Vec<Value> {
        self.node.restarts().await.into_iter().filter(|line| line["event"] == event).collect()
    }
}

#[tokio::test]
async fn test_misbehaving_transport_faults_are_retried_and_never_dead_letters() {
    for manner in [
        Manner::CutBody(0),
        Manner::CutBody(40),
        Manner::WrongLength,
        Manner::Delay(TIMEOUT * 2),
        Manner::Hang,
        Manner::Drip,
        Manner::Status(503, "x-none: 1"),
    ] {
        let case = case(60, &format!("timeout = \"{}ms\"\nmax_failed_workloads = 1000", TIMEOUT.as_millis())).await;
        case.rude.behave(manner.clone());
        case.requests(3).await;
        case.heals(&format!("{manner:?}")).await;
        let failed = case.events("failed").await;
        assert!(failed.is_empty(), "{manner:?}: a failed workload is no restart: {failed:?}");
    }
}

#[tokio::test]
async fn test_misbehaving_whole_junk_becomes_one_dead_letter_a_workload() {
    let case = case(40, "timeout = \"3s\"\nmax_failed_workloads = 1000").await;
    case.rude.behave(Manner::Garbage);
    let facts = || lakefeed::oracle::read_stream(case.lab.lake(), "acme", "feed").unwrap();
    let junk = || -> Vec<_> {
        let is_junk =
            |dead: &lakefeed::oracle::DeadRow| dead.bytes.as_deref() == Some(b"<html>it is a trap".as_slice());
        facts().dead.into_iter().filter(is_junk).collect()
    };
    wait_for("three dead letters", PATIENCE, async || (junk().len() >= 3).then_some(())).await;
    case.rude.behave(Manner::Pass);
    wait_for("the rest of the feed", PATIENCE, async || {
        let facts = facts();
        ((facts.rows.len() + facts.dead.len() - junk().len()) as u64 >= 40).then_some(())
    })
    .await;
    let dead = junk();
    assert!(dead.iter().all(|dead| dead.row.columns["stage"] == "decode"), "{dead:?}");
    assert!(case.rude.requests().len() > 2 * dead.len(), "it is retried within its workload first");
    assert!(case.events("failed").await.is_empty(), "a failed workload is no restart");
}

#[tokio::test]
async fn test_misbehaving_too_many_failed_workloads_restart_and_then_park_it_alone() {
    let source = Feed::start(1, 1_000).await;
    let rude = Rude::start(source.address()).await;
    rude.behave(Manner::Status(500, "x-none: 1"));
    let sibling = Synthetic { seed: 2, partitions: 1, total: ENDLESS, rate: 200 };
    let config = source.config_with(rude.address(), "20ms").replace(
        "timeout = \"10s\"\n",
        "timeout = \"1s\"\nmax_failed_workloads = 2\nrestart = { max_restarts = 3, max_seconds = 3600, probe = \"1h\" }\n",
    );
    let sibling_config = sibling.config();
    let at = sibling_config.find("[adapter.SYN]").unwrap();
    let lab = Lab::new(&format!("{config}{}", &sibling_config[at..]));
    let mut node = lab.start();
    node.live().await;
    let parked = node.restart_where("parked worker", |line| line["event"] == "parked").await;
    assert!(parked["path"].as_str().unwrap().contains("acme/feed/workers"), "{parked}");
    assert_eq!(parked["reason"]["class"], "transient", "{parked}");
    let lines = node.restarts().await;
    let restarted = lines.iter().filter(|line| line["event"] == "restarting").count();
    assert_eq!(restarted, 3, "{lines:#?}");
    let status = node.status_until(Feed::STREAM, "parked", |status| status["actual"] == "parked").await;
    assert_eq!(status["parked"]["class"], "transient");
    let epoch = lab.epoch(Synthetic::STREAM);
    lab.epoch_after(Synthetic::STREAM, epoch + 2).await;
    let metrics = reqwest::get(format!("{}/metrics", node.api())).await.unwrap().text().await.unwrap();
    let gauge = metrics.lines().find(|line| line.starts_with("lakefeed_parked{") && line.contains("feed"));
    assert!(gauge.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
}

#[tokio::test]
async fn test_misbehaving_auth_parks_at_once_and_a_probe_brings_it_back() {
    let case = case(60, "timeout = \"10s\"\nrestart = { probe = \"500ms\" }").await;
    case.rude.behave(Manner::Status(401, "x-none: 1"));
    let parked = case.node.restart_where("parked worker", |line| line["event"] == "parked").await;
    assert_eq!(parked["reason"]["class"], "auth", "{parked}");
    assert!(case.events("restarting").await.is_empty(), "it is parked at once");
    case.node.restart_where("probe", |line| line["event"] == "probed").await;
    case.heals("after a wrong key").await;
}

#[tokio::test]
async fn test_misbehaving_retry_after_holds_across_a_kill() {
    let mut case = case(60, "timeout = \"10s\"").await;
    case.rude.behave(Manner::Status(429, "retry-after: 8"));
    // A wait that is told holds over a kill. Most of it is left then, so that nothing is asked between the two.
    case.node.status_until(Feed::STREAM, "told to wait", |s| next_beat_in(s) > Duration::from_secs(4)).await;
    let refused = case.rude.requests();
    case.node.kill();
    case.rude.behave(Manner::Pass);
    case.node = case.lab.start();
    case.heals("after a Retry-After").await;
    let next = case.rude.requests()[refused.len()];
    let waited = next.duration_since(*refused.last().unwrap());
    assert!(waited >= Duration::from_millis(7_950), "asked again after {waited:?}");
    let failed = case.events("failed").await;
    assert!(failed.is_empty(), "waiting is no failure: {failed:?}");
}

#[tokio::test]
async fn test_misbehaving_redirects_are_not_followed() {
    let trap = Feed::start(1, 10).await;
    let case = case(60, "timeout = \"3s\"\nmax_failed_workloads = 1000").await;
    case.rude.behave(Manner::Redirect(format!("http://{}/feed/0?since=-1", trap.address())));
    // By then it is done with what it was told: it takes a redirect for a fault of its settings.
    let parked = case.node.restart_where("parked worker", |line| line["event"] == "parked").await;
    assert_eq!(parked["reason"]["class"], "config", "{parked}");
    assert_eq!(trap.requests(), 0, "it went where it was sent");
}
