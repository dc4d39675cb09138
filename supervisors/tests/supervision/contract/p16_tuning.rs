//! Point 16: limits multiply from level to level.

use supervisors::{ChildSpec, RootEnd, SupervisorSpec};

use crate::support::{Stage, end_of, seconds};

#[tokio::test(start_paused = true)]
async fn test_point_16_restarts_multiply_before_the_top_gives_up() {
    for (above, below) in [(0, 0), (0, 3), (3, 0), (1, 1), (2, 4), (4, 2)] {
        let stage = Stage::default();
        let lower = stage.clone();
        let sup = ChildSpec::supervisor("sup", move |_| {
            let spec = SupervisorSpec::default().intensity(below, seconds(60)).child(lower.puppet("x"));
            async move { Ok(spec) }
        });
        let root = stage.start(SupervisorSpec::default().intensity(above, seconds(60)).child(sup)).await;
        let mut crashes = 0;
        while root.handle().is_alive() {
            stage.crash("sup/x").await;
            crashes += 1;
            assert!(crashes < 1000, "the top gives up some time");
        }
        assert_eq!(crashes, (above + 1) * (below + 1), "{above} above {below}");
        assert!(matches!(end_of(&root).await, RootEnd::GaveUp { .. }));
    }
}
