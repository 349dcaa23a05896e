//! The profile in AWS's files, for what the SDK does not look up by itself.

use super::{AwsError, error_chain, variable};
use aws_config::profile::{self, ProfileSet};
use aws_types::os_shim_internal::{Env, Fs};

/// Profiles that an error names, at most.
const NAMED_MAX: usize = 10;

/// AWS's files, with one profile chosen.
pub(super) struct Profiles(ProfileSet);

impl Profiles {
    /// Reads the files. `name` is the profile that the user named, else AWS's own rules choose.
    pub(super) async fn load(name: Option<&str>) -> Result<Profiles, AwsError> {
        let chosen = name.map(|name| name.to_owned().into());
        let (fs, env) = (Fs::real(), Env::real());
        let profiles = profile::load(&fs, &env, &Default::default(), chosen).await;
        let profiles = profiles.map_err(|error| AwsError::Files {
            problem: error_chain(&error),
        })?;
        // A worker has the settings of its driver in variables, and perhaps no files.
        let named = match variable("AWS_LAMBDA_RUNTIME_API") {
            Some(_) => None,
            None => name.map(str::to_owned).or_else(|| variable("AWS_PROFILE")),
        };
        match named {
            Some(profile) if profiles.get_profile(&profile).is_none() => Err(AwsError::NoProfile {
                known: known(&profiles),
                files: places(),
                profile,
            }),
            _ => Ok(Profiles(profiles)),
        }
    }

    /// A property of the chosen profile.
    pub(super) fn get(&self, property: &str) -> Option<&str> {
        self.0.get(property).filter(|value| !value.is_empty())
    }
}

fn known(profiles: &ProfileSet) -> String {
    let mut names: Vec<&str> = profiles.profiles().collect();
    names.sort_unstable();
    match names.len() {
        0 => "no profile".to_owned(),
        count if count > NAMED_MAX => format!("{} and others", names[..NAMED_MAX].join(", ")),
        _ => names.join(", "),
    }
}

fn places() -> String {
    let place = |name, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
    let config = place("AWS_CONFIG_FILE", "~/.aws/config");
    let credentials = place("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials");
    format!("{config}, {credentials}")
}
