//! What goes on with a map: `--reduce`, `--combine`, batches, and `--resume`.

use crate::support::{Place, assert_gone, assert_says, children, data};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn script(place: &Place, name: &str, text: &str) {
    let path = place.write(name, format!("#!/bin/sh\n{text}"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Words of a text on lines, with a count of one each; and their sum for each word.
fn word_count(place: &Place) {
    script(
        place,
        "words",
        "tr A-Z a-z | tr -cs a-z '\\n' | awk 'length { print $1 \"\\t1\" }'\n",
    );
    script(
        place,
        "sum",
        "awk -F '\\t' '{ if (NR > 1 && $1 != word) { print word \"\\t\" sum; sum = 0 } word = $1; sum += $2 }\n\
         END { if (NR) print word \"\\t\" sum }'\n",
    );
}

/// Jobs of this place that have left something to go on with.
fn unfinished(place: &Place) -> Vec<String> {
    let Ok(jobs) = fs::read_dir(place.path("home/.lswitch/jobs")) else {
        return Vec::new();
    };
    let jobs = jobs.map(|job| job.unwrap());
    let jobs = jobs.filter(|job| job.path().join("journal").exists());
    jobs.map(|job| job.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn counts_of_words_are_those_of_the_reference_whatever_the_memory() {
    let Some(texts) = data("text") else {
        return;
    };
    let place = Place::new();
    word_count(&place);
    let texts = texts.display();
    let expected = place
        .lswitch(&format!("invoke wordcount --input {texts}/*.txt"))
        .ok()
        .stdout;
    for more in ["--workers 1", "--workers 3 --memory 1MiB"] {
        let ended = place
            .lswitch(&format!(
                "invoke map --exec ./words --items {texts}/*.txt --split 300kB --reduce ./sum {more}"
            ))
            .ok();
        assert!(ended.stdout == expected, "{more}: {}", ended.stderr);
    }
    let told = place
        .lswitch(&format!(
            "invoke map --exec ./words --items {texts}/*.txt --reduce ./sum --workers 2 --memory 1MiB --output counts --json"
        ))
        .ok();
    let told: serde_json::Value =
        serde_json::from_str(told.stdout.lines().last().unwrap()).unwrap();
    assert!(told["spilled_bytes"].as_u64().unwrap() > 0, "{told}");
    let parts: String = ["part-00000.txt", "part-00001.txt"]
        .map(|part| fs::read_to_string(place.path("counts").join(part)).unwrap())
        .concat();
    assert!(parts == expected);
    let left = fs::read_dir(place.path(".lswitch/map")).unwrap().count();
    assert_eq!(left, 0, "what was for the job alone goes with it");
    assert!(unfinished(&place).is_empty());
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn lines_of_a_key_are_together_and_in_order_and_a_killed_worker_changes_nothing() {
    let place = Place::new();
    // Keys without values, with several, empty ones, one that is most of it, and outputs without an end.
    script(
        &place,
        "spread",
        "read n; i=0; while [ $i -lt 200 ]; do i=$((i+1))\n\
         echo \"key$((i % 7))\t$n $i\"; echo alone$i; echo \"\t$i\"; done; printf 'big\t%s' $n\n",
    );
    // Every key is seen once only at one worker.
    script(
        &place,
        "once",
        "export LC_ALL=C; awk -F '\\t' '{ if (\"x\" $0 < line) bad = 9; line = \"x\" $0; count[$1]++; if (\"x\" $1 != key && seen[$1]++) bad = 8; key = \"x\" $1 }\n\
         END { for (key in count) print key \"=\" count[key]; exit bad }' > found || exit 9; sort found\n",
    );
    let run = || {
        place.lswitch(
            "invoke map --exec ./spread --items 0..40 --workers 3 --memory 1MiB --reduce ./once --combine 'sort'",
        )
    };
    let whole = run().ok().stdout;
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(lines.len(), 7 + 200 + 1 + 1, "{whole}");
    assert!(lines.contains(&"=8000") && lines.contains(&"big=40") && lines.contains(&"alone7=40"));

    let running = run().start();
    let id = running.id();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut killed = Vec::new();
    while killed.is_empty() && Instant::now() < deadline && running.is_running() {
        std::thread::sleep(Duration::from_millis(100));
        if let Some(worker) = children(id).into_iter().find(|worker| worker.is_there()) {
            worker.signal(Signal::KILL);
            killed.push(worker);
        }
    }
    assert_eq!(running.wait().ok().stdout, whole);
    assert_gone(&killed, 5);
}

#[test]
fn programs_that_fail_afterwards_are_named_and_what_was_mapped_is_kept() {
    let place = Place::new();
    script(
        &place,
        "fails",
        "cat > /dev/null; echo what is wrong >&2; exit 5\n",
    );
    for flag in ["--reduce", "--combine"] {
        let ended = place
            .lswitch(&format!(
                "invoke map --exec cat --items 0..5 --retries 1 {flag} ./fails"
            ))
            .end();
        assert_eq!(ended.code, Some(1), "{ended}");
        assert_says(&ended.stderr, &["failed", "exit code 5", "what is wrong"]);
        let jobs = unfinished(&place);
        assert_eq!(jobs.len(), 1, "{ended}");
        // The items are not run again; neither need be the failed program.
        let ended = place
            .lswitch(&format!(
                "invoke map --exec cat --items 0..5 {flag} cat --resume {}",
                jobs[0]
            ))
            .ok();
        assert_eq!(ended.stdout, "0\n1\n2\n3\n4\n");
        assert_says(&ended.stderr, &["5 items were done by job"]);
        assert!(unfinished(&place).is_empty());
    }
    for (flag, words) in [
        ("--reduce ./nothing", "there is no file ./nothing"),
        ("--combine ''", "names no program"),
        (
            "--reduce nothing-of-this-name",
            "there is no program nothing-of-this-name",
        ),
    ] {
        let mut run = place.lswitch("invoke map --exec cat --items 0..5");
        let (flag, program) = flag.split_once(' ').unwrap();
        run = run.arg(flag).arg(program.trim_matches('\''));
        let ended = run.end();
        assert!(matches!(ended.code, Some(1 | 2)), "{ended}");
        assert_says(&ended.stderr, &[words]);
    }
}

#[test]
fn one_program_sees_everything_in_order_and_what_failed() {
    let place = Place::new();
    // Long outputs lie in the store, short ones travel; both come in their places.
    script(
        &place,
        "print",
        "read n; [ $n = 4 ] && { echo broken >&2; exit 3; }\n\
         case $n in 3|7) head -c 100000 /dev/zero | tr '\\0' x;; esac; echo \" $n\"\n",
    );
    script(
        &place,
        "all",
        "tr -d x; wc -l < $LSWITCH_REPORT; grep -c '\"problem\":null' $LSWITCH_REPORT\n\
         grep -o '\"stderr\":\"broken' $LSWITCH_REPORT; grep -o '\"bytes\":100003' $LSWITCH_REPORT | wc -l\n",
    );
    let run = |more: &str| {
        place.lswitch(&format!(
            "invoke burst --exec ./print --items 0..10 --max-parallel 2 --retries 0 --combine ./all {more}"
        ))
    };
    let expected = " 0\n 1\n 2\n 3\n 5\n 6\n 7\n 8\n 9\n10\n9\n\"stderr\":\"broken\n2\n";
    assert_eq!(run("--tolerate-failures 10%").ok().stdout, expected);
    run("--tolerate-failures 10% --output all.out").ok();
    let written = fs::read_to_string(place.path("all.out/part-00000.txt")).unwrap();
    assert_eq!(written, expected);
    let ended = run("--tolerate-failures 10% --output all.out").end();
    assert_eq!(ended.code, Some(2), "{ended}");
    assert_says(ended.message(), &["--overwrite"]);
    run("--tolerate-failures 10% --output all.out --overwrite").ok();
    let ended = run("").end();
    assert_eq!((ended.code, &ended.stdout[..]), (Some(3), ""), "{ended}");
    assert_says(
        &ended.stderr,
        &["1 of 10", "--tolerate-failures", "--resume"],
    );
}

#[test]
fn items_are_given_in_batches_as_lines_or_arguments() {
    let place = Place::new();
    let run = |items: &str, arguments: &str| {
        place
            .lswitch(&format!(
                "invoke map --workers 2 {items} --exec {arguments}"
            ))
            .ok()
            .stdout
    };
    let lines: String = (0..1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(run("--items 0..1000 --batch-size 64", "cat"), lines);
    place.write("lines", &lines);
    assert_eq!(run("--items lines --batch-size 300", "cat"), lines);
    assert_eq!(
        run("--items 7..12 --batch-size 2", "echo -- a {} b"),
        "a 7 8 b\na 9 10 b\na 11 b\n"
    );
    let folder = place.path("texts");
    fs::create_dir(&folder).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(folder.join(name), format!("in {name}\n")).unwrap();
    }
    let texts = "--items texts/* --batch-size 2";
    assert_eq!(run(texts, "cat"), "in a\nin b\nin c\n");
    assert_eq!(
        run(texts, "cat -- {} {}"),
        "in a\nin b\nin a\nin b\nin c\nin c\n"
    );
    assert_eq!(
        run("--items texts/* --split 3B --batch-size 2", "cat -- {}"),
        "in a\nin b\nin c\n"
    );
    let ended = place
        .lswitch("invoke map --items 100..111 --batch-size 4 --exec sh -- -c")
        .arg("echo $LSWITCH_FROM $LSWITCH_TO $LSWITCH_ITEM")
        .ok();
    assert_eq!(ended.stdout, "100 104 0\n104 108 1\n108 111 2\n");
    // One that fails is tried again as a whole, after its time is over.
    let ended = place
        .lswitch("invoke burst --items 0..8 --batch-size 4 --batch-timeout 1 --retries 1 --no-backups --json --exec sh -- -c")
        .arg("grep -q 5 && sleep 60; echo fine")
        .end();
    assert_eq!(ended.code, Some(3), "{ended}");
    let lines: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&lines[1]["item"], &lines[1]["failures"]),
        (&"4..8".into(), &2.into())
    );
    assert_eq!(lines[0]["output"], "fine\n");
    let ended = place
        .lswitch("invoke map --items 0..8 --batch-size 4 --exec echo -- x{}")
        .end();
    assert_eq!(ended.code, Some(2), "{ended}");
    assert_says(ended.message(), &["{} stands alone"]);
}

#[test]
fn a_job_whose_driver_was_killed_is_gone_on_with() {
    let place = Place::new();
    let ran = place.path("ran");
    let text = format!(
        "read n; echo $n >> {}; [ $n -ge 20 ] && [ ! -e {} ] && sleep 600\n\
         case $n in 2) head -c 100000 /dev/zero | tr '\\0' y;; esac; echo $n\n",
        ran.display(),
        place.path("go").display()
    );
    script(&place, "work", &text);
    let run = |more: &str| {
        place.lswitch(&format!(
            "invoke map --exec ./work --items 0..30 --workers 2 --no-backups {more}"
        ))
    };
    let running = run("").start();
    let deadline = Instant::now() + Duration::from_secs(30);
    while fs::read_to_string(&ran).unwrap_or_default().lines().count() < 22 {
        assert!(Instant::now() < deadline, "it does not come so far");
        std::thread::sleep(Duration::from_millis(20));
    }
    let job = unfinished(&place).remove(0);
    // While it runs, nobody else has it.
    let ended = run(&format!("--resume {job}")).end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert_says(ended.message(), &["still runs"]);
    std::thread::sleep(Duration::from_millis(200));
    let workers = children(running.id());
    running.signal(Signal::KILL);
    running.wait();
    fs::write(place.path("go"), "").unwrap();
    let before = fs::read_to_string(&ran).unwrap().lines().count();
    // Others than they were.
    let ended = place
        .lswitch(&format!(
            "invoke map --exec ./work --items 1..31 --workers 2 --resume {job}"
        ))
        .end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert_says(&ended.stderr, &["item 0 is now 1"]);
    let job = unfinished(&place).remove(0);
    let ended = run(&format!("--resume {job}")).ok();
    let expected: String = (0..30)
        .map(|number| match number {
            2 => format!("{}2\n", "y".repeat(100_000)),
            _ => format!("{number}\n"),
        })
        .collect();
    assert!(ended.stdout == expected, "{}", ended.stderr);
    assert_says(
        &ended.stderr,
        &["20 items were done by job", "30 items: 30 done"],
    );
    let after = fs::read_to_string(&ran).unwrap().lines().count();
    assert!(after - before <= 12, "{} were run again", after - before);
    assert!(unfinished(&place).is_empty());
    assert_gone(&workers, 20);
    for (job, words) in [
        ("0123456789abcdef", "no job of this machine begins with"),
        (&job[..16], "has left nothing to go on with"),
    ] {
        let ended = run(&format!("--resume {job}")).end();
        assert_eq!(ended.code, Some(2), "{ended}");
        assert_says(ended.message(), &[words]);
    }
}

#[test]
fn workers_that_others_start_are_there_with_the_first() {
    let place = Place::new();
    // Each waits for all others: no item is done unless as many workers are there.
    script(
        &place,
        "together",
        &format!(
            "read n; cd {}; touch $n; i=0; while [ $(ls | wc -l) -lt 11 ]; do i=$((i+1)); [ $i -gt 400 ] && exit 1; sleep 0.05; done; echo $n\n",
            place.path("there").display()
        ),
    );
    for levels in [2, 3] {
        let _ = fs::remove_dir_all(place.path("there"));
        fs::create_dir(place.path("there")).unwrap();
        let ended = place
            .lswitch(&format!(
                "invoke map --exec ./together --items 0..11 --workers 11 --levels {levels} --no-backups --retries 0"
            ))
            .ok();
        let expected: String = (0..11).map(|number| format!("{number}\n")).collect();
        assert_eq!(ended.stdout, expected);
    }
}

#[test]
fn whoever_interrupts_a_later_phase_ends_it_in_order() {
    let place = Place::new();
    let flag = place.path("reducing");
    script(
        &place,
        "waits",
        &format!("touch {}; sleep 600\n", flag.display()),
    );
    for phase in ["--reduce", "--combine"] {
        let running = place
            .lswitch(&format!(
                "invoke map --exec cat --items 0..5 {phase} ./waits"
            ))
            .start();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !flag.exists() {
            assert!(Instant::now() < deadline, "it does not come so far");
            std::thread::sleep(Duration::from_millis(20));
        }
        let workers = children(running.id());
        running.signal(Signal::INT);
        let ended = running.wait();
        assert_eq!(ended.code, Some(130), "{ended}");
        assert_says(&ended.stderr, &["--resume"]);
        assert!(!ended.stderr.contains("without cleaning up"), "{ended}");
        assert_gone(&workers, 10);
        fs::remove_file(&flag).unwrap();
    }
    let left = fs::read_dir(place.path(".lswitch/reduce")).unwrap().count();
    assert_eq!(left, 0, "lists and spill go with the phase");
}

#[test]
fn an_item_that_many_long_outputs_wait_for_is_run_when_the_job_is_gone_on_with() {
    let place = Place::new();
    script(
        &place,
        "long",
        &format!(
            "read n; [ $n = 0 ] && [ ! -e {} ] && exit 1; head -c 60000 /dev/zero | tr '\\0' x; echo $n\n",
            place.path("go").display()
        ),
    );
    let run = |more: &str| {
        place.lswitch(&format!(
            "invoke map --exec ./long --items 0..1300 --workers 2 --retries 0 --no-backups {more}"
        ))
    };
    let ended = run("").stdout(Stdio::null()).within_s(120).end();
    assert_eq!(ended.code, Some(3), "{ended}");
    fs::write(place.path("go"), "").unwrap();
    let ended = run(&format!("--resume {}", unfinished(&place)[0]))
        .within_s(60)
        .ok();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 1300);
    assert!(lines[0].ends_with("x0") && lines[1299].ends_with("x1299"));
}
