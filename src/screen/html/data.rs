//! The section about prepared data.

use crate::screen::curve::Mark;
use crate::screen::html::markup::{Html, clipped};
use crate::screen::prepared::oddity;
use crate::screen::svg::{Bar, Bars, Size, bars};
use ctxtune_engine::output::manifest::{DataKind, Side};
use ctxtune_engine::record::warning::Warning;
use ctxtune_pipeline::preview::{Kind, Span};
use ctxtune_pipeline::report::OutReport;
use ctxtune_pipeline::report::data::{DataReport, Lengths, Sample};
use ctxtune_pipeline::text::{counted, grouped, percent, sized};

/// Bars of agents or steps that are drawn; the last one holds all that are more.
const MOST_KINDS: usize = 24;
const SHOWN: usize = 20_000;
const TICKS: usize = 9;
/// How far right of the longest sample a limit is drawn in, as a part of its tokens.
const NEAR: f64 = 1.6;

pub(super) fn section(html: &mut Html, out: &OutReport) {
    let data = &out.data;
    let limit = out.jobs.iter().find_map(|job| job.sequence_tokens);
    counts(html, data);
    for trouble in &out.troubles {
        html.note(&format!("Not in this report: {trouble}"));
    }
    split(html, data);
    leakage(html, data);
    rejects(html, data);
    findings(html, data);
    lengths(html, data, limit);
    shapes(html, data);
    samples(html, data);
}

fn counts(html: &mut Html, data: &DataReport) {
    let manifest = &data.manifest;
    let counts = &manifest.counts;
    let bytes: u64 = manifest.sides().map(|(_, side)| side.bytes).sum();
    let mut tiles = vec![
        ("records found", grouped(counts.listed)),
        ("accepted", grouped(counts.accepted)),
        ("rejected", grouped(counts.rejected)),
        ("train", grouped(manifest.train.records)),
        ("validation", grouped(manifest.val.as_ref().map_or(0, |val| val.records))),
        ("size", sized(bytes)),
        ("exact duplicates", grouped(data.duplicates())),
    ];
    let passed_over =
        [("left out, is_correct: false", counts.skipped), ("no regular files", counts.not_regular)];
    tiles.extend(
        passed_over.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name, grouped(count))),
    );
    html.tiles(&tiles);
    let template = manifest.template.as_ref();
    let template =
        template.map_or("chat lines as they are".to_owned(), |used| format!("template {}", used.name));
    html.soft(&format!("Prepared by {}, {template}.", manifest.tool));
    if counts.is_correct.r#false > 0 && !manifest.options.only_correct {
        let wrong = counted(counts.is_correct.r#false, "accepted record");
        html.paragraph(&format!(
            "{wrong} with is_correct: false, trained like the others; --only-correct leaves them out."
        ));
    }
    let mut warnings = counts.warnings;
    for (count, what) in Warning::ALL.map(|warning| (*warnings.count_mut(warning), oddity(warning))) {
        if count > 0 {
            html.note(&format!("Warning: {} {what}.", counted(count, "record")));
        }
    }
}

