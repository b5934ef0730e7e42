//! Writes a made-up corpus for measuring: `corpus DIR COUNT [lean|real] [SEED]`.
//!
//! The records come from `benches/corpus.rs`, so that the benchmarks, the
//! scripts and a curious reader all look at the same bytes.

#![expect(clippy::print_stdout, reason = "an example reports on stdout")]

#[path = "../benches/corpus.rs"]
mod corpus;

use std::error::Error;
use std::path::Path;

use corpus::Shape;

const USAGE: &str = "usage: corpus DIR COUNT [lean|real] [SEED]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, count, more) = match arguments.as_slice() {
        [dir, count, more @ ..] if more.len() <= 2 => (dir, count, more),
        _ => return Err(USAGE.into()),
    };
    let shape = match more.first().map(String::as_str) {
        None | Some("lean") => Shape::Lean,
        Some("real") => Shape::Real,
        Some(_) => return Err(USAGE.into()),
    };
    let seed = more.get(1).map_or(Ok(42), |seed| seed.parse())?;
    let bytes = corpus::write(Path::new(dir), shape, seed, count.parse()?)?;
    println!("{count} records, {bytes} bytes");
    Ok(())
}
