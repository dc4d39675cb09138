//! Owners fight for one stream: one commits at a time, no epoch comes twice, and who loses ends fenced and quiet.

use std::collections::BTreeSet;
use std::time::Duration;

use lakefeed::oracle;
use rand::Rng;
use serde_json::{Value, json};

use crate::crash::seeded;
use crate::support::lab::assert_sound;
use crate::support::servers::{SECRET_KEY, versitygw};
use crate::support::wait::strike_after;
use crate::support::{ENDLESS, Lab, Node, PATIENCE, Synthetic, wait_for};

const OWNERS: usize = 8;
/// Claims beyond the first of each.
const CLAIMS: usize = 24;
/// Outlasts the fight.
pub(crate) const STREAM: Synthetic = Synthetic { seed: 44, partitions: 2, total: ENDLESS, rate: 300 };
const PATH: &str = "lakefeed/tenants/acme/syn";

/// Lines about losing the stream: how often it was noticed, and how often that led to a restart.
async fn fenced(node: &Node) -> (usize, usize) {
    let lines = node.restarts_under(PATH).await;
    let count =
        |event: &str| lines.iter().filter(|line| line["event"] == event && line["reason"]["class"] == "fenced").count();
    (count("failed"), count("restarting") + count("escalated"))
}

async fn is_fenced(node: &Node) -> bool {
    node.status(Synthetic::STREAM).await["parked"]["class"] == "fenced"
}

/// Lets a node claim the stream. One that owns it restarts its workers instead; one that is just losing it says 409.
async fn claims(node: &Node) -> bool {
    let (status, answer) = node.send("POST", &format!("/v1/streams/{}/restart", Synthetic::STREAM), &json!({})).await;
    assert!(status < 300 || status == 409, "{answer}");
    status < 300
}

/// Waits until all but one are fenced; which one is not.
async fn winner(nodes: &[Node]) -> usize {
    wait_for("one owner", PATIENCE, async || {
        let mut owners = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            if !is_fenced(node).await {
                owners.push(at);
            }
        }
        if let [owner] = owners[..] { Some(owner) } else { None }
    })
    .await
}

/// Generations in the order of the log, with whether the entry is an epoch. Ends the test where an epoch comes twice,
/// or from somebody who does not own the stream at that point of the log.
fn generations(lab: &Lab) -> Vec<(i64, bool)> {
    let log = oracle::read_stream(lab.lake(), "acme", "syn").unwrap().table.unwrap();
    let (mut own, mut epoch) = (0, 0);
    let mut seen = Vec::new();
    for commit in &log.commits {
        let told = |app: &str| commit.txns.get(&format!("{app}/acme/syn")).copied();
        let generation = told("lakefeed-own").unwrap();
        match told("lakefeed") {
            Some(next) => assert_eq!((next, generation), (epoch + 1, own), "version {}", commit.version),
            None => assert_eq!(generation, own + 1, "version {}", commit.version),
        }
        own = generation;
        epoch = told("lakefeed").unwrap_or(epoch);
        seen.push((generation, told("lakefeed").is_some()));
    }
    seen
}

