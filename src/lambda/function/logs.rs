//! What functions print: events of CloudWatch Logs, once and as they come.

use super::manage::{ManageError, failed};
use crate::lambda::launch::Request;
use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::error::ProvideErrorMetadata;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// How much later than its own time an event may be found, in milliseconds.
const LATE_MS: i64 = 15_000;

/// The last lines of an invocation that are looked at.
const PAGE: i32 = 1000;

/// How much later than an invocation's end what belongs to it may be dated, in milliseconds.
const AFTER_MS: i64 = 100;

/// How often it is looked whether lines have come.
const LOOK: Duration = Duration::from_secs(1);

/// Speaks with CloudWatch Logs.
#[derive(Debug, Clone)]
pub struct Logs {
    client: Client,
}

/// A line that a function printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The environment that printed it.
    pub stream: String,
    /// What it printed, without the end of the line.
    pub message: String,
}

/// Reads a function's events in the order of their times, each once.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    group: String,
    /// From when on events are asked for.
    from_ms: i64,
    /// Those that were told and may be found again: their time, and their ids.
    told: BTreeSet<(i64, String)>,
}

/// The group that a function's environments log to.
pub fn group_of(function: &str) -> String {
    format!("/aws/lambda/{function}")
}

/// A function's name, of its name, its ARN, or a part of that, with a version or without.
fn plain_name(function: &str) -> &str {
    let parts: Vec<&str> = function.split(':').collect();
    match parts.iter().position(|part| *part == "function") {
        Some(at) => parts.get(at + 1).unwrap_or(&function),
        None => parts[0],
    }
}

impl Logs {
    /// Speaks with the service that `config` leads to.
    pub fn new(config: &SdkConfig) -> Logs {
        Logs {
            client: Client::new(config),
        }
    }

    /// Makes a function's group, so that its role need not, and lets events go after so many days.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn make_group(&self, function: &str, days: i32) -> Result<(), ManageError> {
        let group = group_of(function);
        match self
            .client
            .create_log_group()
            .log_group_name(&group)
            .send()
            .await
        {
            // An older one keeps what its owner has set.
            Err(error) if error.code() == Some("ResourceAlreadyExistsException") => return Ok(()),
            Err(error) => return Err(failed("make log group", &group)(error)),
            Ok(_) => {}
        }
        let keep = self.client.put_retention_policy().log_group_name(&group);
        let kept = keep.retention_in_days(days).send().await;
        kept.map(drop)
            .map_err(failed("set the retention of", &group))
    }

    /// Takes a function's group away, with all it holds.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn delete_group(&self, function: &str) -> Result<(), ManageError> {
        let group = group_of(function);
        match self
            .client
            .delete_log_group()
            .log_group_name(&group)
            .send()
            .await
        {
            Err(error) if error.code() != Some("ResourceNotFoundException") => {
                Err(failed("delete log group", &group)(error))
            }
            _ => Ok(()),
        }
    }

    /// The last lines that one invocation printed, once it has ended and they have come, which takes some seconds; none after `within`.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn tail(
        &self,
        request: &Request,
        count: usize,
        within: Duration,
    ) -> Result<Vec<String>, ManageError> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let mut lines = self.of_invocation(request).await?;
            if !lines.is_empty() || tokio::time::Instant::now() + LOOK > deadline {
                return Ok(lines.split_off(lines.len().saturating_sub(count)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What an invocation printed, between the lines by which Lambda tells its beginning and its end.
    async fn of_invocation(&self, request: &Request) -> Result<Vec<String>, ManageError> {
        let group = group_of(plain_name(&request.function));
        let at = request.at.duration_since(SystemTime::UNIX_EPOCH);
        let from_ms = at.unwrap_or_default().as_millis() as i64 - LATE_MS;
        let ask = self.client.filter_log_events().log_group_name(&group);
        let ask = ask
            .start_time(from_ms)
            .filter_pattern(format!("\"{}\"", request.id));
        // Pages may be empty, and more follow.
        let mut pages = ask.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => found.extend(page.events.unwrap_or_default()),
                Err(error) if error.code() == Some("ResourceNotFoundException") => break,
                Err(error) => return Err(failed("read log group", &group)(error)),
            }
        }
        let is = |message: Option<&str>, word: &str| {
            message.is_some_and(|message| {
                message.starts_with(&format!("{word} RequestId: {}", request.id))
            })
        };
        let at = |word| found.iter().find(|event| is(event.message(), word));
        let (Some(start), Some(end)) = (at("START"), at("END")) else {
            return Ok(Vec::new());
        };
        let page = self.client.get_log_events().log_group_name(&group);
        let page = page
            .log_stream_name(start.log_stream_name().unwrap_or_default())
            .start_time(start.timestamp().unwrap_or_default())
            .end_time(end.timestamp().unwrap_or_default() + AFTER_MS)
            .start_from_head(false)
            .limit(PAGE);
        let page = page
            .send()
            .await
            .map_err(failed("read log group", &group))?;
        let messages: Vec<Option<&str>> =
            page.events().iter().map(|event| event.message()).collect();
        // Of one that printed more than a page the last page is enough.
        let first = messages.iter().position(|message| is(*message, "START"));
        let inside = messages[first.map_or(0, |first| first + 1)..]
            .iter()
            .copied()
            .take_while(|message| !is(*message, "REPORT"));
        let printed = inside.filter(|message| !is(*message, "END"));
        let lines = printed.flatten().flat_map(str::lines).map(str::trim_end);
        Ok(lines
            .filter(|line| !line.is_empty())
            .map(str::to_string)
            .collect())
    }

    /// Reads a function's events from then on.
    pub fn follow(&self, function: &str, from_ms: i64) -> Follower {
        Follower {
            client: self.client.clone(),
            group: group_of(function),
            from_ms,
            told: BTreeSet::new(),
        }
    }
}

impl Follower {
    /// Gives what is new, a page at a time; `take` is called with each event.
    ///
    /// # Errors
    /// When the service refuses. A group that does not exist yet has no events.
    pub async fn read(&mut self, take: &mut impl FnMut(LogEvent)) -> Result<(), ManageError> {
        let ask = self.client.filter_log_events();
        let ask = ask.log_group_name(&self.group).start_time(self.from_ms);
        let mut pages = ask.into_paginator().send();
        let mut newest = self.from_ms;
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(()),
                Err(error) => return Err(failed("read log group", &self.group)(error)),
            };
            for event in page.events() {
                let at_ms = event.timestamp().unwrap_or_default();
                let id = event.event_id().unwrap_or_default().to_string();
                if !self.told.insert((at_ms, id)) {
                    continue;
                }
                newest = newest.max(at_ms);
                take(LogEvent {
                    at_ms,
                    stream: event.log_stream_name().unwrap_or_default().into(),
                    message: event.message().unwrap_or_default().trim_end().into(),
                });
            }
        }
        // Those before it are not asked for again.
        self.from_ms = self.from_ms.max(newest - LATE_MS);
        self.told = self.told.split_off(&(self.from_ms, String::new()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_all_that_names_a_function() {
        for text in [
            "ranker",
            "ranker:7",
            "123456789012:function:ranker",
            "arn:aws:lambda:eu-west-1:123456789012:function:ranker",
            "arn:aws:lambda:eu-west-1:123456789012:function:ranker:live",
        ] {
            assert_eq!(plain_name(text), "ranker", "{text}");
        }
    }
}
