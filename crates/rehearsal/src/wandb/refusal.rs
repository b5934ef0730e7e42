//! Why W&B does not do what it was asked.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
    /// Whether only a client that is wrong asks for it.
    pub is_violation: bool,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), is_violation: false }
    }
}
