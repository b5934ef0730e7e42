//! A loss curve as a picture: one SVG file that needs no script, font or style from elsewhere.
//!
//! Pure: points and a title in, text out, the same text for the same points. Separate from the
//! chart in characters because a picture has room for ticks, a line through the evaluations and a legend.
//! Colours are those that read on a light and on a dark page, for the picture has no background.

use crate::screen::curve::{Curve, Range};

const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 440.0;

/// Where the axes stand: left, right, top, bottom.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 816.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 384.0;

const GREY: &str = "#808890";
const BLUE: &str = "#3b82d6";
const ORANGE: &str = "#e0762f";

/// Draws `curve` under `title`.
pub fn picture(curve: &Curve, title: &str) -> String {
    let title = escaped(title);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{GREY}\">\n\
         <title>{title}</title>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"15\">{title}</text>\n",
    );
    if let (Some(steps), Some(losses)) = (curve.steps(), curve.losses()) {
        axes(&mut svg, &steps, &losses);
        let at = |(step, loss): &(u64, f64)| (x(&steps, *step as f64), y(&losses, *loss));
        train(&mut svg, &curve.train.iter().map(at).collect::<Vec<_>>());
        eval(&mut svg, &curve.eval.iter().map(at).collect::<Vec<_>>());
    } else {
        let middle = f64::midpoint(LEFT, RIGHT);
        text(&mut svg, (middle, f64::midpoint(TOP, BOTTOM)), "middle", "no loss yet");
    }
    svg.push_str("</svg>\n");
    svg
}

fn x(steps: &Range, step: f64) -> f64 {
    LEFT + steps.place(step) * (RIGHT - LEFT)
}

fn y(losses: &Range, loss: f64) -> f64 {
    BOTTOM - losses.place(loss) * (BOTTOM - TOP)
}

/// `text` where XML may have it; what XML has no form for becomes U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

fn put(svg: &mut String, line: &str) {
    svg.push_str(line);
    svg.push('\n');
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    put(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(words)));
}

fn axes(svg: &mut String, steps: &Range, losses: &Range) {
    for tick in losses.ticks(7) {
        let y = y(losses, tick.value);
        put(svg, &format!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{GREY}\" stroke-opacity=\"0.25\"/>"));
        text(svg, (LEFT - 10.0, y + 4.5), "end", &tick.label);
    }
    for tick in steps.whole_ticks(10) {
        let x = x(steps, tick.value);
        put(svg, &format!("<path d=\"M{x:.1} {BOTTOM}v6\" stroke=\"{GREY}\"/>"));
        text(svg, (x, BOTTOM + 22.0), "middle", &tick.label);
    }
    put(svg, &format!("<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"{GREY}\"/>"));
    text(svg, (f64::midpoint(LEFT, RIGHT), BOTTOM + 44.0), "middle", "step");
    text(svg, (LEFT - 10.0, TOP - 12.0), "end", "loss");
}

/// A line through points; nothing for fewer than two.
fn line(svg: &mut String, points: &[(f64, f64)], stroke: &str) {
    if points.len() < 2 {
        return;
    }
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    put(
        svg,
        &format!(
            "<polyline points=\"{}\" fill=\"none\" {stroke} stroke-linejoin=\"round\"/>",
            points.join(" ")
        ),
    );
}

fn dot(svg: &mut String, (x, y): (f64, f64), radius: f64, colour: &str) {
    put(svg, &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>"));
}

fn train(svg: &mut String, points: &[(f64, f64)]) {
    line(svg, points, &format!("stroke=\"{BLUE}\" stroke-width=\"1.5\""));
    if let [point] = points {
        dot(svg, *point, 2.5, BLUE);
    }
    if !points.is_empty() {
        put(svg, &format!("<path d=\"M{} 40h24\" stroke=\"{BLUE}\" stroke-width=\"2.5\"/>", RIGHT - 190.0));
        text(svg, (RIGHT - 158.0, 44.5), "start", "train");
    }
}

fn eval(svg: &mut String, points: &[(f64, f64)]) {
    line(svg, points, &format!("stroke=\"{ORANGE}\" stroke-width=\"1.5\" stroke-dasharray=\"5 4\""));
    points.iter().for_each(|point| dot(svg, *point, 4.0, ORANGE));
    if !points.is_empty() {
        dot(svg, (RIGHT - 88.0, 40.0), 4.0, ORANGE);
        text(svg, (RIGHT - 76.0, 44.5), "start", "validation");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str, part: &str) -> usize {
        text.matches(part).count()
    }

    #[test]
    fn a_picture_has_axes_lines_and_a_legend() {
        let curve =
            Curve::new(&[(1, 3.0), (50, 1.5), (100, f64::NAN), (120, 1.0)], &[(60, 1.75), (120, 1.25)]);
        let svg = picture(&curve, "ft-1 · a/model");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
        assert_eq!(svg, picture(&curve, "ft-1 · a/model"));
        assert!(svg.contains("points=\"72.0,56.0 378.4,302.0 816.0,384.0\""), "{svg}");
        assert_eq!((count(&svg, "<polyline"), count(&svg, "<circle")), (2, 3));
        for words in ["train", "validation", "step", "loss", "20", "100", "1.5", "2.5"] {
            assert!(svg.contains(&format!(">{words}</text>")), "{words} in {svg}");
        }
    }

    #[test]
    fn a_title_cannot_leave_its_place() {
        let svg = picture(&Curve::default(), "</title><script>\"'&\u{1b}[31m");
        assert_eq!((count(&svg, "<script"), count(&svg, "\u{1b}")), (0, 0));
        assert!(svg.contains("&lt;/title&gt;&lt;script&gt;&quot;&apos;&amp;\u{fffd}[31m"), "{svg}");
    }

    #[test]
    fn no_points_one_point_and_equal_points_are_drawn() {
        let check = |train: &[(u64, f64)], eval: &[(u64, f64)], circles: usize| {
            let svg = picture(&Curve::new(train, eval), "t");
            assert_eq!(count(&svg, "<circle"), circles, "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(count(&svg, "<text"), count(&svg, "</text>"));
        };
        check(&[], &[], 0);
        check(&[(1, f64::NAN)], &[], 0);
        check(&[(1, 2.0)], &[], 1);
        check(&[(1, 2.0), (2, 2.0)], &[(2, 2.0)], 2);
        check(&[], &[(2, 2.0), (2, 1e308), (3, -1e308)], 4);
    }
}
