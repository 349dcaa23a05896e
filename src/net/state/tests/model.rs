//! Random requests of several packs, against a model that is as simple as it is slow: it does each request on a copy
//! with no bounds, counts the copy's bytes anew, and keeps it if they are not too many.

use super::*;
use std::collections::BTreeMap;

const BYTES_MAX: usize = 2_600;
const NAMES: [&str; 3] = ["a", "bb", "long-name"];

#[derive(Clone, Default)]
struct Model {
    counters: BTreeMap<String, i64>,
    queues: BTreeMap<String, (Vec<Blob>, bool)>,
    /// In order of arrival, with the queue and the deadline.
    waiting: Vec<(Asker, String, u64)>,
    vectors: BTreeMap<String, ModelVector>,
    deleted_version: u64,
}

#[derive(Clone)]
struct ModelVector {
    version: u64,
    element: Element,
    /// Whole numbers so small, for floats, that sums are exact.
    values: Vec<i128>,
}

impl Model {
    fn bytes(&self) -> usize {
        let queues = self.queues.iter().map(|(name, (items, _))| {
            let items: usize = items.iter().map(|item| ITEM_COST + item.len()).sum();
            NAME_COST + name.len() + items
        });
        let vectors = self.vectors.iter().map(|(name, vector)| {
            NAME_COST + name.len() + vector.values.len() * vector.element.width()
        });
        let counters = self.counters.keys().map(|name| NAME_COST + name.len());
        queues.chain(vectors).chain(counters).sum()
    }

    fn handle(&mut self, asker: Asker, request: &Request, now_ms: u64) -> Replies {
        let mut copy = self.clone();
        let mut replies = Vec::new();
        let own = match request {
            Request::Counter { name, verb } => copy.counter(name, *verb).map(Some),
            Request::Queue { name, verb } => {
                Ok(copy.queue(asker, name, verb, now_ms, &mut replies))
            }
            Request::Vector { name, verb } => copy.vector(name, verb).map(Some),
        };
        copy.queues
            .retain(|_, (items, closed)| *closed || !items.is_empty());
        // An error that the copy finds is found after the room for a new vector was taken, or needs none.
        let full = copy.bytes() > BYTES_MAX;
        match own {
            _ if full => vec![(asker, Reply::Error(ErrorKind::Full, String::new()))],
            Err(kind) => vec![(asker, Reply::Error(kind, String::new()))],
            Ok(own) => {
                *self = copy;
                replies.extend(own.map(|reply| (asker, reply)));
                replies
            }
        }
    }

    fn counter(&mut self, name: &str, verb: CounterVerb) -> Result<Reply, ErrorKind> {
        let value = self.counters.get(name).copied().unwrap_or(0);
        let (new, reply) = match verb {
            CounterVerb::Get => return Ok(Reply::Value(value)),
            CounterVerb::Delete => {
                self.counters.remove(name);
                return Ok(Reply::Done);
            }
            CounterVerb::Add { by } => {
                let sum = i128::from(value) + i128::from(by);
                let sum = i64::try_from(sum).map_err(|_| ErrorKind::Overflow)?;
                (sum, Reply::Value(sum))
            }
            CounterVerb::CompareAndSet { expected, new } if expected == value => (new, Reply::Done),
            CounterVerb::CompareAndSet { .. } => return Ok(Reply::CompareFailed(value)),
            CounterVerb::Set { value } => (value, Reply::Done),
        };
        self.counters.insert(name.to_string(), new);
        Ok(reply)
    }

