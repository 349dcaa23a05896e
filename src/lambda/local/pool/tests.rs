//! The pool's decisions under a clock of its own.

use std::time::Duration;

use super::*;

mod hardships;

struct World {
    pool: Pool,
    now: Instant,
}

const TIMEOUT: Duration = Duration::from_secs(3);

fn world(concurrency: usize) -> World {
    world_where(concurrency, None, |_| {})
}

/// One whose function `f` asks for something, and perhaps all for a scaling rate.
fn world_where(
    concurrency: usize,
    scaling: Option<&str>,
    ask: impl FnOnce(&mut LocalFunction),
) -> World {
    let limits = PoolLimits {
        concurrency,
        scaling: scaling.map(|text| text.parse().expect("it is a scaling")),
        init: Duration::from_secs(10),
        idle: Duration::from_secs(600),
        patience: Duration::from_millis(50),
        grace: Duration::from_millis(500),
        queue: 2,
        queue_bytes: 100,
    };
    let usual = LocalFunction {
        timeout: TIMEOUT,
        ..LocalFunction::default()
    };
    let mut asking = usual.clone();
    ask(&mut asking);
    let functions = [
        ("f".to_owned(), Arc::new(asking)),
        ("g".to_owned(), Arc::new(usual)),
    ];
    World {
        pool: Pool::new(limits, &functions.into()),
        now: Instant::now(),
    }
}

fn request(name: &str) -> RequestId {
    RequestId(name.to_owned())
}

fn response() -> Outcome {
    Outcome::Response(bytes::Bytes::from_static(b"{}"))
}

impl World {
    /// The decisions since the last call, in short.
    fn actions(&mut self) -> Vec<String> {
        let actions: Vec<Action> = std::iter::from_fn(|| self.pool.next_action()).collect();
        actions.iter().map(|action| self.describe(action)).collect()
    }

    fn describe(&self, action: &Action) -> String {
        match action {
            Action::Start {
                environment,
                function,
            } => format!("start {} for {function}", environment.0),
            Action::Freeze { environment } => format!("freeze {}", environment.0),
            Action::Thaw { environment } => format!("thaw {}", environment.0),
            Action::Deliver {
                environment,
                request,
                deadline,
            } => {
                assert_eq!(*deadline, self.now + TIMEOUT);
                format!("deliver {request} to {}", environment.0)
            }
            Action::TellInvoke {
                environment,
                extension,
                request,
                ..
            } => {
                format!("tell {extension} of {} about {request}", environment.0)
            }
            Action::TellShutdown {
                environment,
                extension,
                ..
            } => {
                format!("tell {extension} of {} to end", environment.0)
            }
            Action::Terminate { environment } => format!("terminate {}", environment.0),
            Action::Kill { environment } => format!("kill {}", environment.0),
            Action::Remove { environment } => format!("remove {}", environment.0),
            Action::Finish {
                request,
                outcome,
                again,
                ..
            } => {
                let message = match outcome {
                    Outcome::EnvironmentError { message, .. } => format!(": {message}"),
                    _ => String::new(),
                };
                format!(
                    "finish {request} with {}{message}{}",
                    outcome.error_type().unwrap_or("a response"),
                    if *again { ", and again" } else { "" }
                )
            }
            Action::Drop { request } => format!("drop {request}"),
            Action::Refuse { request, refusal } => format!("refuse {request}: {refusal:?}"),
        }
    }

    fn invoke(&mut self, name: &str, function: &str) -> Result<(), Refusal> {
        self.pool.invoke(self.now, request(name), function)
    }

    fn next(&mut self, id: u64) {
        self.pool
            .runtime_waits(self.now, EnvironmentId(id))
            .expect("it may ask for the next invocation");
    }

    fn respond(&mut self, id: u64, name: &str) {
        self.pool
            .finished(self.now, EnvironmentId(id), &request(name), response())
            .expect("it runs this");
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pool.tick(self.now);
    }

