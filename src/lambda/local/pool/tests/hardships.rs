//! What a function asks for: cold starts, no reuse, limits and rates of its own, events that come again.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn enqueue(&mut self, name: &str, function: &str) {
        self.pool
            .enqueue(self.now, request(name), function, 40)
            .expect("the queue has room");
    }

    fn fail(&mut self, id: u64, name: &str) {
        let outcome = Outcome::FunctionError {
            error_type: "Asked".to_owned(),
            body: bytes::Bytes::new(),
        };
        self.pool
            .finished(self.now, EnvironmentId(id), &request(name), outcome)
            .expect("it runs this");
    }

    /// Goes to when the pool wants to be asked again.
    fn pass_to_deadline(&mut self) -> Duration {
        let deadline = self.pool.deadline().expect("something is due");
        let time = deadline
            .checked_duration_since(self.now)
            .expect("nothing is overdue");
        self.pass(time);
        time
    }
}

#[test]
fn a_cold_start_holds_up_an_environments_first_invocation_and_no_other() {
    let mut world = world_where(1, None, |f| f.cold_start = SECOND);
    world.invoke("a", "f").expect("there is room");
    world.pass(SECOND / 4);
    world.next(1);
    assert_eq!(world.actions(), ["start 1 for f"]);
    world.pass(SECOND / 4);
    assert_eq!(world.actions(), [""; 0], "it is not time yet");
    assert_eq!(world.pass_to_deadline(), SECOND / 2);
    assert_eq!(world.actions(), ["deliver a to 1"]);
    world.respond(1, "a");
    world.next(1);
    world.invoke("b", "f").expect("one idles");
    assert_eq!(
        world.actions(),
        [
            "finish a with a response",
            "freeze 1",
            "thaw 1",
            "deliver b to 1"
        ]
    );
}

#[test]
fn a_cold_start_as_long_as_the_init_may_take_is_no_failed_init() {
    let limit = Duration::from_secs(10);
    let mut world = world_where(2, None, |f| f.cold_start = limit);
    world.invoke("a", "f").expect("there is room");
    world.invoke("b", "f").expect("there is room");
    world.next(1);
    world.actions();
    assert_eq!(world.pass_to_deadline(), limit);
    let timed_out =
        "finish b with Sandbox.Timedout: RequestId: b Error: Init timed out after 10.00 seconds";
    assert_eq!(world.actions(), ["deliver a to 1", "kill 2", timed_out]);
}

#[test]
fn a_slow_runtime_is_not_held_up_further() {
    let mut world = world_where(1, None, |f| f.cold_start = SECOND);
    world.invoke("a", "f").expect("there is room");
    world.pass(2 * SECOND);
    world.next(1);
    assert_eq!(world.actions(), ["start 1 for f", "deliver a to 1"]);
}

#[test]
fn without_reuse_an_environment_ends_with_its_answer() {
    let mut world = world_where(1, None, |f| f.reuse = false);
    for (id, name) in [(1, "a"), (2, "b")] {
        world.invoke(name, "f").expect("the one before is ending");
        world.next(id);
        world.respond(id, name);
        assert_eq!(
            world.actions(),
            [
                format!("start {id} for f"),
                format!("deliver {name} to {id}"),
                format!("finish {name} with a response"),
                format!("kill {id}")
            ]
        );
    }
}

#[test]
fn a_function_has_no_more_environments_than_it_has_reserved() {
    let mut world = world_where(4, None, |f| f.reserved_concurrency = Some(1));
    world.invoke("a", "f").expect("it is the first");
    assert_eq!(world.invoke("b", "f"), Err(Refusal::ReservedConcurrency));
    world.enqueue("c", "f");
    world.enqueue("d", "g");
    assert_eq!(
        world.actions(),
        ["start 1 for f", "start 2 for g"],
        "events of others pass by"
    );
    world.next(1);
    world.respond(1, "a");
    world.next(1);
    assert_eq!(
        world.actions(),
        [
            "deliver a to 1",
            "finish a with a response",
            "deliver c to 1"
        ]
    );
    let mut world = world_where(4, None, |f| f.reserved_concurrency = Some(0));
    assert_eq!(world.invoke("a", "f"), Err(Refusal::ReservedConcurrency));
}

