//! The node is killed with SIGKILL at random moments, over and over, in one lake; then the oracle judges.
//!
//! `LAKEFEED_CRASH_KILLS` sets the number of kills (30), `LAKEFEED_CRASH_SEED` repeats a run.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::lab::assert_sound;
use crate::support::wait::strike_after;
use crate::support::{ENDLESS, Lab, PATIENCE, Synthetic, wait_for};

/// Kills in a run of the test command.
const KILLS: u64 = 30;
/// Per second and partition: fast enough for an epoch of many rows.
const RATE: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A seed that a failing run tells and a later one can be given.
pub(crate) fn seeded(test: &str) -> StdRng {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number("LAKEFEED_CRASH_SEED").unwrap_or(clock.as_nanos() as u64);
    eprintln!("{test}: to repeat, LAKEFEED_CRASH_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Kills `kills` times: while it starts, or some time after it committed something new. `damage` is done to the state
/// directory after each kill.
pub(crate) async fn kill_and_judge(test: &str, kills: u64, mut damage: impl FnMut(&Lab, &mut StdRng)) -> String {
    let mut rng = seeded(test);
    let stream = Synthetic { seed: 11, partitions: 2, total: ENDLESS, rate: RATE };
    let lab = Lab::new(&stream.config());
    let (mut killed_at, mut logs) = (Vec::new(), String::new());
    for kill in 0..kills {
        let before = lab.epoch(Synthetic::STREAM);
        let mut node = lab.start();
        // Every fourth kill strikes while it starts and recovers; the others when it is at work.
        if kill % 4 == 3 {
            strike_after(Duration::from_millis(rng.random_range(0..600))).await;
        } else {
            lab.epoch_after(Synthetic::STREAM, before).await;
            strike_after(Duration::from_millis(rng.random_range(0..200))).await;
        }
        assert!(node.exited().is_none(), "kill {kill} found it gone:\n{}", node.log());
        node.kill();
        killed_at.push(lab.epoch(Synthetic::STREAM));
        logs.push_str(&node.log());
        damage(&lab, &mut rng);
    }
    let mut node = lab.start();
    let verdict = stream.fresh(&lab).await;
    assert_sound(&verdict, test);
    assert_eq!(verdict.dead, 0);
    // The faults happened while records flowed: epochs before and after every kill.
    assert!(killed_at.first().is_some_and(|epoch| *epoch > 0), "nothing was committed before the first kill");
    let progressed = killed_at.windows(2).filter(|pair| pair[1] > pair[0]).count() as u64;
    assert!(progressed + 1 >= kills / 2, "{progressed} of {kills} kills found new epochs: {killed_at:?}");
    assert!(killed_at.last() < Some(&verdict.epochs), "nothing was left to do after the last kill");
    node.ready().await;
    // At rest, so that what is published can be compared with what is committed.
    let data = serde_json::json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"});
    assert_eq!(node.message("worker:stop", data).await.0, 200);
    wait_for(format!("{test}: all references"), PATIENCE, async || {
        let published = node.references(Synthetic::STREAM).await;
        let references = lakefeed::oracle::references(&published, lab.lake(), "acme", "syn").unwrap();
        assert_eq!((references.before_commit, references.wrong), (0, 0), "{test}: {references:?}");
        references.ok().then_some(())
    })
    .await;
    assert_eq!(node.terminate().await, Some(0), "it drains and ends:\n{}", node.log());
    let verdict = lab.judge(Synthetic::STREAM, &stream.so_far());
    assert_sound(&verdict, test);
    eprintln!("{test}: {kills} kills, {}", verdict.summary());
    logs + &node.log()
}

#[tokio::test]
async fn test_crash_kills_at_random_moments_lose_and_double_nothing() {
    let kills = number("LAKEFEED_CRASH_KILLS").unwrap_or(KILLS);
    kill_and_judge("random kills", kills, |_, _| {}).await;
}
