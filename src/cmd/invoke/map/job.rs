//! A map's phases: the items, and then reduction and combination.

use super::MapArgs;
use super::printer::{Collected, Outputs, Printer};
use crate::cmd::invoke::data::{DataJob, delete_own, print_parts};
use crate::cmd::invoke::fleet::{failed, refused};
use crate::cmd::record::all::short;
use crate::cmd::record::{Folder, all};
use crate::cmd::ui::{self, Ui};
use crate::cmd::{InPart, UsageError, hold, interrupted, raise_descriptor_limit};
use crate::job::command::Command;
use crate::job::farm::schedule::Policy;
use crate::job::items::find::Items;
use crate::job::items::{Item, list_to_bytes};
use crate::job::map::Arguments;
use crate::job::map::gather::{Gathered, Gatherer};
use crate::job::map::identity::Identity;
use crate::job::map::journal::{Begun, Journal, JournalError, Remarks};
use crate::job::map::run::{
    self, Held, MapError, MapEvent, MapOutcome, MapSpec, Progress, Tolerance,
};
use crate::job::output::{Claim, ResultFile, part_key};
use crate::job::reduce::{self, Reduced};
use crate::job::report::decode_results;
use crate::job::sort::extension;
use crate::net::token::JobId;
use crate::store::sealed::SealedKey;
use crate::store::{Entry, Store};
use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// One map, and what goes on with it.
pub(super) struct MapJob<'a> {
    pub(super) args: &'a MapArgs,
    pub(super) ui: &'a Ui,
    /// What the names of all begin with that it keeps in its store.
    pub(super) base: &'a str,
    pub(super) begun: Instant,
    pub(super) spec: MapSpec,
    pub(super) reduce: Option<Command>,
    pub(super) combine: Option<Command>,
    pub(super) store: &'a Store,
    pub(super) output: Option<&'a Claim>,
}

