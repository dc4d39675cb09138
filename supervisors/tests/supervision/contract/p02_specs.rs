//! Point 2: a child's spec.

use supervisors::{
    AutoShutdown, ChildKind, ChildSpec, Class, DEFAULT_SHUTDOWN, Failure, Restart, Shutdown, SpecError, SupervisorSpec,
};

use crate::support::{Stage, seconds};

#[test]
fn test_point_02_defaults_are_otps() {
    let stage = Stage::default();
    let worker = stage.puppet("a");
    assert_eq!((worker.restart, worker.kind, worker.significant), (Restart::Permanent, ChildKind::Worker, false));
    assert_eq!((worker.shutdown, DEFAULT_SHUTDOWN), (Shutdown::Timeout(DEFAULT_SHUTDOWN), seconds(5)));
    let below = ChildSpec::supervisor("b", |_| async { Ok(SupervisorSpec::default()) });
    assert_eq!((below.kind, below.shutdown), (ChildKind::Supervisor, Shutdown::Infinity));
}

#[tokio::test(start_paused = true)]
async fn test_point_02_malformed_specs_are_refused_before_anything_starts() {
    let stage = Stage::default();
    let two = SupervisorSpec::default().child(stage.puppet("a")).child(stage.puppet("a"));
    assert_eq!(two.check(), Err(SpecError::DuplicateChildName("a".to_owned())));
    for id in ["", "x/y", "/"] {
        let named = SupervisorSpec::default().child(stage.puppet(id));
        assert_eq!(named.check(), Err(SpecError::InvalidId(id.to_owned())));
    }
    let below = ChildSpec::supervisor("s", |_| async { Ok(SupervisorSpec::default()) });
    let odd = SupervisorSpec::default().child(below.kind(ChildKind::Worker));
    assert_eq!(odd.check(), Err(SpecError::InvalidKind("s".to_owned())));
    let failure = stage.try_start(two).await.unwrap_err();
    assert_eq!(failure, Failure::new(Class::Config, "invalid_spec", "two children are called `a`"));
    assert!(stage.diary().is_empty());
}

#[test]
fn test_point_02_significant_needs_a_child_that_may_end_and_a_supervisor_that_cares() {
    let stage = Stage::default();
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for auto in [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let spec = SupervisorSpec::default().auto_shutdown(auto);
            let spec = spec.child(stage.puppet("a").restart(restart).significant(true));
            let fits = restart != Restart::Permanent && auto != AutoShutdown::Never;
            let error = SpecError::InvalidSignificant("a".to_owned());
            assert_eq!(spec.check(), if fits { Ok(()) } else { Err(error) }, "{restart:?} {auto:?}");
        }
    }
}
