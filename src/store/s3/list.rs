//! Listing the objects of a store in S3, and the uploads that were never finished.
//!
//! A list that ends early is input that is silently lost. So pages are followed here and not by the SDK's paginator,
//! which takes a missing or repeated token for the end.

use std::collections::HashSet;
use std::time::SystemTime;

use aws_sdk_s3::primitives::DateTime;

use super::S3;
use crate::store::{Entry, StoreError, Unfinished};

/// How a list continues after one page.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    End,
    From(String),
}

/// Follows the pages of one list.
#[derive(Default)]
struct Pages {
    tokens: HashSet<String>,
}

impl Pages {
    /// What comes after a page that is said to be cut off (`truncated`) and to continue at `token`.
    fn next(&mut self, truncated: Option<bool>, token: Option<String>) -> Result<Next, String> {
        let token = token.filter(|token| !token.is_empty());
        match (truncated, token) {
            (Some(false), _) | (None, None) => Ok(Next::End),
            (Some(true), None) => Err(format!(
                "after page {} the list is said to continue, but not how",
                self.tokens.len() + 1
            )),
            (_, Some(token)) => match self.tokens.insert(token.clone()) {
                true => Ok(Next::From(token)),
                false => Err(format!(
                    "the list continues in a circle after page {}",
                    self.tokens.len() + 1
                )),
            },
        }
    }
}

impl S3 {
    pub(in crate::store) async fn list(
        &self,
        prefix: &str,
        url: &str,
    ) -> Result<Vec<Entry>, StoreError> {
        let wanted = self.key(prefix);
        let broken = |problem| StoreError::BrokenList {
            url: url.to_owned(),
            problem,
        };
        let mut entries = Vec::new();
        let mut pages = Pages::default();
        let mut token = None;
        loop {
            let list = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&wanted)
                .set_continuation_token(token);
            let page = list.send().await;
            let page = page.map_err(|error| self.explain("list", url, &error))?;
            for object in page.contents() {
                let key = object
                    .key()
                    .ok_or_else(|| broken("an object in the list has no key".into()))?;
                let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok());
                let bytes =
                    bytes.ok_or_else(|| broken(format!("the object {key:?} has no size")))?;
                // A server that does not know prefixes sends other keys, too.
                if !key.starts_with(&wanted) {
                    continue;
                }
                entries.push(Entry {
                    key: key[self.prefix.len()..].to_owned(),
                    bytes,
                    modified: time(object.last_modified()),
                    etag: object.e_tag().map(str::to_owned),
                });
            }
            match pages.next(page.is_truncated, page.next_continuation_token) {
                Ok(Next::End) => return Ok(entries),
                Ok(Next::From(next)) => token = Some(next),
                Err(problem) => return Err(broken(problem)),
            }
        }
    }

    /// Uploads below the store's prefix that are neither completed nor aborted.
    pub(in crate::store) async fn unfinished(
        &self,
        url: &str,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let mut found = Vec::new();
        let mut pages = Pages::default();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let list = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(&self.prefix)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker);
            let page = list.send().await;
            let page = page.map_err(|error| self.explain("list", url, &error))?;
            for upload in page.uploads() {
                let key = upload.key().and_then(|key| key.strip_prefix(&self.prefix));
                if let (Some(key), Some(id)) = (key, upload.upload_id()) {
                    found.push(Unfinished {
                        key: key.to_owned(),
                        upload: Some(id.to_owned()),
                        bytes: 0,
                        modified: time(upload.initiated()),
                    });
                }
            }
            // The key and the upload's id make the token together.
            let token = page.next_key_marker.as_ref().map(|key| {
                let id = page.next_upload_id_marker.as_deref().unwrap_or_default();
                format!("{key}\n{id}")
            });
            match pages.next(page.is_truncated, token) {
                Ok(Next::End) => return Ok(found),
                Ok(Next::From(_)) => {
                    key_marker = page.next_key_marker;
                    id_marker = page.next_upload_id_marker;
                }
                Err(problem) => {
                    let url = url.to_owned();
                    return Err(StoreError::BrokenList { url, problem });
                }
            }
        }
    }
}

/// A time of S3. One without a time counts as new, so that nobody takes it for old.
fn time(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok())
        .unwrap_or_else(SystemTime::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn pages_follow_tokens_to_the_end() {
        let mut pages = Pages::default();
        assert_eq!(
            pages.next(Some(true), token("a")),
            Ok(Next::From("a".into()))
        );
        // Some servers leave IsTruncated out.
        assert_eq!(pages.next(None, token("b")), Ok(Next::From("b".into())));
        assert_eq!(pages.next(Some(false), token("c")), Ok(Next::End));
        assert_eq!(Pages::default().next(None, None), Ok(Next::End));
    }

    #[test]
    fn a_list_that_is_cut_off_without_a_token_is_an_error() {
        for empty in [None, token("")] {
            let problem = Pages::default().next(Some(true), empty).unwrap_err();
            assert!(problem.contains("after page 1"), "{problem}");
        }
    }

    #[test]
    fn a_token_that_comes_again_is_an_error_and_no_endless_list() {
        let mut pages = Pages::default();
        for name in ["a", "b"] {
            assert!(pages.next(Some(true), token(name)).is_ok());
        }
        let problem = pages.next(Some(true), token("a")).unwrap_err();
        assert!(problem.contains("circle"), "{problem}");
    }
}
