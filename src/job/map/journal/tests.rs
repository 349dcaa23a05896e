use super::*;
use crate::store::sealed::Seal;
use std::fs;

fn answer(text: &str) -> Answer {
    Answer {
        problem: None,
        exit: Some(0),
        output: Output::Inline(text.into()),
        stderr: Vec::new(),
        is_unstorable: false,
    }
}

fn item(number: u64) -> Item {
    Item::Text(number.to_string().into_bytes())
}

fn begun(prefix: &str) -> Begun {
    Begun {
        prefix: prefix.into(),
        output: None,
        identity: Identity {
            program: "work".into(),
            sha256: Some("ab".repeat(32)),
            arguments: Vec::new(),
            files: Vec::new(),
            split: None,
            batch: 1,
            count: Some(10),
        },
    }
}

fn identity(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn add(journal: &mut Journal, number: u64) {
    let took = Duration::from_millis(number);
    let answer = answer(&format!("out {number}"));
    journal
        .done(number, identity(number), 1, took, &answer)
        .unwrap();
}

type Taken = Result<(Journal, Known, Remarks), JournalError>;

fn take(from: &Path, to: &Path, begun: Begun) -> Taken {
    Journal::take_over(from, to, begun, "1f3a", false)
}

/// A folder, and the bytes of a journal of the items 3, 0, 7 and 3 again.
fn journal() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("first");
    let mut journal = Journal::create(&path, begun("a/")).unwrap();
    assert!(journal.is_empty());
    for number in [3, 0, 7, 3] {
        add(&mut journal, number);
    }
    journal.flush().unwrap();
    let second = folder.path().join("second");
    let busy = take(&path, &second, begun("b/"));
    assert!(matches!(busy, Err(JournalError::Busy(_))));
    let again = Journal::create(&path, begun("a/"));
    assert!(again.is_err(), "there is one");
    drop(journal);
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

/// Where the entries of a journal begin, and where the last ends.
fn entries(journal: &[u8]) -> Vec<usize> {
    let mut places = vec![HEADER];
    while let Some(head) = journal
        .get(places[places.len() - 1]..)
        .and_then(|rest| rest.first_chunk())
    {
        let last = places[places.len() - 1];
        places.push(last + HEAD + u32::from_le_bytes(*head) as usize);
    }
    places
}

#[test]
fn what_was_done_is_known_wherever_the_file_is_cut_off() {
    let (folder, first, whole) = journal();
    let (second, third) = (folder.path().join("second"), folder.path().join("third"));
    let ends = entries(&whole);
    let mut most = 0;
    for length in 0..=whole.len() {
        fs::write(&first, &whole[..length]).unwrap();
        let Ok((mut journal, known, remarks)) = take(&first, &second, begun("b/")) else {
            assert!(length < HEADER);
            continue;
        };
        assert_eq!(remarks.is_torn, !ends.contains(&length), "{length}");
        assert!(known.len() >= most, "no entry is lost");
        most = known.len();
        for number in [0, 3, 7] {
            if let Some(done) = known.get(number, &item(number), identity(number)).unwrap() {
                assert_eq!(done.answer, answer(&format!("out {number}")));
                assert_eq!((done.number, done.failures), (number, 1));
            }
        }
        // The next entries follow the last whole one.
        add(&mut journal, 9);
        journal.flush().unwrap();
        drop((journal, known));
        let (journal, known, _) = take(&second, &third, begun("c/")).unwrap();
        assert_eq!(known.len(), most + 1);
        let prefixes: Vec<&str> = journal.prefixes().collect();
        assert!(prefixes.ends_with(&["b/", "c/"]), "{prefixes:?}");
        let other = known.get(9, &item(8), identity(8));
        assert!(matches!(
            other,
            Err(JournalError::Changed { number: 9, .. })
        ));
        journal.delete().unwrap();
    }
    assert_eq!(most, 3);
}

#[test]
fn a_flipped_bit_is_an_error_wherever_it_is_and_the_journal_stays() {
    let (folder, first, whole) = journal();
    let second = folder.path().join("second");
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&first, &changed).unwrap();
        let error = take(&first, &second, begun("b/")).err();
        let error = error.unwrap_or_else(|| panic!("byte {at}"));
        let known = matches!(
            error,
            JournalError::Damaged { .. } | JournalError::Foreign(_)
        );
        assert!(known, "byte {at}: {error}");
        assert!(first.exists() && !second.exists());
    }
}

