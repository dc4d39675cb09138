//! Point 15: what OTP lacks is there, and off unless somebody asks for it. Other files test what it does.

use supervisors::{ChildSpec, NodeState, RestartPolicy, SupervisorSpec};

use crate::support::{Stage, pass, seconds};

#[tokio::test(start_paused = true)]
async fn test_point_15_what_otp_lacks_is_off_unless_asked_for() {
    let policy = RestartPolicy::default();
    assert!(policy.backoff.is_none() && policy.park_classes.is_empty());
    assert!(policy.consecutive_max.is_none() && policy.probe.is_none());
    let stage = Stage::default();
    let silent = ChildSpec::task("silent", |ctx| async move {
        ctx.stop.stopped().await;
        Ok(())
    });
    let spec = SupervisorSpec::default().intensity(100, seconds(1)).child(stage.puppet("a")).child(silent);
    let root = stage.start(spec).await;
    stage.log.clear();
    for _ in 0..5 {
        stage.crash("a").await;
    }
    assert!(stage.log.events().iter().all(|event| event.delay.is_none_or(|delay| delay.is_zero())));
    pass(seconds(1_000_000)).await;
    let states = root.handle().which_children().await;
    assert!(states.iter().all(|child| child.state == NodeState::Running), "nobody watches for progress");
}
