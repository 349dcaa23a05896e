//! The command line as such: help, exit codes, who speaks where, and `generate`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;

use crate::support::{Place, SECRET, assert_says};

/// What a pipe of Linux holds.
const PIPE_BYTES: usize = 64 * 1024;

const SUBCOMMANDS: [&str; 12] = [
    "preprocess",
    "serve",
    "invoke",
    "invoke pagerank",
    "jobs",
    "attach",
    "result",
    "cancel",
    "clean",
    "lambda",
    "generate",
    "local",
];

#[test]
fn help_opens_with_examples_and_the_top_lists_the_exit_codes() {
    let place = Place::new();
    let top = place.lswitch("--help").ok();
    assert!(top.stdout.starts_with("Examples:\n  lswitch "), "{top}");
    assert_says(
        &top.stdout,
        &[
            "Exit codes:",
            "0    done",
            "1    failed",
            "2    wrong usage",
            "129, 130, 131, 143\n       interrupted by SIGHUP, SIGINT",
        ],
    );
    for line in top.stdout.lines() {
        assert!(line.chars().count() <= 110, "{line:?} is too long");
    }
    let without: Vec<&str> = SUBCOMMANDS
        .into_iter()
        .filter(|subcommand| {
            let help = place.lswitch(&format!("{subcommand} --help")).ok();
            assert!(
                help.stdout
                    .contains(&format!("Usage: lswitch {subcommand}")),
                "{help}"
            );
            assert_eq!(help.stderr, "");
            let by_help = place.lswitch(&format!("help {subcommand}")).ok();
            assert_eq!(by_help.stdout, help.stdout);
            !help.stdout.starts_with("Examples:\n  ")
        })
        .collect();
    assert!(
        without.is_empty(),
        "no examples open the help of {without:?}"
    );
}

#[test]
fn the_examples_of_the_top_help_work_when_pasted() {
    let place = Place::new();
    let help = place.lswitch("--help").ok();
    let examples: Vec<&str> = help
        .stdout
        .lines()
        .skip(1)
        .map_while(|line| line.strip_prefix("  lswitch "))
        .collect();
    assert_eq!(examples.len(), 3, "{help}");
    for example in examples {
        place.lswitch(example).ok();
    }
}

#[test]
fn the_version_is_the_release() {
    let version = Place::new().lswitch("--version").ok();
    assert_eq!(version.stdout, format!("lswitch {}\n", lswitch::RELEASE));
}

#[test]
fn wrong_words_are_wrong_usage() {
    let place = Place::new();
    place.small_graph();
    for arguments in [
        "",
        "nonsense",
        "--nonsense",
        "invoke",
        "invoke nonsense",
        "preprocess",
        "preprocess graph.txt --parts x --out graph",
        "preprocess graph.txt --parts -1 --out graph",
        "preprocess graph.txt --parts 2",
        "preprocess graph.txt --parts 2 --out graph --partitioner best",
        "generate cube --scale 3",
        "generate rmat",
        "generate rmat --scale 0",
        "generate rmat --scale 32",
        "generate rmat --scale x",
        "generate rmat --scale 4 --edge-factor 0",
        "generate rmat --scale 4 --edge-factor 5000000000",
        "generate rmat --scale 4 --seed -1",
        "local --listen nowhere",
        "local --concurrency x",
        "lambda --nonsense",
        "invoke pagerank",
        "invoke pagerank --graph graph --nonsense",
        "invoke pagerank --graph graph --workers 0",
        "invoke pagerank --graph graph --workers x",
        "invoke pagerank --graph graph --workers 5",
        "invoke pagerank --graph graph --workers-per-function 0",
        "invoke pagerank --graph graph --workers-per-function 257",
        "invoke pagerank --graph graph --damping 1.01",
        "invoke pagerank --graph graph --damping=-0.1",
        "invoke pagerank --graph graph --damping NaN",
        "invoke pagerank --graph graph --damping inf",
        "invoke pagerank --graph graph --damping x",
        "invoke pagerank --graph graph --tolerance 0",
        "invoke pagerank --graph graph --tolerance=-1e-9",
        "invoke pagerank --graph graph --tolerance NaN",
        "invoke pagerank --graph graph --tolerance inf",
        "invoke pagerank --graph graph --top 100001",
        "invoke pagerank --graph graph --top=-1",
        "invoke pagerank --graph graph --iterations 4294967296",
        "invoke pagerank --graph graph --iterations=-1",
        "invoke pagerank --graph graph --dangling keep",
        "invoke pagerank --graph graph --timeout x",
    ] {
        let ended = place.lswitch(arguments).end();
        assert_eq!(ended.code, Some(2), "{ended}");
        assert_eq!(ended.stdout, "", "{ended}");
        assert_ne!(ended.stderr, "", "{ended}");
        assert!(!ended.stderr.contains("panicked"), "{ended}");
    }
}

