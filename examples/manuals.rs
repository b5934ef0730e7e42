//! Writes the manual pages and completions that a release's archive has: `scripts/archive.sh`.
//!
//! `tests/it/docs.rs` takes it in as a module, to see whether every command has its page.

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clap_complete::Shell;

fn main() -> io::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    write(&dir.ok_or_else(|| io::Error::other("usage: manuals DIR"))?)
}

/// Writes `man/` and `completions/` into `dir`.
pub fn write(dir: &Path) -> io::Result<()> {
    let (manuals, completions) = (dir.join("man"), dir.join("completions"));
    std::fs::create_dir_all(&manuals)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(ctxtune::args::command(), &manuals)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut ctxtune::args::command(), "ctxtune", &completions)?;
    }
    Ok(())
}
