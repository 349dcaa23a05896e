//! Graph, job store and ranks in S3, through an S3 server in this process.

use std::path::Path;

use crate::support::{Output, Place, S3Server, assert_says, s3_server};

/// The ranks that a job wrote to S3, read where the server keeps them.
fn output(server: &S3Server, folder: &Path, prefix: &str) -> Output {
    let folder = folder.join(&server.bucket).join(prefix);
    let files = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder can be read").path())
        .filter(|path| path.extension().is_some_and(|end| end == "tsv"))
        .map(|path| {
            let name = path.file_name().expect("it has a name").to_string_lossy();
            let bytes = std::fs::read(&path).expect("a file can be read");
            (name.into_owned(), bytes)
        });
    Output {
        files: files.collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_on_this_machine_use_the_profile_that_the_driver_was_given() {
    let place = Place::new();
    let server = s3_server(&place.path("s3")).await;
    place.small_graph();
    let (endpoint, key, secret) = (&server.endpoint, &server.access_key, &server.secret_key);
    place.write(
        "home/.aws/config",
        format!("[profile work]\nregion = eu-west-3\nendpoint_url = {endpoint}\n"),
    );
    place.write(
        "home/.aws/credentials",
        format!("[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"),
    );
    let graph = format!("s3://{}/graph", server.bucket);
    place
        .lswitch(&format!(
            "preprocess graph.txt --parts 4 --out {graph} --profile work"
        ))
        .ok();
    place
        .lswitch(&format!("invoke pagerank --graph {graph} --profile work"))
        .ok();
    place
        .lswitch(&format!("invoke pagerank --graph {graph}"))
        .env("AWS_PROFILE", "work")
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_on_s3_gives_what_it_gives_on_directories() {
    let place = Place::new();
    let folder = place.path("s3");
    let server = s3_server(&folder).await;
    let bucket = format!("s3://{}", server.bucket);
    place.small_graph();
    place
        .lswitch("invoke pagerank --graph graph --tolerance 1e-12 --output ranks")
        .ok();
    place
        .lswitch(&format!(
            "preprocess graph.txt --parts 4 --out {bucket}/graphs/small"
        ))
        .envs(&server.env())
        .ok();
    for (pack, prefix) in [(1, "ranks"), (3, "deep/er/ranks")] {
        let arguments = format!(
            "invoke pagerank --graph {bucket}/graphs/small --store {bucket}/jobs --output {bucket}/{prefix} \
             --workers-per-function {pack} --tolerance 1e-12 --json"
        );
        let summary = place.lswitch(&arguments).envs(&server.env()).ok().json();
        assert_eq!(summary["output"], format!("{bucket}/{prefix}"));
        let found = output(&server, &folder, prefix);
        assert!(found == place.output("ranks"), "{prefix}");
        let result = folder.join(&server.bucket).join(prefix).join("result.json");
        assert!(result.exists());

        let again = place.lswitch(&arguments).envs(&server.env()).end();
        assert_says(
            again.fails_with(2),
            &[&format!("{bucket}/{prefix}"), "--overwrite"],
        );
        let over = place.lswitch(&format!("{arguments} --overwrite"));
        over.envs(&server.env()).ok();
    }
    // From S3 to a directory, and the other way round.
    for (graph, ranks) in [
        (format!("{bucket}/graphs/small"), "mixed-1".to_owned()),
        ("graph".to_owned(), format!("{bucket}/mixed-2")),
    ] {
        place
            .lswitch(&format!(
                "invoke pagerank --graph {graph} --output {ranks} --tolerance 1e-12"
            ))
            .envs(&server.env())
            .ok();
    }
    assert!(place.output("mixed-1") == place.output("ranks"));
    assert!(output(&server, &folder, "mixed-2") == place.output("ranks"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_a_graph_or_a_part_that_is_missing_is_named() {
    let place = Place::new();
    let folder = place.path("s3");
    let server = s3_server(&folder).await;
    let bucket = format!("s3://{}", server.bucket);
    place.small_graph();
    let run = |arguments: &str| {
        let run = place.lswitch(arguments).envs(&server.env());
        run.within_s(60).end()
    };
    let preprocess = run("preprocess graph.txt --parts 4 --out s3://no-such-bucket/graph");
    assert_says(preprocess.fails_with(1), &["no-such-bucket", "bucket"]);
    let invoke = run("invoke pagerank --graph s3://no-such-bucket/graph");
    assert_says(invoke.fails_with(1), &["no-such-bucket"]);
    assert!(
        !invoke.stderr.contains("holds no graph"),
        "a missing bucket is not a missing graph: {invoke}"
    );
    let nowhere = run(&format!("invoke pagerank --graph {bucket}/nowhere"));
    assert_says(
        nowhere.fails_with(1),
        &[
            &format!("{bucket}/nowhere holds no graph"),
            "lswitch preprocess",
        ],
    );
    let output = run("invoke pagerank --graph graph --output s3://no-such-bucket/ranks");
    assert_says(output.fails_with(1), &["no-such-bucket"]);

    let ended = run(&format!(
        "preprocess graph.txt --parts 4 --out {bucket}/graph --json"
    ));
    let json = ended.ok().json();
    let key = json["parts"][3]["key"].as_str().expect("parts have keys");
    std::fs::remove_file(folder.join(&server.bucket).join("graph").join(key))
        .expect("the part is there");
    let missing = run(&format!(
        "invoke pagerank --graph {bucket}/graph --output ranks"
    ));
    assert_says(
        missing.fails_with(1),
        &["worker 3 (rank 3) failed", &format!("{bucket}/graph/{key}")],
    );
    assert!(!place.path("ranks/result.json").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_and_no_keys_are_told_apart() {
    let place = Place::new();
    let server = s3_server(&place.path("s3")).await;
    let graph = format!("s3://{}/graph", server.bucket);
    place.write("edges.txt", "1 2\n2 1\n");
    let preprocess = format!("preprocess edges.txt --parts 2 --out {graph}");
    let wrong = place
        .lswitch(&preprocess)
        .envs(&server.env())
        .env("AWS_SECRET_ACCESS_KEY", "something else")
        .within_s(60)
        .end();
    assert_says(wrong.fails_with(1), &[&graph, "SignatureDoesNotMatch"]);
    let none = place
        .lswitch(&preprocess)
        .env("AWS_ENDPOINT_URL_S3", &server.endpoint)
        .env("AWS_REGION", "us-east-1")
        .within_s(60)
        .end();
    // The SDK lists where it looked, on lines of their own.
    assert_eq!(none.code, Some(1), "{none}");
    assert_says(
        &none.stderr,
        &["lswitch: ", &graph, "no credentials found", "--profile"],
    );
    let nobody = place
        .lswitch(&preprocess)
        .envs(&server.env())
        .env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        .within_s(60)
        .end();
    assert_says(nobody.fails_with(1), &[&graph]);
}
