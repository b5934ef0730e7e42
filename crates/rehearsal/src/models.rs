//! The models that the server trains, and their limits.
//!
//! The numbers are the ones that the API gave in 2026 where they are known; it must not decide anything about a
//! job.

use serde_json::{Value, json};

use crate::reply::Reply;

#[derive(Debug, PartialEq)]
pub struct Model {
    pub name: &'static str,
    pub parameters: u64,
    /// Of a supervised training.
    pub max_seq_length: u64,
    pub has_full_training: bool,
    /// Whether a LoRA is merged into its weights; else a job gives the adapter alone.
    pub merges_lora: bool,
    pub is_serverless: bool,
}

/// Bounds that all models share: inclusive.
pub const MAX_EPOCHS: u64 = 20;
pub const MAX_EVALS: u64 = 100;
pub const MAX_CHECKPOINTS: u64 = 20;
pub const MAX_LORA_RANK: u64 = 64;
pub const LEARNING_RATES: [f64; 2] = [1e-8, 0.01];
pub const BATCH_SIZES: [u64; 2] = [8, 64];
/// The least that may be asked for as the longest sequence.
pub const MIN_MAX_SEQ_LENGTH: u64 = 512;

pub static MODELS: [Model; 4] = [
    Model {
        name: "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference",
        parameters: 8_030_261_248,
        max_seq_length: 8192,
        has_full_training: true,
        merges_lora: true,
        is_serverless: false,
    },
    Model {
        name: "Qwen/Qwen3-8B",
        parameters: 8_190_735_360,
        max_seq_length: 32_768,
        has_full_training: true,
        merges_lora: true,
        is_serverless: true,
    },
    Model {
        name: "Qwen/Qwen3-0.6B",
        parameters: 751_632_384,
        max_seq_length: 4096,
        has_full_training: false,
        merges_lora: true,
        is_serverless: true,
    },
    Model {
        name: "openai/gpt-oss-20b",
        parameters: 20_914_757_184,
        max_seq_length: 24_576,
        has_full_training: false,
        merges_lora: false,
        is_serverless: true,
    },
];

/// The model of this name, or the reply that it cannot be trained.
pub fn find(name: &str) -> Result<&'static Model, Reply> {
    let refused = || Reply::field("model", format!("model `{name}` is not available for fine-tuning"));
    MODELS.iter().find(|model| model.name == name).ok_or_else(refused)
}

pub fn supported() -> Reply {
    let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    Reply::ok(&json!({ "models": names }))
}

pub fn limits(name: &str) -> Reply {
    let message = format!("model `{name}` is not available for fine-tuning");
    let missing = |_| Reply::json(404, &json!({ "message": message }));
    find(name).map_or_else(missing, |model| Reply::ok(&limits_of(model)))
}

fn limits_of(model: &Model) -> Value {
    let mut limits = json!({
        "model_name": model.name,
        "max_num_epochs": MAX_EPOCHS,
        "max_num_evals": MAX_EVALS,
        "max_num_checkpoints": MAX_CHECKPOINTS,
        "min_learning_rate": LEARNING_RATES[0],
        "max_learning_rate": LEARNING_RATES[1],
        "max_seq_length_sft": model.max_seq_length,
        "max_seq_length_dpo": model.max_seq_length / 2,
        "min_max_seq_length": MIN_MAX_SEQ_LENGTH,
        "default_gradient_accumulation_steps": 1,
        "supports_vision": false,
        "supports_tools": true,
        "supports_reasoning": model.name.starts_with("Qwen/"),
        "supports_full_training": model.has_full_training,
        "merge_output_lora": model.merges_lora,
        "lora_training": {
            "max_rank": MAX_LORA_RANK,
            "default_rank": MAX_LORA_RANK,
            "max_batch_size": BATCH_SIZES[1],
            "max_batch_size_dpo": BATCH_SIZES[1],
            "min_batch_size": BATCH_SIZES[0],
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        },
    });
    if model.has_full_training {
        limits["full_training"] = json!({
            "max_batch_size": BATCH_SIZES[1],
            "max_batch_size_dpo": BATCH_SIZES[1],
            "min_batch_size": BATCH_SIZES[0],
        });
    }
    limits
}
