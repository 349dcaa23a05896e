//! S3 servers that are strict, broken, far behind a proxy, or certified by an authority of their own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, SharedCredentialsProvider};
use bytes::Bytes;
use lswitch::store::{Refusal, Store, StoreError};
use rustix::process::Signal;

use crate::support::{Asked, Place, StrictS3, Verdict, assert_says};

/// What the AWS SDK needs to use the server.
fn sdk_config(server: &StrictS3) -> SdkConfig {
    let credentials = Credentials::new("any", "any", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(&server.endpoint)
        .build()
}

async fn store(server: &StrictS3) -> Store {
    Store::open_with("s3://bucket/p", &sdk_config(server))
        .await
        .unwrap()
}

/// Bytes that differ from part to part.
fn long(mib: usize) -> Bytes {
    let bytes: Vec<u8> = (0..mib << 20).map(|n| (n >> 12) as u8).collect();
    bytes.into()
}

fn page(truncated: bool, rest: &str) -> Verdict {
    let text = format!(
        "<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{rest}</ListBucketResult>"
    );
    Verdict::Answer(200, text)
}

const ONE: &str = "<Contents><Key>p/a</Key><Size>1</Size></Contents>";

#[tokio::test]
async fn a_list_that_does_not_say_how_it_continues_is_an_error() {
    let token = "<NextContinuationToken>again</NextContinuationToken>";
    for (rest, words) in [
        (ONE.to_owned(), "said to continue, but not how"),
        (format!("{token}{ONE}"), "in a circle"),
        (
            "<Contents><Key>p/a</Key></Contents>".to_owned(),
            "has no size",
        ),
        (
            "<Contents><Size>1</Size></Contents>".to_owned(),
            "has no key",
        ),
    ] {
        let server = StrictS3::start(move |_| page(true, &rest)).await;
        let error = store(&server).await.list("").await.unwrap_err();
        assert!(matches!(error, StoreError::BrokenList { .. }), "{error}");
        assert_says(
            &error.to_string(),
            &["cannot list s3://bucket/p", words, "ListObjectsV2"],
        );
    }
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole_and_has_only_what_was_asked_for() {
    let server = StrictS3::start(|_| Verdict::Serve).await;
    for n in 0..2345 {
        server.put(&format!("p/many/{n:04}"), "x");
    }
    server.put("p/other", "x");
    let store = store(&server).await;
    assert_eq!(store.list("many/").await.unwrap().len(), 2345);

    // A server that does not know prefixes.
    let text = format!("{ONE}<Contents><Key>q/b</Key><Size>1</Size></Contents>");
    let server = StrictS3::start(move |_| page(false, &text)).await;
    let store = Store::open_with("s3://bucket/p", &sdk_config(&server))
        .await
        .unwrap();
    let keys: Vec<String> = store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_does_not_count_the_part_of_its_input_that_a_broken_list_shows() {
    let place = Place::new();
    let judge = |asked: &Asked| match asked.is_list() {
        true => page(true, "<Contents><Key>in/a</Key><Size>5</Size></Contents>"),
        false => Verdict::Serve,
    };
    let server = StrictS3::start(judge).await;
    server.put("in/a", "text\n");
    server.put("in/b", "text\n");
    let ended = place
        .lswitch("invoke wordcount --input s3://bucket/in/ --workers 1")
        .envs(&server.env())
        .end();
    assert_ne!(ended.code, Some(0), "{ended}");
    assert_says(&ended.stderr, &["cannot list", "ListObjectsV2"]);
}

#[tokio::test]
async fn parts_have_the_checksums_that_their_upload_announces() {
    let server = StrictS3::start(|_| Verdict::Serve).await;
    let value = long(40);
    store(&server).await.put("k", value.clone()).await.unwrap();
    assert!(server.get("p/k").unwrap() == value);
    let log = server.log();
    let begun = log.iter().find(|asked| asked.has("uploads")).unwrap();
    assert_eq!(begun.header("x-amz-checksum-algorithm"), Some("CRC32"));
    assert_eq!(
        log.iter().filter(|asked| asked.has("partNumber")).count(),
        3
    );
}

#[tokio::test]
async fn an_upload_has_no_checksums_if_they_are_wanted_only_where_required() {
    let server = StrictS3::start(|_| Verdict::Serve).await;
    let config = sdk_config(&server)
        .into_builder()
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .build();
    let store = Store::open_with("s3://bucket/p", &config).await.unwrap();
    let value = long(40);
    store.put("k", value.clone()).await.unwrap();
    assert!(server.get("p/k").unwrap() == value);
    for asked in server.log() {
        let names = asked.headers.keys().map(|name| name.as_str());
        let checksums: Vec<&str> = names.filter(|name| name.contains("checksum")).collect();
        assert!(checksums.is_empty(), "{} {checksums:?}", asked.method);
    }
}

#[tokio::test]
async fn a_part_that_changes_on_its_way_is_refused_and_the_upload_aborted() {
    let judge = |asked: &Asked| match asked.query.get("partNumber").map(String::as_str) {
        Some("2") => Verdict::refuse(400, "BadDigest"),
        _ => Verdict::Serve,
    };
    let server = StrictS3::start(judge).await;
    let error = store(&server).await.put("k", long(40)).await.unwrap_err();
    assert_says(&error.to_string(), &["changed on their way"]);
    assert!(server.uploads().is_empty() && server.keys().is_empty());
}

#[tokio::test]
async fn an_upload_whose_last_answer_is_lost_is_done() {
    let completes = Arc::new(AtomicU32::new(0));
    let judge = {
        let completes = completes.clone();
        move |asked: &Asked| match asked.is_complete() {
            true if completes.fetch_add(1, Ordering::Relaxed) == 0 => {
                Verdict::lose(500, "InternalError")
            }
            _ => Verdict::Serve,
        }
    };
    let server = StrictS3::start(judge).await;
    let value = long(33);
    store(&server).await.put("k", value.clone()).await.unwrap();
    assert!(server.get("p/k").unwrap() == value);
    assert_eq!(completes.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_object_of_another_writer_does_not_pass_for_a_lost_upload() {
    let judge = |asked: &Asked| match asked.is_complete() {
        true => Verdict::refuse(404, "NoSuchUpload"),
        false => Verdict::Serve,
    };
    let server = StrictS3::start(judge).await;
    let value = long(33);
    server.put("p/k", value.clone());
    let error = store(&server).await.put("k", value).await.unwrap_err();
    assert_says(&error.to_string(), &["NoSuchUpload"]);
}

#[tokio::test]
async fn a_bucket_whose_first_answer_is_lost_is_made_with_its_rules() {
    let creates = Arc::new(AtomicU32::new(0));
    let judge = {
        let creates = creates.clone();
        move |asked: &Asked| {
            let is_create = asked.method == "PUT" && asked.key.is_empty() && asked.query.is_empty();
            match is_create && creates.fetch_add(1, Ordering::Relaxed) == 0 {
                true => Verdict::lose(500, "InternalError"),
                false => Verdict::Serve,
            }
        }
    };
    let server = StrictS3::start(judge).await;
    server.remove_bucket();
    assert!(store(&server).await.make_bucket().await.unwrap());
    let log = server.log();
    let rules = log.iter().find(|asked| asked.has("lifecycle")).unwrap();
    let rules = String::from_utf8_lossy(&rules.body).into_owned();
    assert_says(
        &rules,
        &["AbortIncompleteMultipartUpload", "DaysAfterInitiation"],
    );
    assert!(log.iter().any(|asked| asked.has("publicAccessBlock")));
}

#[tokio::test]
async fn a_server_that_does_not_know_ranges_is_no_short_object() {
    let judge = |asked: &Asked| match (asked.method.as_str(), asked.header("range")) {
        ("GET", Some(_)) => Verdict::Answer(200, "0123456789".into()),
        _ => Verdict::Serve,
    };
    let server = StrictS3::start(judge).await;
    let error = store(&server).await.get_range("k", 2..5).await.unwrap_err();
    assert!(matches!(error, StoreError::LongAnswer { .. }), "{error}");
    assert_says(&error.to_string(), &["2..5", "knows ranges"]);
}

#[tokio::test]
async fn refusals_that_last_are_permanent_and_not_repeated() {
    for (status, code, refusal) in [
        (403, "RequestTimeTooSkewed", Refusal::ClockSkew),
        (403, "AccessDenied", Refusal::Denied),
        (400, "ExpiredToken", Refusal::ExpiredCredentials),
        (501, "NotImplemented", Refusal::NotImplemented),
        (400, "KMS.DisabledException", Refusal::EncryptionKey),
        (301, "PermanentRedirect", Refusal::WrongRegion),
    ] {
        let server = StrictS3::start(move |_| Verdict::refuse(status, code)).await;
        let error = store(&server).await.get("k").await.unwrap_err();
        assert!(error.is_permanent(), "{code}: {error}");
        let found = match &error {
            StoreError::S3 { refusal, .. } => Some(*refusal),
            _ => None,
        };
        assert_eq!(found, Some(refusal), "{code}");
        // The SDK corrects the clock once.
        assert!(server.log().len() <= 2, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_have_the_checksums_that_the_driver_was_given() {
    let place = Place::new();
    let judge = |asked: &Asked| {
        let mut names = asked.headers.keys().map(|name| name.as_str());
        match asked.method == "PUT" && names.any(|name| name.starts_with("x-amz-checksum")) {
            true => Verdict::refuse(501, "NotImplemented"),
            false => Verdict::Serve,
        }
    };
    let server = StrictS3::start(judge).await;
    server.put("in/a", "text\n");
    let job = "invoke map --exec cat --items s3://bucket/in/ --workers 1 --output s3://bucket";
    let refused = place.lswitch(&format!("{job}/a"));
    let refused = refused.envs(&server.env()).within_s(60).end();
    assert_ne!(refused.code, Some(0), "{refused}");
    assert_says(&refused.stderr, &["when_required"]);

    place
        .lswitch(&format!("{job}/b"))
        .envs(&server.env())
        .env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        .ok();
    place.write(
        "home/.aws/config",
        "[profile kind]\nrequest_checksum_calculation = when_required\n",
    );
    place
        .lswitch(&format!("{job}/c --profile kind"))
        .envs(&server.env())
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_reach_the_store_through_the_proxy_of_the_driver() {
    let place = Place::new();
    let proxy = StrictS3::start(|_| Verdict::Serve).await;
    proxy.put("in/a", "text\n");
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        place
            .lswitch("invoke map --exec cat --items s3://bucket/in/ --workers 1")
            .envs(&proxy.env())
            .env("AWS_ENDPOINT_URL_S3", "http://s3.example.invalid:9000")
            .env(name, &proxy.endpoint)
            .ok();
        let log = proxy.log();
        let read = log.iter().filter(|asked| asked.key == "in/a");
        assert!(read.count() > 0, "{name}");
    }
    // And past it, if the endpoint is excepted.
    let server = StrictS3::start(|_| Verdict::Serve).await;
    server.put("in/a", "text\n");
    place
        .lswitch("invoke map --exec cat --items s3://bucket/in/ --workers 1")
        .envs(&server.env())
        .env("http_proxy", "http://127.0.0.1:1")
        .env("no_proxy", "127.0.0.1")
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_have_the_endpoint_of_the_services_section_of_the_profile() {
    let place = Place::new();
    let server = StrictS3::start(|_| Verdict::Serve).await;
    server.put("in/a", "text\n");
    place.write(
        "home/.aws/config",
        format!(
            "[profile mine]\nregion = eu-west-3\nservices = here\n\n[services here]\ns3 =\n  endpoint_url = {}\n",
            server.endpoint
        ),
    );
    place.write(
        "home/.aws/credentials",
        "[mine]\naws_access_key_id = any\naws_secret_access_key = any\n",
    );
    place
        .lswitch("invoke map --exec cat --items s3://bucket/in/ --workers 1 --profile mine")
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_trusted_by_driver_and_workers() {
    let place = Place::new();
    let authority = place.path("authority.pem");
    let server = StrictS3::start_with_tls(&authority).await;
    server.put("in/a", "text\n");
    let job = "invoke map --exec cat --items s3://bucket/in/ --workers 1 --output s3://bucket";
    // Workers are in other folders than the driver.
    let full = authority.to_string_lossy();
    for (path, output) in [(full.as_ref(), "a"), ("authority.pem", "b")] {
        place
            .lswitch(&format!("{job}/{output}"))
            .envs(&server.env())
            .env("AWS_CA_BUNDLE", path)
            .ok();
    }
    place.write(
        "home/.aws/config",
        format!("[profile mine]\nca_bundle = {}\n", authority.display()),
    );
    place
        .lswitch(&format!("{job}/c --profile mine"))
        .envs(&server.env())
        .ok();
    let written = |key: &&String| server.get(key).is_some_and(|bytes| bytes == "text\n");
    assert_eq!(server.keys().iter().filter(written).count(), 4);
    assert_eq!(server.broken_handshakes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_trusted_is_said_at_once() {
    let place = Place::new();
    let server = StrictS3::start_with_tls(&place.path("authority.pem")).await;
    let other = place.path("other.pem");
    let _other = StrictS3::start_with_tls(&other).await;
    let job = "invoke map --exec cat --items s3://bucket/in/ --workers 1";
    let ended = place
        .lswitch(job)
        .envs(&server.env())
        .env("AWS_CA_BUNDLE", &other)
        .end();
    assert_says(ended.fails_with(2), &["not trusted", "AWS_CA_BUNDLE"]);
    assert_eq!(server.broken_handshakes(), 1, "it is not tried again");

    place.write("none.pem", "no certificate\n");
    for (bundle, words) in [
        ("none.pem", "it has no certificate"),
        ("nowhere.pem", "No such file"),
    ] {
        let bundle = place.path(bundle);
        let ended = place
            .lswitch(job)
            .envs(&server.env())
            .env("AWS_CA_BUNDLE", &bundle)
            .end();
        let said = ended.fails_with(2);
        assert_says(said, &["AWS_CA_BUNDLE=", &bundle.to_string_lossy(), words]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_is_not_there_is_named() {
    let place = Place::new();
    place.write("home/.aws/config", "[profile work]\nregion = eu-west-3\n");
    for (arguments, variable) in [("--profile nope", ""), ("", "nope")] {
        let ended = place
            .lswitch(&format!(
                "invoke map --exec cat --items s3://bucket/in/ --workers 1 {arguments}"
            ))
            .env("AWS_PROFILE", variable)
            .end();
        assert_says(
            ended.fails_with(2),
            &["there is no profile \"nope\"", "work", "--profile"],
        );
    }
}

/// Waits until something is so, for at most some seconds.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_interrupted_job_aborts_the_uploads_of_its_workers() {
    let place = Place::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        // No part is ever stored, so that the upload cannot end by itself.
        let judge = |asked: &Asked| {
            if asked.has("partNumber") {
                std::thread::sleep(Duration::from_secs(3));
            }
            Verdict::Serve
        };
        let server = StrictS3::start(judge).await;
        let job = place
            .lswitch("invoke map --exec head --items 1..2 --workers 1 --output s3://bucket/out -- -c 67108864 /dev/zero")
            .envs(&server.env())
            .start();
        until("a part is sent", || {
            server.log().iter().any(|asked| asked.has("partNumber"))
        })
        .await;
        assert!(!server.uploads().is_empty());
        job.signal(signal);
        let ended = job.wait();
        assert_eq!(ended.code, Some(code), "{ended}");
        assert!(server.uploads().is_empty(), "{signal:?}: {ended}");
    }
    place.assert_nothing_is_left_in_tmp();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_aborts_uploads_below_its_store_that_are_old_enough() {
    let place = Place::new();
    let server = StrictS3::start(|_| Verdict::Serve).await;
    for key in ["jobs/map/x/outputs/1", "jobs/out/2", "of-others/3"] {
        server.begin_upload(key);
    }
    let clean = |arguments: &str| {
        place
            .lswitch(&format!("clean --store s3://bucket/jobs {arguments}"))
            .envs(&server.env())
    };
    // The server says that all began on the first day of 2026.
    let shown = clean("--older-than 0s").ok();
    assert_says(&shown.stdout, &["unfinished writes", "2"]);
    assert_eq!(server.uploads().len(), 3);
    clean("--older-than 5000w --yes").ok();
    assert_eq!(server.uploads().len(), 3);
    clean("--older-than 0s --yes").ok();
    assert_eq!(server.uploads(), ["of-others/3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_does_the_rest_where_uploads_cannot_be_listed() {
    let place = Place::new();
    let judge = |asked: &Asked| match asked.method == "GET" && asked.has("uploads") {
        true => Verdict::refuse(501, "NotImplemented"),
        false => Verdict::Serve,
    };
    let server = StrictS3::start(judge).await;
    let code = format!("jobs/code/{}", "0f".repeat(32));
    server.put(&code, "x");
    let done = place
        .lswitch("clean --store s3://bucket/jobs --older-than 0s --yes")
        .envs(&server.env())
        .ok();
    assert_says(&done.stderr, &["unfinished uploads are not looked for"]);
    assert!(server.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requester_pays_if_the_environment_says_so() {
    let place = Place::new();
    let judge = |asked: &Asked| match asked.header("x-amz-request-payer") {
        Some("requester") => Verdict::Serve,
        _ => Verdict::refuse(403, "AccessDenied"),
    };
    let server = StrictS3::start(judge).await;
    server.put("in/a", "text\n");
    let job = "invoke map --exec cat --items s3://bucket/in/ --workers 1";
    let refused = place.lswitch(job).envs(&server.env()).end();
    assert_says(refused.fails_with(2), &["AWS_REQUEST_PAYER=requester"]);
    place
        .lswitch(job)
        .envs(&server.env())
        .env("AWS_REQUEST_PAYER", "requester")
        .ok();
}

#[test]
fn check_says_that_it_does_not_read_s3() {
    let place = Place::new();
    let ended = place.lswitch("check sort s3://bucket/sorted").end();
    assert_says(
        ended.fails_with(2),
        &["s3://bucket/sorted is in S3", "aws s3 cp"],
    );
    assert!(!Path::new("s3:").exists());
}
