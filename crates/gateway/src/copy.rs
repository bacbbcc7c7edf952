//! `store copy`: moves a whole store to another database, and shows how far that is.

use indicatif::{ProgressBar, ProgressStyle};
use store::{CopyProgress, CopyStage};

use crate::cli::StoreCommand;

/// How many hex digits of a checksum are printed: enough to compare two by eye.
const DIGITS: usize = 16;

pub(crate) fn run(command: &StoreCommand) -> anyhow::Result<()> {
    let StoreCommand::Copy { from, to } = command;
    let bar = Bar::new()?;
    let mut at = None;
    let tables = store::copy(from, to, |progress| bar.show(&progress, &mut at));
    bar.0.finish_and_clear();
    for table in tables? {
        let checksum = table.checksum.get(..DIGITS).unwrap_or(&table.checksum);
        say!("{:<18}  {:>12}  {checksum}", table.name, table.rows)?;
    }
    say!("{to} holds what {from} holds")
}

/// A bar over the rows of a table; it shows on a terminal only.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}")?;
        Ok(Self(ProgressBar::new(0).with_style(style)))
    }

    /// Shows how far the copy is. `at` is what it showed last.
    fn show(&self, progress: &CopyProgress, at: &mut Option<(CopyStage, &'static str)>) {
        self.0.set_length(progress.total);
        let now = (progress.stage, progress.table);
        if at.replace(now) != Some(now) {
            let what = match progress.stage {
                CopyStage::Comparing => "comparing",
                CopyStage::Copying => "copying",
                CopyStage::Verifying => "verifying",
            };
            self.0.reset();
            self.0.set_message(format!("{what} {}", progress.table));
        }
        self.0.set_position(progress.done);
    }
}