#[test]
fn beyond_the_scaling_rate_calls_are_refused_and_events_wait() {
    let mut world = world_where(9, Some("2,1"), |_| {});
    world.invoke("a", "f").expect("it is one of two");
    world.invoke("b", "f").expect("it is one of two");
    assert_eq!(world.invoke("c", "f"), Err(Refusal::ScalingRate));
    world.enqueue("d", "f");
    world.enqueue("e", "g");
    assert_eq!(
        world.actions(),
        ["start 1 for f", "start 2 for f", "start 3 for g"],
        "each function has a rate of its own"
    );
    assert_eq!(world.pass_to_deadline(), SECOND);
    assert_eq!(world.actions(), ["start 4 for f"]);
    assert_eq!(world.invoke("i", "f"), Err(Refusal::ScalingRate));
    world.next(1);
    world.respond(1, "a");
    world.next(1);
    world.actions();
    world.invoke("j", "f").expect("it needs no new environment");
    assert_eq!(world.actions(), ["thaw 1", "deliver j to 1"]);
}

#[test]
fn an_event_that_waits_for_the_rate_takes_an_environment_that_comes_free() {
    let mut world = world_where(9, Some("1,0.01"), |_| {});
    world.invoke("a", "f").expect("it is the first");
    world.enqueue("b", "f");
    world.next(1);
    world.respond(1, "a");
    world.next(1);
    assert_eq!(
        world.actions(),
        [
            "start 1 for f",
            "deliver a to 1",
            "finish a with a response",
            "deliver b to 1"
        ]
    );
}

#[test]
fn a_function_takes_ten_calls_a_second_for_each_environment_it_may_have() {
    let call = |world: &mut World| -> Result<(), Refusal> {
        world.invoke("a", "f")?;
        if world.actions()[0].starts_with("start") {
            world.next(1);
        }
        world.respond(1, "a");
        world.next(1);
        world.actions();
        Ok(())
    };
    for (reserved, calls) in [(None, 20), (Some(1), 10)] {
        let mut world = world_where(2, Some("9,9"), |f| f.reserved_concurrency = reserved);
        for _ in 0..calls {
            assert_eq!(call(&mut world), Ok(()));
        }
        let reserved = reserved.is_some();
        assert_eq!(call(&mut world), Err(Refusal::CallRate { reserved }));
        world.pass(SECOND / 10);
        assert_eq!(call(&mut world), Ok(()));
    }
}

#[test]
fn a_failed_event_is_tried_twice_more_and_waits_longer_the_second_time() {
    let mut world = world_where(1, None, |f| {
        f.event_retries = 2;
        f.event_retry = SECOND;
    });
    world.enqueue("a", "f");
    world.next(1);
    world.fail(1, "a");
    world.next(1);
    let failed = "finish a with Asked";
    let again = "finish a with Asked, and again";
    assert_eq!(
        world.actions(),
        ["start 1 for f", "deliver a to 1", again, "freeze 1"]
    );
    assert_eq!(world.pass_to_deadline(), SECOND);
    world.fail(1, "a");
    world.next(1);
    assert_eq!(
        world.actions(),
        ["thaw 1", "deliver a to 1", again, "freeze 1"]
    );
    assert_eq!(world.pass_to_deadline(), 2 * SECOND);
    world.fail(1, "a");
    world.next(1);
    assert_eq!(
        world.actions(),
        ["thaw 1", "deliver a to 1", failed, "freeze 1"]
    );
    world.pass(10 * SECOND);
    assert_eq!(world.actions(), [""; 0], "it is over");
}

#[test]
fn a_retry_after_an_exit_finds_a_new_environment_and_may_go_well() {
    let mut world = world_where(1, None, |f| {
        f.event_retries = 2;
        f.event_retry = Duration::ZERO;
    });
    world.enqueue("a", "f");
    world.next(1);
    world.actions();
    let exit = "Runtime.ExitError";
    world
        .pool
        .gone(world.now, EnvironmentId(1), exit, "it left");
    assert_eq!(
        world.actions(),
        [
            "kill 1",
            "finish a with Runtime.ExitError: RequestId: a Error: it left, and again",
            "remove 1"
        ]
    );
    assert_eq!(world.pass_to_deadline(), Duration::ZERO);
    world.next(2);
    world.respond(2, "a");
    assert_eq!(
        world.actions(),
        [
            "start 2 for f",
            "deliver a to 2",
            "finish a with a response"
        ]
    );
}

