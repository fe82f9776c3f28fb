use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use tokio::sync::{Notify, mpsc, oneshot};
use trommel::core::time::Timestamp;
use trommel::ports::runtime::Elapsed;

use super::*;

const YEAR: Duration = Duration::from_hours(365 * 24);

/// Five tasks that wait for one `Notify`; answers the order in which they went on.
fn wake_five(sim: &Simulation) -> Vec<u32> {
    let node = sim.node("n");
    let gate = Arc::new(Notify::new());
    let (send, mut receive) = mpsc::unbounded_channel();
    for number in 0..5 {
        let (gate, send, node) = (Arc::clone(&gate), send.clone(), node.clone());
        node.clone().spawn("waiter", async move {
            gate.notified().await;
            node.trace(&format_args!("{number} goes on"));
            send.send(number).expect("the test listens");
        });
    }
    drop(send);
    sim.run_for(Duration::from_secs(1))
        .expect("no bound is met");
    gate.notify_waiters();
    let all = async {
        let mut order = Vec::new();
        while let Some(number) = receive.recv().await {
            order.push(number);
        }
        order
    };
    sim.block_on(all).expect("all are woken")
}

/// Five tasks that sleep up to the same moment.
fn sleep_five(sim: &Simulation) -> Vec<u32> {
    let node = sim.node("n");
    let (send, mut receive) = mpsc::unbounded_channel();
    for number in 0..5 {
        let (clock, send) = (node.runtime().clock, send.clone());
        node.spawn("sleeper", async move {
            clock.sleep_until(Tick(1_000)).await;
            send.send(number).expect("the test listens");
        });
    }
    sim.run_until(Tick(999)).expect("no bound is met");
    assert!(receive.try_recv().is_err());
    sim.run_until(Tick(1_000)).expect("no bound is met");
    std::iter::from_fn(|| receive.try_recv().ok()).collect()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let runs = [Simulation::new(seed), Simulation::new(seed)];
        let orders = runs.each_ref().map(wake_five);
        assert_eq!(orders[0], orders[1]);
        assert_eq!(runs[0].trace_text(), runs[1].trace_text());
        assert_eq!(runs[0].trace_hash(), runs[1].trace_hash());
        assert_eq!(runs[0].trace_text().lines().count(), 6);
    }
}

#[test]
fn different_seeds_wake_five_tasks_in_different_orders() {
    let orders: BTreeSet<_> = (0..500)
        .map(|seed| wake_five(&Simulation::new(seed)))
        .collect();
    // 500 draws out of 120 orders leave about two of them out.
    assert!(orders.len() > 100, "{} orders", orders.len());
}

#[test]
fn equal_deadlines_are_permuted() {
    let orders: BTreeSet<_> = (0..500)
        .map(|seed| sleep_five(&Simulation::new(seed)))
        .collect();
    assert!(orders.len() > 100, "{} orders", orders.len());
    assert!(orders.iter().all(|order| order.len() == 5));
}

#[test]
fn deadlines_a_nanosecond_apart_keep_their_order() {
    for seed in 0..50 {
        let sim = Simulation::new(seed);
        let (send, mut receive) = mpsc::unbounded_channel();
        for at in [3, 1, 2] {
            let (clock, send) = (sim.node("n").runtime().clock, send.clone());
            sim.node("n").spawn("sleeper", async move {
                clock.sleep_until(Tick(at)).await;
                send.send(clock.tick().0).expect("the test listens");
            });
        }
        sim.run_until(Tick(10)).expect("no bound is met");
        let order: Vec<u64> = std::iter::from_fn(|| receive.try_recv().ok()).collect();
        assert_eq!(order, [1, 2, 3]);
    }
}

#[test]
fn a_year_of_sleep_takes_one_step() {
    let sim = Simulation::new(1);
    let clock = sim.node("n").runtime().clock;
    sim.block_on(clock.sleep(YEAR)).expect("it wakes");
    assert_eq!(sim.now(), Tick::default() + YEAR);
    assert_eq!(clock.now(), Timestamp(1_767_225_600_000).after(YEAR));
    assert_eq!(sim.steps(), 2);
}

#[test]
fn a_bounded_wait_ends_in_time_and_leaves_no_timer() {
    let sim = Simulation::new(1);
    let runtime = sim.node("n").runtime();
    let never = runtime.within(YEAR, std::future::pending::<()>());
    assert_eq!(sim.block_on(never), Ok(Err(Elapsed)));
    let at_once = runtime.within(YEAR, async { 7 });
    assert_eq!(sim.block_on(at_once), Ok(Ok(7)));
    assert_eq!(sim.now(), Tick::default() + YEAR);
    let stuck = sim.block_on(std::future::pending::<()>());
    assert!(matches!(stuck, Err(Halt::Deadlock { .. })), "{stuck:?}");
}

