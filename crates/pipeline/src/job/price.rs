//! What a job will cost, as far as anybody can say, and whether that is within the user's cap.
//!
//! The service estimates packed training; without packing every sample is billed as a whole sequence, which the
//! estimate does not know. A cap bounds the estimate, never the bill: the service offers no way to bound that.

use serde::Serialize;

use crate::job::limits::sequence_length;
use crate::job::parameters::Settled;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::together::jobs::{Availability, Estimate, Limits};

/// The price that is held against a cap, in dollars.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Price {
    /// The estimate in dollars; `null` where nobody can say.
    #[serde(rename = "estimated_dollars")]
    pub dollars: Option<f64>,
    /// Why there is no estimate.
    #[serde(rename = "unknown_because")]
    pub reason: Option<String>,
    /// How the estimate came about, where it is not simply the service's.
    pub basis: Option<String>,
    /// Tokens to train on, by the service's estimate.
    pub train_tokens: Option<u64>,
    /// Tokens to evaluate on, by the service's estimate.
    pub eval_tokens: Option<u64>,
    /// What the account may spend.
    #[serde(skip)]
    pub user_limit: Option<f64>,
    /// Whether the service would let the job proceed.
    #[serde(skip)]
    pub is_allowed: bool,
}

/// How many samples of how many tokens the data has at the most.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    pub train_samples: u64,
    pub val_samples: u64,
    pub max_seq_length: Option<u64>,
}

