//! What is odd in a record that is accepted all the same.
//!
//! Each kind has a stable name, is counted in the manifest, and its records are named on request.
//! Nothing here rejects.

/// A kind of oddity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// An agent of `agents_names` is missing from a step's observations or actions.
    AgentMissingFromStep,
    /// An agent observes or acts without standing in `agents_names`.
    AgentNotInNames,
    /// `[SAME AS …]` and `<same_as… />` in one record.
    MixedTags,
    /// A text holds something like `<|eot_id|>`.
    SpecialTokens,
    /// The story begins with `[` or `(` and is prose.
    BracketedProse,
    /// A text holds U+0000.
    NulCharacters,
    /// A text holds U+FFFD, which stands for what could not be decoded.
    ReplacementCharacters,
    /// In a chat line: a system message that is not the first one, or a conversation that the assistant begins.
    RoleOrder,
    /// In a chat line: an assistant message without text.
    EmptyAssistant,
    /// In a chat line: a key twice in a message, of which the last one counts.
    RepeatedKeys,
    /// A chat line with columns that no training line has, and that are left out.
    OtherColumns,
}

impl Warning {
    /// Every kind, in the order of the manifest.
    pub const ALL: [Warning; 11] = [
        Warning::AgentMissingFromStep,
        Warning::AgentNotInNames,
        Warning::MixedTags,
        Warning::SpecialTokens,
        Warning::BracketedProse,
        Warning::NulCharacters,
        Warning::ReplacementCharacters,
        Warning::RoleOrder,
        Warning::EmptyAssistant,
        Warning::RepeatedKeys,
        Warning::OtherColumns,
    ];

    /// Its name in the manifest and in `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Warning::AgentMissingFromStep => "agent_missing_from_step",
            Warning::AgentNotInNames => "agent_not_in_names",
            Warning::MixedTags => "mixed_tags",
            Warning::SpecialTokens => "special_tokens",
            Warning::BracketedProse => "bracketed_prose",
            Warning::NulCharacters => "nul_characters",
            Warning::ReplacementCharacters => "replacement_characters",
            Warning::RoleOrder => "role_order",
            Warning::EmptyAssistant => "empty_assistant",
            Warning::RepeatedKeys => "repeated_keys",
            Warning::OtherColumns => "other_columns",
        }
    }
}

/// The oddities of one record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarningSet(u16);

impl WarningSet {
    /// Those kinds for which `has` holds.
    pub fn of(has: impl Fn(Warning) -> bool) -> Self {
        let bits = Warning::ALL.into_iter().filter(|warning| has(*warning));
        WarningSet(bits.fold(0, |bits, warning| bits | 1 << warning as u8))
    }

    /// A bit for each kind.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The set of which these are the bits.
    pub fn from_bits(bits: u16) -> Self {
        WarningSet(bits)
    }

    /// The kinds, in the order of the manifest.
    pub fn iter(self) -> impl Iterator<Item = Warning> {
        Warning::ALL.into_iter().filter(move |warning| self.0 & 1 << *warning as u8 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = WarningSet::of(|warning| (warning as u8).is_multiple_of(3));
        let expected = [
            Warning::AgentMissingFromStep,
            Warning::SpecialTokens,
            Warning::ReplacementCharacters,
            Warning::RepeatedKeys,
        ];
        assert_eq!(set.iter().collect::<Vec<_>>(), expected);
    }
}
