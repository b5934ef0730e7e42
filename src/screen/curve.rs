//! A job's loss as points and axes: what the chart on a terminal and the picture in a file share.
//!
//! Pure. Separate from both so that they show the same numbers at the same ticks. It draws
//! nothing. What is not finite is no point; a range is never empty, so nobody divides by zero.

use ctxtune_pipeline::job::progress::Progress;

/// Beyond this a loss is drawn at the edge: differences of larger ones would overflow.
const LARGEST: f64 = 1e30;

/// The points of a loss curve: step and loss, in the order of steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Training.
    pub train: Vec<(u64, f64)>,
    /// Evaluations.
    pub eval: Vec<(u64, f64)>,
}

/// A range of numbers, from `low` to `high`, which differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// A number on an axis, and how it is written there.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// The number.
    pub value: f64,
    /// Its text, with as many decimals as its neighbours need.
    pub label: String,
}

impl Curve {
    /// The curve through points in any order; those that are not finite are left out.
    pub fn new(train: &[(u64, f64)], eval: &[(u64, f64)]) -> Curve {
        let drawable = |points: &[(u64, f64)]| {
            let finite = points.iter().filter(|(_, loss)| loss.is_finite());
            let mut points: Vec<_> =
                finite.map(|(step, loss)| (*step, loss.clamp(-LARGEST, LARGEST))).collect();
            points.sort_by_key(|(step, _)| *step);
            points
        };
        Curve { train: drawable(train), eval: drawable(eval) }
    }

    /// The curve of a job as far as it is known.
    pub fn of(progress: &Progress) -> Curve {
        let train: Vec<_> = progress.train().filter_map(|point| Some((point.step, point.loss?))).collect();
        let eval: Vec<_> = progress.eval().map(|point| (point.step, point.loss)).collect();
        Curve::new(&train, &eval)
    }

    fn points(&self) -> impl Iterator<Item = &(u64, f64)> {
        self.train.iter().chain(&self.eval)
    }

    /// The steps it covers; nothing where there is no point.
    pub fn steps(&self) -> Option<Range> {
        Range::of(self.points().map(|(step, _)| *step as f64))
    }

    /// The losses it covers; nothing where there is no point.
    pub fn losses(&self) -> Option<Range> {
        Range::of(self.points().map(|(_, loss)| *loss))
    }
}

impl Range {
    /// The range of some numbers, a little wider where they are all the same.
    fn of(numbers: impl Iterator<Item = f64>) -> Option<Range> {
        let join = |range: Range, next: Range| Range {
            low: range.low.min(next.low),
            high: range.high.max(next.high),
        };
        let Range { low, high } = numbers.map(|number| Range { low: number, high: number }).reduce(join)?;
        let magnitude = low.abs().max(high.abs());
        let margin = if high - low > magnitude * 1e-9 { 0.0 } else { (magnitude * 0.05).max(0.05) };
        Some(Range { low: low - margin, high: high + margin })
    }

    /// Where `number` lies: 0 at the lower end, 1 at the upper one.
    pub fn place(&self, number: f64) -> f64 {
        ((number - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// About `count` round numbers in it, ascending.
    pub fn ticks(&self, count: usize) -> Vec<Tick> {
        self.ticks_apart(self.round_distance(count))
    }

    /// The same, whole numbers only.
    pub fn whole_ticks(&self, count: usize) -> Vec<Tick> {
        self.ticks_apart(self.round_distance(count).max(1.0))
    }

    /// 1, 2 or 5 times a power of ten.
    fn round_distance(&self, count: usize) -> f64 {
        let rough = (self.high - self.low) / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| power * factor >= rough * 0.999_999);
        power * factor.unwrap_or(10.0)
    }

    fn ticks_apart(&self, distance: f64) -> Vec<Tick> {
        let slack = distance * 1e-6;
        let first = ((self.low - slack) / distance).ceil();
        let values = (0..100).map(|index| (first + f64::from(index)) * distance);
        let values = values.take_while(|value| *value <= self.high + slack);
        let largest = self.low.abs().max(self.high.abs());
        values.map(|value| Tick { value, label: label(value, distance, largest) }).collect()
    }
}

/// A tick's text: plain where that is short, else with an exponent.
fn label(value: f64, distance: f64, largest: f64) -> String {
    let decimals = (-(distance * 1.000_001).log10().floor()).max(0.0) as usize;
    // Adding zero makes -0 positive.
    let value = if value.abs() < distance / 2.0 { 0.0 } else { value + 0.0 };
    if largest >= 1e7 || decimals > 6 { format!("{value:.1e}") } else { format!("{value:.decimals$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let check = |low: f64, high: f64, count: usize, expected: &[&str]| {
            let ticks = Range { low, high }.ticks(count);
            assert_eq!(ticks.iter().map(|tick| tick.label.as_str()).collect::<Vec<_>>(), expected);
        };
        check(0.0, 10.0, 5, &["0", "2", "4", "6", "8", "10"]);
        check(0.31, 2.87, 5, &["1", "2"]);
        check(0.31, 2.87, 6, &["0.5", "1.0", "1.5", "2.0", "2.5"]);
        check(0.1, 0.3, 2, &["0.1", "0.2", "0.3"]);
        check(-0.25, 0.25, 3, &["-0.2", "0.0", "0.2"]);
        check(1.000_01, 1.000_04, 3, &["1.00001", "1.00002", "1.00003", "1.00004"]);
        check(1e9, 3e9, 2, &["1.0e9", "2.0e9", "3.0e9"]);
    }

    #[test]
    fn steps_are_whole_numbers() {
        let labels = |low: f64, high: f64| -> Vec<String> {
            Range { low, high }.whole_ticks(4).into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(labels(1.0, 3.0), ["1", "2", "3"]);
        assert_eq!(labels(1.0, 390.0), ["100", "200", "300"]);
        assert_eq!(labels(6.65, 7.35), ["7"]);
    }

    #[test]
    fn no_range_is_empty_and_no_number_is_too_large() {
        let check = |losses: &[f64]| {
            let points: Vec<_> = losses.iter().enumerate().map(|(step, loss)| (step as u64, *loss)).collect();
            let range = Curve::new(&points, &[]).losses().unwrap();
            let ticks = range.ticks(5);
            assert!(range.low < range.high && range.low.is_finite() && range.high.is_finite(), "{range:?}");
            assert!(ticks.len() < 12 && ticks.iter().all(|tick| tick.value.is_finite()), "{ticks:?}");
            assert!((0.0..=1.0).contains(&range.place(losses[0])));
        };
        check(&[0.0]);
        check(&[1.5, 1.5, 1.5]);
        check(&[-3.0]);
        check(&[1e308, -1e308]);
        check(&[1e-300, 2e-300]);
        check(&[1e15, 1e15 + 1.0]);
        check(&[2.0, f64::NAN, f64::INFINITY]);
        assert_eq!(Curve::new(&[(1, f64::NAN)], &[]).losses(), None);
        assert_eq!(Curve::default().steps(), None);
    }

    #[test]
    fn points_are_in_the_order_of_steps() {
        let curve = Curve::new(&[(3, 1.0), (1, 2.0), (2, f64::NAN)], &[(9, 0.5), (4, 0.25)]);
        assert_eq!((curve.train, curve.eval), (vec![(1, 2.0), (3, 1.0)], vec![(4, 0.25), (9, 0.5)]));
    }
}