    fn queue(
        &mut self,
        asker: Asker,
        name: &str,
        verb: &QueueVerb,
        now_ms: u64,
        replies: &mut Replies,
    ) -> Option<Reply> {
        let closed = self.queues.get(name).is_some_and(|(_, closed)| *closed);
        let (items, is_closed) = self.queues.entry(name.to_string()).or_default();
        match verb {
            QueueVerb::Push { .. } if closed => {
                Some(Reply::Error(ErrorKind::Closed, String::new()))
            }
            QueueVerb::Push { items: new } => {
                for item in new {
                    match self.waiting.iter().position(|(_, queue, _)| queue == name) {
                        Some(at) => {
                            let (to, _, _) = self.waiting.remove(at);
                            replies.push((to, Reply::Item(item.clone())));
                        }
                        None => items.push(item.clone()),
                    }
                }
                Some(Reply::Length(items.len() as u64))
            }
            QueueVerb::Pop { .. } if !items.is_empty() => Some(Reply::Item(items.remove(0))),
            QueueVerb::Pop { .. } if closed => Some(Reply::Closed),
            QueueVerb::Pop { wait_ms: 0 } => Some(Reply::Empty),
            QueueVerb::Pop { wait_ms } => {
                let deadline = now_ms + u64::from(*wait_ms);
                self.waiting.push((asker, name.to_string(), deadline));
                None
            }
            QueueVerb::Length => Some(Reply::Length(items.len() as u64)),
            QueueVerb::Close | QueueVerb::Delete => {
                if *verb == QueueVerb::Close {
                    *is_closed = true;
                } else {
                    self.queues.remove(name);
                }
                self.waiting.retain(|(to, queue, _)| {
                    if queue == name {
                        replies.push((*to, Reply::Closed));
                    }
                    queue != name
                });
                Some(Reply::Done)
            }
        }
    }

    fn vector(&mut self, name: &str, verb: &VectorVerb) -> Result<Reply, ErrorKind> {
        let (element, pairs, sums, length) = match verb {
            VectorVerb::Delete => {
                if let Some(vector) = self.vectors.remove(name) {
                    self.deleted_version = self.deleted_version.max(vector.version);
                }
                return Ok(Reply::Done);
            }
            VectorVerb::Length => {
                let vector = self.vectors.get(name).ok_or(ErrorKind::Missing)?;
                return Ok(Reply::Length(vector.values.len() as u64));
            }
            VectorVerb::Pull {
                offset,
                count,
                element,
                newer_than,
            } => {
                let vector = self.vectors.get(name).ok_or(ErrorKind::Missing)?;
                if vector.element != *element {
                    return Err(ErrorKind::Mismatch);
                }
                let range = *offset as usize..(*offset + *count) as usize;
                let values = vector.values.get(range).ok_or(ErrorKind::Range)?;
                if vector.version <= *newer_than {
                    return Ok(Reply::Unchanged);
                }
                let version = vector.version;
                let values = to_bytes(*element, values);
                return Ok(Reply::Vector { version, values });
            }
            VectorVerb::Create { element, length } => {
                if let Some(vector) = self.vectors.get(name) {
                    if (vector.element, vector.values.len()) != (*element, *length as usize) {
                        return Err(ErrorKind::Mismatch);
                    }
                    return Ok(Reply::Version(vector.version));
                }
                (*element, Vec::new(), true, &Some(*length))
            }
            VectorVerb::Set {
                offset,
                element,
                values,
                length,
            } => (*element, range(*offset, *element, values), false, length),
            VectorVerb::Add {
                offset,
                element,
                values,
                length,
            } => (*element, range(*offset, *element, values), true, length),
            VectorVerb::AddSparse {
                element,
                indices,
                values,
                length,
            } => {
                let values = from_bytes(*element, values);
                let indices = indices.chunks(4);
                let indices = indices.map(|index| u32::from_le_bytes(index.try_into().unwrap()));
                if indices.len() != values.len() {
                    return Err(ErrorKind::Malformed);
                }
                (
                    *element,
                    indices.map(|i| i as usize).zip(values).collect(),
                    true,
                    length,
                )
            }
        };
        let held = self.vectors.get(name).map(|vector| vector.values.len());
        // A range of no elements has a place too.
        let offset = match verb {
            VectorVerb::Set { offset, .. } | VectorVerb::Add { offset, .. } => *offset as usize,
            _ => 0,
        };
        let in_range = |length| offset <= length && pairs.iter().all(|(index, _)| *index < length);
        if held.is_none() && !in_range(length.ok_or(ErrorKind::Missing)? as usize) {
            return Err(ErrorKind::Range);
        }
        let version = self.deleted_version;
        let vector = self.vectors.entry(name.to_string()).or_insert_with(|| {
            let values = vec![0; length.unwrap_or(0) as usize];
            ModelVector {
                version,
                element,
                values,
            }
        });
        if vector.element != element || length.is_some_and(|l| l as usize != vector.values.len()) {
            return Err(ErrorKind::Mismatch);
        }
        if !in_range(vector.values.len()) {
            return Err(ErrorKind::Range);
        }
        for (index, value) in pairs {
            vector.values[index] = value + if sums { vector.values[index] } else { 0 };
            if element == Element::I64 && i64::try_from(vector.values[index]).is_err() {
                return Err(ErrorKind::Overflow);
            }
        }
        vector.version += 1;
        Ok(Reply::Version(vector.version))
    }