    /// An environment that has run one invocation and idles.
    fn warm(&mut self, id: u64, function: &str) {
        self.invoke("warm", function).expect("there is room");
        self.next(id);
        self.respond(id, "warm");
        self.next(id);
        self.actions();
    }
}

#[test]
fn a_cold_invocation_starts_an_environment_and_a_warm_one_thaws_it() {
    let mut world = world(2);
    world.invoke("a", "f").expect("there is room");
    assert_eq!(world.actions(), ["start 1 for f"]);
    world.next(1);
    assert_eq!(world.actions(), ["deliver a to 1"]);
    world.respond(1, "a");
    assert_eq!(world.actions(), ["finish a with a response"]);
    world.next(1);
    assert_eq!(world.actions(), ["freeze 1"]);
    world.invoke("b", "f").expect("there is room");
    assert_eq!(world.actions(), ["thaw 1", "deliver b to 1"]);
}

#[test]
fn concurrent_invocations_get_environments_of_their_own() {
    let mut world = world(2);
    world.invoke("a", "f").expect("there is room");
    world.invoke("b", "f").expect("there is room");
    assert_eq!(world.actions(), ["start 1 for f", "start 2 for f"]);
    assert_eq!(world.invoke("c", "f"), Err(Refusal::Concurrency));
    world.next(2);
    assert_eq!(world.actions(), ["deliver b to 2"]);
}

#[test]
fn a_caller_that_invokes_again_at_once_gets_the_environment_it_just_used() {
    let mut world = world(2);
    world.invoke("a", "f").expect("there is room");
    world.next(1);
    world.respond(1, "a");
    world.actions();
    world.invoke("b", "f").expect("there is room");
    assert_eq!(world.actions(), [""; 0]);
    world.next(1);
    assert_eq!(world.actions(), ["deliver b to 1"]);
}

#[test]
fn a_promise_that_is_not_kept_soon_goes_to_a_new_environment() {
    let mut world = world(2);
    world.invoke("a", "f").expect("there is room");
    world.next(1);
    world.respond(1, "a");
    world.invoke("b", "f").expect("there is room");
    world.actions();
    world.pass(Duration::from_millis(50));
    assert_eq!(world.actions(), ["start 2 for f"]);
    world.next(1);
    assert_eq!(world.actions(), ["freeze 1"]);
}

#[test]
fn a_promise_survives_the_end_of_its_environment_even_without_room() {
    let mut world = world(1);
    world.invoke("a", "f").expect("there is room");
    world.next(1);
    world.respond(1, "a");
    world.invoke("b", "f").expect("it is promised");
    world.actions();
    world.pass(Duration::from_millis(60));
    assert_eq!(
        world.actions(),
        [""; 0],
        "there is no room elsewhere, so it waits on"
    );
    world.pool.gone(
        world.now,
        EnvironmentId(1),
        "Runtime.ExitError",
        "exit status 1",
    );
    assert_eq!(world.actions(), ["kill 1", "remove 1", "start 2 for f"]);
}

#[test]
fn an_idle_environment_makes_room_for_another_function() {
    let mut world = world(1);
    world.warm(1, "f");
    world.invoke("b", "g").expect("the idle one can go");
    assert_eq!(world.actions(), ["kill 1", "start 2 for g"]);
}

#[test]
fn an_idle_environment_ends_after_its_time() {
    let mut world = world(1);
    world.warm(1, "f");
    assert_eq!(
        world.pool.deadline(),
        Some(world.now + Duration::from_secs(600))
    );
    world.pass(Duration::from_secs(600));
    assert_eq!(world.actions(), ["kill 1"]);
    world.pool.gone(
        world.now,
        EnvironmentId(1),
        "Runtime.ExitError",
        "signal: killed",
    );
    assert_eq!(world.actions(), ["remove 1"]);
    assert!(world.pool.is_empty());
}

