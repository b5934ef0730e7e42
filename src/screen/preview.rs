//! Samples as the model sees them, in colours or between brackets.
//!
//! Texts are the data's: control characters in them are escaped. A style ends with its line, so that a pager that
//! begins in the middle shows it, too.

use ctxtune_engine::check::counter::{Counter, Method};
use ctxtune_pipeline::job::tokens::ModelTokens;
use ctxtune_pipeline::preview::{Kind, ShownSample, Span};
use ctxtune_pipeline::text::{counted, grouped, printable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    Colours,
    Brackets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Borders {
    Shown,
    Hidden,
}

pub fn legend(model: &ModelTokens, max_tokens: Option<u64>, marks: Marks, borders: Borders) -> Vec<String> {
    let beyond = max_tokens.map(|limit| format!("beyond {} tokens", grouped(limit)));
    let beyond = beyond.unwrap_or_else(|| "beyond the limit (--max-tokens N draws one)".to_owned());
    let marks = match marks {
        Marks::Colours => format!("green: trained; grey: masked; red, struck out: {beyond}"),
        Marks::Brackets => format!("[+ trained +]  masked  [- {beyond} -]"),
    };
    let mut lines = vec![marks];
    if model.llama_3_dates().is_none() {
        lines.push(
            "the model's chat template is not known here: <role> and </> stand for its markers".to_owned(),
        );
    }
    match model.method() {
        Method::Exact => {}
        Method::AtMost => {
            lines.push("without a tokenizer the borders of tokens are about right, never too few".to_owned())
        }
        Method::About => lines
            .push("tokens and their borders are an estimate: --tokenizer counts texts exactly".to_owned()),
    }
    if borders == Borders::Hidden {
        lines.push("--verbose shows the borders of tokens".to_owned());
    }
    lines
}

pub fn draw(sample: &ShownSample, method: Method, marks: Marks, borders: Borders) -> String {
    let key = sample.key.as_ref().map(|key| format!(", record {key}")).unwrap_or_default();
    let tokens = match method {
        Method::Exact => counted(sample.tokens.high, "token"),
        Method::AtMost => format!("at most {}", counted(sample.tokens.high, "token")),
        Method::About => {
            format!("about {}–{} tokens", grouped(sample.tokens.low), grouped(sample.tokens.high))
        }
    };
    let cut = if sample.is_truncated { ", cut" } else { "" };
    let mut text = printable(&format!(
        "== {}:{}{key}: {tokens}, {} trained{cut}\n",
        sample.file,
        sample.line,
        grouped(sample.trained_tokens)
    ));
    for message in &sample.messages {
        let heading = format!("-- {}, {}\n", message.role, counted(message.tokens, "token"));
        text.push_str(&printable(&heading));
        // One bracket for all pieces in a row that are alike.
        let mut rest = message.spans.as_slice();
        while let Some(first) = rest.first() {
            let alike = |span: &&Span| looks(span, marks) == looks(first, marks);
            let count = rest.iter().take_while(alike).count();
            let shown: String = rest[..count].iter().map(|span| bordered(span, borders)).collect();
            text.push_str(&marked(&shown, first, marks));
            rest = &rest[count..];
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

fn looks(span: &Span, marks: Marks) -> (bool, bool, Option<Kind>) {
    (span.is_trained, span.is_beyond, (marks == Marks::Colours).then_some(span.kind))
}

/// The text with a stroke behind each of its tokens; one that ends within a character has none.
fn bordered(span: &Span, borders: Borders) -> String {
    if borders == Borders::Hidden || span.token_ends.is_empty() {
        return printable(&span.text);
    }
    let mut text = String::new();
    let mut at = 0;
    for end in span.token_ends.iter().filter(|end| span.text.is_char_boundary(**end)) {
        text.push_str(&printable(&span.text[at..*end]));
        text.push('|');
        at = *end;
    }
    text.push_str(&printable(&span.text[at..]));
    text
}

fn marked(text: &str, span: &Span, marks: Marks) -> String {
    match marks {
        Marks::Colours => {
            let code = match (span.is_beyond, span.is_trained, span.kind) {
                (true, ..) => "9;31",
                (_, _, Kind::SpecialToken) => "1;7;33",
                (_, true, Kind::Marker) => "2;32",
                (_, true, Kind::Text) => "32",
                (_, false, Kind::Marker) => "2;36",
                (_, false, Kind::Text) => "90",
            };
            let lines = text.split('\n').map(|line| match line {
                "" => String::new(),
                line => format!("\u{1b}[{code}m{line}\u{1b}[0m"),
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        Marks::Brackets if span.is_beyond => format!("[-{text}-]"),
        Marks::Brackets if span.is_trained => format!("[+{text}+]"),
        Marks::Brackets => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctxtune_engine::check::stats::Tokens;
    use ctxtune_pipeline::preview::ShownMessage;

    fn sample() -> ShownSample {
        let span = |kind, is_trained, is_beyond, text: &str, token_ends: &[usize]| Span {
            kind,
            is_trained,
            is_beyond,
            text: text.to_owned(),
            tokens: token_ends.len() as u64,
            token_ends: token_ends.to_vec(),
        };
        let spans = vec![
            span(Kind::Marker, false, false, "<a>\n", &[]),
            span(Kind::Text, true, false, "Mia\u{1b} left", &[3, 4, 9]),
            span(Kind::SpecialToken, true, false, "<|x|>", &[5]),
            span(Kind::Text, true, true, " here", &[5]),
        ];
        let message = ShownMessage { role: "assistant".to_owned(), tokens: 5, spans };
        ShownSample {
            file: "t.jsonl".to_owned(),
            line: 2,
            key: None,
            tokens: Tokens { low: 5, high: 5 },
            trained_tokens: 4,
            is_truncated: true,
            messages: vec![message],
        }
    }

    #[test]
    fn brackets_say_what_colours_do() {
        let text = draw(&sample(), Method::Exact, Marks::Brackets, Borders::Hidden);
        assert_eq!(
            text,
            "== t.jsonl:2: 5 tokens, 4 trained, cut\n-- assistant, 5 tokens\n<a>\n[+Mia\\u{1b} left<|x|>+][- here-]\n"
        );
        let text = draw(&sample(), Method::Exact, Marks::Colours, Borders::Shown);
        assert!(text.contains("\u{1b}[32mMia|\\u{1b}| left|\u{1b}[0m"), "{text:?}");
        assert!(text.contains("\u{1b}[1;7;33m<|x|>|\u{1b}[0m\u{1b}[9;31m here|\u{1b}[0m"), "{text:?}");
    }
}
