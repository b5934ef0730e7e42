//! The arguments of whatever asks models about many stories.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use clap::Args;

use crate::value::{dollars, ruled, whole};

#[derive(Debug, Args)]
pub struct AskingArgs {
    /// Requests at the same time
    #[arg(long, value_name = "N", default_value = "8", help_heading = "Many stories", value_parser = whole::<NonZeroUsize>)]
    pub concurrency: NonZeroUsize,
    /// Requests a minute at most, repeated ones included
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Many stories")]
    pub rpm: Option<f64>,

    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value = "4096", help_heading = "Answers", value_parser = whole::<NonZeroU64>)]
    pub max_tokens: NonZeroU64,
    /// Text that ends an answer; may be given several times
    #[arg(long, value_name = "TEXT", help_heading = "Answers")]
    pub stop: Vec<String>,
    /// Do not send the context's JSON schema: for servers that know no response_format
    #[arg(long, help_heading = "Answers")]
    pub no_schema: bool,
    /// Retry a story up to this many answers that are no contexts
    #[arg(long, value_name = "N", default_value = "3", help_heading = "Answers", value_parser = whole::<NonZeroU32>)]
    pub attempts: NonZeroU32,

    /// Generate for many stories without a confirmation
    #[arg(short, long, help_heading = "Money")]
    pub yes: bool,
    /// Generate without a confirmation, and send no request that could take the cost above this; needs
    /// --price-per-million
    #[arg(long, value_name = "USD", value_parser = dollars, help_heading = "Money")]
    pub max_cost: Option<f64>,
    /// What a million tokens cost, prompt and answer alike: the service does not say
    #[arg(long, value_name = "USD", value_parser = dollars, help_heading = "Money")]
    pub price_per_million: Option<f64>,

    /// Any OpenAI-compatible server, with or without /v1; it never gets the Together key, but $OPENAI_API_KEY
    /// where that is set [default: $TOGETHER_BASE_URL, else that of Together AI]
    #[arg(long, value_name = "URL", help_heading = "Service")]
    pub base_url: Option<String>,
}

fn rate(text: &str) -> Result<f64, String> {
    ruled(text, "above 0", |number| number > 0.0 && number.is_finite())
}
