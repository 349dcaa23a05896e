//! A function's settings: those that are wanted, those that it has, and how they differ. Pure.

use super::{PACKAGE_TAG, Runtime, TAG};
use crate::lambda::limits::{self, STORAGE_MB, TIMEOUT_S};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use thiserror::Error;

/// Lambda's limits for the lists of a function.
const LAYERS_MAX: usize = 5;
const SUBNETS_MAX: usize = 16;
const SECURITY_GROUPS_MAX: usize = 5;
/// AWS's limit for tags, of which lswitch sets some.
const TAGS_MAX: usize = 48;

/// What a user says of a function. What is `None` stays as it is, or as the defaults have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What runs the code.
    pub runtime: Option<Runtime>,
    /// What the runtime calls.
    pub handler: Option<String>,
    /// Memory in MB; processors come with it, one for each 1,769 MB.
    pub memory_mb: Option<u32>,
    /// How long one invocation may run, in seconds.
    pub timeout_s: Option<u32>,
    /// What `/tmp` holds, in MB.
    pub storage_mb: Option<u32>,
    /// ARNs of layers, with their versions.
    pub layers: Option<Vec<String>>,
    /// Variables to set.
    pub environment: BTreeMap<String, String>,
    /// Variables to take away.
    pub unset: BTreeSet<String>,
    /// The network that the function is in.
    pub vpc: Option<Vpc>,
    /// Environments that are kept for this function and that it never exceeds.
    pub reserved_concurrency: Option<u32>,
    /// Tags to set.
    pub tags: BTreeMap<String, String>,
    /// ARN of the role that the function has.
    pub role: Option<String>,
}

/// A function's place in a network of the account; both empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vpc {
    /// Ids of subnets.
    pub subnets: BTreeSet<String>,
    /// Ids of security groups.
    pub security_groups: BTreeSet<String>,
}

/// A function as it is on AWS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Deployed {
    /// Its name.
    pub name: String,
    /// Its ARN, without a version.
    pub arn: String,
    /// What runs the code, as AWS names it.
    pub runtime: String,
    /// What the runtime calls.
    pub handler: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Memory in MB.
    pub memory_mb: u32,
    /// How long one invocation may run, in seconds.
    pub timeout_s: u32,
    /// What `/tmp` holds, in MB.
    pub storage_mb: u32,
    /// ARNs of layers.
    pub layers: Vec<String>,
    /// Its variables.
    pub environment: BTreeMap<String, String>,
    /// Its network.
    pub vpc: Vpc,
    /// Environments that are kept for it.
    pub reserved_concurrency: Option<u32>,
    /// How often Lambda itself repeats an asynchronous invocation; none if nobody has said.
    pub async_retries: Option<u32>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// ARN of its role.
    pub role: String,
    /// SHA-256 of its package, in base64.
    pub code_sha256: String,
    /// Bytes of its package.
    pub code_bytes: u64,
    /// When it was last changed, as AWS writes it.
    pub modified: String,
    /// `Active`, `Pending`, `Failed`, ...
    pub state: String,
}

/// Why settings are refused, in the terms of the command.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("--{option}: {problem}")]
pub struct SettingError {
    /// The option, without its dashes.
    pub option: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A setting that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which one.
    pub setting: &'static str,
    /// What it is.
    pub from: String,
    /// What it should be.
    pub to: String,
}

