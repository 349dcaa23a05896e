//! Who does the driver's work: the thread that waits for a call, and a thread of the pool's own when nobody waits.
//!
//! To hand a call to another thread and its answer back costs two wake-ups, which is more than all the rest of a call that does
//! nothing. So the driver's runtime has one thread at a time, and that is the caller if there is one: it sends its own
//! order, and sleeps on the sockets. Of several callers one works for all, and gives the runtime to the next when it has
//! its answer (tokio's current-thread runtime does that). The keeper has it in between, and rests while calls follow each other.

use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

/// How long the keeper leaves the driver to callers, who may come back. Answers of calls that nobody waits for, and
/// heartbeats, wait for so long at most.
const REST: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Drive {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    /// Callers that wait.
    callers: AtomicUsize,
    /// How many have come.
    came: AtomicU64,
    /// The keeper has the runtime, or is about to.
    kept: AtomicBool,
    /// The keeper is wanted.
    wanted: AtomicBool,
    keeper: OnceLock<Thread>,
    /// A caller has come.
    called: Notify,
}

impl Drive {
    pub(super) fn new() -> std::io::Result<Drive> {
        Ok(Drive {
            runtime: Some(Builder::new_current_thread().enable_all().build()?),
            callers: AtomicUsize::new(0),
            came: AtomicU64::new(0),
            kept: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            keeper: OnceLock::new(),
            called: Notify::new(),
        })
    }

    pub(super) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the drop")
    }

    /// Waits for `future`, and does the driver's work meanwhile. `future` runs no code of the user's: that could wait itself.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        if Handle::try_current().is_ok() {
            // A thread of another runtime cannot drive this one.
            self.want();
            return sleep_until(future, None).expect("it has no deadline");
        }
        let _caller = self.enter();
        self.runtime().block_on(future)
    }

    /// The same for a time; none if it has passed.
    pub(super) fn wait_for<F: Future>(&self, future: F, most: Duration) -> Option<F::Output> {
        if Handle::try_current().is_ok() {
            self.want();
            return sleep_until(future, Some(Instant::now() + most));
        }
        let _caller = self.enter();
        self.runtime()
            .block_on(async { tokio::time::timeout(most, future).await.ok() })
    }

    fn enter(&self) -> Caller<'_> {
        self.callers.fetch_add(1, Ordering::SeqCst);
        self.came.fetch_add(1, Ordering::Relaxed);
        if self.kept.load(Ordering::SeqCst) {
            self.called.notify_one();
        }
        Caller(self)
    }

    /// There is work, and the caller does not wait for it.
    pub(super) fn want(&self) {
        let idle = !self.kept.load(Ordering::SeqCst) && self.callers.load(Ordering::SeqCst) == 0;
        if idle
            && !self.wanted.swap(true, Ordering::SeqCst)
            && let Some(keeper) = self.keeper.get()
        {
            keeper.unpark();
        }
    }

    /// Until a caller is there; one that has gone again leaves the runtime to the keeper.
    async fn until_called(&self) {
        while self.callers.load(Ordering::SeqCst) == 0 {
            self.called.notified().await;
        }
    }

    /// The keeper's whole life: until `end` completes.
    pub(super) fn keep<F: Future>(&self, end: F) -> F::Output {
        let _ = self.keeper.set(thread::current());
        let mut end = pin!(end);
        loop {
            self.kept.store(true, Ordering::SeqCst);
            let ended = self.runtime().block_on(async {
                tokio::select! {
                    biased;
                    ended = &mut end => Some(ended),
                    () = self.until_called() => None,
                }
            });
            if let Some(ended) = ended {
                return ended;
            }
            self.kept.store(false, Ordering::SeqCst);
            loop {
                let came = self.came.load(Ordering::Relaxed);
                thread::park_timeout(REST);
                let wanted = self.wanted.swap(false, Ordering::SeqCst);
                let left = self.callers.load(Ordering::SeqCst) == 0;
                if left && (wanted || self.came.load(Ordering::Relaxed) == came) {
                    break;
                }
            }
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // Also within another runtime, where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Somebody who waits.
struct Caller<'a>(&'a Drive);

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Unpark>) {
        self.0.unpark();
    }
}

/// Waits for `future` without any runtime; none when the time has come.
fn sleep_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match deadline {
            None => thread::park(),
            Some(deadline) => match deadline.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return None,
                left => thread::park_timeout(left),
            },
        }
    }
}
