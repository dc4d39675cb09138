//! The flap score: one alert instead of many, and a longer back-off.

use supervisors::{Backoff, EventKind, FLAP_HALF_LIFE, FlapUse, Flapping, RestartPolicy, SupervisorSpec};

use crate::support::{Stage, pass, seconds};

fn policy() -> RestartPolicy {
    let backoff = Backoff { min: seconds(1), max: seconds(1), factor: 1.0, jitter: 0.0, reset_after: seconds(1) };
    RestartPolicy::default().backoff(backoff).flapping(Flapping { above: 2.0, below: 1.0, stretch: 30.0 })
}

fn flaps(stage: &Stage) -> Vec<FlapUse> {
    stage.log.of(EventKind::Restarting).iter().map(|event| event.flap.unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn test_flap_score_alerts_once_stretches_the_back_off_and_clears_with_hysteresis() {
    let stage = Stage::default();
    let spec = SupervisorSpec::default().intensity(100, seconds(1)).policy(policy());
    let root = stage.start(spec.child(stage.puppet("a")).child(stage.puppet("b"))).await;
    for _ in 0..4 {
        stage.crash("a").await;
        pass(seconds(40)).await;
    }
    let seen: Vec<_> = flaps(&stage).iter().map(|flap| (flap.flapping, flap.alert)).collect();
    assert_eq!(seen, [(false, false), (false, false), (true, true), (true, false)]);
    let delays: Vec<_> = stage.log.of(EventKind::Restarting).iter().map(|event| event.delay.unwrap()).collect();
    assert_eq!(delays, [seconds(1), seconds(1), seconds(30), seconds(30)], "longer beyond its maximum");
    let view = root.handle().snapshot().await;
    assert!(view.children[0].flapping && view.children[0].flap_score > 2.0);
    assert!(!view.children[1].flapping && view.children[1].flap_score == 0.0);
    pass(FLAP_HALF_LIFE).await;
    assert!(root.handle().snapshot().await.children[0].flapping, "between the marks it stays what it was");
    pass(FLAP_HALF_LIFE).await;
    assert!(!root.handle().snapshot().await.children[0].flapping);
    stage.log.clear();
    stage.crash("a").await;
    let flap = flaps(&stage)[0];
    assert!(!flap.flapping && flap.score > 1.0 && flap.score < 2.0, "{flap:?}");
    root.handle().terminate_child("a").await.unwrap();
    assert!(root.handle().snapshot().await.children[0].flap_score > 1.0, "a stop does not wipe it out");
}

#[tokio::test(start_paused = true)]
async fn test_flap_score_is_kept_without_a_policy() {
    let stage = Stage::default();
    let _root = stage.start(SupervisorSpec::default().intensity(100, seconds(1)).child(stage.puppet("a"))).await;
    for _ in 0..50 {
        stage.crash("a").await;
    }
    let last = flaps(&stage)[49];
    assert!(last.score > 30.0 && !last.flapping && !last.alert, "{last:?}");
}
