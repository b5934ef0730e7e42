//! Curves as points and axes: what the chart on a terminal, the picture in a file and the report share.
//!
//! What is not finite is no point; a range is never empty, so nobody divides by zero.

use ctxtune_pipeline::job::progress::Progress;
use ctxtune_pipeline::job::seen::thinned;
use ctxtune_pipeline::sweep::book::Trial;
use ctxtune_pipeline::sweep::shown_values;

/// Beyond this a value is drawn at the edge: differences of larger ones would overflow.
const LARGEST: f64 = 1e30;
/// Points of all curves together, and of each at least: more cannot be told apart, and a page would not stay small.
const MOST_POINTS: usize = 6_000;
const LEAST_POINTS: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub across: Across,
    pub up: String,
    pub series: Vec<Series>,
    pub marks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Across {
    pub name: String,
    pub scale: Scale,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    Whole,
    Real,
    /// At powers of ten; points are logarithms to that base.
    Log,
    /// At 0, 1, 2 …, which stand for these.
    Names(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub drawn: Drawn,
    pub points: Vec<(f64, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    Line,
    /// As dots, which a picture joins.
    Dots,
    /// As dots, which are this character where there are characters only.
    Letter(char),
    /// As dots that have no order.
    Scatter,
    /// As one of them that is pointed out.
    Ringed,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub at: f64,
    /// What is there; empty where the legend of the page says it.
    pub label: String,
    pub is_best: bool,
}

/// A range of numbers, from `low` to `high`, which differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub low: f64,
    pub high: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub value: f64,
    /// Its text, with as many decimals as its neighbours need.
    pub label: String,
}

impl Series {
    /// The curve through points in any order; those that are not finite are left out.
    pub fn new(name: &str, drawn: Drawn, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        let finite = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let mut points: Vec<_> = finite.map(|(x, y)| (x, y.clamp(-LARGEST, LARGEST))).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Series { name: name.to_owned(), drawn, points }
    }
}

impl Across {
    pub fn steps() -> Across {
        Across { name: "step".to_owned(), scale: Scale::Whole }
    }

    pub fn ticks(&self, range: &Range, count: usize) -> Vec<Tick> {
        match &self.scale {
            Scale::Whole => range.ticks_apart(range.round_distance(count).max(1.0)),
            Scale::Real => range.ticks(count),
            Scale::Log => range.powers(),
            Scale::Names(names) => {
                let tick = |(at, name): (usize, &String)| Tick { value: at as f64, label: name.clone() };
                names.iter().enumerate().map(tick).collect()
            }
        }
    }
}

impl Curve {
    /// Curves without those that have no point.
    pub fn new(across: Across, up: &str, series: Vec<Series>) -> Curve {
        let mut series: Vec<Series> = series.into_iter().filter(|series| !series.points.is_empty()).collect();
        let most = (MOST_POINTS / series.len().max(1)).max(LEAST_POINTS);
        for series in &mut series {
            series.points = thinned(std::mem::take(&mut series.points), most, |point| point.1);
        }
        Curve { across, up: up.to_owned(), series, marks: Vec::new() }
    }

    pub fn of(progress: &Progress) -> Curve {
        let train = progress.train().filter_map(|point| Some((point.step, point.loss?)));
        Curve::losses(train, progress.eval().map(|point| (point.step, point.loss)))
    }

    pub fn losses(
        train: impl IntoIterator<Item = (u64, f64)>,
        eval: impl IntoIterator<Item = (u64, f64)>,
    ) -> Curve {
        let at = |(step, loss): (u64, f64)| (step as f64, loss);
        let train = Series::new("train", Drawn::Line, train.into_iter().map(at));
        let eval = Series::new("validation", Drawn::Dots, eval.into_iter().map(at));
        Curve::new(Across::steps(), "loss", vec![train, eval])
    }

    /// The metric `name` of the runs of a sweep, by step. A run's letter is its number, from the tenth on `a`, `b` …
    pub fn of_sweep(trials: &[Trial], name: &str) -> Curve {
        let series = |(index, trial): (usize, &Trial)| {
            let letter = char::from_digit(index as u32 + 1, 36).unwrap_or('*');
            let points = trial.curve.iter().map(|point| (point.step as f64, point.value));
            let name = format!("{} {}", index + 1, shown_values(&trial.values));
            Series::new(name.trim_end(), Drawn::Letter(letter), points)
        };
        Curve::new(Across::steps(), name, trials.iter().enumerate().map(series).collect())
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.series.iter().flat_map(|series| &series.points)
    }

    /// What it covers across and up; nothing where there is no point.
    pub fn ranges(&self) -> Option<(Range, Range)> {
        let (across, up) = (self.points().map(|point| point.0), self.points().map(|point| point.1));
        Some((Range::of(across)?, Range::of(up)?))
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

    /// The same range with a margin of `part` of it on both sides.
    pub fn padded(&self, part: f64) -> Range {
        let margin = (self.high - self.low) * part;
        Range { low: self.low - margin, high: self.high + margin }
    }

    /// Powers of ten, and what lies between them where these are few.
    fn powers(&self) -> Vec<Tick> {
        let factors: &[f64] = if self.high - self.low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = self.low.floor() as i32..=self.high.ceil() as i32;
        let values = powers.flat_map(|power| factors.iter().map(move |factor| (power, factor)));
        let ticks = values.map(|(power, factor)| Tick {
            value: f64::from(power) + factor.log10(),
            label: if (-2..6).contains(&power) {
                format!("{}", factor * 10_f64.powi(power))
            } else {
                format!("{factor}e{power}")
            },
        });
        ticks.filter(|tick| (self.low - 1e-9..=self.high + 1e-9).contains(&tick.value)).collect()
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
    if value != 0.0 && (!(1e-3..1e7).contains(&largest) || decimals > 6) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    if largest < 1e-3 { "0".to_owned() } else { format!("{value:.decimals$}") }
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
        check(0.0, 1e-5, 2, &["0", "5e-6", "1e-5"]);
        check(1e9, 3e9, 2, &["1e9", "2e9", "3e9"]);
    }

    #[test]
    fn steps_are_whole_numbers() {
        let labels = |low: f64, high: f64| -> Vec<String> {
            Across::steps().ticks(&Range { low, high }, 4).into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(labels(1.0, 3.0), ["1", "2", "3"]);
        assert_eq!(labels(1.0, 390.0), ["100", "200", "300"]);
        assert_eq!(labels(6.65, 7.35), ["7"]);
    }

    #[test]
    fn a_logarithmic_axis_has_powers_of_ten() {
        let labels = |low: f64, high: f64| -> Vec<String> {
            let across = Across { name: String::new(), scale: Scale::Log };
            across.ticks(&Range { low, high }, 4).into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(labels(-5.0, -4.0), ["1e-5", "2e-5", "5e-5", "1e-4"]);
        assert_eq!(labels(-5.2, 1.0), ["1e-5", "1e-4", "1e-3", "0.01", "0.1", "1", "10"]);
    }

    #[test]
    fn no_range_is_empty_and_no_number_is_too_large() {
        let check = |losses: &[f64]| {
            let points = losses.iter().enumerate().map(|(step, loss)| (step as u64, *loss));
            let (_, range) = Curve::losses(points, []).ranges().unwrap();
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
        assert_eq!(Curve::losses([(1, f64::NAN)], []).ranges(), None);
        assert_eq!(Curve::losses([], []).series, []);
    }

    #[test]
    fn points_are_in_the_order_of_steps() {
        let curve = Curve::losses([(3, 1.0), (1, 2.0), (2, f64::NAN)], [(9, 0.5), (4, 0.25)]);
        assert_eq!(curve.series[0].points, [(1.0, 2.0), (3.0, 1.0)]);
        assert_eq!(curve.series[1].points, [(4.0, 0.25), (9.0, 0.5)]);
    }

    #[test]
    fn of_many_points_the_extremes_are_drawn() {
        let points = (0..20_000_u64).map(|step| (step, if step == 777 { 9.0 } else { (step % 7) as f64 }));
        let series = Curve::losses(points, [(1, 2.0)]).series;
        assert!(series[0].points.len() <= MOST_POINTS / 2 && series[0].points.contains(&(777.0, 9.0)));
        assert_eq!(series[1].points, [(1.0, 2.0)]);
    }

    #[test]
    fn a_sweep_has_a_letter_a_run() {
        let mut trials = vec![Trial::new(vec![("lora_rank".to_owned(), 8.into())]); 11];
        for index in [1, 10] {
            trials[index].curve.push(ctxtune_pipeline::sweep::book::Point { step: 4, value: 0.5 });
        }
        let curve = Curve::of_sweep(&trials, "val/loss");
        let drawn: Vec<_> = curve.series.iter().map(|series| (series.name.as_str(), series.drawn)).collect();
        assert_eq!(drawn, [("2 lora_rank=8", Drawn::Letter('2')), ("11 lora_rank=8", Drawn::Letter('b'))]);
    }
}