impl Extent {
    pub fn of(manifest: &Manifest, settled: &Settled, limits: &Limits) -> Extent {
        Extent {
            train_samples: manifest.train.records,
            val_samples: manifest.val.as_ref().map_or(0, |val| val.records),
            max_seq_length: sequence_length(settled, limits),
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotWithin {
    #[error("the estimate is {}, and --max-cost is {}", dollars_text(*dollars), dollars_text(*cap))]
    Above { dollars: f64, cap: f64 },
    #[error("there is no estimate to hold against --max-cost: {0}")]
    NoEstimate(String),
    #[error("the service says that this account may not start the job{0}")]
    NotAllowed(String),
}

/// Dollars with cents; below one cent with four decimals. Everything that shows an amount uses it.
pub fn dollars_text(amount: f64) -> String {
    if amount > 0.0 && amount < 0.01 { format!("${amount:.4}") } else { format!("${amount:.2}") }
}

/// Whether a number can be a price: finite and not negative.
pub(crate) fn is_amount(dollars: f64) -> bool {
    dollars.is_finite() && dollars >= 0.0
}

impl Price {
    pub fn of(estimate: &Estimate, settled: &Settled, extent: Extent) -> Price {
        let reason = match (&estimate.availability, estimate.dollars) {
            (Availability::Unavailable(reason), _) => Some(reason.clone()),
            (Availability::Available, Some(dollars)) if !is_amount(dollars) => {
                Some(format!("the service estimates {dollars}, which is not a price"))
            }
            (Availability::Available, _) => None,
        };
        let mut price = Price {
            dollars: estimate.dollars.filter(|_| reason.is_none()),
            reason,
            basis: None,
            train_tokens: estimate.train_tokens,
            eval_tokens: estimate.eval_tokens,
            user_limit: estimate.user_limit,
            is_allowed: estimate.allowed_to_proceed != Some(false),
        };
        if price.dollars.is_none() && price.reason.is_none() {
            price.reason = Some("the service gave no number".to_owned());
        }
        if !settled.parameters.packing {
            price.count_whole_sequences(settled, extent);
        }
        price
    }

    pub fn unknown(reason: String) -> Price {
        Price { reason: Some(reason), is_allowed: true, ..Price::default() }
    }

    /// Without packing every sample costs a whole sequence, at the estimate's price a token.
    fn count_whole_sequences(&mut self, settled: &Settled, extent: Extent) {
        let Some(dollars) = self.dollars else { return };
        let estimated = self.train_tokens.unwrap_or(0) + self.eval_tokens.unwrap_or(0);
        let (Some(length), true) = (extent.max_seq_length, estimated > 0) else {
            self.dollars = None;
            self.reason = Some("packing is off, and the estimate does not say what a token costs".to_owned());
            return;
        };
        let samples = extent.train_samples as f64 * settled.parameters.n_epochs as f64
            + extent.val_samples as f64 * settled.n_evals as f64;
        let tokens = samples * length as f64;
        self.dollars = Some(dollars / estimated as f64 * tokens).filter(|dollars| is_amount(*dollars));
        if self.dollars.is_none() {
            self.reason = Some("packing is off, and the price of whole sequences is not a number".to_owned());
            return;
        }
        self.basis = Some(format!(
            "packing is off: {samples:.0} samples of {length} tokens each, at the estimate's price a token"
        ));
    }

    pub fn check(&self, cap: Option<f64>) -> Result<(), NotWithin> {
        if !self.is_allowed {
            let limit = self.user_limit.map(|limit| format!(": its limit is {}", dollars_text(limit)));
            return Err(NotWithin::NotAllowed(limit.unwrap_or_default()));
        }
        match (cap, self.dollars.filter(|dollars| is_amount(*dollars))) {
            (Some(cap), Some(dollars)) if dollars > cap => Err(NotWithin::Above { dollars, cap }),
            (Some(_), None) => Err(NotWithin::NoEstimate(self.reason.clone().unwrap_or_default())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_cents_and_small_ones_four_decimals() {
        let texts = [0.0, 4.2, 0.5, 0.01, 0.004].map(dollars_text);
        assert_eq!(texts, ["$0.00", "$4.20", "$0.50", "$0.01", "$0.0040"]);
    }
    use crate::job::parameters::tests::{seed, settled};

    fn estimate() -> Estimate {
        Estimate {
            availability: Availability::Available,
            dollars: Some(3.0),
            train_tokens: Some(2_000_000),
            eval_tokens: Some(1_000_000),
            user_limit: Some(50.0),
            allowed_to_proceed: Some(true),
        }
    }

    const EXTENT: Extent = Extent { train_samples: 1000, val_samples: 100, max_seq_length: Some(8192) };

    #[test]
    fn the_estimate_is_held_against_the_cap() {
        let price = Price::of(&estimate(), &settled(seed()), EXTENT);
        assert_eq!((price.check(None), price.check(Some(3.0))), (Ok(()), Ok(())));
        assert_eq!(price.check(Some(2.99)), Err(NotWithin::Above { dollars: 3.0, cap: 2.99 }));
    }

    #[test]
    fn without_an_estimate_a_cap_is_not_kept_and_a_plain_yes_suffices() {
        let unavailable = Availability::Unavailable("train_file_invalid".to_owned());
        let estimate = Estimate { availability: unavailable, ..estimate() };
        let price = Price::of(&estimate, &settled(seed()), EXTENT);
        assert_eq!(price.check(None), Ok(()));
        assert_eq!(price.check(Some(100.0)), Err(NotWithin::NoEstimate("train_file_invalid".to_owned())));
        assert!(Price::unknown("no answer".to_owned()).check(Some(1.0)).is_err());
    }

    #[test]
    fn an_estimate_that_is_negative_or_not_a_number_is_not_known() {
        for dollars in [-0.01, -3.0, f64::NEG_INFINITY, f64::INFINITY, f64::NAN] {
            let estimate = Estimate { dollars: Some(dollars), ..estimate() };
            let mut unpacked = seed();
            unpacked.packing = false;
            for parameters in [seed(), unpacked] {
                let price = Price::of(&estimate, &settled(parameters), EXTENT);
                assert_eq!(price.dollars, None, "{dollars}");
                assert!(matches!(price.check(Some(1e9)), Err(NotWithin::NoEstimate(_))), "{dollars}");
                assert_eq!(price.check(None), Ok(()), "{dollars}");
            }
            // Whoever fills in the field itself is refused, too.
            let price = Price { dollars: Some(dollars), ..Price::unknown(String::new()) };
            assert!(price.check(Some(1e9)).is_err(), "{dollars}");
        }
        assert!(is_amount(0.0) && is_amount(-0.0) && is_amount(3.5));
    }

    #[test]
    fn what_the_service_forbids_is_not_paid_for_in_any_case() {
        let estimate = Estimate { allowed_to_proceed: Some(false), ..estimate() };
        let price = Price::of(&estimate, &settled(seed()), EXTENT);
        assert_eq!(price.check(None), Err(NotWithin::NotAllowed(": its limit is $50.00".to_owned())));
    }

    #[test]
    fn without_packing_whole_sequences_are_counted() {
        let mut parameters = seed();
        parameters.packing = false;
        let price = Price::of(&estimate(), &settled(parameters.clone()), EXTENT);
        // $1 a million tokens; 1000 samples x 3 epochs + 100 samples x 3 evaluations, 8192 tokens each.
        assert!((price.dollars.unwrap() - 3300.0 * 8192.0 / 1e6).abs() < 1e-9, "{price:?}");
        assert!(price.check(Some(10.0)).is_err());
        let extent = Extent { max_seq_length: None, ..EXTENT };
        assert!(Price::of(&estimate(), &settled(parameters), extent).check(Some(1e9)).is_err());
    }
}