/// Counts once a second, until it is dropped.
fn count_seconds(node: &Node, counter: &Arc<AtomicU32>) {
    let (clock, counter) = (node.runtime().clock, Arc::clone(counter));
    node.spawn("counter", async move {
        loop {
            clock.sleep(Duration::from_secs(1)).await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[test]
fn a_crashed_node_never_runs_again_and_its_timers_are_gone() {
    let sim = Simulation::new(1);
    let (node, counter) = (sim.node("w"), Arc::new(AtomicU32::new(0)));
    count_seconds(&node, &counter);
    sim.run_for(Duration::from_millis(3_500))
        .expect("no bound is met");
    assert_eq!(counter.load(Ordering::Relaxed), 3);

    let runtime = node.runtime();
    node.crash();
    assert!(!node.is_alive());
    count_seconds(&node, &counter);
    runtime
        .spawn
        .spawn("late", Box::pin(async { panic!("never polled") }));
    sim.run_for(YEAR).expect("no bound is met");
    assert_eq!(counter.load(Ordering::Relaxed), 3);
    assert!(sim.panics().is_empty());
    let stuck = sim.block_on(runtime.clock.sleep(Duration::from_secs(1)));
    assert!(matches!(stuck, Err(Halt::Deadlock { .. })), "{stuck:?}");
}

#[test]
fn a_timer_set_before_the_crash_never_fires_for_those_who_still_wait() {
    let sim = Simulation::new(1);
    let node = sim.node("w");
    let mut sleep = node.runtime().clock.sleep(Duration::from_secs(9));
    let other = sim.node("other").runtime();
    let first = sim.block_on(other.within(Duration::from_secs(1), &mut sleep));
    assert_eq!(first, Ok(Err(Elapsed)));
    node.crash();
    let second = sim.block_on(other.within(YEAR, &mut sleep));
    assert_eq!(second, Ok(Err(Elapsed)));
}

#[test]
fn a_task_that_crashes_its_own_node_ends_at_its_next_await() {
    let sim = Simulation::new(1);
    let node = sim.node("w");
    let (before, mut seen) = mpsc::unbounded_channel();
    let suicide = node.clone();
    node.spawn("suicide", async move {
        suicide.crash();
        before
            .send("still in the same poll")
            .expect("the test listens");
        suicide.runtime().clock.sleep(Duration::ZERO).await;
        std::future::pending::<()>().await;
        before.send("after an await").expect("the test listens");
    });
    sim.run_for(YEAR).expect("no bound is met");
    assert_eq!(seen.try_recv(), Ok("still in the same poll"));
    assert_eq!(
        seen.try_recv(),
        Err(mpsc::error::TryRecvError::Disconnected)
    );
}

#[test]
fn a_node_starts_again_under_its_name_with_other_chance() {
    let sim = Simulation::new(1);
    let first = sim.node("w");
    assert_eq!(sim.node("w").incarnation(), 1);
    let draw = first.runtime().entropy.next_u64();
    first.crash();
    let second = sim.node("w");
    assert_eq!((second.incarnation(), second.is_alive()), (2, true));
    assert!(!first.is_alive());
    assert_ne!(second.runtime().entropy.next_u64(), draw);
    let counter = Arc::new(AtomicU32::new(0));
    count_seconds(&second, &counter);
    sim.run_for(Duration::from_secs(2))
        .expect("no bound is met");
    assert_eq!(counter.load(Ordering::Relaxed), 2);
    assert_eq!(
        sim.trace_text(),
        "0 w started as number 1\n0 w crashed\n0 w started as number 2\n"
    );
}

#[test]
fn a_deadlock_names_the_stuck_tasks() {
    let sim = Simulation::new(1);
    for name in ["a", "b"] {
        sim.node(name).spawn("wait", std::future::pending());
    }
    let halt = sim
        .block_on(std::future::pending::<()>())
        .expect_err("nothing can happen");
    assert_eq!(
        halt.to_string(),
        "deadlock at 0ns: nothing is ready and no timer is set; waiting for ever: a/wait, b/wait"
    );
}

/// Not ready at first, and woken at once.
fn give_way() -> impl Future<Output = ()> {
    let mut polled = false;
    std::future::poll_fn(move |context| {
        if polled {
            return Poll::Ready(());
        }
        polled = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn endless_steps_and_endless_time_are_named() {
    let limits = Limits {
        steps_max: 1_000,
        time_max: YEAR,
    };
    let sim = Simulation::with_limits(1, limits);
    let clock = sim.node("n").runtime().clock;
    sim.node("n").spawn("idler", async move {
        loop {
            clock.sleep(YEAR / 10).await;
        }
    });
    let halt = sim
        .block_on(std::future::pending::<()>())
        .expect_err("a year is over");
    assert!(
        matches!(&halt, Halt::TooLong { alive, .. } if alive == &["n/idler"]),
        "{halt}"
    );

    let sim = Simulation::with_limits(1, limits);
    sim.node("n").spawn("spinner", async {
        loop {
            give_way().await;
        }
    });
    let halt = sim
        .block_on(std::future::pending::<()>())
        .expect_err("it spins");
    assert!(
        matches!(&halt, Halt::TooManySteps { steps: 1_000, .. }),
        "{halt}"
    );
}

#[test]
fn a_panic_ends_one_task_and_is_told() {
    let sim = Simulation::new(1);
    let node = sim.node("n");
    node.spawn("doomed", async { panic!("on {}", "purpose") });
    let (send, receive) = oneshot::channel();
    node.spawn("fine", async move {
        send.send(7).expect("the test listens");
    });
    assert_eq!(sim.block_on(receive), Ok(Ok(7)));
    sim.run_for(Duration::ZERO).expect("no bound is met");
    let panics = sim.panics();
    assert_eq!(panics.len(), 1);
    assert_eq!(
        (panics[0].task.as_str(), panics[0].message.as_str()),
        ("n/doomed", "on purpose")
    );
    assert!(sim.trace_text().contains("n/doomed panicked: on purpose"));
}

#[test]
fn an_ended_simulation_drops_what_its_tasks_hold() {
    let held = Arc::new(());
    let sim = Simulation::new(1);
    let (inside, node) = (Arc::clone(&held), sim.node("n"));
    node.clone().spawn("holder", async move {
        node.runtime().clock.sleep(YEAR).await;
        drop(inside);
    });
    sim.run_for(Duration::from_secs(1))
        .expect("no bound is met");
    assert_eq!(Arc::strong_count(&held), 2);
    drop(sim);
    assert_eq!(Arc::strong_count(&held), 1);
}