fn split(html: &mut Html, data: &DataReport) {
    let manifest = &data.manifest;
    let (options, counts) = (&manifest.options, &manifest.counts);
    html.of("h3", "Split");
    if counts.beyond_limit > 0 {
        let kept = manifest.own_train_records();
        let (kept, all) = (grouped(kept), grouped(kept + counts.beyond_limit));
        html.note(&format!("A pilot: --limit leaves the first {kept} of {all} training records."));
    }
    if !manifest.mix.is_empty() {
        let rows = manifest.mix.iter().map(|mixed| {
            vec![
                mixed.file.clone(),
                mixed.asked.clone(),
                grouped(mixed.records),
                grouped(mixed.listed),
                grouped(mixed.rejected),
            ]
        });
        let columns = ["file", "asked for", "#mixed in", "#of", "#rejected"];
        html.table("General chat lines, in train only.", &columns, rows);
    }
    let digest = |(name, side): (&str, &Side)| {
        vec![
            name.to_owned(),
            grouped(side.records),
            sized(side.bytes),
            grouped(side.shards.len() as u64),
            side.sha256.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = manifest.sides().map(digest).collect();
    let is_given = options.kind == DataKind::Files;
    let caption = match is_given {
        true => "Files that were split already, as they are.".to_owned(),
        false => format!("Seed {}, validation ratio {}.", options.seed, options.val_ratio),
    };
    html.table(&caption, &["split", "#records", "#size", "#files", "SHA-256"], rows);
    match (&options.group_by, &manifest.grouping) {
        (Some(by), Some(grouping)) => {
            html.paragraph(&format!(
                    "Grouped by {by}: {} of {} groups train, {:+} records from the exact count. Groups are ranked by the \
                     first 16 bytes of SHA-256(\"{}:\" + their key as compact JSON).",
                    grouped(grouping.train_groups),
                    grouped(grouping.groups),
                    grouping.deviation,
                    options.seed
                ),
            );
        }
        _ if is_given || !manifest.mix.is_empty() => {}
        _ => {
            html.paragraph("A record's rank is the first 16 bytes of SHA-256(seed:key). Train is in ascending order of rank, validation \
                 in descending order. In the directory, this recomputes it from keys.tsv:",
            );
            html.of("pre", &recomputed(options.seed));
        }
    }
}

/// Python that checks the split of `keys.tsv`.
pub(super) fn recomputed(seed: u64) -> String {
    format!(
        "import hashlib, json, os\n\
         rows = [line.rstrip(\"\\n\").split(\"\\t\", 3) for line in open(\"keys.tsv\", encoding=\"utf-8\")][1:]\n\
         rank = lambda row: hashlib.sha256(b\"{seed}:\" + os.fsencode(json.loads(row[3]))).digest()[:16]\n\
         train, val = ([rank(row) for row in rows if row[0] == side] for side in (\"train\", \"val\"))\n\
         assert train == sorted(train) and val == sorted(val, reverse=True) and max(train) < min(val, default=b\"\\xff\" * 17)"
    )
}

fn leakage(html: &mut Html, data: &DataReport) {
    let manifest = &data.manifest;
    let Some(val) = &manifest.val else { return };
    if manifest.options.kind == DataKind::Files {
        return;
    }
    html.of("h3", "Leakage");
    let leakage = manifest.leakage;
    let shared = [
        ("story text", leakage.val_sharing_story, "--group-by story"),
        ("set of agents", leakage.val_sharing_agents, "--group-by agents"),
        ("user messages", leakage.val_sharing_text, "--group-by FIELD"),
    ];
    let rows = shared.into_iter().filter_map(|(what, shared, flag)| {
        let shared = shared?;
        let removes = if shared > 0 { flag } else { "" };
        Some(vec![what.to_owned(), grouped(shared), percent(shared, val.records), removes.to_owned()])
    });
    let caption =
        format!("What the {} share with a training record.", counted(val.records, "validation record"));
    html.table(&caption, &["shared", "#records", "#part", "removed by"], rows);
}

fn rejects(html: &mut Html, data: &DataReport) {
    if data.rejects.is_empty() {
        return;
    }
    html.of("h3", "Rejects");
    let rows = data.rejects.iter().flat_map(|rejects| {
        rejects.examples.iter().enumerate().map(|(index, reject)| {
            let at = if reject.at.is_empty() { String::new() } else { format!(" at {}", reject.at) };
            let (code, count) = match index {
                0 => (rejects.code.clone(), grouped(rejects.count)),
                _ => Default::default(),
            };
            vec![code, count, reject.key.clone(), format!("{}{at}", reject.reason)]
        })
    });
    let caption = "Records that were refused, by code, with the first of each; rejects.jsonl has all.";
    html.table(caption, &["code", "#records", "record", "why"], rows);
}

fn findings(html: &mut Html, data: &DataReport) {
    html.of("h3", "Check");
    if data.findings.is_empty() {
        html.paragraph("Fit for training: no error, no warning.");
        return;
    }
    html.paragraph(&match data.errors {
        0 => "Fit for training; warnings do not change that.".to_owned(),
        errors => format!("Not fit for training: {}.", counted(errors, "error")),
    });
    let rows = data.findings.iter().map(|found| {
        let level = if found.is_error { "error" } else { "warning" };
        vec![found.code.to_owned(), level.to_owned(), grouped(found.count), found.examples.join("\n")]
    });
    html.table("What ctxtune check finds.", &["code", "level", "#count", "the first"], rows);
}

fn lengths(html: &mut Html, data: &DataReport, limit: Option<u64>) {
    let Lengths { method, samples, quantiles, .. } = &data.lengths;
    if *samples == 0 {
        return;
    }
    html.of("h3", "Lengths");
    let names = ["shortest", "median", "90 % up to", "99 % up to", "longest"];
    let tiles: Vec<(&str, String)> =
        names.into_iter().zip(quantiles).map(|(name, tokens)| (name, grouped(*tokens))).collect();
    html.tiles(&tiles);
    let (drawn, said) = histogram(&data.lengths, limit);
    let unit = match *method {
        "exact" => "tokens",
        "at_most" => "tokens at most",
        _ => "tokens, by the highest estimate",
    };
    html.figure(
        &bars(&drawn, "Samples by tokens", Size::whole(320.0)),
        &format!("Samples by {unit}. {said}"),
    );
    let rows = data
        .longest
        .iter()
        .map(|long| vec![long.key.clone(), long.place.clone(), grouped(long.tokens), grouped(long.bytes)]);
    html.table("The longest samples.", &["record", "line", "#tokens", "#bytes"], rows);
}

fn histogram(lengths: &Lengths, limit: Option<u64>) -> (Bars, String) {
    let bars = &lengths.bars;
    let each = bars.len().div_ceil(TICKS).max(1);
    let bar = |(index, bar): (usize, &ctxtune_engine::check::stats::Bar)| Bar {
        label: format!("{} to {} tokens", grouped(bar.from), grouped(bar.to)),
        tick: if index % each == 0 { grouped(bar.from) } else { String::new() },
        count: bar.samples,
    };
    let most = lengths.quantiles[4];
    let said = match limit {
        None => "The model's limit is not known here: with a key, the report asks for it.".to_owned(),
        Some(limit) if (limit as f64) > most as f64 * NEAR => {
            format!("The limit of {} tokens lies far to the right.", grouped(limit))
        }
        Some(limit) => format!("The line is the limit of {} tokens; what is longer is cut.", grouped(limit)),
    };
    let near = limit.filter(|limit| (*limit as f64) <= most as f64 * NEAR);
    let mark = near.map(|limit| Mark {
        at: place(bars, limit),
        label: format!("limit {}", grouped(limit)),
        is_best: false,
    });
    let drawn = Bars {
        across: "tokens".to_owned(),
        up: "samples".to_owned(),
        bars: bars.iter().enumerate().map(bar).collect(),
        limit: mark,
    };
    (drawn, said)
}

/// Where `tokens` lie, counted in bars from the left: beyond the last one by its own factor.
fn place(bars: &[ctxtune_engine::check::stats::Bar], tokens: u64) -> f64 {
    match bars.iter().position(|bar| tokens <= bar.to) {
        Some(index) => {
            let (from, to) = (bars[index].from as f64, bars[index].to as f64);
            index as f64 + ((tokens as f64 - from) / (to - from).max(1.0)).clamp(0.0, 1.0)
        }
        None => {
            let (Some(first), Some(last)) = (bars.first(), bars.last()) else { return 0.0 };
            let factor = (last.to as f64 / first.from.max(1) as f64).ln().max(1e-3) / bars.len() as f64;
            bars.len() as f64 + (tokens as f64 / last.to.max(1) as f64).ln() / factor
        }
    }
}

fn shapes(html: &mut Html, data: &DataReport) {
    let shapes = &data.shapes;
    if shapes.agents.is_empty() {
        return;
    }
    html.of("h3", "Agents and steps");
    let kinds = |counts: &std::collections::BTreeMap<u64, u64>, name: &str| {
        let mut bars: Vec<Bar> = counts
            .iter()
            .map(|(kind, count)| Bar {
                label: format!("{kind} {name}"),
                tick: kind.to_string(),
                count: *count,
            })
            .collect();
        if bars.len() > MOST_KINDS {
            let more: u64 = bars.drain(MOST_KINDS - 1..).map(|bar| bar.count).sum();
            bars.push(Bar { label: format!("more {name}"), tick: "more".to_owned(), count: more });
        }
        Bars { across: format!("{name} of a story"), up: "samples".to_owned(), bars, limit: None }
    };
    html.within("div class=\"two\"", |html| {
        for (counts, name) in [(&shapes.agents, "agents"), (&shapes.steps, "steps")] {
            html.figure(
                &bars(&kinds(counts, name), &format!("Samples by {name}"), Size::half()),
                &format!("Samples by the number of {name}."),
            );
        }
    });
    let all = data.manifest.counts.accepted;
    if shapes.counted < all {
        let counted_ones = grouped(shapes.counted);
        html.soft(&format!(
            "Of the first {counted_ones} of {} samples, in the order of the split.",
            grouped(all)
        ));
    }
    if shapes.without_context > 0 {
        html.soft(&format!("{} whose answer holds no context.", counted(shapes.without_context, "sample")));
    }
}

fn samples(html: &mut Html, data: &DataReport) {
    html.of("h3", "Samples");
    html.within("p class=\"soft\"", |html| {
        html.text("The first of each split, as the model sees them: ")
            .of("span class=\"trained\"", "trained");
        html.text(", read and not trained, ").of("span class=\"marker\"", "markers of the chat template");
        html.text(", ").of("span class=\"special\"", "what readers take for a special token");
        html.text(", ").of("span class=\"beyond\"", "cut");
        html.text(". ctxtune preview shows any other.");
    });
    for (index, Sample { split, shown }) in data.samples.iter().enumerate() {
        html.within(if index == 0 { "details open" } else { "details" }, |html| {
            let split = if *split == "val" { "validation" } else { split };
            let key = shown.key.as_ref().map(|key| format!(", {key}")).unwrap_or_default();
            let tokens = match data.lengths.method {
                "exact" => grouped(shown.tokens.high),
                "at_most" => format!("at most {}", grouped(shown.tokens.high)),
                _ => format!("about {} to {}", grouped(shown.tokens.low), grouped(shown.tokens.high)),
            };
            let (place, trained) = (format!("{}:{}", shown.file, shown.line), grouped(shown.trained_tokens));
            html.of("summary", &format!("{split}, {place}{key}: {tokens} tokens, {trained} trained"));
            for message in &shown.messages {
                let tokens = counted(message.tokens, "token");
                html.of("p class=\"role\"", &format!("{}, {tokens}", message.role));
                html.within("pre", |html| message.spans.iter().for_each(|span| show(html, span)));
            }
        });
    }
}

fn show(html: &mut Html, span: &Span) {
    let text = clipped(&span.text, SHOWN);
    match (span.is_beyond, span.is_trained, span.kind) {
        (true, ..) => html.of("span class=\"beyond\"", &text),
        (_, _, Kind::SpecialToken) => html.of("span class=\"special\"", &text),
        (_, true, Kind::Marker) => html.of("span class=\"trained marker\"", &text),
        (_, true, Kind::Text) => html.of("span class=\"trained\"", &text),
        (_, false, Kind::Marker) => html.of("span class=\"marker\"", &text),
        (_, false, Kind::Text) => html.text(&text),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctxtune_engine::check::stats;

    #[test]
    fn a_limit_lies_among_the_bars_or_beyond_them() {
        let bar = |from, to| stats::Bar { from, to, samples: 5 };
        let lengths = Lengths {
            method: "at_most",
            samples: 15,
            quantiles: [100, 200, 300, 400, 799],
            bars: vec![bar(100, 199), bar(200, 399), bar(400, 799)],
        };
        let at = |limit| histogram(&lengths, Some(limit)).0.limit.map(|mark| mark.at);
        assert_eq!(at(300), Some(1.0 + 100.0 / 199.0));
        assert!(at(1000).is_some_and(|at| (3.2..3.5).contains(&at)), "{:?}", at(1000));
        assert_eq!(at(131_072), None);
        assert!(histogram(&lengths, Some(131_072)).1.contains("131,072"));
        assert!(histogram(&lengths, None).1.contains("not known"));
    }
}
