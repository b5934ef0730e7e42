//! Who agrees that money is spent: a flag, or a person.

use crate::failure::Failure;
use crate::ui::Ui;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spending {
    /// By flags: `--yes`, or `--max-cost` as the cap of the estimate, or both.
    Agreed {
        max_cost: Option<f64>,
    },
    Asked,
    /// Not at all: nobody is there to be asked.
    Impossible,
}

pub const ASK_AGAIN: &str = "run it again to be asked again";

impl Spending {
    /// What `--yes`, `--max-cost` and the person at the terminal allow.
    pub fn of(yes: bool, max_cost: Option<f64>, ui: &dyn Ui) -> Spending {
        match (yes, max_cost) {
            (_, Some(cap)) => Spending::Agreed { max_cost: Some(cap) },
            (true, None) => Spending::Agreed { max_cost: None },
            (false, None) if ui.has_person() => Spending::Asked,
            (false, None) => Spending::Impossible,
        }
    }

    /// The refusal where nobody can agree. Nothing has left the machine then.
    pub fn refusal() -> Failure {
        Failure::unspent(
            "no_consent",
            "a job costs money, and this is not a terminal to ask at",
            "agree with --max-cost USD (a cap of the estimate) or --yes",
        )
    }
}
