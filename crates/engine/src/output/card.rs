//! The dataset card: a `README.md` with which `datasets.load_dataset("OUT")` finds the files.
//!
//! A pure function of the manifest, so that it changes only when the data does. It names
//! the exact files, since a pattern would also match what a user puts beside them.

use crate::output::manifest::{Manifest, Side};

/// The card's file name.
pub const FILE_NAME: &str = "README.md";

/// The card for the data that `manifest` describes.
pub fn card(manifest: &Manifest) -> String {
    let mut configs = String::from("configs:\n- config_name: default\n  data_files:\n");
    for (split, side) in named(manifest) {
        configs.push_str(&format!("  - split: {split}\n    path:\n"));
        for shard in &side.shards {
            configs.push_str(&format!("    - {}\n", shard.file));
        }
    }
    let rows: String = named(manifest)
        .map(|(split, side)| format!("| {split} | {} | {} | `{}` |\n", side.records, side.bytes, side.sha256))
        .collect();
    let is_whole = manifest.sides().all(|(_, side)| side.shards.len() == 1);
    let digest = if is_whole {
        "SHA-256 of the shards joined"
    } else {
        "SHA-256 of the file, or of its shards' digests"
    };
    let grouping = match (&manifest.options.group_by, &manifest.grouping) {
        (Some(by), Some(grouping)) => format!(
            "No group (by {by}) lies on both sides: {} of {} groups train.\n",
            grouping.train_groups, grouping.groups
        ),
        _ => String::new(),
    };
    let limit = match manifest.counts.beyond_limit {
        0 => String::new(),
        beyond => format!(
            "Of {} training records the first {} by rank are here.\n",
            manifest.train.records + beyond,
            manifest.train.records
        ),
    };
    format!(
        "---\n{configs}---\n\n\
         # Socialized contexts as training data\n\n\
         Made by `ctxtune prepare`; [manifest.json](manifest.json) holds every option, count and digest.\n\n\
         | split | records | bytes | {digest} |\n|---|---|---|---|\n{rows}\n\
         Each line is one chat example, `{{\"messages\": [{{\"role\": …, \"content\": …}}, …]}}`, in the layout of the \
         template `{template}`. [keys.tsv](keys.tsv) names the source record of each line, \
         [rejects.jsonl](rejects.jsonl) what was refused and why.\n\n\
         The split is a function of the seed ({seed}), the ratio ({ratio}) and the records' keys. {grouping}{limit}\
         Of the validation records {story} share their story and {agents} their set of agents with a training record.\n",
        template = manifest.template.name,
        seed = manifest.options.seed,
        ratio = manifest.options.val_ratio,
        story = manifest.leakage.val_sharing_story,
        agents = manifest.leakage.val_sharing_agents,
    )
}

/// The sides under the names Hugging Face uses.
fn named(manifest: &Manifest) -> impl Iterator<Item = (&'static str, &Side)> {
    manifest.sides().map(|(name, side)| (if name == "val" { "validation" } else { name }, side))
}