#[test]
fn neither_calls_nor_events_of_others_are_tried_again() {
    let mut world = world_where(1, None, |f| f.event_retries = 2);
    world.invoke("a", "f").expect("there is room");
    world.next(1);
    world.fail(1, "a");
    world.next(1);
    world.actions();
    world.enqueue("b", "g");
    world.next(2);
    world.fail(2, "b");
    assert_eq!(
        world.actions(),
        [
            "kill 1",
            "start 2 for g",
            "deliver b to 2",
            "finish b with Asked"
        ]
    );
}

#[test]
fn events_that_wait_for_their_retry_count_as_waiting() {
    let mut world = world_where(1, None, |f| f.event_retries = 1);
    for name in ["a", "b"] {
        world.enqueue(name, "f");
        if name == "a" {
            world.next(1);
        }
        world.fail(1, name);
        world.next(1);
    }
    let full = world.pool.enqueue(world.now, request("c"), "f", 0);
    assert_eq!(full, Err(Refusal::QueueFull));
}

#[test]
fn an_event_that_waits_too_long_is_dropped() {
    let mut world = world_where(1, None, |f| f.event_age = SECOND);
    world.invoke("a", "g").expect("there is room");
    world.next(1);
    world.enqueue("b", "f");
    world.actions();
    assert_eq!(world.pass_to_deadline(), SECOND);
    assert_eq!(world.actions(), ["drop b"]);
    // Nothing of it is left that would count.
    world.enqueue("c", "g");
    world.enqueue("d", "g");
    world.respond(1, "a");
    world.next(1);
    assert_eq!(
        world.actions(),
        ["finish a with a response", "deliver c to 1"]
    );
}

#[test]
fn an_event_that_is_too_old_for_its_retry_is_dropped() {
    let mut world = world_where(1, None, |f| {
        f.event_age = SECOND;
        f.event_retries = 1;
        f.event_retry = 2 * SECOND;
    });
    world.enqueue("a", "f");
    world.next(1);
    world.fail(1, "a");
    world.next(1);
    world.actions();
    assert_eq!(world.pass_to_deadline(), SECOND);
    assert_eq!(world.actions(), ["drop a"]);
}

#[test]
fn every_so_many_events_one_is_delivered_twice() {
    let mut world = world_where(1, None, |f| f.event_twice_every = 2);
    let run = |world: &mut World, name| {
        world.respond(1, name);
        world.next(1);
        world.actions()
    };
    world.enqueue("a", "f");
    world.next(1);
    world.actions();
    assert_eq!(
        run(&mut world, "a"),
        ["finish a with a response", "freeze 1"]
    );
    world.enqueue("b", "f");
    assert_eq!(world.actions(), ["thaw 1", "deliver b to 1"]);
    let again = "finish b with a response, and again";
    assert_eq!(run(&mut world, "b"), [again, "deliver b to 1"]);
    assert_eq!(
        run(&mut world, "b"),
        ["finish b with a response", "freeze 1"]
    );
}

#[test]
fn deliveries_of_one_event_may_run_at_once_and_share_its_retries() {
    let mut world = world_where(2, None, |f| {
        f.event_twice_every = 1;
        f.event_retries = 1;
        f.event_retry = SECOND;
    });
    world.enqueue("a", "f");
    world.next(1);
    world.next(2);
    assert_eq!(
        world.actions(),
        [
            "start 1 for f",
            "start 2 for f",
            "deliver a to 1",
            "deliver a to 2"
        ]
    );
    world.fail(1, "a");
    world.fail(2, "a");
    world.next(2);
    let again = "finish a with Asked, and again";
    assert_eq!(world.actions(), [again, again, "freeze 2"]);
    world.pass(SECOND);
    world.respond(2, "a");
    assert_eq!(
        world.actions(),
        ["thaw 2", "deliver a to 2", "finish a with a response"]
    );
}

#[test]
fn a_stop_ends_events_that_would_come_again() {
    let mut world = world_where(1, None, |f| {
        f.event_twice_every = 1;
        f.event_retries = 2;
    });
    world.enqueue("a", "f");
    world.next(1);
    world.actions();
    world.pool.stop(world.now);
    let killed = "RequestId: a Error: Runtime exited with error: signal: killed";
    let finish = format!("finish a with Runtime.ExitError: {killed}");
    // The delivery that waits is gone, and the one that runs ends the event.
    assert_eq!(world.actions(), ["kill 1".to_owned(), finish]);
    assert_eq!(world.pool.deadline(), None, "nothing is due any more");
}