/// Lets the owners of these labs, which share a lake, fight for the stream.
pub(crate) async fn fight(labs: &[Lab], env: &[(&str, &str)]) {
    let owners = labs.len();
    let mut rng = seeded("owners");
    let mut nodes: Vec<Node> = labs.iter().map(|lab| lab.start_with(env)).collect();
    for node in &mut nodes {
        node.live().await;
    }
    let lake = &labs[0];
    lake.epoch_after(Synthetic::STREAM, 0).await;
    let mut asked = vec![1; owners];
    let mut fought = 0;
    while fought < CLAIMS {
        // Now and then two at once, and now and then after an epoch of the last one.
        let (one, other) = (rng.random_range(0..owners), rng.random_range(0..owners));
        let (first, second) =
            tokio::join!(claims(&nodes[one]), async { fought % 3 == 0 && claims(&nodes[other]).await });
        asked[one] += usize::from(first);
        asked[other] += usize::from(second);
        fought += usize::from(first) + usize::from(second);
        if fought % 2 == 0 {
            lake.epoch_after(Synthetic::STREAM, lake.epoch(Synthetic::STREAM)).await;
        } else {
            strike_after(Duration::from_millis(rng.random_range(0..80))).await;
        }
    }
    winner(&nodes).await;
    assert_sound(&STREAM.fresh(lake).await, &format!("a fight of {owners}"));
    // A claim that was asked for last may have come after the first look. All but one are fenced in the end.
    winner(&nodes).await;
    let seen = generations(lake);
    let committed: BTreeSet<i64> = seen.iter().filter(|(_, epoch)| *epoch).map(|(own, _)| *own).collect();
    let claimed = seen.last().unwrap().0;
    assert!(claimed as usize >= owners && committed.len() >= owners / 2, "no fight: {claimed} claims, {committed:?}");
    for (at, node) in nodes.iter().enumerate() {
        let (noticed, restarted) = fenced(node).await;
        assert_eq!(restarted, 0, "node {at} restarts what it has lost");
        assert!(noticed <= asked[at], "node {at} lost it {noticed} times and claimed it {} times", asked[at]);
    }
    // What anybody published is of the lake; nobody publishes what another committed as something else.
    for node in &nodes {
        let published = node.references(Synthetic::STREAM).await;
        // The stream goes on meanwhile: the lake is looked at after its references.
        lake.refresh();
        let references = oracle::references(&published, lake.lake(), "acme", "syn").unwrap();
        assert_eq!((references.before_commit, references.wrong), (0, 0), "{references:?}");
    }
    for node in &mut nodes {
        assert_eq!(node.terminate().await, Some(0), "{}", node.log());
    }
}

#[tokio::test]
async fn test_owners_eight_on_a_folder_commit_one_at_a_time() {
    let mut labs = vec![Lab::new(&STREAM.config())];
    for _ in 1..OWNERS {
        labs.push(Lab::beside(&labs[0], &STREAM.config()));
    }
    fight(&labs, &[]).await;
}

#[tokio::test]
async fn test_owners_eight_on_s3_commit_one_at_a_time() {
    let Some(server) = versitygw().await else { return };
    let labs: Vec<Lab> = (0..OWNERS).map(|_| server.lab(&STREAM, &server.endpoint())).collect();
    fight(&labs, &[("TEST_S3_SECRET", SECRET_KEY)]).await;
}

/// An owner that takes the stream back when it loses it: two of them take turns for as long as they live.
#[tokio::test]
async fn test_bug_reclaim_when_fenced_is_caught() {
    for bug in ["", "reclaim_when_fenced"] {
        let one = Lab::new(&STREAM.config());
        let labs = [&one, &Lab::beside(&one, &STREAM.config())];
        let mut nodes = Vec::new();
        for lab in labs {
            let mut node = lab.start_with(&[("LAKEFEED_BUG", bug)]);
            node.ready().await;
            one.epoch_after(Synthetic::STREAM, one.epoch(Synthetic::STREAM)).await;
            nodes.push(node);
        }
        let lost: Value = nodes[0].restart_where("the loss", |line| line["reason"]["class"] == "fenced").await;
        assert!(lost["path"].as_str().unwrap().starts_with(PATH), "{lost}");
        if bug.is_empty() {
            assert_eq!(winner(&nodes).await, 1);
            assert_eq!((fenced(&nodes[0]).await, fenced(&nodes[1]).await), ((1, 0), (0, 0)));
        } else {
            wait_for("a storm", PATIENCE, async || {
                let (first, second) = (fenced(&nodes[0]).await, fenced(&nodes[1]).await);
                (first.1 > 1 && second.1 > 1).then_some(())
            })
            .await;
        }
    }
}