#[test]
fn entries_that_are_removed_moved_repeated_or_foreign_are_errors() {
    let (folder, first, whole) = journal();
    let (_other_folder, _, other) = journal();
    let second = folder.path().join("second");
    let at = entries(&whole);
    let [begin, a, b, c, d, end] = at[..] else {
        panic!("{at:?}");
    };
    assert_eq!(end, whole.len());
    let parts = |ranges: &[std::ops::Range<usize>]| {
        let each = ranges.iter().map(|range| &whole[range.clone()]);
        each.collect::<Vec<_>>().concat()
    };
    for (what, bytes) in [
        ("removed", parts(&[0..a, b..end])),
        ("the first removed", parts(&[0..begin, a..end])),
        ("moved", parts(&[0..a, b..c, a..b, c..end])),
        ("repeated", parts(&[0..d, c..end])),
        ("of another journal", [&whole[..c], &other[c..]].concat()),
        ("behind the end", [&whole[..], &[0; 100]].concat()),
        (
            "in the middle",
            [&whole[..b], &[0; 4096], &whole[c..]].concat(),
        ),
    ] {
        fs::write(&first, bytes).unwrap();
        let error = take(&first, &second, begun("b/")).err().expect(what);
        let JournalError::Damaged { at, done, .. } = error else {
            panic!("{what}: {error}");
        };
        assert!(at as usize >= begin && done <= 3, "{what}");
    }
    // What stands before the damage is taken if that is wanted.
    fs::write(&first, parts(&[0..b, c..end])).unwrap();
    let (mut journal, known, remarks) =
        Journal::take_over(&first, &second, begun("b/"), "1f3a", true).unwrap();
    assert!(remarks.damage.unwrap().starts_with(&format!("byte {b}: ")));
    assert_eq!(known.len(), 1);
    add(&mut journal, 0);
    journal.flush().unwrap();
    drop((journal, known));
    let (_, known, remarks) = take(&second, &first, begun("c/")).unwrap();
    assert_eq!((known.len(), remarks), (2, Remarks::default()));
}

#[test]
fn an_entry_that_changes_after_it_was_found_is_an_error() {
    let (folder, first, whole) = journal();
    let second = folder.path().join("second");
    let (_journal, known, _) = take(&first, &second, begun("b/")).unwrap();
    let mut changed = whole.clone();
    let at = entries(&whole)[3] - 1;
    changed[at] ^= 1;
    let file = OpenOptions::new().write(true).open(&second).unwrap();
    file.write_all_at(&changed, 0).unwrap();
    assert!(known.get(3, &item(3), identity(3)).unwrap().is_some());
    let error = known.get(0, &item(0), identity(0)).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

#[test]
fn a_job_that_differs_is_refused_and_taken_only_if_that_is_wanted() {
    let (folder, first, _) = journal();
    let second = folder.path().join("second");
    let mut other = begun("b/");
    other.identity.sha256 = Some("cd".repeat(32));
    let error = take(&first, &second, other.clone()).err().unwrap();
    assert!(
        matches!(&error, JournalError::Differs { done: 3, .. }),
        "{error}"
    );
    let error = error.to_string();
    let words = [
        "the program is another than job 1f3a had",
        "--resume-anyway",
    ];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    assert!(first.exists(), "it can still be resumed by what it was");
    let (mut journal, known, remarks) =
        Journal::take_over(&first, &second, other.clone(), "1f3a", true).unwrap();
    assert!(remarks.difference.is_some());
    assert_eq!(known.former(), 3);
    // An item that changed is run again.
    assert!(known.get(7, &item(7), identity(7)).unwrap().is_some());
    assert!(known.get(7, &item(7), identity(8)).unwrap().is_none());
    add(&mut journal, 5);
    journal.flush().unwrap();
    drop((journal, known));
    // Outputs of both are there, which does not become right by another run.
    let again = take(&second, &first, other.clone());
    assert!(matches!(again, Err(JournalError::Differs { done: 4, .. })));
    let anyway = Journal::take_over(&second, &first, other, "1f3a", true);
    let (_, known, _) = anyway.unwrap();
    assert_eq!((known.len(), known.former()), (4, 3));
}

#[test]
fn a_journal_of_the_release_before_is_refused_by_name() {
    let (folder, first, mut whole) = journal();
    whole[7] = 1;
    fs::write(&first, whole).unwrap();
    let error = take(&first, &folder.path().join("second"), begun("b/"));
    let error = error.err().unwrap().to_string();
    assert!(error.contains("no journal of this release"), "{error}");
}

#[test]
fn outputs_whose_object_is_gone_or_has_another_length_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let mut journal = Journal::create(&first, begun("a/")).unwrap();
    for (number, seal) in [
        (0, None),
        (
            1,
            Some(Seal {
                nonce: 1,
                bytes: 10,
            }),
        ),
    ] {
        let stored = Answer {
            output: Output::Stored {
                key: number.to_string(),
                bytes: 10,
                crc32c: 0,
                seal,
            },
            ..answer("")
        };
        let took = Duration::ZERO;
        journal
            .done(number, identity(number), 0, took, &stored)
            .unwrap();
    }
    journal.flush().unwrap();
    drop(journal);
    let lengths = [10, 10 + 32 + 8 + 16];
    for (there, left) in [
        (lengths, 2),
        ([9, lengths[1]], 1),
        ([10, 10], 1),
        ([0, 0], 0),
    ] {
        let (_, mut known, _) = take(&first, &second, begun("b/")).unwrap();
        assert_eq!(known.stored_key(1), Some("1"));
        known.keep_stored(|key, bytes| there[key.parse::<usize>().unwrap()] == bytes);
        assert_eq!(known.len(), left, "{there:?}");
        assert_eq!(known.stored().count(), left);
        fs::rename(&second, &first).unwrap();
    }
}