#[test]
fn a_setting_out_of_range_is_named_with_its_range() {
    let place = Place::new();
    place.small_graph();
    for (arguments, words) in [
        ("--damping 1.5", ["--damping", "from 0 to 1, not 1.5"]),
        ("--damping NaN", ["--damping", "from 0 to 1, not NaN"]),
        ("--tolerance 0", ["--tolerance", "over 0, not 0"]),
        ("--tolerance inf", ["--tolerance", "not inf"]),
        ("--top 100001", ["--top", "at most 100000; --output"]),
        ("--workers 0", ["--workers", "at least 1"]),
        (
            "--workers 5",
            ["5 ranks cannot share 4 parts", "preprocess"],
        ),
        (
            "--workers-per-function 300",
            ["--workers-per-function", "up to 256"],
        ),
        (
            "--iterations 4294967296",
            ["--iterations", "up to 4294967295"],
        ),
    ] {
        let arguments = format!("invoke pagerank --graph graph {arguments}");
        assert_says(place.lswitch(&arguments).end().fails_with(2), &words);
    }
    for (arguments, words) in [
        ("--scale 0", ["scale is 0", "1 to 31"]),
        ("--scale 32", ["scale is 32", "1 to 31"]),
        (
            "--scale 4 --edge-factor 0",
            ["edge-factor is 0", "1 to 1024"],
        ),
        (
            "--scale 4 --edge-factor 1025",
            ["edge-factor is 1025", "1 to 1024"],
        ),
    ] {
        for kind in ["rmat", "uniform"] {
            let arguments = format!("generate {kind} {arguments} --out edges.txt");
            assert_says(place.lswitch(&arguments).end().fails_with(2), &words);
            assert!(!place.path("edges.txt").exists());
        }
    }
}

#[test]
fn a_worker_without_lambda_is_wrong_usage_with_advice() {
    let ended = Place::new().lswitch("lambda").end();
    assert_says(
        ended.fails_with(2),
        &["AWS_LAMBDA_RUNTIME_API is not set", "lswitch invoke"],
    );
}

#[test]
fn without_arguments_lambda_is_served_and_a_runtime_that_is_gone_ends_the_worker() {
    let place = Place::new();
    for arguments in ["", "lambda"] {
        let ended = place
            .lswitch(arguments)
            .env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
            .env("AWS_LAMBDA_FUNCTION_NAME", "lswitch")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/lswitch")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
            .within_s(30)
            .end();
        assert_says(ended.fails_with(1), &["the Lambda runtime failed"]);
    }
}

#[test]
fn a_runtime_that_says_too_little_is_told_apart_from_a_broken_worker() {
    let ended = Place::new()
        .lswitch("lambda")
        .env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
        .within_s(30)
        .end();
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    assert!(matches!(ended.code, Some(1 | 2)), "{ended}");
}

/// Every kind of output that a command can print, with the files it needs.
fn speakers(place: &Place) -> [&'static str; 8] {
    place.small_graph();
    [
        "--help",
        "--version",
        "generate rmat --scale 12",
        "generate uniform --scale 12",
        "preprocess graph.txt --parts 4 --out graph --overwrite",
        "preprocess graph.txt --parts 4 --out graph --overwrite --json",
        "invoke pagerank --graph graph --top 256",
        "invoke pagerank --graph graph --top 256 --json",
    ]
}

#[test]
fn a_reader_of_stdout_that_went_away_is_no_error() {
    let place = Place::new();
    for arguments in speakers(&place) {
        let (reader, writer) = std::io::pipe().expect("pipes can be made");
        drop(reader);
        let ended = place.lswitch(arguments).stdout(writer).end();
        assert_eq!(ended.code, Some(0), "{ended}");
        assert!(!ended.stderr.contains("lswitch: "), "{ended}");
        assert!(!ended.stderr.contains("panicked"), "{ended}");
    }
}

#[test]
fn a_reader_of_stderr_that_went_away_is_no_error() {
    let place = Place::new();
    for arguments in speakers(&place) {
        let (reader, writer) = std::io::pipe().expect("pipes can be made");
        drop(reader);
        let ended = place.lswitch(arguments).stderr(writer).end();
        assert_eq!(ended.code, Some(0), "{ended}");
    }
    let (reader, writer) = std::io::pipe().expect("pipes can be made");
    drop(reader);
    let ended = place
        .lswitch("invoke pagerank --graph nothing")
        .stderr(writer)
        .end();
    assert_eq!(ended.code, Some(1), "{ended}");
}

