//! The names that everything at W&B has.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

/// The one user and entity, which has every project.
pub const ENTITY: &str = "rehearsal";
/// The project of whoever names none.
pub const PROJECT: &str = "rehearsal";

/// Whether an argument names no entity, or the one that there is.
pub fn is_ours(entity: &Value) -> bool {
    entity.as_str().is_none_or(|entity| entity.is_empty() || entity == ENTITY)
}

pub fn storage_id(kind: &str, parts: &[&str]) -> String {
    BASE64_STANDARD.encode(format!("{kind}:v1:{}", parts.join(":")))
}
