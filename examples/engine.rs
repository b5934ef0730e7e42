//! Prepares a directory with the engine alone: `engine CORPUS OUT`. For `scripts/instructions.sh`.
//!
//! One thread, no fsync, and a clock that stands still: whether files are read before their turn depends on how
//! long reads take, and under an emulator they take long.

use std::error::Error;
use std::num::NonZeroUsize;

use ctxtune_engine::prepare::{Mode, Purpose, prepare};
use ctxtune_engine::watch::Unwatched;
use ctxtune_pipeline::config::PrepareChoices;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [corpus, out] = arguments.as_slice() else { return Err("usage: engine CORPUS OUT".into()) };
    let choices = PrepareChoices {
        sources: vec![corpus.into()],
        output_dir: Some(out.into()),
        no_sync: true,
        ..PrepareChoices::default()
    };
    let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: 0 };
    prepare(&choices.resolve(purpose, NonZeroUsize::MIN)?, &Unwatched)?;
    Ok(())
}
