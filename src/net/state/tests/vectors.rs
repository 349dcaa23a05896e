//! Vectors: ranges, versions, additions.

use super::*;

#[test]
fn a_vector_is_pulled_in_ranges_with_its_version() {
    let mut bench = Bench::new(10_000);
    assert_eq!(bench.ask(create("v", Element::I64, 4)), Reply::Version(1));
    assert_eq!(bench.ask(create("v", Element::I64, 4)), Reply::Version(1));
    assert_eq!(bench.ask(add_i64("v", 1, &[5, 6], None)), Reply::Version(2));
    assert_eq!(
        bench.ask(add_i64("v", 2, &[10, 20], None)),
        Reply::Version(3)
    );
    let pulled = |version, values: &[i64]| Reply::Vector {
        version,
        values: i64s(values),
    };
    assert_eq!(
        bench.ask(pull_i64("v", 0, 4, 0)),
        pulled(3, &[0, 5, 16, 20])
    );
    assert_eq!(bench.ask(pull_i64("v", 1, 2, 2)), pulled(3, &[5, 16]));
    assert_eq!(bench.ask(pull_i64("v", 1, 2, 3)), Reply::Unchanged);
    assert_eq!(bench.ask(pull_i64("v", 4, 0, 0)), pulled(3, &[]));
    assert_eq!(bench.ask(vector("v", VectorVerb::Length)), Reply::Length(4));
}