    fn tick(&mut self, now_ms: u64) -> Replies {
        let mut due: Vec<_> = self.waiting.clone();
        due.retain(|(_, _, deadline)| *deadline <= now_ms);
        self.waiting.retain(|(_, _, deadline)| *deadline > now_ms);
        due.sort_by_key(|(_, _, deadline)| *deadline);
        due.into_iter()
            .map(|(to, _, _)| (to, Reply::Empty))
            .collect()
    }
}

fn range(offset: u32, element: Element, values: &[u8]) -> Vec<(usize, i128)> {
    let values = from_bytes(element, values);
    (offset as usize..).zip(values).collect()
}

fn to_bytes(element: Element, values: &[i128]) -> Blob {
    let one = |value: &i128| match element {
        Element::F32 => (*value as f32).to_le_bytes().to_vec(),
        Element::F64 => (*value as f64).to_le_bytes().to_vec(),
        Element::I64 => (*value as i64).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(one).collect()
}

fn from_bytes(element: Element, bytes: &[u8]) -> Vec<i128> {
    let one = |bytes: &[u8]| match element {
        Element::F32 => f32::from_le_bytes(bytes.try_into().unwrap()) as i128,
        Element::F64 => f64::from_le_bytes(bytes.try_into().unwrap()) as i128,
        Element::I64 => i128::from(i64::from_le_bytes(bytes.try_into().unwrap())),
    };
    bytes.chunks(element.width()).map(one).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u64, Request),
    Forget(u64),
    Pass(u64),
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -3i64..4, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn counter_verb() -> impl Strategy<Value = CounterVerb> {
    prop_oneof![
        4 => number().prop_map(|by| CounterVerb::Add { by }),
        1 => Just(CounterVerb::Get),
        2 => (-1i64..3, number())
            .prop_map(|(expected, new)| CounterVerb::CompareAndSet { expected, new }),
        1 => number().prop_map(|value| CounterVerb::Set { value }),
        2 => Just(CounterVerb::Delete),
    ]
}

fn queue_verb() -> impl Strategy<Value = QueueVerb> {
    let item = prop::collection::vec(any::<u8>(), 0..300).prop_map(Blob::from);
    prop_oneof![
        5 => prop::collection::vec(item, 0..4).prop_map(|items| QueueVerb::Push { items }),
        7 => prop_oneof![Just(0u32), 1u32..30].prop_map(|wait_ms| QueueVerb::Pop { wait_ms }),
        1 => Just(QueueVerb::Length),
        1 => Just(QueueVerb::Close),
        2 => Just(QueueVerb::Delete),
    ]
}

fn vector_verb() -> impl Strategy<Value = VectorVerb> {
    let element = prop_oneof![
        1 => Just(Element::F32),
        1 => Just(Element::F64),
        3 => Just(Element::I64)
    ];
    // Mostly one length, so that requests often fit.
    let length = || prop_oneof![6 => Just(5u32), 1 => 0u32..60];
    let pairs = prop::collection::vec((0u32..6, number()), 0..4);
    let parts = (
        element,
        length(),
        prop::option::of(length()),
        0u32..5,
        pairs,
        0u64..12,
        0..11,
    );
    parts.prop_map(
        |(element, length, maybe, offset, pairs, newer_than, verb)| {
            let values: Vec<i128> = pairs
                .iter()
                .map(|(_, value)| match element {
                    Element::I64 => i128::from(*value),
                    _ => i128::from(*value % 4),
                })
                .collect();
            let values = to_bytes(element, &values);
            match verb {
                0 => VectorVerb::Create { element, length },
                1 | 2 => VectorVerb::Set {
                    offset,
                    element,
                    values,
                    length: maybe,
                },
                3 | 4 => VectorVerb::Add {
                    offset,
                    element,
                    values,
                    length: maybe,
                },
                5 | 6 => VectorVerb::AddSparse {
                    element,
                    indices: pairs.iter().flat_map(|(i, _)| i.to_le_bytes()).collect(),
                    values,
                    length: maybe,
                },
                7 | 8 => VectorVerb::Pull {
                    offset,
                    count: length,
                    element,
                    newer_than,
                },
                9 => VectorVerb::Length,
                _ => VectorVerb::Delete,
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(&NAMES[..]).prop_map(String::from);
    let request = prop_oneof![
        2 => (name(), counter_verb()).prop_map(|(name, verb)| Request::Counter { name, verb }),
        4 => (name(), queue_verb()).prop_map(|(name, verb)| Request::Queue { name, verb }),
        4 => (name(), vector_verb()).prop_map(|(name, verb)| Request::Vector { name, verb }),
    ];
    prop_oneof![
        20 => (0u64..4, request).prop_map(|(pack, request)| Step::Ask(pack, request)),
        1 => (0u64..4).prop_map(Step::Forget),
        3 => (0u64..15).prop_map(Step::Pass),
    ]
}

/// The model gives no reasons, and the order of replies to different askers is free.
fn comparable(mut replies: Replies) -> Replies {
    for (_, reply) in &mut replies {
        if let Reply::Error(_, reason) = reply {
            reason.clear();
        }
    }
    replies.sort_by_key(|(to, _)| to.request);
    replies
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_state_does_what_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new(BYTES_MAX);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Ask(pack, request) => {
                    let body = request.encode().expect("within bounds");
                    prop_assert_eq!(&Request::decode(&body).expect("ours"), &request);
                    let (asker, replies) = bench.ask_as(pack, request.clone());
                    let expected = model.handle(asker, &request, bench.now_ms);
                    prop_assert_eq!(comparable(replies), comparable(expected));
                }
                Step::Forget(pack) => {
                    bench.state.forget(pack);
                    bench.recount();
                    model.waiting.retain(|(asker, _, _)| asker.pack != pack);
                }
                Step::Pass(ms) => {
                    let now_ms = bench.now_ms + ms;
                    // Those who waited longest are told first, which here is not free.
                    prop_assert_eq!(bench.tick(now_ms), model.tick(now_ms));
                }
            }
            prop_assert_eq!(bench.state.bytes(), model.bytes());
            prop_assert!(bench.state.bytes() <= BYTES_MAX);
            prop_assert_eq!(bench.state.is_waiting(), !model.waiting.is_empty());
            let next = model.waiting.iter().map(|(_, _, deadline)| *deadline).min();
            prop_assert_eq!(bench.state.next_deadline_ms(), next);
        }
        // Everybody goes and everything is deleted.
        (0..4).for_each(|pack| bench.state.forget(pack));
        for name in NAMES {
            bench.ask(counter(name, CounterVerb::Delete));
            bench.ask(queue(name, QueueVerb::Delete));
            bench.ask(vector(name, VectorVerb::Delete));
        }
        prop_assert_eq!(bench.state.bytes(), 0);
        prop_assert!(!bench.state.is_waiting());
    }
}