impl MapJob<'_> {
    /// What is done already of `count` items, if that is known, and where it is written what is.
    pub(super) async fn progress(&self, count: Option<u64>) -> anyhow::Result<Progress> {
        let cut = (self.args.split, self.spec.batch, count);
        let is_near = !self.args.fleet.is_far();
        let begun = Begun {
            prefix: self.base.into(),
            output: self.spec.arguments.output.clone(),
            identity: Identity::of(&self.spec.arguments, cut, is_near),
        };
        let made = Folder::of(self.spec.id).and_then(|folder| {
            folder.make()?;
            Ok(folder.journal())
        });
        let Some(job) = &self.args.resume else {
            let journal = made.and_then(|path| Ok(Journal::create(&path, begun)?));
            if let Err(error) = &journal {
                self.ui
                    .say(format!("--resume will not work for this job: {error:#}"));
            }
            return Ok(Progress {
                journal: journal.ok(),
                ..Progress::default()
            });
        };
        let (folder, facts) = all::find(job)?;
        let (earlier, job) = (folder.journal(), facts.id);
        if !earlier.is_file() {
            let what = format!(
                "--resume {job}: this job has left nothing to go on with; if another one went on with it, name that one (\"lswitch jobs\")"
            );
            return Err(UsageError(what).into());
        }
        let anyway = self.args.resume_anyway;
        let taken = Journal::take_over(&earlier, &made?, begun, short(&job), anyway);
        let (journal, mut known, remarks) = taken.map_err(|error| match error {
            JournalError::Differs { .. } | JournalError::Elsewhere(_) => {
                UsageError(format!("--resume {}: {error}", short(&job))).into()
            }
            other => anyhow!(other).context(format!("cannot resume job {job}")),
        })?;
        // The journal is this job's now, and so is what it names. Workers of the former one find their claim no more.
        if let Some(output) = self.output {
            let adopted = output.adopt().await.map_err(refused);
            adopted.with_context(|| {
                format!("what is done is job {}'s now: --resume that", self.spec.id)
            })?;
        }
        let stored = self.stored(&journal).await;
        let there = stored.with_context(|| {
            format!("what is done is job {}'s now: --resume that", self.spec.id)
        })?;
        known.keep_stored(|key, bytes| there.get(key) == Some(&bytes));
        if let Some(output) = self.kept() {
            // What was stored and not recorded may be of other arguments; it is run again.
            let known: BTreeSet<&str> = known.stored().collect();
            output.keep_items(&known).await.map_err(refused)?;
        }
        self.ui.say(match known.len() {
            1 => format!("1 item was done by job {job}"),
            done => format!("{done} items were done by job {job}"),
        });
        self.remark(remarks, known.former());
        Ok(Progress {
            known: Some(known),
            journal: Some(journal),
            output: self.kept().map(|output| output.store().clone()),
        })
    }

    /// The output, if each item has a file there.
    fn kept(&self) -> Option<&Claim> {
        self.output.filter(|_| !self.args.goes_on())
    }

    /// Says what of the journal is not as one may expect.
    fn remark(&self, remarks: Remarks, former: usize) {
        if remarks.is_torn {
            self.ui.say(
                "the journal ends within an entry, as when the driver is killed; that item is run again",
            );
        }
        if let Some(damage) = remarks.damage {
            self.ui.say(format!(
                "--resume-anyway: the journal is damaged ({damage}); items that were recorded behind this place are run again"
            ));
        }
        if let Some(difference) = remarks.difference {
            let outputs = match former {
                1 => "1 output is".into(),
                _ => format!("{former} outputs are"),
            };
            self.ui.say(format!(
                "--resume-anyway: {outputs} of the job as it was: {difference}"
            ));
        }
    }

    /// The keys and the lengths of outputs in stores.
    async fn stored(&self, journal: &Journal) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut there = BTreeMap::new();
        let length = |entry: Entry| (entry.key, entry.bytes);
        if let Some(output) = self.kept() {
            let entries = output.store().list("").await?;
            there.extend(entries.into_iter().map(length));
        }
        for prefix in journal.prefixes() {
            there.extend(self.store.list(prefix).await?.into_iter().map(length));
        }
        Ok(there)
    }

    /// Forgets what is not needed to resume the job; false if it can be resumed. What cannot be deleted is a warning.
    pub(super) async fn clean(&self, progress: Progress, outcome: &anyhow::Result<()>) -> bool {
        let journal = progress.journal;
        let is_empty = journal.as_ref().is_none_or(Journal::is_empty);
        // Whoever reads no further has what he wants.
        let failed = outcome
            .as_ref()
            .err()
            .filter(|error| !ui::is_closed_pipe(error));
        if failed.is_some() && !is_empty {
            // The claim stays with the journal: it says whose the outputs are.
            self.ui.say(format!(
                "what is done is kept; to go on with the rest, run the same with --resume {}",
                self.spec.id
            ));
            return false;
        }
        delete_own(self.ui, self.store, self.base).await;
        if let Some(journal) = journal {
            for prefix in journal.prefixes() {
                // The own prefix lies below the base, and is gone.
                if !prefix.starts_with(self.base) {
                    delete_own(self.ui, self.store, prefix).await;
                }
            }
            if let Err(error) = journal.delete() {
                self.ui
                    .say(format!("cannot delete the job's journal: {error}"));
            }
        }
        true
    }

    /// Runs it to its end.
    pub(super) async fn run(&self, items: Items, progress: &mut Progress) -> anyhow::Result<()> {
        let outputs = match (self.args.goes_on(), self.output) {
            (true, _) => {
                let prefix = format!("{}gathered/", self.base);
                let gatherer = Gatherer::new(self.store, &prefix, self.reduce.is_some())?;
                Outputs::Gathered(Box::new(gatherer))
            }
            (false, Some(_)) => Outputs::Kept(Vec::new()),
            (false, None) => Outputs::Printed,
        };
        // What a resumed job has stored stays.
        let cleared = self.output.filter(|_| !self.args.goes_on());
        let cleared = cleared.filter(|_| self.args.resume.is_none());
        let (outcome, collected) = self
            .drive((&self.spec, cleared), "", items, progress, outputs)
            .await?;
        self.conclude(&outcome)?;
        let Gathered {
            mut outputs,
            report,
        } = match collected {
            Collected::Gathered(gathered) => gathered,
            Collected::Files(files) => {
                let summary = json!({
                    "program": "map",
                    "job": self.spec.id.to_string(),
                    "lswitch": crate::RELEASE,
                    "items": self.args.items,
                    "done": outcome.done,
                    "failed": outcome.failed,
                });
                return self.finish(files, summary).await;
            }
            Collected::Nothing => return Ok(()),
        };
        if let Some(command) = &self.reduce {
            outputs = self.reduce(command, &outputs).await?;
        }
        if let Some(command) = &self.combine {
            self.combine(command, outputs, report).await?;
        }
        Ok(())
    }

    /// Completes the output, if there is one.
    async fn finish(&self, files: Vec<ResultFile>, summary: Value) -> anyhow::Result<()> {
        match self.output {
            Some(output) => output.finish(files, summary).await.map_err(refused),
            None => Ok(()),
        }
    }

    /// Has each worker reduce what is its; gives what came of it.
    async fn reduce(&self, command: &Command, inputs: &[Item]) -> anyhow::Result<Vec<Item>> {
        let (fleet, ranks) = (&self.args.fleet, self.spec.workers);
        let output = self.output.filter(|_| self.combine.is_none());
        let job = DataJob::new(
            (self.ui, fleet),
            (JobId::random(), self.spec.id),
            "reduce",
            ranks,
            Items::Named(inputs.to_vec()),
        )
        .await?;
        // What a combination reads outlives the reduction.
        let job = job.begun(self.begun).with_results_at(self.base);
        let (memory, retries) = (
            self.args.memory.bytes(fleet, ranks),
            self.spec.policy.retries,
        );
        let arguments = |output| reduce::Arguments {
            inputs: job.inputs.clone(),
            command: command.clone(),
            output,
            memory,
            spill: job.spill(),
            retries,
        };
        let outcome = job.drive(self.ui, output, arguments, retries).await;
        job.clean(self.ui).await;
        let (job, target) = outcome?;
        let reduced: Vec<Reduced> = decode_results(&job.results).map_err(|error| anyhow!(error))?;
        let sum = |what: fn(&Reduced) -> u64| reduced.iter().map(what).sum::<u64>();
        let summary = json!({
            "program": "reduce",
            "job": job.job,
            "lswitch": crate::RELEASE,
            "lines": sum(|rank| rank.read.0),
            "line_bytes": sum(|rank| rank.read.1),
            "written_bytes": sum(|rank| rank.part.bytes()),
            "spilled_bytes": sum(|rank| rank.spilled),
            "failures": sum(|rank| rank.failures.into()),
            "workers": job.results.len(),
            "messages": job.messages,
            "bytes": job.bytes,
            "seconds": {
                "launch": job.launch.as_secs_f64(),
                "run": job.run.as_secs_f64(),
                "ranks": reduced.iter().map(|rank| rank.seconds).collect::<Vec<_>>(),
            },
        });
        let parts: Vec<SealedKey> = reduced
            .iter()
            .filter_map(|rank| rank.part.sealed().cloned())
            .collect();
        if self.combine.is_none() {
            let files = reduced
                .iter()
                .filter_map(|rank| rank.part.file().cloned())
                .collect();
            match self.output {
                Some(_) => self.finish(files, summary.clone()).await?,
                None if self.args.json => {}
                None => print_parts(self.store, parts.iter().cloned()).await?,
            }
        }
        if self.args.json {
            ui::print_json(&summary)?;
        }
        self.ui.say(format!(
            "{} lines reduced; launch {}, run {}; {} through the switch",
            sum(|rank| rank.read.0),
            ui::seconds(job.launch),
            ui::seconds(job.run),
            ui::bytes(job.bytes)
        ));
        let parts = parts.into_iter().map(|object| Item::Sealed {
            store: target.store.clone(),
            object,
            part: None,
        });
        Ok(parts.collect())
    }

    /// Has one worker go on with everything: a map of one item.
    async fn combine(
        &self,
        command: &Command,
        inputs: Vec<Item>,
        report: Item,
    ) -> anyhow::Result<()> {
        let claim = match self.output {
            Some(output) => Some(output.key().await),
            None => None,
        };
        let spec = MapSpec {
            id: JobId::random(),
            arguments: Arguments {
                command: command.clone(),
                output: self.output.map(|output| output.store().url().to_string()),
                claim,
                prefix: format!("{}combined/", self.base),
                name: Some(part_key(0, extension(reduce::FORMAT))),
                report: Some(report),
                ..self.spec.arguments.clone()
            },
            batch: 1,
            workers: 1,
            levels: 1,
            policy: Policy {
                backups: false,
                ..self.spec.policy
            },
            tolerance: Tolerance::Any,
            timeout: self.args.fleet.timeout_since(self.begun),
            ..self.spec.clone()
        };
        let list = format!("{}combined/inputs", self.base);
        let inputs = list_to_bytes(&inputs).map_err(UsageError)?;
        let items = Items::Named(vec![Item::Listed {
            store: self.store.url().into(),
            list: self.store.put_sealed(&list, &inputs).await?,
        }]);
        let outputs = match self.output {
            Some(_) => Outputs::Kept(Vec::new()),
            None => Outputs::Printed,
        };
        let mut progress = Progress::default();
        let what = "--combine";
        let (outcome, collected) = self
            .drive((&spec, self.output), what, items, &mut progress, outputs)
            .await?;
        if outcome.failed > 0 {
            anyhow::bail!("--combine has failed");
        }
        if let Collected::Files(files) = collected {
            let summary = json!({
                "program": "combine",
                "job": outcome.farm.job,
                "lswitch": crate::RELEASE,
            });
            self.finish(files, summary).await?;
        }
        Ok(())
    }

    /// Runs a map. `what` is said of its item if there is only one. An earlier result in `cleared` is deleted once workers can be
    /// started: a job that cannot run changes nothing.
    async fn drive(
        &self,
        (spec, cleared): (&MapSpec, Option<&Claim>),
        what: &'static str,
        items: Items,
        progress: &mut Progress,
        outputs: Outputs,
    ) -> anyhow::Result<(MapOutcome, Collected)> {
        raise_descriptor_limit();
        let (ui, stop) = (self.ui, interrupted());
        let _hold = hold();
        let count = items.count(spec.batch).unwrap_or(0);
        let bar = ui.count_bar("items", count);
        // A worker that was lost may not be gone when the next one starts.
        let fleet = self.args.fleet.start(spec.workers as usize + 2).await?;
        if let Some(output) = cleared
            && let Err(error) = output.clear().await
        {
            bar.finish_and_clear();
            self.args.fleet.end(fleet).await;
            return Err(refused(error));
        }
        let held = Arc::new(Held::default());
        let (tell, told) = mpsc::unbounded_channel();
        let printer = Printer {
            what,
            json: self.args.json,
            quiet: ui.is_quiet(),
            outputs,
            store: self.store.clone(),
            runtime: Handle::current(),
            held: held.clone(),
            shown: 0,
            broken: None,
        };
        let printing = tokio::task::spawn_blocking(move || printer.print(told));
        let ran = run::run(
            spec,
            items,
            progress,
            (&fleet.switch, &fleet.launcher),
            stop,
            &held,
            &mut |event| match event {
                // Its receiver takes everything.
                MapEvent::Item(outcome) => drop(tell.send(outcome)),
                MapEvent::Settled => bar.inc(1),
                MapEvent::Lost(why) => bar.suspend(|| {
                    ui.say(format!("a worker was lost: {why}"));
                }),
                MapEvent::Workers(count) => bar.set_message(format!("{count} workers")),
            },
        )
        .await;
        drop(tell);
        bar.finish_and_clear();
        self.args.fleet.end(fleet).await;
        let collected = printing.await.expect("printing does not panic")?;
        let outcome = ran.map_err(|error| match error {
            MapError::Job(error) => failed(error),
            MapError::Items(error) => error.into(),
            MapError::Journal(error) => error.into(),
            MapError::Unstorable(_) => error.into(),
        })?;
        Ok((outcome, collected))
    }

    fn conclude(&self, outcome: &MapOutcome) -> anyhow::Result<()> {
        let MapOutcome {
            farm,
            done,
            failed,
            given_up,
        } = outcome;
        if self.args.json {
            let printed = ui::print_json(&json!({
                "job": self.spec.id.to_string(),
                "lswitch": crate::RELEASE,
                "done": done,
                "failed": failed,
                "given_up": given_up,
                "workers_lost": farm.lost,
                "messages": farm.traffic.0,
                "bytes": farm.traffic.1,
                "usage": self.args.fleet.usage(),
                "seconds": { "launch": farm.launch.as_secs_f64(), "run": farm.run.as_secs_f64() },
            }));
            match printed {
                // What goes elsewhere is wanted, also when nobody reads the lines about it.
                Err(error)
                    if ui::is_closed_pipe(&error)
                        && (self.output.is_some() || self.args.goes_on()) => {}
                printed => printed?,
            }
        }
        let what = match self.spec.batch {
            1 => "items",
            _ => "batches",
        };
        let mut words = format!(
            "{} {what}: {done} done, {failed} failed; launch {}, run {}",
            done + failed,
            ui::seconds(farm.launch),
            ui::seconds(farm.run)
        );
        if let (Some(location), false) = (&self.args.output, self.args.goes_on()) {
            words += &format!("; outputs are in {location}");
        }
        self.ui.say(words);
        if *given_up {
            anyhow::bail!(
                "the job was given up: {failed} {what} have failed, more than --tolerate-failures allows"
            );
        }
        if *failed > 0 && self.args.tolerate_failures.is_none() {
            let mut words = format!("{failed} of {} {what} have failed", done + failed);
            if self.args.goes_on() {
                words += ", so nothing goes on with the others; --tolerate-failures allows some";
            }
            return Err(InPart(words).into());
        }
        Ok(())
    }
}