impl Settings {
    /// Checks them against AWS's limits.
    ///
    /// # Errors
    /// Names the first one that breaks one.
    pub fn check(&self) -> Result<(), SettingError> {
        let as_option = |option| move |problem| SettingError { option, problem };
        let limit = |option, wrong: bool, what: String| match wrong {
            true => Err(as_option(option)(what)),
            false => Ok(()),
        };
        if let Some(memory_mb) = self.memory_mb {
            limits::check_memory(memory_mb).map_err(as_option("memory"))?;
        }
        if let Some(timeout_s) = self.timeout_s {
            let (least, most) = (TIMEOUT_S.start(), TIMEOUT_S.end());
            limit(
                "timeout",
                !TIMEOUT_S.contains(&timeout_s.into()),
                format!("{timeout_s} is outside Lambda's {least} to {most} seconds"),
            )?;
        }
        if let Some(storage_mb) = self.storage_mb {
            let (least, most) = (STORAGE_MB.start(), STORAGE_MB.end());
            limit(
                "storage",
                !STORAGE_MB.contains(&storage_mb),
                format!("{storage_mb} is outside Lambda's {least} to {most} MB"),
            )?;
        }
        let layers = self.layers.as_deref().unwrap_or_default();
        limit(
            "layer",
            layers.len() > LAYERS_MAX,
            format!("a function has at most {LAYERS_MAX} layers"),
        )?;
        for layer in layers {
            let fields: Vec<&str> = layer.split(':').collect();
            let versioned = fields.len() == 8 && fields[..3] == ["arn", fields[1], "lambda"];
            limit(
                "layer",
                !versioned || fields[7].parse::<u32>().is_err(),
                format!(
                    "{layer:?} is no layer with its version: arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION"
                ),
            )?;
        }
        limits::check_environment(&self.environment).map_err(as_option("env"))?;
        if let Some(vpc) = &self.vpc {
            vpc.check()?;
        }
        for (key, value) in &self.tags {
            let wrong = key.is_empty()
                || key.chars().count() > 128
                || value.chars().count() > 256
                || key.to_ascii_lowercase().starts_with("aws:");
            limit(
                "tag",
                wrong,
                format!(
                    "{key:?} is no tag: 1 to 128 letters that do not begin with aws:, and a value of at most 256"
                ),
            )?;
            limit(
                "tag",
                [TAG, PACKAGE_TAG].contains(&key.as_str()),
                format!("{key} is a tag of lswitch's own"),
            )?;
        }
        limit(
            "tag",
            self.tags.len() > TAGS_MAX,
            format!("there may be {TAGS_MAX} besides those of lswitch"),
        )?;
        if let Some(role) = &self.role {
            limit(
                "role",
                !(role.starts_with("arn:") && role.contains(":role/")),
                format!(
                    "{role:?} is no role's ARN: arn:aws:iam::ACCOUNT:role/NAME; --create-role makes one"
                ),
            )?;
        }
        if let Some(Runtime::Python(_)) = &self.runtime {
            let handler = self.handler.as_deref().unwrap_or_default();
            limit(
                "handler",
                !handler.contains('.'),
                "a function in Python needs one, as MODULE.FUNCTION".into(),
            )?;
        }
        Ok(())
    }

    /// How `deployed` differs from what is wanted.
    pub fn changes(&self, deployed: &Deployed) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut compare = |setting, from: String, to: Option<String>| {
            if let Some(to) = to.filter(|to| *to != from) {
                changes.push(Change { setting, from, to });
            }
        };
        fn text(value: &Option<impl Display>) -> Option<String> {
            value.as_ref().map(ToString::to_string)
        }
        compare("runtime", deployed.runtime.clone(), text(&self.runtime));
        compare("handler", deployed.handler.clone(), self.handler.clone());
        compare(
            "memory",
            deployed.memory_mb.to_string(),
            text(&self.memory_mb),
        );
        compare(
            "timeout",
            deployed.timeout_s.to_string(),
            text(&self.timeout_s),
        );
        compare(
            "storage",
            deployed.storage_mb.to_string(),
            text(&self.storage_mb),
        );
        let layers = self.layers.as_ref().map(|layers| layers.join(","));
        compare("layers", deployed.layers.join(","), layers);
        compare(
            "environment",
            names(&deployed.environment),
            Some(self.environment_of(&deployed.environment))
                .filter(|wanted| *wanted != deployed.environment)
                .map(|wanted| match names(&wanted) {
                    // Values may be secrets, so they are not shown.
                    same if same == names(&deployed.environment) => {
                        format!("{same} (other values)")
                    }
                    other => other,
                }),
        );
        let vpc = self.vpc.as_ref().map(Vpc::to_string);
        compare("network", deployed.vpc.to_string(), vpc);
        compare(
            "reserved concurrency",
            text(&deployed.reserved_concurrency).unwrap_or_default(),
            text(&self.reserved_concurrency),
        );
        compare("role", deployed.role.clone(), self.role.clone());
        compare(
            "asynchronous retries",
            text(&deployed.async_retries).unwrap_or_else(|| "2".into()),
            Some("0".into()),
        );
        for (key, value) in &self.tags {
            let from = deployed.tags.get(key).cloned().unwrap_or_default();
            compare(
                "tag",
                format!("{key}={from}"),
                Some(format!("{key}={value}")),
            );
        }
        changes
    }

    /// The variables of a function that has had `present`.
    pub fn environment_of(&self, present: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut environment = present.clone();
        environment.extend(self.environment.clone());
        environment.retain(|name, _| !self.unset.contains(name));
        environment
    }
}

