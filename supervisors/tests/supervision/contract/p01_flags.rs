//! Point 1: a supervisor's flags.

use supervisors::{
    AutoShutdown, Backoff, Intensity, ManageError, OnLimit, RestartPolicy, SpecError, Strategy, SupervisorSpec,
};

use crate::support::{Stage, quiet, seconds};

#[test]
fn test_point_01_defaults_are_otps() {
    let spec = SupervisorSpec::default();
    assert_eq!(spec.strategy, Strategy::OneForOne);
    assert_eq!(spec.intensity, Intensity { max_restarts: 1, window: seconds(5) });
    assert_eq!(spec.auto_shutdown, AutoShutdown::Never);
    assert_eq!(spec.on_limit, OnLimit::Escalate);
    assert!(!spec.dynamic && spec.max_children.is_none());
    assert_eq!(spec.check(), Ok(()));
}

#[test]
fn test_point_01_bad_flags_are_named() {
    let odd = |strategy| SupervisorSpec { strategy, ..SupervisorSpec::dynamic() };
    let closing = |auto| SupervisorSpec::dynamic().auto_shutdown(auto);
    let waits = |min, max, factor, jitter| {
        let (min, max) = (seconds(min), seconds(max));
        let policy = RestartPolicy::default().backoff(Backoff { min, max, factor, jitter, ..Backoff::default() });
        SupervisorSpec::default().policy(policy)
    };
    let cases = [
        (SupervisorSpec::default().intensity(1, seconds(0)), SpecError::InvalidPeriod),
        (odd(Strategy::OneForAll), SpecError::BadCombination),
        (odd(Strategy::RestForOne), SpecError::BadCombination),
        (closing(AutoShutdown::AnySignificant), SpecError::BadCombination),
        (closing(AutoShutdown::AllSignificant), SpecError::BadCombination),
        (waits(3, 2, 2.0, 0.0), SpecError::InvalidBackoff),
        (waits(1, 2, 0.5, 0.0), SpecError::InvalidBackoff),
        (waits(1, 2, f64::NAN, 0.0), SpecError::InvalidBackoff),
        (waits(1, 2, f64::INFINITY, 0.0), SpecError::InvalidBackoff),
        (waits(1, 2, 2.0, 1.5), SpecError::InvalidBackoff),
        (SupervisorSpec::default().policy(RestartPolicy::default().probe(seconds(0))), SpecError::InvalidProbe),
    ];
    for (spec, error) in cases {
        assert_eq!(spec.check(), Err(error));
    }
    assert_eq!(SupervisorSpec::default().intensity(0, seconds(1)).check(), Ok(()), "no restart at all may be allowed");
    assert_eq!(waits(2, 2, 1.0, 1.0).check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn test_point_01_number_of_children_is_limited() {
    let stage = Stage::default();
    let pair = SupervisorSpec::default().child(stage.puppet("a")).child(stage.puppet("b"));
    assert_eq!(pair.clone().max_children(1).check(), Err(SpecError::TooManyChildren(2)));
    let root = stage.start(pair.max_children(2)).await;
    let full = Err(ManageError::MaxChildren { limit: 2 });
    assert_eq!(root.handle().start_child(stage.puppet("c")).await, full);
    quiet().await;
    root.handle().terminate_child("a").await.unwrap();
    assert_eq!(root.handle().start_child(stage.puppet("c")).await, full, "a spec that is kept keeps its place");
    root.handle().delete_child("a").await.unwrap();
    root.handle().start_child(stage.puppet("c")).await.unwrap();
}
