//! `lswitch function package`: the zip file alone.

use super::args::PackageArgs;
use crate::cmd::ui::{self, Ui, print_facts, print_json};
use anyhow::Context;
use serde_json::json;
use std::path::PathBuf;

/// Make the zip file of a function, without AWS
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch function package --out lswitch.zip
  lswitch function package --bootstrap target/lambda/bootstrap --include model.bin --out function.zip
  lswitch function package --runtime python3.12 --handler app.handler --include app.py \\
      --requirements requirements.txt --out app.zip

The same code makes the same bytes.")]
pub struct Package {
    #[command(flatten)]
    package: PackageArgs,

    /// Where it goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Package {
    /// Writes the file.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let package = self.package.package()?;
        let out = &self.out;
        std::fs::write(out, &package.zip)
            .with_context(|| format!("cannot write {}", out.display()))?;
        if self.json {
            print_json(&json!({
                "file": out.display().to_string(),
                "sha256": package.sha256,
                "architecture": package.architecture.to_string(),
                "files": package.files,
                "bytes": package.zip.len(),
                "unzipped_bytes": package.unzipped,
            }))?;
        } else {
            print_facts(&[
                ("file", out.display().to_string()),
                ("sha256", package.sha256.clone()),
                ("architecture", package.architecture.to_string()),
                ("files", package.files.to_string()),
                ("bytes", ui::bytes(package.zip.len() as u64)),
                ("unzipped", ui::bytes(package.unzipped)),
            ])?;
        }
        ui.say("next: lswitch function create NAME makes a function of the same options");
        Ok(())
    }
}
