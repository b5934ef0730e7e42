//! The same result, part by part: on one machine that may be killed, or on many.
//!
//! A plan divides the corpus; each part is converted by itself and leaves sorted streams; the split merges them and
//! decides, as `prepare` does, which lines train and where shards begin; each shard is written by itself; publication
//! is that of `prepare`. Every step is a function of what the one before left, and is committed at once or not at all:
//! so neither the size, the order and the number of attempts nor what kills them changes a byte.

mod aside;
mod convert;
mod fetch;
mod merge;
mod mixing;
mod part;
mod plan;
mod publish;
pub mod ranges;
mod rows;
mod run;
mod settings;
mod sort;
mod span;
mod split;
mod stored;
mod work;
mod write;

pub use crate::parts::convert::convert;
pub use crate::parts::fetch::expand;
pub use crate::parts::part::{PartRecord, Sections};
pub use crate::parts::plan::{Body, MIN_PART_BYTES, PartPlan, Plan, PlanOrder, Totals, asked_plan, plan};
pub use crate::parts::publish::publish;
pub use crate::parts::run::{Again, Missing, missing, plan_anew, prepare_in_parts, resume, stored_manifest};
pub use crate::parts::settings::{Means, MixSetting, Settings};
pub use crate::parts::split::{SplitRecord, split};
pub use crate::parts::work::{Record, Step, Work};
pub use crate::parts::write::{ShardRecord, split_of, write};