#[test]
fn a_full_disk_behind_stdout_is_an_error() {
    let place = Place::new();
    for arguments in speakers(&place).into_iter().skip(2) {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let ended = place
            .lswitch(arguments)
            .stdout(full.expect("Linux has it"))
            .end();
        assert_eq!(ended.code, Some(1), "{ended}");
        assert_says(ended.message(), &["No space left on device"]);
    }
}

#[test]
fn quiet_commands_say_nothing_on_success_and_still_say_what_went_wrong() {
    let place = Place::new();
    place.small_graph();
    for arguments in [
        "generate rmat --scale 6 --out more.txt --quiet",
        "--quiet preprocess graph.txt --parts 4 --out graph --overwrite --json",
        "preprocess graph.txt --parts 4 --out graph --overwrite --quiet",
        "invoke pagerank --graph graph -q",
        "invoke pagerank --graph graph --output ranks --json -q",
    ] {
        let ended = place.lswitch(arguments).ok();
        assert_eq!(ended.stderr, "", "{ended}");
        assert_eq!(
            ended.stdout.is_empty(),
            arguments.starts_with("generate"),
            "{ended}"
        );
    }
    let failed = place.lswitch("invoke pagerank --graph nothing -q").end();
    assert_eq!(failed.fails_with(1), failed.stderr.trim_end());
}

#[test]
fn without_quiet_people_hear_what_goes_on_and_what_is_next() {
    let place = Place::new();
    let generated = place
        .lswitch("generate rmat --scale 6 --out edges.txt")
        .ok();
    assert_eq!(generated.stdout, "");
    assert_says(
        &generated.stderr,
        &["wrote 1024 edges to edges.txt; next: lswitch preprocess"],
    );
    place
        .lswitch("preprocess edges.txt --parts 2 --out graph")
        .ok();
    let ranked = place
        .lswitch("invoke pagerank --graph graph --tolerance 1e-9 --top 5 --output ranks")
        .ok();
    assert_eq!(
        ranked.stdout.lines().count(),
        6,
        "a header and the top five: {ranked}"
    );
    assert_says(
        &ranked.stderr,
        &[
            "2 workers in 2 function instances",
            "converged",
            "sum of ranks 1.0",
            "all ranks are in ranks",
        ],
    );
    assert!(
        !ranked.stderr.contains('\u{1b}'),
        "colours without a terminal: {ranked}"
    );
}

#[test]
fn json_is_one_line_and_nothing_else_on_stdout() {
    let place = Place::new();
    place.small_graph();
    for (arguments, keys) in [
        (
            "preprocess graph.txt --parts 4 --out graph --overwrite --json",
            &["format", "version", "parts", "bytes"][..],
        ),
        (
            "invoke pagerank --graph graph --json",
            &[
                "program",
                "job",
                "iterations",
                "l1_change",
                "converged",
                "sum",
                "top",
                "messages",
                "bytes",
                "seconds",
            ],
        ),
    ] {
        let json = place.lswitch(arguments).ok().json();
        for key in keys {
            assert!(!json[key].is_null(), "{key} is missing in {json}");
        }
    }
    let without = place
        .lswitch("invoke pagerank --graph graph --json")
        .ok()
        .json();
    assert!(
        without["arrivals"].is_null(),
        "arrivals are for tests: {without}"
    );
}

#[test]
fn the_same_seed_gives_the_same_graph_and_another_seed_another() {
    let place = Place::new();
    for kind in ["rmat", "uniform"] {
        let generate = |more: &str| {
            let arguments = format!("generate {kind} --scale 7 --edge-factor 5 {more}");
            place.lswitch(&arguments).ok().stdout
        };
        let first = generate("--seed 11");
        assert_eq!(first, generate("--seed 11"));
        assert_eq!(generate(""), generate("--seed 1"), "the default seed is 1");
        assert_ne!(first, generate("--seed 12"));
        let edges: Vec<&str> = first
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert_eq!(edges.len(), 5 << 7);
        for edge in edges {
            let (source, target) = edge.split_once('\t').expect("two columns");
            for id in [source, target] {
                assert!(id.parse::<u64>().is_ok_and(|id| id < 1 << 7), "{edge}");
            }
        }
        place
            .lswitch(&format!(
                "generate {kind} --scale 7 --edge-factor 5 --seed 11 --out file"
            ))
            .ok();
        let file = fs::read_to_string(place.path("file")).expect("it was just written");
        assert_eq!(file, first, "the file has what stdout has");
        let json = place
            .lswitch("preprocess file --parts 3 --out graph --overwrite --json")
            .ok()
            .json();
        assert_eq!(json["edges"], 5 << 7);
    }
    let rmat = place.lswitch("generate rmat --scale 7 --seed 11").ok();
    let uniform = place.lswitch("generate uniform --scale 7 --seed 11").ok();
    assert_ne!(rmat.stdout.lines().nth(3), uniform.stdout.lines().nth(3));
}

