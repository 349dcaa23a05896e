mod bounds;
mod counters;
mod model;
mod queues;
mod vectors;

use super::*;
use crate::net::state::blob::Blob;
use proptest::prelude::*;

/// A state with a clock, which numbers requests and sends everything over the wire.
struct Bench {
    state: State,
    now_ms: u64,
    request: u64,
}

type Replies = Vec<(Asker, Reply)>;

impl Bench {
    fn new(bytes_max: usize) -> Bench {
        Bench {
            state: State::new(bytes_max),
            now_ms: 0,
            request: 0,
        }
    }

    /// What a request of pack 1 is answered at once.
    fn ask(&mut self, request: Request) -> Reply {
        let (asker, replies) = self.ask_as(1, request);
        let mut own = replies.into_iter().filter(|(to, _)| *to == asker);
        own.next().expect("an answer at once").1
    }

    fn ask_as(&mut self, pack: u64, request: Request) -> (Asker, Replies) {
        self.request += 1;
        let asker = Asker {
            pack,
            rank: pack as u32,
            request: self.request,
        };
        let mut replies = Vec::new();
        self.state.handle(asker, request, self.now_ms, &mut replies);
        for (_, reply) in &replies {
            assert_eq!(&Reply::decode(&reply.encode()).expect("ours"), reply);
        }
        self.recount();
        (asker, replies)
    }

    /// A pop that must wait.
    fn wait(&mut self, pack: u64, name: &str, wait_ms: u32) -> Asker {
        let (asker, replies) = self.ask_as(pack, pop(name, wait_ms));
        assert_eq!(replies, []);
        asker
    }

    fn tick(&mut self, now_ms: u64) -> Replies {
        self.now_ms = now_ms;
        let mut replies = Vec::new();
        self.state.tick(now_ms, &mut replies);
        self.recount();
        replies
    }

    fn recount(&self) {
        let parts = [
            self.state.counters.recount(),
            self.state.queues.recount(),
            self.state.vectors.recount(),
        ];
        let names: usize = parts.iter().map(|(names, _)| names).sum();
        let bytes: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(self.state.bytes(), bytes);
        assert_eq!(self.state.budget.names(), names);
    }
}

fn counter(name: &str, verb: CounterVerb) -> Request {
    let name = name.to_string();
    Request::Counter { name, verb }
}

fn add(name: &str, by: i64) -> Request {
    counter(name, CounterVerb::Add { by })
}

fn queue(name: &str, verb: QueueVerb) -> Request {
    let name = name.to_string();
    Request::Queue { name, verb }
}

fn push(name: &str, items: &[&'static str]) -> Request {
    let items = items.iter().map(|item| Blob::from_static(item.as_bytes()));
    let items = items.collect();
    queue(name, QueueVerb::Push { items })
}

fn pop(name: &str, wait_ms: u32) -> Request {
    queue(name, QueueVerb::Pop { wait_ms })
}

fn vector(name: &str, verb: VectorVerb) -> Request {
    let name = name.to_string();
    Request::Vector { name, verb }
}

fn create(name: &str, element: Element, length: u32) -> Request {
    vector(name, VectorVerb::Create { element, length })
}

fn add_i64(name: &str, offset: u32, values: &[i64], length: Option<u32>) -> Request {
    let values = i64s(values);
    let element = Element::I64;
    vector(
        name,
        VectorVerb::Add {
            offset,
            element,
            values,
            length,
        },
    )
}

fn add_sparse_i64(name: &str, indices: &[u32], values: &[i64], length: Option<u32>) -> Request {
    let indices = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
    let values = i64s(values);
    let element = Element::I64;
    vector(
        name,
        VectorVerb::AddSparse {
            element,
            indices,
            values,
            length,
        },
    )
}

fn pull_i64(name: &str, offset: u32, count: u32, newer_than: u64) -> Request {
    let element = Element::I64;
    vector(
        name,
        VectorVerb::Pull {
            offset,
            count,
            element,
            newer_than,
        },
    )
}

fn i64s(values: &[i64]) -> Blob {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn item(text: &'static str) -> Reply {
    Reply::Item(Blob::from_static(text.as_bytes()))
}

/// The reply is an error of this kind whose reason has these words.
#[track_caller]
fn expect_error(reply: Reply, kind: ErrorKind, words: &str) {
    match reply {
        Reply::Error(found, reason) => {
            assert_eq!(found, kind, "{reason}");
            assert!(reason.contains(words), "{reason}");
        }
        other => panic!("{other:?} where an error was due"),
    }
}
