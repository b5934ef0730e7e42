//! The dataset card: a `README.md` with which `datasets.load_dataset("OUT")` finds the files.
//!
//! A pure function of the manifest, so that it changes only when the data does. It names
//! the exact files, since a pattern would also match what a user puts beside them.

use crate::output::manifest::{DataKind, Manifest, Side};

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
    let mixed: String = manifest
        .mix
        .iter()
        .map(|mixed| {
            format!("{} of the training lines are general chat lines of `{}`.\n", mixed.records, mixed.file)
        })
        .collect();
    let limit = match manifest.counts.beyond_limit {
        0 => String::new(),
        beyond => format!(
            "Of {} training records the first {} by rank are here.\n",
            manifest.own_train_records() + beyond,
            manifest.own_train_records()
        ),
    };
    let (title, layout) = match &manifest.template {
        Some(template) => {
            ("Socialized contexts", format!("in the layout of the template `{}`", template.name))
        }
        None => ("Chat lines", "as it was in its source".to_owned()),
    };
    let shared = manifest.leakage;
    let leakage = match shared.val_sharing_text {
        Some(text) => format!("{text} share their user messages"),
        None => format!(
            "{} share their story and {} their set of agents",
            shared.val_sharing_story.unwrap_or_default(),
            shared.val_sharing_agents.unwrap_or_default()
        ),
    };
    if manifest.options.kind == DataKind::Files {
        return format!(
            "---\n{configs}---\n\n\
             # Chat lines as training data\n\n\
             Taken by `ctxtune` as they are, split by whoever made them; [manifest.json](manifest.json) holds every \
             count and digest.\n\n| split | records | bytes | {digest} |\n|---|---|---|---|\n{rows}"
        );
    }
    format!(
        "---\n{configs}---\n\n\
         # {title} as training data\n\n\
         Made by `ctxtune prepare`; [manifest.json](manifest.json) holds every option, count and digest.\n\n\
         | split | records | bytes | {digest} |\n|---|---|---|---|\n{rows}\n\
         Each line is one chat example, `{{\"messages\": [{{\"role\": …, \"content\": …}}, …]}}`, {layout}. [keys.tsv](keys.tsv) names the source record of each line, \
         [rejects.jsonl](rejects.jsonl) what was refused and why.\n\n\
         The split is a function of the seed ({seed}), the ratio ({ratio}) and the records' keys. {grouping}{limit}{mixed}\
         Of the validation records {leakage} with a training record.\n",
        seed = manifest.options.seed,
        ratio = manifest.options.val_ratio,
    )
}

/// The sides under the names Hugging Face uses.
fn named(manifest: &Manifest) -> impl Iterator<Item = (&'static str, &Side)> {
    manifest.sides().map(|(name, side)| (if name == "val" { "validation" } else { name }, side))
}
