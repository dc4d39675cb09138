//! Checking specs without starting anything: each fault has its own error.

use supervisors::{
    AutoShutdown, Backoff, ChildKind, ChildSpec, Flapping, Restart, RestartPolicy, SpecError, Strategy, SupervisorSpec,
    check_specs,
};

use crate::support::{Stage, seconds};

fn nested() -> ChildSpec {
    ChildSpec::supervisor("s", |_| async { Ok(SupervisorSpec::default()) })
}

#[test]
fn test_check_specs_gives_each_malformed_child_its_own_error() {
    let stage = Stage::default();
    let a = || stage.puppet("a");
    let policy = |policy: RestartPolicy| vec![a().policy(policy)];
    let backoff = |backoff: Backoff| policy(RestartPolicy::default().backoff(backoff));
    let base = Backoff::default;
    let flapping =
        |above, below, stretch| policy(RestartPolicy::default().flapping(Flapping { above, below, stretch }));
    let name = |id: &str| id.to_owned();
    let cases = [
        (vec![a(), a()], SpecError::DuplicateChildName(name("a"))),
        (vec![stage.puppet("")], SpecError::InvalidId(name(""))),
        (vec![stage.puppet("a/b")], SpecError::InvalidId(name("a/b"))),
        (vec![a().significant(true)], SpecError::InvalidSignificant(name("a"))),
        (vec![nested().kind(ChildKind::Worker)], SpecError::InvalidKind(name("s"))),
        (vec![a().start_timeout(seconds(0))], SpecError::InvalidLimit(name("a"), "start")),
        (vec![a().drain(seconds(0))], SpecError::InvalidLimit(name("a"), "drain")),
        (vec![nested().drain(seconds(1))], SpecError::InvalidDrain(name("s"))),
        (backoff(Backoff { min: seconds(60), ..base() }), SpecError::InvalidBackoff),
        (backoff(Backoff { factor: 0.9, ..base() }), SpecError::InvalidBackoff),
        (backoff(Backoff { factor: f64::NAN, ..base() }), SpecError::InvalidBackoff),
        (backoff(Backoff { jitter: 1.1, ..base() }), SpecError::InvalidBackoff),
        (policy(RestartPolicy::default().probe(seconds(0))), SpecError::InvalidProbe),
        (flapping(1.0, 2.0, 1.0), SpecError::InvalidFlapping),
        (flapping(1.0, 0.0, 1.0), SpecError::InvalidFlapping),
        (flapping(1.0, 1.0, 0.5), SpecError::InvalidFlapping),
        (flapping(f64::NAN, 1.0, 1.0), SpecError::InvalidFlapping),
    ];
    for (children, expected) in cases {
        assert_eq!(check_specs(&children, AutoShutdown::AllSignificant), Err(expected));
    }
    let temporary = [a().restart(Restart::Temporary).significant(true)];
    let careless = check_specs(&temporary, AutoShutdown::Never);
    assert_eq!(careless, Err(SpecError::InvalidSignificant(name("a"))), "its supervisor would not care");
    assert_eq!(check_specs(&temporary, AutoShutdown::AnySignificant), Ok(()));
    assert_eq!(check_specs(&[a(), nested()], AutoShutdown::Never), Ok(()));
}

#[test]
fn test_check_specs_of_a_supervisor_covers_its_flags() {
    let stage = Stage::default();
    let flags = SupervisorSpec::default;
    let ordered = |strategy| SupervisorSpec { strategy, ..SupervisorSpec::dynamic() };
    let cases = [
        (flags().intensity(1, seconds(0)), SpecError::InvalidPeriod),
        (ordered(Strategy::OneForAll), SpecError::BadCombination),
        (ordered(Strategy::RestForOne), SpecError::BadCombination),
        (SupervisorSpec::dynamic().auto_shutdown(AutoShutdown::AnySignificant), SpecError::BadCombination),
        (flags().max_children(1).child(stage.puppet("a")).child(stage.puppet("b")), SpecError::TooManyChildren(2)),
        (flags().policy(RestartPolicy::default().probe(seconds(0))), SpecError::InvalidProbe),
        (flags().child(stage.puppet("a/b")), SpecError::InvalidId("a/b".to_owned())),
    ];
    for (spec, expected) in cases {
        assert_eq!(spec.check(), Err(expected));
    }
    assert_eq!(flags().intensity(0, seconds(1)).check(), Ok(()), "no restart at all is a policy");
}

#[tokio::test(start_paused = true)]
async fn test_check_specs_runs_before_anything_starts() {
    let stage = Stage::default();
    let spec = SupervisorSpec::default().child(stage.puppet("a")).child(stage.puppet("b").drain(seconds(0)));
    let failure = stage.try_start(spec).await.unwrap_err();
    assert_eq!(failure.reason.code, "invalid_spec");
    let nothing = stage.try_start(SupervisorSpec::ignore()).await.unwrap_err();
    assert_eq!(nothing.reason.code, "invalid_spec");
    assert!(stage.diary().is_empty() && stage.log.events().is_empty());
}