#[test]
fn a_graph_that_cannot_be_written_leaves_no_file_and_the_old_one_as_it_was() {
    let place = Place::new();
    fs::create_dir(place.path("out")).expect("a folder can be made");
    place.write("out/old.txt", "1 2\n");
    for name in ["new.txt", "old.txt"] {
        let full = place
            .lswitch_after(
                "trap '' XFSZ; ulimit -f 8",
                &format!("generate rmat --scale 12 --out out/{name}"),
            )
            .end();
        assert_says(
            full.fails_with(1),
            &[&format!("cannot write out/{name}"), "File too large"],
        );
    }
    let left: Vec<_> = fs::read_dir(place.path("out"))
        .expect("it was made")
        .map(|entry| entry.expect("a folder can be read").file_name())
        .collect();
    assert_eq!(left, ["old.txt"]);
    assert_eq!(
        fs::read(place.path("out/old.txt")).expect("it is there"),
        b"1 2\n"
    );

    let nowhere = place
        .lswitch("generate rmat --scale 4 --out no/where.txt")
        .end();
    assert_says(
        nowhere.fails_with(1),
        &["cannot write", "no", "No such file"],
    );
}

#[test]
fn what_is_no_file_is_written_to_and_not_replaced() {
    let place = Place::new();
    let pipe = place.path("pipe");
    make_pipe(&pipe);
    // Opened for both, so that neither side waits for the other.
    let _open = fs::OpenOptions::new().read(true).write(true).open(&pipe);
    place
        .lswitch("generate rmat --scale 4 --edge-factor 1 --out pipe")
        .within_s(20)
        .ok();
    let kind = fs::symlink_metadata(&pipe)
        .expect("it is there")
        .file_type();
    assert!(
        kind.is_fifo(),
        "a pipe was replaced by a file; --out /dev/null as root would lose the device"
    );

    place.write("target.txt", "1 2\n");
    std::os::unix::fs::symlink("target.txt", place.path("link.txt")).expect("links can be made");
    place
        .lswitch("generate rmat --scale 4 --edge-factor 1 --out link.txt")
        .ok();
    let written = fs::read_to_string(place.path("target.txt")).expect("it is there");
    assert_eq!(written.lines().count(), 2 + 16, "a link is written through");
}

fn make_pipe(path: &std::path::Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("coreutils has it").success());
}

#[test]
fn a_switch_and_a_local_lambda_tell_where_they_listen_and_end_with_0() {
    use rustix::process::Signal;
    let place = Place::new();
    for signal in [Signal::TERM, Signal::INT] {
        let (serve, address) = place.switch();
        assert!(
            address.starts_with("127.0.0.1:") && !address.ends_with(":0"),
            "{address}"
        );
        serve.signal(signal);
        let ended = serve.within_s(10).wait().ok();
        assert_eq!(ended.stdout.lines().count(), 1, "{ended}");
        assert_says(&ended.stderr, &["listens at", "the switch is down"]);

        let (local, endpoint) = place.local();
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
        local.signal(signal);
        let ended = local.within_s(10).wait().ok();
        assert_eq!(ended.stdout.lines().count(), 1, "{ended}");
        assert_says(&ended.stderr, &["serves lswitch at", "is down"]);
    }
}

#[test]
fn a_server_that_has_told_its_address_takes_a_signal_in_order() {
    use rustix::process::Signal;
    let place = Place::new();
    fs::create_dir_all(place.path("home/.lswitch/functions")).expect("a folder can be made");
    for server in ["serve", "local"] {
        // Nobody reads what it says to people, and the pipe is full, so it cannot get further than telling its address.
        let (mut reader, mut writer) = std::io::pipe().expect("pipes can be made");
        writer
            .write_all(&[b' '; PIPE_BYTES])
            .expect("an empty pipe takes it");
        let running = place
            .lswitch(&format!("{server} --listen 127.0.0.1:0 --json"))
            .env("LSWITCH_SECRET", SECRET)
            .stderr(writer)
            .start();
        assert_says(&running.first_line(), &["127.0.0.1:"]);
        running.signal(Signal::TERM);
        let draining = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        running.within_s(10).wait().ok();
        let drained = draining.join().expect("it does not panic");
        drained.expect("a pipe can be read");
    }
}

#[test]
fn a_local_lambda_needs_no_functions_of_the_users_own() {
    use rustix::process::Signal;
    let place = Place::new();
    let local = place.lswitch("local --listen 127.0.0.1:0 --json").start();
    assert_says(&local.first_line(), &["\"functions\":[\"lswitch\"]"]);
    local.signal(Signal::TERM);
    local.within_s(10).wait().ok();
}
