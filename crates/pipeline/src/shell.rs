//! Words of a command that is printed to be typed into a shell.

use std::path::Path;

/// `text` as one word of a POSIX shell: as it is, or between apostrophes where a shell would read it otherwise.
/// `~/` stays: to a shell or to this program it is the home directory. `~other` is a user's to a shell only.
pub fn word(text: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "_-./:=@%+,~".contains(character);
    let is_of_user = text.strip_prefix('~').is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if !text.is_empty() && text.chars().all(is_plain) && !is_of_user {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `command` with an escaped line end before flags that would go beyond `columns`: a shell reads the same.
pub fn folded(command: &str, columns: usize) -> String {
    let mut pieces = vec![String::new()];
    let mut is_quoted = false;
    for word in command.split_inclusive(' ') {
        if word.starts_with("--") && !is_quoted {
            pieces.push(String::new());
        }
        pieces.iter_mut().last().into_iter().for_each(|piece| piece.push_str(word));
        // An apostrophe between apostrophes neither begins nor ends them.
        is_quoted ^= word.replace(r"'\''", "").matches('\'').count() % 2 == 1;
    }
    let (mut text, mut width) = (String::new(), 0);
    for piece in pieces {
        if width > 0 && width + piece.trim_end().chars().count() + 2 > columns {
            text.push_str("\\\n    ");
            width = 4;
        }
        width += piece.chars().count();
        text.push_str(&piece);
    }
    text
}

/// `path` as one word, which no command takes for a flag.
pub fn path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') && text.len() > 1 { word(&format!("./{text}")) } else { word(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        let check = |text: &str, expected: &str| assert_eq!(path(Path::new(text)), expected);
        check("out/a-b_1.jsonl", "out/a-b_1.jsonl");
        check("my out", "'my out'");
        check("it's", r"'it'\''s'");
        check("$HOME/`x`", "'$HOME/`x`'");
        check("~/x", "~/x");
        check("~other/x", "'~other/x'");
        check("--out=~/x", "./--out=~/x");
        check("*.json", "'*.json'");
        check("ü", "ü");
        check("a\nb", "'a\nb'");
        check("-out", "./-out");
        check("-", "-");
        assert_eq!((word(""), word("-n")), ("''".to_owned(), "-n".to_owned()));
    }

    #[test]
    fn a_long_command_is_folded_before_its_flags() {
        let check = |command: &str, expected: &str| {
            assert_eq!(folded(command, 20), expected);
            assert_eq!(expected.replace("\\\n    ", ""), command);
        };
        check("short --a b", "short --a b");
        check("command --flag value --x y", "command \\\n    --flag value \\\n    --x y");
        check("c 'it'\\''s a long --x' --flag v", "c 'it'\\''s a long --x' \\\n    --flag v");
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_the_word_as_it_was() {
        for text in ["my out", "it's", "$HOME/`x`\"\\", "~root", "a*b?[c]", "#x", "a\nb", "ü", "!x", "{a,b}"]
        {
            let script = format!("printf %s {}", word(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
