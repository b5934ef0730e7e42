//! Several curves over one another: as numbers on a grid in a terminal, as lines in a picture.
//!
//! Pure. Separate from the chart of one job, whose train line would hide all others.

use std::fmt::Write;

use crate::screen::curve::Curve;
use crate::screen::svg::escaped;

/// The grid's size in cells.
const COLUMNS: usize = 64;
const ROWS: usize = 14;

/// The picture's size.
const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 440.0;
const MARGIN: f64 = 64.0;

/// Colours that read on light and dark, one after the other.
const COLOURS: [&str; 8] =
    ["#3b82d6", "#e0762f", "#3fa45b", "#b65fcf", "#c94f4f", "#8a7a3b", "#2fa7a7", "#808890"];

/// One curve.
#[derive(Debug, Clone)]
pub struct Series {
    /// What stands for it in the grid; its last character is drawn.
    pub name: String,
    /// What it is.
    pub label: String,
    /// Step and value, by step.
    pub points: Vec<(u64, f64)>,
}

fn joined(series: &[Series]) -> Curve {
    let points: Vec<(u64, f64)> = series.iter().flat_map(|series| series.points.clone()).collect();
    Curve::new(&[], &points)
}

/// Draws `series` on a grid; nothing where there is no point. Where two meet, the later one is seen.
pub fn overlay(series: &[Series], is_utf8: bool) -> Vec<String> {
    let curve = joined(series);
    let (Some(steps), Some(values)) = (curve.steps(), curve.losses()) else { return Vec::new() };
    let mut grid = vec![vec![' '; COLUMNS]; ROWS];
    for series in series {
        let mark = series.name.chars().next_back().unwrap_or('*');
        for (step, value) in &series.points {
            let column = (steps.place(*step as f64) * (COLUMNS - 1) as f64).round() as usize;
            let row = ((1.0 - values.place(*value)) * (ROWS - 1) as f64).round() as usize;
            grid[row][column] = mark;
        }
    }
    let (upright, level, corner) = if is_utf8 { ('│', '─', '└') } else { ('|', '-', '+') };
    let mut lines = Vec::new();
    for (row, cells) in grid.iter().enumerate() {
        let label = match row {
            0 => format!("{:.4}", values.high),
            row if row == ROWS - 1 => format!("{:.4}", values.low),
            _ => String::new(),
        };
        let cells: String = cells.iter().collect();
        lines.push(format!("{label:>9} {upright}{cells}").trim_end().to_owned());
    }
    lines.push(format!("{:>9} {corner}{}", "", level.to_string().repeat(COLUMNS)));
    let (first, last) = (format!("step {:.0}", steps.low), format!("{:.0}", steps.high));
    lines.push(format!("{:>11}{first}{last:>width$}", "", width = COLUMNS.saturating_sub(first.len())));
    lines
}

/// Draws `series` as an SVG file under `title`.
pub fn overlay_picture(series: &[Series], title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#808890\">\n<title>{0}</title>\n\
         <text x=\"{MARGIN}\" y=\"26\" font-size=\"15\">{0}</text>\n",
        escaped(title)
    );
    let curve = joined(series);
    if let (Some(steps), Some(values)) = (curve.steps(), curve.losses()) {
        let x = |step: f64| MARGIN + steps.place(step) * (WIDTH - 2.0 * MARGIN);
        let y = |value: f64| MARGIN + (1.0 - values.place(value)) * (HEIGHT - 2.0 * MARGIN);
        for tick in values.ticks(6) {
            let at = y(tick.value);
            let _ = writeln!(
                svg,
                "<line x1=\"{MARGIN}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#80889040\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - MARGIN,
                MARGIN - 6.0,
                at + 4.0,
                tick.label
            );
        }
        for tick in steps.whole_ticks(8) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(tick.value),
                HEIGHT - MARGIN + 18.0,
                tick.label
            );
        }
        for (index, series) in series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let points: Vec<String> = series
                .points
                .iter()
                .map(|(step, value)| format!("{:.1},{:.1}", x(*step as f64), y(*value)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" text-anchor=\"end\">{} {}</text>",
                points.join(" "),
                WIDTH - 8.0,
                40.0 + 14.0 * index as f64,
                escaped(&series.name),
                escaped(&series.label)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(u64, f64)]) -> Series {
        Series { name: name.to_owned(), label: "lora_rank=<8>".to_owned(), points: points.to_vec() }
    }

    #[test]
    fn each_curve_is_drawn_with_its_own_mark() {
        let both = [series("1", &[(10, 1.0), (20, 0.5)]), series("12", &[(10, 0.9), (20, 0.4)])];
        let lines = overlay(&both, false);
        assert_eq!(lines.len(), ROWS + 2);
        assert!(lines[0].starts_with("   1.0000 |1"), "{}", lines[0]);
        assert!(lines[ROWS - 1].starts_with("   0.4000 |") && lines[ROWS - 1].ends_with('2'));
        assert!(lines.iter().all(|line| line.is_ascii() && line.len() <= 80), "{lines:#?}");
        assert!(overlay(&[series("1", &[])], true).is_empty());
    }

    #[test]
    fn the_picture_escapes_its_labels() {
        let svg = overlay_picture(&[series("1", &[(10, 1.0), (20, f64::NAN)])], "val/loss & more");
        assert!(svg.contains("lora_rank=&lt;8&gt;") && svg.contains("val/loss &amp; more"));
        assert!(svg.contains("<polyline points=\"") && svg.ends_with("</svg>\n"));
    }
}
