//! Fills a planned working directory with parts that nothing was converted for, to measure the split of very many
//! entries: `parts WORK ENTRIES`. Each part has as many, of random ranks and marks; there are no lines.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ctxtune_engine::output::manifest::Counts;
use ctxtune_engine::parts::{PartRecord, Plan, Sections, Work};

/// What a line is said to have.
const LINE_BYTES: u64 = 9_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(work), Some(entries)) = (arguments.next(), arguments.next()) else {
        return Err("usage: parts WORK ENTRIES".into());
    };
    let (work, entries) = (Path::new(&work), entries.parse::<u64>()?);
    let plan = Plan::load(&Work::local(work))?.ok_or("its result is published")?;
    let each = entries / plan.body.parts;
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let fill = || {
            let part = || next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::iter::from_fn(|| Some(part()).filter(|part| *part < plan.body.parts))
                .try_for_each(|part| write(work, &plan.id, part, each).map_err(|error| error.to_string()))
        };
        let threads = [scope.spawn(fill), scope.spawn(fill)];
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    Ok(())
}

/// A sequence that looks random and is the same everywhere: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn write(work: &Path, plan: &str, part: u64, entries: u64) -> Result<(), Box<dyn Error>> {
    let mut numbers = Numbers(part << 32);
    let mut ranks: Vec<u128> =
        (0..entries).map(|_| u128::from(numbers.next()) << 64 | u128::from(numbers.next())).collect();
    ranks.sort_unstable();
    let object = format!("parts/{part:05}-made-up");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(work.join(&object))?);
    let mut sections = Sections::default();
    let key = |number: u64| format!("{part:05}/{number:09}.json");
    let key_bytes = key(0).len() as u16;
    for rank in &ranks {
        out.write_all(&rank.to_be_bytes())?;
        out.write_all(&LINE_BYTES.to_be_bytes())?;
        out.write_all(&key_bytes.to_be_bytes())?;
    }
    sections.rows = entries * 26;
    for number in 0..entries {
        out.write_all(&key_bytes.to_be_bytes())?;
        out.write_all(key(number).as_bytes())?;
    }
    sections.listed = entries * (2 + u64::from(key_bytes));
    // Every fourth story, and nearly every set of agents, is there again.
    for distinct in [entries * 3, 200] {
        let mut marks: Vec<(u64, u128)> =
            ranks.iter().map(|rank| (numbers.next() % distinct.max(1), *rank)).collect();
        marks.sort_unstable();
        for (mark, rank) in marks {
            out.write_all(&mark.to_be_bytes())?;
            out.write_all(&rank.to_be_bytes())?;
        }
    }
    (sections.stories, sections.agents) = (entries * 24, entries * 24);
    out.flush()?;
    let bytes = sections.rows + sections.listed + sections.stories + sections.agents;
    let record = PartRecord {
        schema: "ctxtune.part/1".to_owned(),
        plan: plan.to_owned(),
        part,
        object,
        bytes,
        sha256: String::new(),
        sections,
        counts: Counts { listed: entries, accepted: entries, ..Counts::default() },
        bytes_read: 0,
        unpacked: 0,
        keys_sha256: String::new(),
    };
    let line = serde_json::to_string(&record)?;
    std::fs::write(work.join(format!("done/part-{part:05}.json")), format!("{line}\n"))?;
    Ok(())
}
