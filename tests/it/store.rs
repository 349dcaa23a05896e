//! Stores: one contract, held by a directory and by S3, and what is particular to each.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use bytes::Bytes;
use lswitch::aws::AwsSettings;
use lswitch::store::{KEY_BYTES_MAX, Store, StoreError, Unfinished};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::{Fate, S3Server, s3_server, s3_server_with};

/// A store and what it needs to live.
struct Place {
    store: Store,
    dir: TempDir,
    _server: Option<S3Server>,
}

async fn dir_place() -> Place {
    let dir = TempDir::new().unwrap();
    let location = dir.path().join("a store");
    let store = Store::open(location.to_str().unwrap(), &AwsSettings::default())
        .await
        .unwrap();
    Place {
        store,
        dir,
        _server: None,
    }
}

async fn s3_place() -> Place {
    let dir = TempDir::new().unwrap();
    let server = s3_server(dir.path()).await;
    let location = format!("s3://{}/a prefix/of keys", server.bucket);
    let store = Store::open_with(&location, &sdk_config(&server, &server.endpoint))
        .await
        .unwrap();
    Place {
        store,
        dir,
        _server: Some(server),
    }
}

/// A directory and an S3 server, both empty.
async fn places() -> [Place; 2] {
    [dir_place().await, s3_place().await]
}

/// A store on a server that treats requests as `fate` says.
async fn faulty_place(
    fate: impl Fn(&axum::http::request::Parts) -> Fate + Send + Sync + 'static,
) -> Place {
    let dir = TempDir::new().unwrap();
    let server = s3_server_with(dir.path(), fate).await;
    let config = sdk_config(&server, &server.endpoint);
    let store = Store::open_with(&format!("s3://{}/p", server.bucket), &config)
        .await
        .unwrap();
    Place {
        store,
        dir,
        _server: Some(server),
    }
}

