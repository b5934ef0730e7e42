//! A configuration file to begin with: every key with what it means, its default and its range.
//!
//! Written from the flags themselves, so that no key, default or word of help can be missing or old. Each key is
//! commented out: a value that nobody set is a default, and counts as one (`from_checkpoint` takes the training type of its
//! parent only where no `lora` key is set).

use std::any::TypeId;
use std::num::{NonZeroU64, NonZeroUsize};

use clap::{Arg, ArgAction, Args, Command};
use serde_json::Value;

use crate::config::tokens::TokenizerArgs;
use crate::config::wandb::WandbArgs;
use crate::config::{keys, prepare};
use crate::job::limits::{Row, rows, settle};
use crate::job::parameters::Parameters;
use ctxtune_service::together::jobs::Limits;

const HEAD: &str = "\
# Settings of ctxtune prepare, finetune, submit, doctor and sweep run. Flags win over them.
# finetune reads finetune_config.yaml by itself, the others with --config-path FILE.
#
# Every line is as it is without this file: to set a key, remove the # before it. The limits of a
# model (ranks, batch sizes, lengths) are shown by: ctxtune models NAME
";

pub fn template() -> String {
    let wandb = WandbArgs::augment_args(Command::new("wandb"));
    let tokens = TokenizerArgs::augment_args(Command::new("tokens"));
    let known = keys();
    let commands = [prepare::command(), Parameters::command(), tokens, wandb];
    let flags = commands.iter().flat_map(Command::get_arguments);
    let flags = flags.filter(|flag| known.iter().any(|key| flag.get_id() == key.as_str()));
    let limits = limits();
    let (mut text, mut heading) = (HEAD.to_owned(), None);
    for flag in flags {
        let own = flag.get_help_heading().unwrap_or("Data");
        if heading.replace(own) != Some(own) {
            text.push_str(&format!("\n# ---- {own} ----\n"));
        }
        text.push('\n');
        for line in about(flag, &limits) {
            text.push_str(&format!("# {line}\n"));
        }
        let default = default(flag).unwrap_or_default();
        text.push_str(format!("#{}: {default}", flag.get_id()).trim_end());
        text.push('\n');
    }
    text
}

fn limits() -> Vec<Row> {
    let parameters = Parameters::of_defaults();
    let unknown = Limits::read("", &Value::Null);
    rows(&settle(parameters, &unknown, true), &unknown, true)
}

fn about(flag: &Arg, limits: &[Row]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    // Below it stands as the value of the key.
    let said = default(flag).map(|default| format!(" [default: {default}]")).unwrap_or_default();
    let help = help.replace(&said, "");
    for word in help.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 98 => line.extend([" ", word]),
            _ => lines.push(word.to_owned()),
        }
    }
    let name = match flag.get_action() {
        ArgAction::SetTrue => Some("true|false".to_owned()),
        _ => flag
            .get_value_names()
            .and_then(|names| names.first())
            .map(|name| name.replace("BOOL", "true|false")),
    };
    let limit = limits.iter().find(|row| flag.get_id() == row.key.as_str()).map(|row| row.limit.as_str());
    let kind = flag.get_value_parser().type_id();
    let is_count =
        [TypeId::of::<NonZeroU64>(), TypeId::of::<NonZeroUsize>()].iter().any(|count| kind == *count);
    let limit = limit.or(is_count.then_some("at least 1"));
    let range: Vec<&str> = name.as_deref().into_iter().chain(limit).filter(|text| !text.is_empty()).collect();
    lines.extend((!range.is_empty()).then(|| format!("Value: {}", range.join(", "))));
    lines
}

/// The default of a flag as a value of its key: clap's, or what its help says, where that is a value.
fn default(flag: &Arg) -> Option<String> {
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return Some("false".to_owned());
    }
    if let Some(default) = flag.get_default_values().first().filter(|_| !flag.is_hide_default_value_set()) {
        return default.to_str().map(str::to_owned);
    }
    let help = flag.get_help()?.to_string();
    let (_, default) = help.split_once("[default: ")?;
    let default = default.split(']').next()?;
    (!default.contains(' ') && !default.contains('$')).then(|| default.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, PrepareChoices, TuneChoices};
    use ctxtune_engine::prepare::{Mode, Purpose};

    fn file(text: &str) -> ConfigFile {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("finetune_config.yaml");
        std::fs::write(&path, text).unwrap();
        ConfigFile::read(&path, None).unwrap()
    }

    /// With every key in force.
    fn in_force() -> String {
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.is_empty() => format!("{key}\n"),
            _ => format!("{line}\n"),
        };
        template().lines().map(uncommented).collect()
    }

    fn resolved(file: &ConfigFile) -> String {
        let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: 0 };
        let corpus = PrepareChoices { sources: vec![".".into()], ..PrepareChoices::default() };
        let options =
            corpus.over(file.prepare_choices().unwrap()).resolve(purpose, NonZeroUsize::MIN).unwrap();
        let parameters = TuneChoices::default().resolve(file.tune_choices().unwrap(), options.seed);
        let values = serde_json::to_string(&parameters).unwrap();
        let wandb = ["wandb_project", "wandb_run_name"].map(|key| file.text(key));
        format!("{options:?}\n{values}\n{wandb:?}")
    }

    #[test]
    fn each_key_is_there_once_with_its_default() {
        let text = in_force();
        let found: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(':').map(|(key, _)| key))
            .collect();
        let (mut found, mut expected) = (found, keys());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let defaults = resolved(&file(""));
        assert_eq!(resolved(&file(&text)), defaults);
        assert_eq!(resolved(&file(&template())), defaults);
    }

    #[test]
    fn a_key_has_its_words_its_range_and_its_default() {
        let text = template();
        for expected in [
            "\n# Epochs\n# Value: N, at least 1\n#n_epochs: 3\n",
            "\n#val_ratio: 0.1\n",
            "# Value: true|false\n#strict: false\n",
            "\n#max_record_bytes: 64MiB\n",
            "\n# Value: N, at least 1\n#limit:\n",
            "a decimal below 1; 0 for none\n# Value: RATIO\n",
            "# Value: cosine|linear\n#lr_scheduler: cosine\n",
            "\n# ---- Training ----\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert!(text.lines().all(|line| line.starts_with('#') || line.is_empty()));
    }
}
