//! The order that a change of specs leaves, by `code_change`'s rule.

use supervisors::{Backoff, ChildSpec, EventKind, NodeState, RestartPolicy, Shutdown, Strategy, SupervisorSpec};

use crate::support::{Opening, Order, Stage, broken, pass, quiet, seconds};

fn specs(stage: &Stage, strategy: Strategy, ids: &[&str]) -> SupervisorSpec {
    let flags = SupervisorSpec::new(strategy).intensity(100, seconds(60));
    ids.iter().fold(flags, |spec, id| spec.child(stage.puppet(id)))
}

async fn order(root: &supervisors::Root) -> Vec<String> {
    root.handle().which_children().await.iter().map(|child| child.id.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn test_change_order_is_the_new_specs_then_what_is_kept() {
    let stage = Stage::default();
    let root = stage.start(specs(&stage, Strategy::OneForOne, &["a", "b", "c", "d"])).await;
    let handle = root.handle();
    handle.change(specs(&stage, Strategy::OneForOne, &["c", "new", "a"])).await.unwrap();
    assert_eq!(order(&root).await, ["c", "new", "a", "b", "d"]);
    let running = handle.which_children().await;
    let state = |id: &str| running.iter().find(|child| &*child.id == id).map(|child| child.state.clone()).unwrap();
    assert_eq!((state("a"), state("new")), (NodeState::Running, NodeState::Stopped));
    stage.crash("c").await;
    stage.crash("d").await;
    assert_eq!(stage.log.of(EventKind::Restarted).len(), 2, "their lives are still known");
    handle.terminate_child("b").await.unwrap();
    handle.restart_child("b").await.unwrap();
    stage.diary();
    let report = root.stop().await;
    let stopped: Vec<_> = report.children.iter().map(|child| child.path.as_str()).collect();
    assert_eq!(stopped, ["root/d", "root/b", "root/a", "root/c"], "stopped in the reverse of the new order");
    assert!(report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn test_change_order_decides_who_comes_after_whom_in_a_group_restart() {
    let stage = Stage::default();
    let root = stage.start(specs(&stage, Strategy::RestForOne, &["a", "b", "c"])).await;
    root.handle().change(specs(&stage, Strategy::RestForOne, &["c", "b", "a"])).await.unwrap();
    stage.log.clear();
    stage.crash("b").await;
    let restarted: Vec<_> = stage.log.of(EventKind::Restarted).iter().map(|e| e.path.to_string()).collect();
    assert_eq!(restarted, ["root/b", "root/a"]);
}

#[tokio::test(start_paused = true)]
async fn test_change_order_during_a_group_restart_leaves_nobody_behind() {
    let stage = Stage::default();
    let backoff = Backoff { min: seconds(5), max: seconds(5), factor: 1.0, jitter: 0.0, reset_after: seconds(60) };
    let policy = || RestartPolicy::default().backoff(backoff.clone());
    let spec = |ids: &[&str]| specs(&stage, Strategy::RestForOne, ids).policy(policy());
    let root = stage.start(spec(&["a", "b", "c", "d"])).await;
    stage.crash("b").await;
    assert_eq!(root.handle().count_children().await.active, 1, "c and d wait with b");
    root.handle().change(spec(&["d", "c", "b", "a"])).await.unwrap();
    pass(seconds(5)).await;
    assert_eq!(order(&root).await, ["d", "c", "b", "a"]);
    assert_eq!(root.handle().count_children().await.active, 4);
    stage.crash("d").await;
    pass(seconds(5)).await;
    assert_eq!(root.handle().count_children().await.active, 4);
}

#[tokio::test(start_paused = true)]
async fn test_change_order_during_a_restart_of_all_includes_a_new_child_wherever_it_stands() {
    let stage = Stage::default();
    let backoff = Backoff { min: seconds(5), max: seconds(5), factor: 1.0, jitter: 0.0, reset_after: seconds(60) };
    let spec = |ids: &[&str]| {
        specs(&stage, Strategy::OneForAll, ids).policy(RestartPolicy::default().backoff(backoff.clone()))
    };
    let root = stage.start(spec(&["a", "b"])).await;
    stage.crash("b").await;
    root.handle().change(spec(&["first", "b", "last", "a"])).await.unwrap();
    pass(seconds(5)).await;
    assert_eq!(order(&root).await, ["first", "b", "last", "a"]);
    assert_eq!(root.handle().count_children().await.active, 4);
}

#[tokio::test(start_paused = true)]
async fn test_change_order_keeps_promises_of_progress_and_late_ends() {
    let stage = Stage::default();
    let root = stage.start(specs(&stage, Strategy::OneForOne, &["a", "b"])).await;
    stage.tell("a", Order::Busy(seconds(10))).await;
    // The end of b is on its way when the order changes.
    stage.order("b", Order::Fail(broken()));
    root.handle().change(specs(&stage, Strategy::OneForOne, &["b", "a"])).await.unwrap();
    quiet().await;
    assert_eq!(stage.log.of(EventKind::Restarted).len(), 1);
    pass(seconds(11)).await;
    let hung = stage.log.of(EventKind::Failed).pop().unwrap();
    assert_eq!((hung.path.as_str(), hung.reason.unwrap().code.as_str()), ("root/a", "no_progress"));
    assert_eq!(root.handle().count_children().await.active, 2);
}

#[tokio::test(start_paused = true)]
async fn test_change_order_to_ignore_changes_nothing() {
    let stage = Stage::default();
    let root = stage.start(specs(&stage, Strategy::OneForOne, &["a", "b"])).await;
    let worse: ChildSpec = stage.puppet("b").significant(true);
    assert!(root.handle().change(SupervisorSpec::default().child(worse)).await.is_err());
    root.handle().change(SupervisorSpec::ignore()).await.unwrap();
    assert_eq!(order(&root).await, ["a", "b"]);
    for _ in 0..10 {
        stage.crash("a").await;
    }
    assert!(root.handle().is_alive(), "the intensity is still the old one");
}

#[tokio::test(start_paused = true)]
async fn test_change_order_holds_for_what_a_group_restart_has_still_to_stop_and_to_start() {
    let stage = Stage::default();
    let spec = |ids: &[&str]| {
        let flags = SupervisorSpec::new(Strategy::OneForAll);
        ids.iter().fold(flags, |spec, id| spec.child(stage.starter(id).shutdown(Shutdown::Timeout(seconds(2)))))
    };
    let root = stage.start(spec(&["a", "b", "c", "d"])).await;
    stage.tell("d", Order::Deaf).await;
    stage.opening("a", vec![Opening::Slow(seconds(5))]);
    stage.diary();
    stage.crash("a").await;
    root.handle().change(spec(&["a", "c", "b", "d"])).await.unwrap();
    pass(seconds(2)).await;
    assert_eq!(stage.diary(), ["down a", "down d", "down b", "down c"]);
    root.handle().change(spec(&["a", "d", "c", "b"])).await.unwrap();
    pass(seconds(5)).await;
    assert_eq!(stage.diary(), ["up a", "up d", "up c", "up b"]);
}

#[tokio::test(start_paused = true)]
async fn test_change_order_during_a_first_start_loses_no_early_end() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default()).await;
    let spec = {
        let stage = stage.clone();
        move |ids: &[&str]| {
            let flags = SupervisorSpec::new(Strategy::OneForAll).intensity(3, seconds(60));
            ids.iter().fold(flags, |spec, id| spec.child(stage.starter(id)))
        }
    };
    stage.opening("g/b", vec![Opening::Slow(seconds(10))]);
    let first = spec.clone();
    let group = ChildSpec::supervisor("g", move |_| std::future::ready(Ok(first(&["a", "b"]))));
    let handle = root.handle().clone();
    let starting = tokio::spawn(async move { handle.start_child(group).await });
    quiet().await;
    stage.crash("g/a").await;
    let below = root.handle().supervisor("g").await.unwrap();
    below.change(spec(&["b", "a"])).await.unwrap();
    pass(seconds(10)).await;
    starting.await.unwrap().unwrap();
    let failed: Vec<_> = stage.log.of(EventKind::Failed).iter().map(|e| e.path.to_string()).collect();
    assert_eq!(failed, ["root/g/a"]);
    assert_eq!(stage.diary(), ["up g/a", "down g/a", "up g/b", "down g/b", "up g/b", "up g/a"]);
}
