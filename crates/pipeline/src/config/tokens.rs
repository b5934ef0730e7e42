//! What is chosen on the command line about counting tokens.

use clap::Args;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Tokens")]
pub struct TokenizerArgs {
    /// Count tokens with a tokenizer.json or tokenizer.model, with that of a directory, or of a model in the Hub's cache
    #[arg(long, value_name = "FILE|DIR|NAME")]
    pub tokenizer: Option<String>,
}