#[test]
fn a_passed_deadline_kills_and_answers() {
    let mut world = world(1);
    world.invoke("a", "f").expect("there is room");
    world.next(1);
    world.actions();
    assert_eq!(world.pool.deadline(), Some(world.now + TIMEOUT));
    world.pass(TIMEOUT);
    let message = "RequestId: a Error: Task timed out after 3.00 seconds";
    assert_eq!(
        world.actions(),
        [
            "kill 1".to_owned(),
            format!("finish a with Sandbox.Timedout: {message}")
        ]
    );
    let late = world
        .pool
        .finished(world.now, EnvironmentId(1), &request("a"), response());
    assert_eq!(late, Err(Misuse::UnknownRequest));
    world
        .invoke("b", "f")
        .expect("a killed environment takes no room");
    assert_eq!(world.actions(), ["start 2 for f"]);
}

#[test]
fn an_environment_that_never_asks_times_out_in_its_init() {
    let mut world = world(1);
    world.invoke("a", "f").expect("there is room");
    world.pass(Duration::from_secs(10));
    let last = world.actions().pop().expect("something was decided");
    assert_eq!(
        last,
        "finish a with Sandbox.Timedout: RequestId: a Error: Init timed out after 10.00 seconds"
    );
}

#[test]
fn an_exit_is_answered_at_once_whatever_the_state() {
    let mut world = world(3);
    world.invoke("a", "f").expect("there is room");
    world.invoke("b", "f").expect("there is room");
    world.next(2);
    world.actions();
    for (id, name) in [(1, "a"), (2, "b")] {
        world.pool.gone(
            world.now,
            EnvironmentId(id),
            "Runtime.ExitError",
            "Runtime exited with error: exit status 3",
        );
        let finish = format!(
            "finish {name} with Runtime.ExitError: RequestId: {name} Error: Runtime exited with error: exit status 3"
        );
        assert_eq!(
            world.actions(),
            [format!("kill {id}"), finish, format!("remove {id}")]
        );
    }
}

#[test]
fn only_the_running_invocation_can_be_answered_and_only_once() {
    let mut world = world(1);
    let id = EnvironmentId(1);
    world.invoke("a", "f").expect("there is room");
    let answer = |world: &mut World, name| {
        world
            .pool
            .finished(world.now, id, &request(name), response())
    };
    assert_eq!(
        answer(&mut world, "a"),
        Err(Misuse::UnknownRequest),
        "it was not handed over yet"
    );
    world.next(1);
    assert_eq!(answer(&mut world, "b"), Err(Misuse::UnknownRequest));
    assert_eq!(
        world.pool.runtime_waits(world.now, id),
        Err(Misuse::WrongState)
    );
    assert_eq!(answer(&mut world, "a"), Ok(()));
    assert_eq!(answer(&mut world, "a"), Err(Misuse::UnknownRequest));
}

#[test]
fn nothing_is_handed_over_or_frozen_before_all_extensions_wait() {
    let mut world = world(1);
    let id = EnvironmentId(1);
    world.invoke("a", "f").expect("there is room");
    let wants = Subscriptions {
        invoke: true,
        shutdown: true,
    };
    world
        .pool
        .extension_registered(id, "x".to_owned(), wants)
        .expect("it is still starting");
    world.next(1);
    assert_eq!(world.actions(), ["start 1 for f"]);
    world
        .pool
        .extension_waits(world.now, id, "x")
        .expect("it is registered");
    assert_eq!(world.actions(), ["tell x of 1 about a", "deliver a to 1"]);
    world.respond(1, "a");
    world.next(1);
    assert_eq!(world.actions(), ["finish a with a response"]);
    world
        .pool
        .extension_waits(world.now, id, "x")
        .expect("it is registered");
    assert_eq!(world.actions(), ["freeze 1"]);
    assert_eq!(
        world.pool.extension_registered(id, "y".to_owned(), wants),
        Err(Misuse::WrongState)
    );
    assert_eq!(
        world.pool.extension_waits(world.now, id, "y"),
        Err(Misuse::UnknownExtension)
    );

    world.pool.stop(world.now);
    assert_eq!(
        world.actions(),
        ["thaw 1", "tell x of 1 to end", "terminate 1"]
    );
    world.pass(Duration::from_millis(500));
    assert_eq!(world.actions(), ["kill 1"]);
}