#[test]
fn floats_of_both_widths_are_added() {
    let mut bench = Bench::new(10_000);
    let f32s: Blob = [1.5f32, -2.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let f64s: Blob = [1.5f64, -2.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    for (name, element, values) in [("f", Element::F32, f32s), ("d", Element::F64, f64s)] {
        let verb = VectorVerb::Add {
            offset: 0,
            element,
            values: values.clone(),
            length: Some(2),
        };
        assert_eq!(bench.ask(vector(name, verb)), Reply::Version(1));
        let verb = VectorVerb::Pull {
            offset: 0,
            count: 2,
            element,
            newer_than: 0,
        };
        let version = 1;
        assert_eq!(
            bench.ask(vector(name, verb)),
            Reply::Vector { version, values }
        );
    }
}

#[test]
fn a_vector_is_set_whole_in_one_request() {
    let mut bench = Bench::new(10_000);
    let set = |values: &[i64]| {
        let verb = VectorVerb::Set {
            offset: 0,
            element: Element::I64,
            values: i64s(values),
            length: Some(2),
        };
        vector("v", verb)
    };
    assert_eq!(bench.ask(set(&[1, 2])), Reply::Version(1));
    assert_eq!(bench.ask(set(&[3, i64::MAX])), Reply::Version(2));
    let values = i64s(&[3, i64::MAX]);
    let version = 2;
    assert_eq!(
        bench.ask(pull_i64("v", 0, 2, 0)),
        Reply::Vector { version, values }
    );
}

#[test]
fn an_index_that_comes_twice_is_added_twice() {
    let mut bench = Bench::new(10_000);
    bench.ask(add_sparse_i64("v", &[2, 0, 2], &[1, 5, 10], Some(3)));
    let values = i64s(&[5, 0, 11]);
    assert_eq!(
        bench.ask(pull_i64("v", 0, 3, 0)),
        Reply::Vector { version: 1, values }
    );
}

#[test]
fn an_addition_that_overflows_adds_nothing() {
    let mut bench = Bench::new(10_000);
    bench.ask(add_i64("v", 0, &[1, i64::MAX - 2, 3], Some(3)));
    let before = bench.ask(pull_i64("v", 0, 3, 0));
    expect_error(
        bench.ask(add_i64("v", 0, &[4, 5, 6], None)),
        ErrorKind::Overflow,
        "index 1 of vector \"v\"",
    );
    // The sums on the way fit: only the third is too much.
    let twice = add_sparse_i64("v", &[0, 1, 1, 2], &[7, 2, 1, 7], None);
    expect_error(bench.ask(twice), ErrorKind::Overflow, "index 1");
    assert_eq!(bench.ask(pull_i64("v", 0, 3, 0)), before);
}

#[test]
fn an_addition_that_fails_creates_nothing() {
    let mut bench = Bench::new(10_000);
    let much = add_sparse_i64("v", &[0, 0], &[i64::MAX, 1], Some(1));
    expect_error(bench.ask(much), ErrorKind::Overflow, "index 0");
    expect_error(
        bench.ask(add_i64("v", 1, &[1], Some(1))),
        ErrorKind::Range,
        "1 to 2",
    );
    assert_eq!(bench.state.bytes(), 0);
    expect_error(
        bench.ask(add_i64("v", 0, &[1], None)),
        ErrorKind::Missing,
        "no vector \"v\"; create it",
    );
    expect_error(bench.ask(pull_i64("v", 0, 0, 0)), ErrorKind::Missing, "v");
    expect_error(
        bench.ask(vector("v", VectorVerb::Length)),
        ErrorKind::Missing,
        "v",
    );
}

#[test]
fn requests_that_do_not_fit_the_vector_are_refused() {
    let mut bench = Bench::new(10_000);
    bench.ask(create("v", Element::I64, 3));
    let cases = [
        (
            create("v", Element::F64, 3),
            ErrorKind::Mismatch,
            "elements of i64",
        ),
        (
            create("v", Element::I64, 4),
            ErrorKind::Mismatch,
            "creates it with 4",
        ),
        (
            add_i64("v", 0, &[1], Some(4)),
            ErrorKind::Mismatch,
            "has 3 elements",
        ),
        (
            add_i64("v", 2, &[1, 2], None),
            ErrorKind::Range,
            "2 to 4 are not all inside",
        ),
        (
            add_i64("v", u32::MAX, &[1], None),
            ErrorKind::Range,
            "4294967295 to 4294967296",
        ),
        (
            add_sparse_i64("v", &[1, 3], &[1, 1], None),
            ErrorKind::Range,
            "index 3",
        ),
        (
            add_sparse_i64("v", &[1, 2], &[1], None),
            ErrorKind::Malformed,
            "8 bytes of indices",
        ),
        (pull_i64("v", 1, 3, 0), ErrorKind::Range, "1 to 4"),
        (pull_i64("v", 1, 3, 99), ErrorKind::Range, "1 to 4"),
    ];
    for (request, kind, words) in cases {
        expect_error(bench.ask(request), kind, words);
    }
    let verb = VectorVerb::Add {
        offset: 0,
        element: Element::I64,
        values: Blob::from_static(b"123456789"),
        length: None,
    };
    expect_error(
        bench.ask(vector("v", verb)),
        ErrorKind::Malformed,
        "9 bytes of values",
    );
    let version = 1;
    let values = i64s(&[0; 3]);
    assert_eq!(
        bench.ask(pull_i64("v", 0, 3, 0)),
        Reply::Vector { version, values }
    );
}

#[test]
fn a_vector_that_is_made_anew_is_newer_than_the_old_one() {
    let mut bench = Bench::new(10_000);
    bench.ask(add_i64("v", 0, &[1], Some(1)));
    assert_eq!(bench.ask(add_i64("v", 0, &[1], None)), Reply::Version(2));
    bench.ask(vector("v", VectorVerb::Delete));
    assert_eq!(bench.ask(create("v", Element::I64, 1)), Reply::Version(3));
}

#[test]
fn a_long_vector_goes_through_frames_in_ranges() {
    let mut bench = Bench::new(10_000_000);
    let length = 20_000u32;
    let range = VALUES_MAX as u32 / 8;
    for offset in (0..length).step_by(range as usize) {
        let end = length.min(offset + range);
        let values: Vec<i64> = (offset..end).map(i64::from).collect();
        let request = add_i64("v", offset, &values, Some(length));
        let request = Request::decode(&request.encode().expect("fits")).expect("ours");
        assert!(matches!(bench.ask(request), Reply::Version(_)));
    }
    let mut pulled = Vec::new();
    for offset in (0..length).step_by(range as usize) {
        match bench.ask(pull_i64("v", offset, range.min(length - offset), 0)) {
            Reply::Vector { values, .. } => pulled.extend_from_slice(&values),
            other => panic!("{other:?}"),
        }
    }
    let whole: Vec<i64> = (0..i64::from(length)).collect();
    assert!(pulled[..] == i64s(&whole)[..]);
}
