//! A farm: tasks that know nothing of each other, and workers that come and go.
//!
//! The driver ([`driver`]) decides who runs what ([`schedule`], pure), keeps as many workers as are wanted (`roster`, pure) and speaks
//! with them in an elastic job ([`message`]); a worker ([`worker`]) runs tasks one after the other and answers each. A worker that is lost costs the task that it
//! was at a try, and nothing else.

pub mod driver;
pub mod message;
mod roster;
pub mod schedule;
pub mod stdio;
pub mod worker;