#[test]
fn an_extension_that_asks_after_the_stop_is_told_of_it_once() {
    let mut world = world(1);
    let id = EnvironmentId(1);
    world.invoke("a", "f").expect("there is room");
    let wants = Subscriptions {
        invoke: false,
        shutdown: true,
    };
    world
        .pool
        .extension_registered(id, "x".to_owned(), wants)
        .expect("it is still starting");
    world.actions();
    world.pool.stop(world.now);
    let killed = "RequestId: a Error: Runtime exited with error: signal: killed";
    let finish = format!("finish a with Runtime.ExitError: {killed}");
    assert_eq!(world.actions(), [finish, "terminate 1".to_owned()]);
    for told in [vec!["tell x of 1 to end"], vec![]] {
        world
            .pool
            .extension_waits(world.now, id, "x")
            .expect("it is registered");
        assert_eq!(world.actions(), told);
    }
}

#[test]
fn a_failed_init_answers_with_what_the_runtime_said() {
    let mut world = world(1);
    world.invoke("a", "f").expect("there is room");
    let outcome = Outcome::FunctionError {
        error_type: "Runtime.ImportError".to_owned(),
        body: bytes::Bytes::new(),
    };
    world
        .pool
        .init_failed(world.now, EnvironmentId(1), |_| outcome)
        .expect("it is starting");
    assert_eq!(
        world.actions(),
        [
            "start 1 for f",
            "kill 1",
            "finish a with Runtime.ImportError"
        ]
    );
}

#[test]
fn events_wait_for_room_and_their_queue_is_bounded() {
    let mut world = world(1);
    world.invoke("a", "f").expect("there is room");
    let enqueue =
        |world: &mut World, name, bytes| world.pool.enqueue(world.now, request(name), "f", bytes);
    assert_eq!(enqueue(&mut world, "b", 60), Ok(()));
    assert_eq!(
        enqueue(&mut world, "c", 60),
        Err(Refusal::QueueFull),
        "too many bytes"
    );
    assert_eq!(enqueue(&mut world, "c", 40), Ok(()));
    assert_eq!(
        enqueue(&mut world, "d", 0),
        Err(Refusal::QueueFull),
        "too many events"
    );
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
    assert_eq!(
        enqueue(&mut world, "d", 60),
        Ok(()),
        "the first one's bytes are free again"
    );
}

#[test]
fn an_invocation_that_nobody_took_is_handed_over_again() {
    let mut world = world(1);
    world.invoke("a", "f").expect("there is room");
    world.next(1);
    world.pool.runtime_left(world.now, EnvironmentId(1));
    world.actions();
    world.next(1);
    assert_eq!(world.actions(), ["deliver a to 1"]);
}

#[test]
fn a_stop_refuses_what_waits_and_fails_what_runs() {
    let mut world = world(1);
    world.invoke("a", "f").expect("there is room");
    world.next(1);
    world
        .pool
        .enqueue(world.now, request("b"), "f", 0)
        .expect("the queue is empty");
    world.actions();
    world.pool.stop(world.now);
    let killed = "RequestId: a Error: Runtime exited with error: signal: killed";
    let finish = format!("finish a with Runtime.ExitError: {killed}");
    assert_eq!(
        world.actions(),
        ["refuse b: Stopping".to_owned(), "kill 1".to_owned(), finish]
    );
    assert_eq!(world.invoke("c", "f"), Err(Refusal::Stopping));
}
