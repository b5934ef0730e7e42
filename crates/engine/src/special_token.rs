//! What looks like a tokenizer's special token in a text.
//!
//! One rule for `prepare`, which warns of such records, and for `check`, which warns of such
//! samples: the two must say the same of the same text. It knows no tokenizer.

/// The first `<|name|>` in `text`, the shape of special tokens in the Llama and ChatML families.
///
/// ```
/// assert_eq!(ctxtune_engine::special_token::find("a <|eot_id|> b"), Some("<|eot_id|>"));
/// ```
pub fn find(text: &str) -> Option<&str> {
    text.match_indices("<|").find_map(|(start, opening)| {
        let name = start + opening.len();
        let is_outside = |character: char| !character.is_ascii_alphanumeric() && character != '_';
        let length = text[name..].find(is_outside)?;
        let end = name + length + "|>".len();
        (length > 0 && text[name + length..].starts_with("|>")).then(|| &text[start..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_are_recognised_by_their_shape() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(find(text), expected, "{text}");
        check("<|eot_id|>", Some("<|eot_id|>"));
        check("a <|im_start|>b", Some("<|im_start|>"));
        check("<|<|x|>", Some("<|x|>"));
        check("é<|é|><|a|>", Some("<|a|>"));
        for text in ["", "<|", "<||>", "a <| b |> c", "< |x|>", "<|eot id|>", "<|abc"] {
            check(text, None);
        }
    }
}