fn sdk_config(server: &S3Server, endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new(&server.access_key, &server.secret_key, None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// What is compared of an entry.
fn entry(key: &str, bytes: u64) -> (String, u64) {
    (key.to_owned(), bytes)
}

/// The keys and sizes of what a store lists.
async fn listed(store: &Store, prefix: &str) -> Vec<(String, u64)> {
    let entries = store.list(prefix).await.unwrap().into_iter();
    entries.map(|entry| (entry.key, entry.bytes)).collect()
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    store
        .list(prefix)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

/// Bytes in which no part looks like another.
fn noise(len: usize) -> Bytes {
    let mut state = 1u64;
    let next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[tokio::test]
async fn what_is_put_is_got_and_may_be_replaced_and_deleted() {
    for Place { store, .. } in &places().await {
        store.put("parts/00001", bytes("first")).await.unwrap();
        assert_eq!(store.get("parts/00001").await.unwrap(), "first");
        store
            .put("parts/00001", bytes("second, longer"))
            .await
            .unwrap();
        assert_eq!(store.get("parts/00001").await.unwrap(), "second, longer");
        store.put("parts/00001", bytes("3")).await.unwrap();
        assert_eq!(store.get("parts/00001").await.unwrap(), "3");

        store.delete("parts/00001").await.unwrap();
        assert!(
            matches!(
                store.get("parts/00001").await,
                Err(StoreError::NotFound { .. })
            ),
            "{store:?}"
        );
        store.delete("parts/00001").await.unwrap();
        store.delete("never/was").await.unwrap();
        assert_eq!(store.list("").await.unwrap(), [], "{store:?}");
    }
}

#[tokio::test]
async fn an_object_that_is_not_there_is_named_with_its_url() {
    for Place { store, .. } in &places().await {
        store.put("there", bytes("x")).await.unwrap();
        for key in ["parts/00007", "there/below"] {
            for error in [
                store.get(key).await.unwrap_err(),
                store.get_range(key, 0..1).await.unwrap_err(),
                store.get_range(key, 0..0).await.unwrap_err(),
            ] {
                let url = format!("{}/{key}", store.url());
                assert!(
                    matches!(&error, StoreError::NotFound { url: at } if *at == url),
                    "{error:?}"
                );
                assert!(
                    error
                        .to_string()
                        .starts_with(&format!("there is no object {url}; ")),
                    "{error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_range_is_read_exactly_or_not_at_all() {
    for Place { store, .. } in &places().await {
        store.put("digits", bytes("0123456789")).await.unwrap();
        for (range, expected) in [
            (0..10, "0123456789"),
            (0..1, "0"),
            (9..10, "9"),
            (3..7, "3456"),
            (4..4, ""),
            (10..10, ""),
        ] {
            assert_eq!(
                store.get_range("digits", range.clone()).await.unwrap(),
                expected,
                "{store:?} {range:?}"
            );
        }
        for range in [0..11, 9..12, 10..11, 11..11, 50..60, 0..1 << 40] {
            let error = store.get_range("digits", range.clone()).await.unwrap_err();
            assert!(
                matches!(error, StoreError::ShortObject { .. }),
                "{store:?} {range:?}: {error:?}"
            );
            let expected = format!("{}/digits ends before byte {}", store.url(), range.end);
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        #[expect(clippy::reversed_empty_ranges)]
        let error = store.get_range("digits", 5..4).await.unwrap_err();
        assert!(
            error.to_string().starts_with("cannot read bytes 5..4 of "),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_object_may_be_empty() {
    for Place { store, .. } in &places().await {
        store.put("nothing", Bytes::new()).await.unwrap();
        assert_eq!(store.get("nothing").await.unwrap(), "");
        assert_eq!(store.get_range("nothing", 0..0).await.unwrap(), "");
        assert!(matches!(
            store.get_range("nothing", 0..1).await,
            Err(StoreError::ShortObject { .. })
        ));
        assert_eq!(listed(store, "").await, [entry("nothing", 0)]);
        assert!(store.put_if_absent("too", Bytes::new()).await.unwrap());
        assert!(!store.put_if_absent("too", bytes("late")).await.unwrap());
    }
}

#[tokio::test]
async fn an_object_may_have_8_mib() {
    let value = noise(8 << 20);
    for Place { store, .. } in &places().await {
        store.put("big", value.clone()).await.unwrap();
        assert!(store.get("big").await.unwrap() == value, "{store:?}");
        let middle = 3_000_001..7_654_321;
        let range = middle.start as u64..middle.end as u64;
        assert!(
            store.get_range("big", range).await.unwrap() == value.slice(middle),
            "{store:?}"
        );
        assert_eq!(listed(store, "b").await, [entry("big", 8 << 20)]);
    }
}

#[tokio::test]
async fn a_long_object_is_written_in_parts_and_read_in_ranges() {
    for place in places().await {
        let store = &place.store;
        let length = (40 << 20) + 12_345;
        let value: Bytes = (0..length).map(|i: u32| ((i * 31) >> 8) as u8).collect();
        store.put("long", value.clone()).await.unwrap();
        assert!(store.get_of_length("long", length.into()).await.unwrap() == value);
        assert!(store.get("long").await.unwrap() == value);
        // The last range asks for more than there is.
        let more = u64::from(length) + 1;
        match store.get_of_length("long", more).await {
            Ok(shorter) => assert_eq!(
                shorter.len() as u32,
                length,
                "a directory gives what it has"
            ),
            Err(error) => assert!(matches!(error, StoreError::ShortObject { .. }), "{error}"),
        }
        let missing = store.get_of_length("none", more).await.unwrap_err();
        assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
    }
}

#[tokio::test]
async fn an_object_that_is_written_in_pieces_is_seen_when_it_is_finished() {
    for place in places().await {
        let store = &place.store;
        let all = noise(21 << 20);
        // Nothing, little, just a part, somewhat more: S3 is given whole objects and parts of them.
        for length in [0, 1000, 16 << 20, (16 << 20) + 1, 21 << 20] {
            let value = all.slice(..length);
            let key = format!("piecewise-{length}");
            let mut object = store.writer(&key).unwrap();
            for piece in value.chunks(7_654_321) {
                object = object.write(value.slice_ref(piece)).await.unwrap();
            }
            assert!(matches!(
                store.get(&key).await,
                Err(StoreError::NotFound { .. })
            ));
            object.finish().await.unwrap();
            assert!(store.get(&key).await.unwrap() == value, "{length} bytes");
        }
        let given_up = store.writer("given-up").unwrap();
        given_up.write(all.clone()).await.unwrap().abort().await;
        assert!(keys(store, "given").await.is_empty());
        // What is there stays until the end.
        let object = store.writer("piecewise-0").unwrap();
        let object = object.write(bytes("new")).await.unwrap();
        assert_eq!(store.get("piecewise-0").await.unwrap(), "");
        object.finish().await.unwrap();
        assert_eq!(store.get("piecewise-0").await.unwrap(), "new");
        assert!(matches!(
            store.writer("../k"),
            Err(StoreError::BadKey { .. })
        ));
    }
}

#[tokio::test]
async fn an_upload_that_fails_or_is_given_up_is_aborted() {
    let (refusing, aborted) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let place = faulty_place({
        let (refusing, aborted) = (refusing.clone(), aborted.clone());
        move |request| {
            let query = request.uri.query().unwrap_or_default();
            if request.method == "DELETE" && query.contains("uploadId") {
                aborted.fetch_add(1, Ordering::Relaxed);
            }
            match query.contains("partNumber=2") && refusing.load(Ordering::Relaxed) {
                true => Fate::Refused(403, "AccessDenied"),
                false => Fate::Served,
            }
        }
    })
    .await;
    let value = noise(40 << 20);
    let given_up = place.store.writer("k").unwrap();
    drop(given_up.write(value.clone()).await.unwrap());
    let patience = tokio::time::Instant::now() + Duration::from_secs(30);
    while aborted.load(Ordering::Relaxed) < 1 {
        assert!(tokio::time::Instant::now() < patience, "it was not aborted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    refusing.store(true, Ordering::Relaxed);
    let error = place.store.put("k", value).await.unwrap_err().to_string();
    assert!(error.contains("AccessDenied"), "{error}");
    assert_eq!(aborted.load(Ordering::Relaxed), 2);
    assert!(keys(&place.store, "").await.is_empty());
}

#[tokio::test]
async fn a_list_is_sorted_and_its_prefix_is_a_plain_string() {
    for Place { store, .. } in &places().await {
        assert_eq!(store.list("").await.unwrap(), []);
        for key in [
            "a/b",
            "a/bc",
            "a/b-c",
            "a/d/e",
            "b",
            "aa/x",
            "a.x",
            "Z",
            "gr\u{e4}ph/1",
            "a b/50% #1?&+",
        ] {
            store.put(key, bytes(key)).await.unwrap();
        }
        let all = [
            "Z",
            "a b/50% #1?&+",
            "a.x",
            "a/b",
            "a/b-c",
            "a/bc",
            "a/d/e",
            "aa/x",
            "b",
            "gr\u{e4}ph/1",
        ];
        let entries: Vec<_> = all.iter().map(|key| entry(key, key.len() as u64)).collect();
        assert_eq!(listed(store, "").await, entries, "{store:?}");
        for key in all {
            assert_eq!(store.get(key).await.unwrap(), key, "{store:?}");
        }
        assert_eq!(keys(store, "a/").await, ["a/b", "a/b-c", "a/bc", "a/d/e"]);
        assert_eq!(keys(store, "a/b").await, ["a/b", "a/b-c", "a/bc"]);
        assert_eq!(keys(store, "a/d").await, ["a/d/e"]);
        assert_eq!(keys(store, "a/d/").await, ["a/d/e"]);
        assert_eq!(
            keys(store, "a").await,
            [
                "a b/50% #1?&+",
                "a.x",
                "a/b",
                "a/b-c",
                "a/bc",
                "a/d/e",
                "aa/x"
            ]
        );
        for prefix in ["a/d/e/", "c", "/", "/a", "../", "a//", ".", "a/../b"] {
            assert_eq!(
                keys(store, prefix).await,
                Vec::<String>::new(),
                "{store:?} {prefix}"
            );
        }
    }
}

#[tokio::test]
async fn a_list_may_have_more_entries_than_one_page_of_s3() {
    // Files in the server's folder are objects, and much faster to make than objects.
    for Place { store, dir, .. } in &places().await {
        store.put("many/0000", bytes("x")).await.unwrap();
        let folder = match store.url().starts_with("s3:") {
            true => dir.path().join("lswitch-test/a prefix/of keys/many"),
            false => dir.path().join("a store/many"),
        };
        for n in 1..2345 {
            std::fs::write(folder.join(format!("{n:04}")), "x").unwrap();
        }
        let expected: Vec<_> = (0..2345)
            .map(|n| entry(&format!("many/{n:04}"), 1))
            .collect();
        assert!(listed(store, "many/").await == expected, "{store:?}");
    }
}

#[tokio::test]
async fn a_list_says_when_objects_were_written() {
    for Place { store, .. } in &places().await {
        // S3 counts in whole seconds, and a file system by a clock that ticks some times a second.
        let slack = Duration::from_secs(2);
        let before = SystemTime::now() - slack;
        store.put("a", bytes("x")).await.unwrap();
        let first = store.list("").await.unwrap()[0].modified;
        let after = SystemTime::now() + slack;
        assert!(before <= first && first <= after, "{store:?}: {first:?}");
        store.put("a", bytes("y")).await.unwrap();
        assert!(store.list("").await.unwrap()[0].modified >= first);
    }
}

#[tokio::test]
async fn what_unfinished_writes_have_left_is_listed_apart_and_discarded() {
    // S3 is tested with a server that can list uploads, which s3s-fs cannot: s3_faults.rs.
    let place = dir_place().await;
    let store = &place.store;
    store.put("a", bytes("x")).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), []);
    let folder = place.dir.path().join("a store/.lswitch-tmp");
    std::fs::write(folder.join("put-killed"), "half").unwrap();
    let left = store.unfinished().await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    for entry in &left {
        let found = (&entry.key[..], entry.bytes);
        assert_eq!(found, (".lswitch-tmp/put-killed", 4));
        store.discard(entry).await.unwrap();
        store.discard(entry).await.unwrap();
    }
    assert_eq!(store.unfinished().await.unwrap(), []);
    for key in [
        "a",
        ".lswitch-tmp",
        ".lswitch-tmp/",
        ".lswitch-tmp/../a",
        ".lswitch-tmpa",
    ] {
        let unfinished = Unfinished {
            key: key.into(),
            upload: None,
            bytes: 0,
            modified: SystemTime::now(),
        };
        let error = store.discard(&unfinished).await.unwrap_err();
        assert!(matches!(error, StoreError::BadKey { .. }), "{error}");
    }
    assert_eq!(listed(store, "").await, [entry("a", 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_8_racers_that_put_if_absent_one_wins() {
    for Place { store, .. } in &places().await {
        for round in 0..10 {
            let key = format!("winner/{round}");
            let mut racers = JoinSet::new();
            for racer in 0..8 {
                let (store, key) = (store.clone(), key.clone());
                racers.spawn(async move {
                    let name = format!("racer {racer}");
                    store
                        .put_if_absent(&key, bytes(&name))
                        .await
                        .unwrap()
                        .then_some(name)
                });
            }
            let winners: Vec<String> = racers.join_all().await.into_iter().flatten().collect();
            assert_eq!(winners.len(), 1, "{store:?} {winners:?}");
            assert_eq!(store.get(&key).await.unwrap(), winners[0]);
        }
        assert_eq!(store.list("").await.unwrap().len(), 10, "{store:?}");
    }
}

#[tokio::test]
async fn put_if_absent_leaves_another_value_alone_and_accepts_its_own() {
    for Place { store, .. } in &places().await {
        assert!(store.put_if_absent("k/v", bytes("mine")).await.unwrap());
        assert!(!store.put_if_absent("k/v", bytes("theirs")).await.unwrap());
        assert!(!store.put_if_absent("k/v", bytes("")).await.unwrap());
        assert!(store.put_if_absent("k/v", bytes("mine")).await.unwrap());
        assert_eq!(store.get("k/v").await.unwrap(), "mine");
        store.delete("k/v").await.unwrap();
        assert!(store.put_if_absent("k/v", bytes("theirs")).await.unwrap());
    }
}

#[tokio::test]
async fn a_writer_that_must_not_replace_leaves_an_object_alone() {
    for Place { store, .. } in &places().await {
        let written = async |text: &str| {
            let writer = store.writer("k").unwrap();
            let writer = writer.write(bytes(text)).await.unwrap();
            writer.finish_new().await.unwrap()
        };
        assert!(written("first").await, "{store:?}");
        assert!(!written("second").await, "{store:?}");
        assert_eq!(store.get("k").await.unwrap(), "first");
        assert_eq!(store.length("k").await.unwrap(), 5);
        let error = store.length("nothing").await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
        // Nothing was ever written to this one.
        assert!(store.writer("e").unwrap().finish_new().await.unwrap());
        assert_eq!(store.get("e").await.unwrap(), "");
        // The server of these tests does not list uploads.
        if store.folder().is_some() {
            assert_eq!(store.unfinished().await.unwrap(), []);
        }
    }
}

#[tokio::test]
async fn a_long_object_is_completed_on_the_condition_that_there_is_none() {
    let (conditions, aborts) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let place = faulty_place({
        let (conditions, aborts) = (conditions.clone(), aborts.clone());
        move |request| {
            let query = request.uri.query().unwrap_or_default();
            let is_upload = query.contains("uploadId=");
            match request.method.as_str() {
                "POST" if is_upload && request.headers.contains_key("if-none-match") => {
                    conditions.fetch_add(1, Ordering::Relaxed);
                    Fate::Refused(412, "PreconditionFailed")
                }
                "DELETE" if is_upload => {
                    aborts.fetch_add(1, Ordering::Relaxed);
                    Fate::Served
                }
                _ => Fate::Served,
            }
        }
    })
    .await;
    let writer = place.store.writer("long").unwrap();
    let writer = writer.write(noise(40 << 20)).await.unwrap();
    assert!(!writer.finish_new().await.unwrap());
    assert_eq!(conditions.load(Ordering::Relaxed), 1);
    assert_eq!(aborts.load(Ordering::Relaxed), 1, "its parts are given up");
}

#[tokio::test]
async fn errors_that_stay_are_told_from_those_that_pass() {
    for (status, code, permanent) in [
        (403, "AccessDenied", true),
        (400, "ExpiredToken", true),
        (301, "PermanentRedirect", true),
        (404, "NoSuchBucket", true),
        (400, "RequestTimeout", false),
        (503, "SlowDown", false),
        (500, "InternalError", false),
    ] {
        let place = faulty_place(move |_| Fate::Refused(status, code)).await;
        let error = place.store.put("k", bytes("v")).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{code}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_the_old_object_or_the_new_one_whole() {
    // s3s-fs sends an object's length and its bytes from two looks at the file, so only the directory is watched.
    let Place { store, .. } = dir_place().await;
    let values = [noise(300_000), noise(200_000)];
    store.put("busy", values[0].clone()).await.unwrap();
    let writer = tokio::spawn({
        let (store, values) = (store.clone(), values.clone());
        async move {
            for n in 0..200 {
                store.put("busy", values[n % 2].clone()).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let value = store.get("busy").await.unwrap();
        assert!(
            values.contains(&value),
            "{} bytes of a mixture",
            value.len()
        );
        let listed = listed(&store, "").await;
        assert!(
            listed == [entry("busy", 300_000)] || listed == [entry("busy", 200_000)],
            "{listed:?}"
        );
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_bad_key_is_refused_by_every_method_with_the_rule_that_it_breaks() {
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for Place { store, .. } in &places().await {
        for (key, rule) in [
            ("", "it is empty"),
            ("/a", "starts with a slash"),
            ("a//b", "an empty component"),
            ("a/", "an empty component"),
            (".", "component \".\" or \"..\""),
            ("a/../b", "component \".\" or \"..\""),
            ("../../etc/passwd", "component \".\" or \"..\""),
            ("a\0b", "a control character"),
            ("a\nb", "a control character"),
            (".lswitch-tmp/x", "reserved"),
            (&long, "longer than 1024 bytes"),
        ] {
            let errors = [
                store.get(key).await.unwrap_err(),
                store.get_range(key, 0..1).await.unwrap_err(),
                store.put(key, Bytes::new()).await.unwrap_err(),
                store.put_if_absent(key, Bytes::new()).await.unwrap_err(),
                store.delete(key).await.unwrap_err(),
            ];
            for error in errors {
                assert!(
                    matches!(error, StoreError::BadKey { .. }),
                    "{key:?}: {error:?}"
                );
                let message = error.to_string();
                assert!(
                    message.contains(rule) && message.contains(store.url()),
                    "{key:?}: {message}"
                );
                assert!(!message.contains(['\0', '\n']), "{message:?}");
            }
        }
        for key in ["...", "a/.b", "a..b", ".lswitch-tmp2", "x/.lswitch-tmp"] {
            store.put(key, bytes("fine")).await.unwrap();
            assert_eq!(store.get(key).await.unwrap(), "fine");
        }
    }
}

#[tokio::test]
async fn in_s3_the_prefix_of_the_store_counts_as_part_of_the_key() {
    let Place { store, .. } = s3_place().await;
    let prefix_bytes = "a prefix/of keys/".len();
    let error = store
        .get(&"k".repeat(KEY_BYTES_MAX - prefix_bytes + 1))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("together with the prefix of the store"),
        "{error}"
    );
}

#[tokio::test]
async fn two_stores_in_one_bucket_do_not_see_each_other() {
    let dir = TempDir::new().unwrap();
    let server = s3_server(dir.path()).await;
    let config = sdk_config(&server, &server.endpoint);
    let open = async |prefix: &str| {
        Store::open_with(&format!("s3://{}{prefix}", server.bucket), &config)
            .await
            .unwrap()
    };
    let (bucket, one, ten) = (open("").await, open("/1").await, open("/10/").await);
    one.put("k", bytes("one")).await.unwrap();
    ten.put("k", bytes("ten")).await.unwrap();
    bucket.put("k", bytes("bucket")).await.unwrap();
    assert_eq!(keys(&one, "").await, ["k"]);
    assert_eq!(keys(&ten, "").await, ["k"]);
    assert_eq!(keys(&bucket, "").await, ["1/k", "10/k", "k"]);
    assert_eq!(one.get("k").await.unwrap(), "one");
    assert_eq!(bucket.get("10/k").await.unwrap(), "ten");
}

#[tokio::test]
async fn a_store_is_opened_again_from_its_url() {
    for name in ["plain", "with space", "50% #1? a%20b", "gr\u{e4}ph"] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(name);
        let store = Store::open(path.to_str().unwrap(), &AwsSettings::default())
            .await
            .unwrap();
        assert!(store.url().starts_with("file:///"), "{}", store.url());
        store.put("k", bytes(name)).await.unwrap();
        assert!(path.join("k").is_file());
        let again = Store::open(store.url(), &AwsSettings::default())
            .await
            .unwrap();
        assert_eq!(again.url(), store.url());
        assert_eq!(again.get("k").await.unwrap(), name);
    }
}

#[tokio::test]
async fn opening_a_directory_creates_nothing_and_listing_it_finds_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("not/yet");
    let store = Store::open(path.to_str().unwrap(), &AwsSettings::default())
        .await
        .unwrap();
    assert_eq!(store.list("").await.unwrap(), []);
    assert!(matches!(
        store.get("k").await,
        Err(StoreError::NotFound { .. })
    ));
    store.delete("k").await.unwrap();
    assert!(!dir.path().join("not").exists());
}

#[tokio::test]
async fn a_directory_lists_nothing_that_is_no_object_and_keeps_no_leftovers() {
    let Place { store, dir, .. } = dir_place().await;
    let root = dir.path().join("a store");
    store.put("a/b", bytes("x")).await.unwrap();
    // A folder has the key's name: the write fails after its bytes were written aside.
    let error = store.put("a", bytes("y")).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot write {}/a: ", store.url())),
        "{error}"
    );
    let error = store
        .put_if_absent("a", bytes("y"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot write {}/a: ", store.url())),
        "{error}"
    );
    assert!(!store.put_if_absent("a/b", bytes("y")).await.unwrap());
    let leftovers = std::fs::read_dir(root.join(".lswitch-tmp"))
        .unwrap()
        .count();
    assert_eq!(leftovers, 0);

    std::fs::write(root.join(".lswitch-tmp/put-killed"), "half").unwrap();
    std::fs::create_dir_all(root.join("empty/folder")).unwrap();
    std::fs::write(root.join("line\nbreak"), "no key").unwrap();
    std::os::unix::fs::symlink("/", root.join("everything")).unwrap();
    assert_eq!(listed(&store, "").await, [entry("a/b", 1)]);
    assert_eq!(store.list(".lswitch-tmp").await.unwrap(), []);
    assert!(matches!(
        store.get("a").await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.get_range("a", 0..0).await,
        Err(StoreError::NotFound { .. })
    ));
    store.delete("a").await.unwrap();
    assert_eq!(store.get("a/b").await.unwrap(), "x");
}

#[tokio::test]
async fn a_file_where_the_directory_should_be_is_reported() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "").unwrap();
    let store = Store::open(path.to_str().unwrap(), &AwsSettings::default())
        .await
        .unwrap();
    for error in [
        store.put("k", Bytes::new()).await.unwrap_err(),
        store.list("").await.unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            error.contains(store.url()) && error.contains("check the directory"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn other_schemes_are_refused_with_what_to_write_instead() {
    let error = Store::open("gs://bucket/x", &AwsSettings::default())
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "\"gs://bucket/x\" is no place for a store: gs:// is not a kind of store; \
         use s3://bucket/prefix, file:///absolute/path, or a path"
    );
}

#[tokio::test]
async fn a_missing_bucket_is_named_by_every_method() {
    let dir = TempDir::new().unwrap();
    let server = s3_server(dir.path()).await;
    let config = sdk_config(&server, &server.endpoint);
    let store = Store::open_with("s3://no-such-bucket/p", &config)
        .await
        .unwrap();
    for error in [
        store.get("k").await.unwrap_err(),
        store.put("k", Bytes::new()).await.unwrap_err(),
        store.put_if_absent("k", Bytes::new()).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.delete("k").await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message
                .starts_with("there is no bucket \"no-such-bucket\", which s3://no-such-bucket/p"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn wrong_credentials_are_reported_with_the_services_own_words() {
    let dir = TempDir::new().unwrap();
    let mut server = s3_server(dir.path()).await;
    server.secret_key = "wrong".to_owned();
    let config = sdk_config(&server, &server.endpoint);
    let store = Store::open_with(&format!("s3://{}/p", server.bucket), &config)
        .await
        .unwrap();
    let message = store.get("k").await.unwrap_err().to_string();
    assert!(
        message.starts_with("cannot read s3://lswitch-test/p/k: "),
        "{message}"
    );
    assert!(
        message.contains("SignatureDoesNotMatch") && message.contains("--profile"),
        "{message}"
    );
    assert!(!message.contains("wrong"), "{message}");
}

#[tokio::test]
async fn missing_settings_of_aws_are_reported_with_the_options_that_give_them() {
    let dir = TempDir::new().unwrap();
    let server = s3_server(dir.path()).await;
    let whole = sdk_config(&server, &server.endpoint);
    let nobody = aws_config::profile::ProfileFileCredentialsProvider::builder()
        .profile_name("no such profile")
        .build();
    let no_credentials = whole
        .clone()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(nobody))
        .build();
    let no_region = whole.into_builder().region(None).build();
    for config in [no_credentials, no_region] {
        let store = Store::open_with("s3://lswitch-test", &config)
            .await
            .unwrap();
        let message = store.get("k").await.unwrap_err().to_string();
        assert!(
            message.starts_with("cannot read s3://lswitch-test/k: "),
            "{message}"
        );
        assert!(
            message.contains("--region") && message.contains("--profile"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_no_s3_is_an_error_and_not_an_object() {
    let place = faulty_place(|_| Fate::Refused(418, "Teapot")).await;
    let message = place.store.get("k").await.unwrap_err().to_string();
    assert!(
        message.contains("Teapot") && message.contains("check the store's location"),
        "{message}"
    );
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_an_error_in_bounded_time() {
    let dir = TempDir::new().unwrap();
    let server = s3_server(dir.path()).await;
    // Port 1 of the loopback refuses at once; the rest of the time are the pauses between the tries.
    let store = Store::open_with("s3://graphs/p", &sdk_config(&server, "http://127.0.0.1:1"))
        .await
        .unwrap();
    let start = Instant::now();
    let error = tokio::time::timeout(Duration::from_secs(60), store.get("k"))
        .await
        .expect("no answer in 60 s");
    let message = error.unwrap_err().to_string();
    assert!(
        message.starts_with("cannot read s3://graphs/p/k: "),
        "{message}"
    );
    assert!(
        message.contains("refused") && message.contains("AWS_ENDPOINT_URL_S3"),
        "{message}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(40),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_bucket_goes_into_the_path_when_the_endpoint_has_a_name() {
    let dir = TempDir::new().unwrap();
    let server = s3_server(dir.path()).await;
    let endpoint = server.endpoint.replace("127.0.0.1", "localhost");
    let store = Store::open_with(
        &format!("s3://{}", server.bucket),
        &sdk_config(&server, &endpoint),
    )
    .await
    .unwrap();
    store.put("k", bytes("v")).await.unwrap();
    assert!(Path::new(dir.path()).join("lswitch-test/k").is_file());
}

#[tokio::test]
async fn a_conflict_of_conditional_writes_is_tried_again() {
    let writes = Arc::new(AtomicU32::new(0));
    let place = faulty_place({
        let writes = writes.clone();
        move |request| match request.method.as_str() {
            "PUT" if writes.fetch_add(1, Ordering::Relaxed) < 3 => {
                Fate::Refused(409, "ConditionalRequestConflict")
            }
            _ => Fate::Served,
        }
    })
    .await;
    assert!(place.store.put_if_absent("k", bytes("v")).await.unwrap());
    assert_eq!(writes.load(Ordering::Relaxed), 4);
    assert_eq!(place.store.get("k").await.unwrap(), "v");
}

#[tokio::test]
async fn an_endless_conflict_of_conditional_writes_is_an_error() {
    let place = faulty_place(|_| Fate::Refused(409, "ConditionalRequestConflict")).await;
    let error = place
        .store
        .put_if_absent("k", bytes("v"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, StoreError::Conflict { tries: 8, .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with("could not create s3://lswitch-test/p/k in 8 tries"),
        "{error}"
    );
}

#[tokio::test]
async fn a_conditional_write_whose_answer_is_lost_does_not_lose_against_itself() {
    let writes = Arc::new(AtomicU32::new(0));
    let place = faulty_place({
        let writes = writes.clone();
        move |request| match request.method.as_str() {
            "PUT" if writes.fetch_add(1, Ordering::Relaxed) == 0 => Fate::AnswerLost,
            _ => Fate::Served,
        }
    })
    .await;
    assert!(place.store.put_if_absent("k", bytes("v")).await.unwrap());
    assert_eq!(writes.load(Ordering::Relaxed), 2);
    assert!(!place.store.put_if_absent("k", bytes("w")).await.unwrap());
}

#[tokio::test]
async fn an_object_that_vanishes_between_the_refusal_and_the_look_is_written_after_all() {
    let writes = Arc::new(AtomicU32::new(0));
    let place = faulty_place({
        let writes = writes.clone();
        move |request| match request.method.as_str() {
            "PUT" if writes.fetch_add(1, Ordering::Relaxed) == 0 => {
                Fate::Refused(412, "PreconditionFailed")
            }
            _ => Fate::Served,
        }
    })
    .await;
    assert!(place.store.put_if_absent("k", bytes("v")).await.unwrap());
    assert_eq!(place.store.get("k").await.unwrap(), "v");
}

#[tokio::test]
async fn a_busy_service_is_asked_again() {
    let requests = Arc::new(AtomicU32::new(0));
    let place = faulty_place({
        let requests = requests.clone();
        move |_| match requests.fetch_add(1, Ordering::Relaxed) {
            0 | 2 => Fate::Refused(503, "SlowDown"),
            _ => Fate::Served,
        }
    })
    .await;
    place.store.put("k", bytes("v")).await.unwrap();
    assert_eq!(place.store.get("k").await.unwrap(), "v");
    assert_eq!(requests.load(Ordering::Relaxed), 4);
}

/// A store on a server that knows HTTP only by heart: each connection gets the next of `answers`, the last one again and
/// again, and is closed. Also the number of connections so far.
async fn recited_place(answers: Vec<Vec<u8>>) -> (Store, Arc<AtomicU32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicU32::new(0));
    tokio::spawn({
        let connections = connections.clone();
        async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let n = connections.fetch_add(1, Ordering::Relaxed) as usize;
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0);
                }
                socket
                    .write_all(&answers[n.min(answers.len() - 1)])
                    .await
                    .unwrap();
                socket.shutdown().await.unwrap();
            }
        }
    });
    let credentials = Credentials::new("key", "secret", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build();
    (
        Store::open_with("s3://recited/p", &config).await.unwrap(),
        connections,
    )
}

/// An answer that announces the whole `value` and carries the first `sent` bytes of it.
fn recited(value: &[u8], sent: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        value.len()
    );
    [head.as_bytes(), &value[..sent]].concat()
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_again() {
    let value = noise(150_000);
    let answers = vec![
        recited(&value, 70_000),
        recited(&value, 0),
        recited(&value, value.len()),
    ];
    let (store, connections) = recited_place(answers).await;
    assert!(store.get("k").await.unwrap() == value);
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_body_that_always_breaks_off_is_an_error() {
    let (store, connections) = recited_place(vec![recited(&noise(1000), 999)]).await;
    let error = store.get("k").await.unwrap_err();
    assert!(
        matches!(error, StoreError::BrokenRead { tries: 4, .. }),
        "{error:?}"
    );
    let expected =
        "cannot read s3://recited/p/k: its bytes did not arrive in 4 tries, the last time because ";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert_eq!(connections.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_made_again() {
    let (store, connections) = recited_place(vec![Vec::new(), recited(b"value", 5)]).await;
    assert_eq!(store.get("k").await.unwrap(), "value");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

/// Names the store for the test below, which only then does something: it runs again in a process of its own, because a
/// process's environment must not change while its tests run.
const CHILD_STORE: &str = "LSWITCH_TEST_STORE";

#[tokio::test]
async fn the_environment_says_where_s3_is() {
    if let Ok(location) = std::env::var(CHILD_STORE) {
        let store = Store::open(&location, &AwsSettings::default())
            .await
            .unwrap();
        assert_eq!(store.url(), location);
        store.put("from/the child", bytes("hello")).await.unwrap();
        assert_eq!(keys(&store, "from/").await, ["from/the child"]);
        return;
    }
    for variable in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        let dir = TempDir::new().unwrap();
        let server = s3_server(dir.path()).await;
        let mut env = server.env();
        env[0] = (
            variable.to_owned(),
            server.endpoint.replace("127.0.0.1", "localhost"),
        );
        let child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::the_environment_says_where_s3_is",
                "--nocapture",
            ])
            .env_remove("AWS_PROFILE")
            .env_remove("AWS_ENDPOINT_URL")
            .envs(env)
            .env(CHILD_STORE, format!("s3://{}/p", server.bucket))
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), child)
            .await
            .expect("the child hangs")
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let object = dir.path().join("lswitch-test/p/from/the child");
        assert_eq!(std::fs::read(object).unwrap(), b"hello", "{variable}");
    }
}
