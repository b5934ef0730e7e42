//! What a workflow tells and asks the person who runs it. The program's terminal is one, a test's record of calls another.

use std::time::Duration;

use crate::job::cost::Beside;
use crate::job::expected::Expected;
use crate::job::plan::Plan;
use crate::job::price::Price;
use ctxtune_engine::check;
use ctxtune_engine::prepare::{self, Options, Prepared};
use ctxtune_service::Stopped;

/// The person's side of a workflow. Texts are plain: who shows them escapes control characters and folds lines.
pub trait Ui: Send + Sync {
    /// Says a line, from whatever thread.
    fn say(&self, text: &str);
    fn done(&self, text: &str);
    fn warn(&self, text: &str);
    /// Says something under a label of at most nine characters, as summaries do.
    fn label(&self, label: &str, text: &str);
    /// Says that a request failed and is sent again; not shown where somebody watches for hours.
    fn retry(&self, text: &str);
    /// Announces a step of `finetune`, counted from 1.
    fn step(&self, number: u32, what: &str);
    /// Shows what is trained on what, before anything is uploaded.
    fn plan(&self, plan: &Plan<'_>);
    fn price(&self, price: &Price);
    fn expected(&self, expected: &Expected);
    fn running(&self, running: &[Beside]);
    fn has_person(&self) -> bool;
    /// Asks; only a plain yes agrees.
    fn ask(&self, question: &str) -> Result<bool, Stopped>;
    /// Begins to show how far a preparation is, and stops it when a signal comes.
    fn watch_prepare<'u>(&'u self) -> Box<dyn prepare::Watch + 'u>;
    fn prepared(&self, options: &Options, prepared: &Prepared, duration: Duration);
    fn not_prepared(&self, error: &prepare::Error);
    fn watch_check<'u>(&'u self) -> Box<dyn check::Watch + 'u>;
    fn findings(&self, report: &check::Report);
    fn detail(&self) -> Detail;
    /// Begins a line that says again and again how far something is; single retries are not told meanwhile, unless
    /// everything is to be said.
    fn status_line<'u>(&'u self) -> Box<dyn StatusLine + 'u>;
    /// Begins to show how far `name` is on its way to `total` bytes.
    fn progress(&self, name: &str, total: u64) -> Box<dyn Progress>;
}

/// A transfer on its way; it is gone when it is dropped.
pub trait Progress: Send + Sync {
    fn at(&self, bytes: u64);
    fn waiting(&self, text: &str);
    fn warn(&self, text: &str);
    /// Whether it is drawn: else what takes long is said.
    fn is_drawn(&self) -> bool;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Quiet,
    Normal,
    Verbose,
}

/// A line that is shown again and again; it is gone when it is dropped.
pub trait StatusLine: Send + Sync {
    fn show(&self, text: &str);
    /// Whether it is drawn over itself: else it is shown now and then.
    fn is_redrawn(&self) -> bool;
}
