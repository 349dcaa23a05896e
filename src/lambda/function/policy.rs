//! Which permissions each part of lswitch needs, and no others: policies for IAM, as JSON. Pure.

use crate::random::to_hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Whose permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The role of the functions.
    Worker,
    /// Whoever runs `lswitch invoke`.
    Launcher,
    /// The machine of `lswitch serve`.
    Switch,
    /// Whoever runs `lswitch function`.
    Manager,
}

/// What the policies are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// AWS's partition: `aws`, or `aws-cn`, `aws-us-gov`.
    pub partition: String,
    /// The region of the functions.
    pub region: String,
    /// The account, 12 digits.
    pub account: String,
    /// The functions.
    pub functions: Vec<String>,
    /// Bucket and prefix of the store, if it is in S3; the prefix may be empty.
    pub store: Option<(String, String)>,
    /// The functions are in a network of the account.
    pub vpc: bool,
    /// Workers start workers.
    pub tree: bool,
}

/// Who may take a function's role: Lambda.
pub fn trust() -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Service": "lambda.amazonaws.com" },
            "Action": "sts:AssumeRole",
        }],
    })
}

/// The policy of one part. No action has a wildcard; resources have one only where keys are not known beforehand, and where AWS
/// knows no narrower one (network interfaces, lists).
pub fn policy(part: Part, scope: &Scope) -> Value {
    let statements = match part {
        Part::Worker => scope.worker(),
        Part::Launcher => scope.launcher(),
        Part::Switch => scope.switch(),
        Part::Manager => scope.manager(),
    };
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// The parameter that holds the switch's secret, for the machine of the switch.
pub const SECRET_PARAMETER: &str = "/lswitch/secret";

/// The parameter that holds its certificate and the key of that.
pub const CERTIFICATE_PARAMETER: &str = "/lswitch/certificate";

/// Key of its executable in the store.
pub const SWITCH_KEY: &str = "switch/lswitch";

/// Name of the role that `--create-role` makes for a function.
pub fn role_name(function: &str) -> String {
    // A role's name has at most 64 letters, as a function's; what is cut off still tells them apart.
    let name = format!("lswitch-{function}");
    if name.len() <= 64 {
        return name;
    }
    let sum = Sha256::digest(function.as_bytes());
    format!("{}-{}", &name[..55], to_hex(&sum[..4]))
}

impl Scope {
    fn arn(&self, service: &str, rest: &str) -> String {
        let Scope {
            partition,
            region,
            account,
            ..
        } = self;
        format!("arn:{partition}:{service}:{region}:{account}:{rest}")
    }

    fn function_arns(&self) -> Vec<String> {
        let arn = |name: &String| self.arn("lambda", &format!("function:{name}"));
        self.functions.iter().map(arn).collect()
    }

    fn log_groups(&self) -> Vec<String> {
        let group = |name: &String| self.arn("logs", &format!("log-group:/aws/lambda/{name}:*"));
        self.functions.iter().map(group).collect()
    }

    /// Reading and writing the store's objects.
    fn objects(&self) -> Vec<Value> {
        let Some((bucket, prefix)) = &self.store else {
            return Vec::new();
        };
        let partition = &self.partition;
        let below = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let bucket = format!("arn:{partition}:s3:::{bucket}");
        let mut list = allow("ListOfStore", &["s3:ListBucket"], json!(bucket));
        if !below.is_empty() {
            list["Condition"] =
                json!({ "StringLikeIfExists": { "s3:prefix": [format!("{below}*")] } });
        }
        let actions = [
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
        ];
        vec![
            allow(
                "ObjectsOfStore",
                &actions,
                json!(format!("{bucket}/{below}*")),
            ),
            list,
        ]
    }

    fn worker(&self) -> Vec<Value> {
        let logs = ["logs:CreateLogStream", "logs:PutLogEvents"];
        let mut statements = vec![allow("Logs", &logs, json!(self.log_groups()))];
        statements.extend(self.objects());
        if self.vpc {
            let actions = [
                "ec2:CreateNetworkInterface",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSubnets",
                "ec2:DeleteNetworkInterface",
                "ec2:AssignPrivateIpAddresses",
                "ec2:UnassignPrivateIpAddresses",
            ];
            statements.push(allow("NetworkInterfaces", &actions, json!("*")));
        }
        if self.tree {
            let arns = json!(self.function_arns());
            statements.push(allow("StartOthers", &["lambda:InvokeFunction"], arns));
        }
        statements
    }

    fn launcher(&self) -> Vec<Value> {
        let arns = json!(self.function_arns());
        let invoke = [
            "lambda:InvokeFunction",
            "lambda:GetFunction",
            "lambda:GetFunctionEventInvokeConfig",
            "lambda:ListTags",
        ];
        let mut statements = vec![
            allow("Invoke", &invoke, arns),
            allow("Limits", &["lambda:GetAccountSettings"], json!("*")),
            allow(
                "LogsOfFailedWorkers",
                &["logs:FilterLogEvents", "logs:GetLogEvents"],
                json!(self.log_groups()),
            ),
        ];
        statements.extend(self.objects());
        if let Some((bucket, _)) = &self.store {
            // For `lswitch clean`.
            let bucket = format!("arn:{}:s3:::{bucket}", self.partition);
            let list = ["s3:ListBucketMultipartUploads"];
            statements.push(allow("UnfinishedUploads", &list, json!(bucket)));
        }
        statements
    }

    /// It takes its own executable from the store, and the secret from where it is kept.
    fn switch(&self) -> Vec<Value> {
        let parameters = [SECRET_PARAMETER, CERTIFICATE_PARAMETER];
        let parameters = parameters.map(|name| self.arn("ssm", &format!("parameter{name}")));
        let mut statements = vec![allow("Secrets", &["ssm:GetParameter"], json!(parameters))];
        if let Some((bucket, prefix)) = &self.store {
            let key = join(prefix, SWITCH_KEY);
            let arn = format!("arn:{}:s3:::{bucket}/{key}", self.partition);
            statements.push(allow("Executable", &["s3:GetObject"], json!(arn)));
        }
        statements
    }

    fn manager(&self) -> Vec<Value> {
        let functions = [
            "lambda:CreateFunction",
            "lambda:DeleteFunction",
            "lambda:GetFunction",
            "lambda:GetFunctionConfiguration",
            "lambda:GetFunctionEventInvokeConfig",
            "lambda:ListTags",
            "lambda:PutFunctionConcurrency",
            "lambda:PutFunctionEventInvokeConfig",
            "lambda:TagResource",
            "lambda:UpdateFunctionCode",
            "lambda:UpdateFunctionConfiguration",
        ];
        let lists = ["lambda:GetAccountSettings", "lambda:ListFunctions"];
        let roles = [
            "iam:CreateRole",
            "iam:DeleteRole",
            "iam:DeleteRolePolicy",
            "iam:GetRole",
            "iam:PutRolePolicy",
            "iam:TagRole",
        ];
        let logs = [
            "logs:CreateLogGroup",
            "logs:DeleteLogGroup",
            "logs:FilterLogEvents",
            "logs:PutRetentionPolicy",
        ];
        let role = |name: &String| {
            let (partition, account, role) = (&self.partition, &self.account, role_name(name));
            format!("arn:{partition}:iam::{account}:role/{role}")
        };
        let role_arns: Vec<String> = self.functions.iter().map(role).collect();
        let mut pass = allow("PassRole", &["iam:PassRole"], json!(role_arns));
        pass["Condition"] =
            json!({ "StringEquals": { "iam:PassedToService": "lambda.amazonaws.com" } });
        let mut statements = vec![
            allow("Functions", &functions, json!(self.function_arns())),
            // AWS knows no narrower resource for these.
            allow("Lists", &lists, json!("*")),
            allow("Roles", &roles, json!(role_arns)),
            pass,
            allow("Logs", &logs, json!(self.log_groups())),
        ];
        if self.vpc {
            // Lambda looks with the caller's eyes whether they are there.
            let look = [
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ];
            statements.push(allow("Network", &look, json!("*")));
        }
        if let Some((bucket, prefix)) = &self.store {
            let bucket = format!("arn:{}:s3:::{bucket}", self.partition);
            let make = [
                "s3:CreateBucket",
                "s3:ListBucket",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutLifecycleConfiguration",
            ];
            statements.push(allow("Bucket", &make, json!(bucket)));
            let key = join(prefix, "packages/*");
            let packages = ["s3:PutObject", "s3:GetObject"];
            statements.push(allow(
                "Packages",
                &packages,
                json!(format!("{bucket}/{key}")),
            ));
        }
        statements
    }
}

fn allow(id: &str, actions: &[&str], resource: Value) -> Value {
    json!({ "Sid": id, "Effect": "Allow", "Action": actions, "Resource": resource })
}

fn join(prefix: &str, key: &str) -> String {
    match prefix.trim_matches('/') {
        "" => key.into(),
        prefix => format!("{prefix}/{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            partition: "aws".into(),
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            functions: vec!["ranker".into()],
            store: Some(("graphs".into(), "pokec/".into())),
            vpc: false,
            tree: false,
        }
    }

    fn actions(policy: &Value) -> Vec<String> {
        let statements = policy["Statement"].as_array().expect("it has some");
        let actions = statements.iter().flat_map(|statement| {
            let actions = statement["Action"].as_array().expect("it has some");
            actions
                .iter()
                .map(|action| action.as_str().expect("it is text").to_string())
        });
        actions.collect()
    }

    #[test]
    fn no_action_is_a_wildcard_and_only_trees_may_invoke() {
        let scope = Scope {
            vpc: true,
            ..scope()
        };
        for part in [Part::Worker, Part::Launcher, Part::Switch, Part::Manager] {
            let policy = policy(part, &scope);
            let actions = actions(&policy);
            assert!(
                actions.iter().all(|action| !action.contains('*')),
                "{policy}"
            );
            let invokes = actions.contains(&"lambda:InvokeFunction".to_string());
            assert_eq!(invokes, part == Part::Launcher, "{part:?}");
        }
        let tree = Scope {
            tree: true,
            ..scope
        };
        let worker = actions(&policy(Part::Worker, &tree));
        assert!(worker.contains(&"lambda:InvokeFunction".to_string()));
    }

    #[test]
    fn a_worker_reaches_its_prefix_and_its_logs_alone() {
        let policy = policy(Part::Worker, &scope());
        assert_eq!(
            policy["Statement"][0]["Resource"][0],
            "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/ranker:*"
        );
        assert_eq!(
            policy["Statement"][1]["Resource"],
            "arn:aws:s3:::graphs/pokec/*"
        );
        assert_eq!(
            policy["Statement"][2]["Condition"]["StringLikeIfExists"]["s3:prefix"][0],
            "pokec/*"
        );
        // Nothing of the store without one.
        let none = Scope {
            store: None,
            ..scope()
        };
        let statements = super::policy(Part::Worker, &none)["Statement"]
            .as_array()
            .map(Vec::len);
        assert_eq!(statements, Some(1));
    }

    #[test]
    fn a_role_has_a_name_that_iam_takes() {
        assert_eq!(role_name("ranker"), "lswitch-ranker");
        let long = |end: &str| role_name(&format!("{}{end}", "x".repeat(60)));
        assert_eq!(long("1234").len(), 64);
        assert_ne!(long("1234"), long("1235"));
    }
}
