//! The README's commands, run as they stand.

use crate::support::Place;
use std::path::Path;
use std::process::Command;

/// The first shell block after the mark.
fn commands(readme: &str, mark: &str) -> Vec<String> {
    let after = readme
        .split_once(mark)
        .expect("the mark is in the README")
        .1;
    let block = after.split("```").nth(1).expect("a block follows the mark");
    let lines = block.strip_prefix("sh\n").expect("it is a shell block");
    lines.lines().map(str::to_string).collect()
}

/// Runs commands one after the other in a folder; what each said on stdout and stderr.
fn paste(commands: Vec<String>, folder: &Path) -> Vec<(String, String)> {
    let binary = Path::new(env!("CARGO_BIN_EXE_lswitch"));
    let path = format!(
        "{}:{}",
        binary
            .parent()
            .expect("the binary is in a folder")
            .display(),
        std::env::var("PATH").expect("there is a PATH")
    );
    let mut said = Vec::new();
    for command in commands {
        let output = Command::new("sh")
            .args(["-ec", &command])
            .current_dir(folder)
            .env("PATH", &path)
            .env("LSWITCH_HOME", folder.join("home"))
            .output()
            .expect("there is a shell");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}\n{errors}");
        said.push((String::from_utf8_lossy(&output.stdout).into_owned(), errors));
    }
    said
}

#[test]
fn the_benches_of_the_readme_run_when_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("there is a README");
    let commands = commands(&readme, "How fast is it?");
    assert_eq!(commands.len(), 3, "{commands:?}");
    let place = Place::new();
    for command in commands {
        let arguments = command.strip_prefix("lswitch ").expect("it is ours");
        let short = format!("{arguments} --seconds 0.1 --warm-up 0");
        let table = place.lswitch(&short).ok().stdout;
        assert!(
            table.contains("p50 us") && table.lines().count() > 1,
            "{table}"
        );
    }
}

#[test]
fn the_commands_for_any_program_work_when_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("there is a README");
    let commands = commands(&readme, "## Any program, on many items");
    let said = paste(commands, tempfile::tempdir().expect("a folder").path());
    let lines = |number: usize| said[number].0.lines();
    assert_eq!(lines(0).next(), Some("1000: 2 2 2 5 5 5"));
    assert!(lines(1).eq((1..=100).map(|number| (number * number).to_string())));
    assert!(lines(3).eq(["a\t2", "and\t1", "cat\t2", "dog\t1", "the\t1"]));
    assert!(said[6].0.contains("100000"), "{:?}", said[6]);
    let counts: Vec<String> = lines(9).map(|line| line.trim().to_string()).collect();
    assert_eq!(counts, ["2 a", "1 and", "2 cat", "1 dog", "1 the"]);
    assert_eq!(said[10].0, "500500\n");
}

#[test]
fn the_commands_for_jobs_in_the_background_work_when_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("there is a README");
    let commands = commands(&readme, "## Jobs in the background");
    assert_eq!(commands.len(), 5, "{commands:?}");
    // The first sets a variable for the others.
    let commands = vec![commands.join("\n")];
    let said = paste(commands, tempfile::tempdir().expect("a folder").path());
    let results = said[0].0.matches("1000: 2 2 2 5 5 5\n1001: ");
    assert_eq!(results.count(), 2, "attach and result: {said:?}");
}

#[test]
fn the_commands_for_a_laptop_work_when_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("there is a README");
    let commands = commands(&readme, "run by tests/it/readme.rs");
    assert!(commands.len() >= 3, "{commands:?}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = paste(commands, folder.path());
    let (table, errors) = said.last().expect("there were commands");
    assert_eq!(
        table.lines().count(),
        21,
        "a head and twenty vertices:\n{table}"
    );
    assert!(errors.contains("converged"), "{errors}");
    let ranks = std::fs::read_to_string(folder.path().join("ranks/part-00000.tsv"))
        .expect("all ranks were written");
    let (_, rank) = ranks
        .lines()
        .next()
        .expect("a line")
        .split_once('\t')
        .expect("two columns");
    assert_eq!(
        rank.bytes().filter(u8::is_ascii_digit).count(),
        18,
        "17 digits and an exponent: {rank}"
    );
}

#[test]
fn the_other_programs_of_the_readme_run_when_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("there is a README");
    let place = Place::new();
    let preparing = commands(&readme, "run by tests/it/readme.rs");
    let others = commands(&readme, "PageRank is not all");
    assert_eq!(others.len(), 4, "{others:?}");
    for command in preparing[..2].iter().chain(&others) {
        let arguments = command.strip_prefix("lswitch ").expect("it is ours");
        place.lswitch(arguments).ok();
    }
    assert!(place.path("hops/part-00003.tsv").is_file());
    assert!(place.path("coefficients/result.json").is_file());
}