impl Vpc {
    fn check(&self) -> Result<(), SettingError> {
        let wrong = |option, problem| Err(SettingError { option, problem });
        for (option, kind, ids, most) in [
            ("subnet", "subnet-", &self.subnets, SUBNETS_MAX),
            (
                "security-group",
                "sg-",
                &self.security_groups,
                SECURITY_GROUPS_MAX,
            ),
        ] {
            if ids.len() > most {
                return wrong(option, format!("a function has at most {most}"));
            }
            if let Some(id) = ids.iter().find(|id| !id.starts_with(kind)) {
                return wrong(option, format!("{id:?} is no id; they begin with {kind}"));
            }
        }
        match (self.subnets.is_empty(), self.security_groups.is_empty()) {
            (false, true) => wrong("subnet", "it needs --security-group too".into()),
            (true, false) => wrong("security-group", "it needs --subnet too".into()),
            _ => Ok(()),
        }
    }
}

impl Display for Vpc {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.subnets.iter().chain(&self.security_groups);
        let ids: Vec<&str> = ids.map(String::as_str).collect();
        formatter.write_str(&ids.join(" "))
    }
}

fn names(environment: &BTreeMap<String, String>) -> String {
    let names: Vec<&str> = environment.keys().map(String::as_str).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: Settings) -> String {
        settings.check().expect_err("it breaks a limit").to_string()
    }

    #[test]
    fn what_aws_would_refuse_is_named() {
        let of = Settings::default;
        let memory_mb = Some(100);
        assert_eq!(
            refusal(Settings { memory_mb, ..of() }),
            "--memory: 100 is outside Lambda's 128 to 10240 MB"
        );
        let timeout_s = Some(901);
        assert!(refusal(Settings { timeout_s, ..of() }).starts_with("--timeout: 901"));
        let storage_mb = Some(511);
        assert!(refusal(Settings { storage_mb, ..of() }).starts_with("--storage: 511"));
        let layers = Some(vec!["arn:aws:lambda:us-east-1:1:layer:mine".into()]);
        assert!(refusal(Settings { layers, ..of() }).contains("with its version"));
        let environment = [("AWS_LAMBDA_RUNTIME_API".into(), "x".into())].into();
        assert!(
            refusal(Settings {
                environment,
                ..of()
            })
            .starts_with("--env: AWS_LAMBDA")
        );
        let vpc = |subnets: &[&str], groups: &[&str]| Settings {
            vpc: Some(Vpc {
                subnets: subnets.iter().map(ToString::to_string).collect(),
                security_groups: groups.iter().map(ToString::to_string).collect(),
            }),
            ..of()
        };
        assert!(refusal(vpc(&["subnet-1"], &[])).contains("--security-group too"));
        assert!(refusal(vpc(&["vpc-1"], &["sg-1"])).contains("no id"));
        assert_eq!(vpc(&["subnet-1"], &["sg-1"]).check(), Ok(()));
        assert_eq!(vpc(&[], &[]).check(), Ok(()));
        let tags = [("aws:mine".into(), String::new())].into();
        assert!(refusal(Settings { tags, ..of() }).starts_with("--tag"));
        let role = Some("lswitch".into());
        assert!(refusal(Settings { role, ..of() }).contains("--create-role"));
        let runtime = Some(Runtime::Python("3.12".into()));
        assert!(refusal(Settings { runtime, ..of() }).starts_with("--handler"));
    }

    #[test]
    fn only_what_was_said_and_differs_is_a_change() {
        let deployed = Deployed {
            memory_mb: 1769,
            timeout_s: 900,
            environment: [("A".into(), "1".into()), ("B".into(), "2".into())].into(),
            async_retries: Some(0),
            ..Deployed::default()
        };
        let nothing = Settings::default();
        assert_eq!(nothing.changes(&deployed), []);
        let same = Settings {
            memory_mb: Some(1769),
            environment: [("A".into(), "1".into())].into(),
            unset: ["C".into()].into(),
            ..Settings::default()
        };
        assert_eq!(same.changes(&deployed), []);
        let other = Settings {
            memory_mb: Some(3538),
            environment: [("A".into(), "secret".into())].into(),
            ..Settings::default()
        };
        let changes = other.changes(&deployed);
        assert_eq!(changes.len(), 2);
        assert_eq!((&changes[0].from[..], &changes[0].to[..]), ("1769", "3538"));
        assert_eq!(changes[1].to, "A B (other values)");
        let unset = Settings {
            unset: ["A".into()].into(),
            ..Settings::default()
        };
        assert_eq!(unset.changes(&deployed)[0].to, "B");
        let made_by_hand = Deployed {
            async_retries: None,
            ..deployed
        };
        assert_eq!(
            nothing.changes(&made_by_hand)[0].setting,
            "asynchronous retries"
        );
    }
}
