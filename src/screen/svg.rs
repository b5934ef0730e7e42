//! Curves and bars as pictures: SVG that needs no script, font or style from elsewhere, alone in a file or
//! within the page of a report.
//!
//! Pure: points and a title in, text out, the same text for the same points. Colours are those that read on a
//! light and on a dark page; in a file the picture brings the style of its texts, in a report the page has it.

use std::fmt::Write;

use ctxtune_pipeline::text::{grouped, loss};

use crate::screen::curve::{Across, Curve, Drawn, Mark, Range, Scale, Series};

/// The size of a picture in a file, and what its title takes of it.
const FILE: Size = Size { width: 840.0, height: 440.0 };
const TITLE: f64 = 28.0;
/// How far within the picture the axes stand.
const LEFT: f64 = 72.0;
const SIDE: f64 = 16.0;
const HEAD: f64 = 32.0;
const FOOT: f64 = 52.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// From left to right.
    pub width: f64,
    pub height: f64,
}

impl Size {
    /// As wide as the page, and so high.
    pub fn whole(height: f64) -> Size {
        Size { height, ..FILE }
    }

    /// As wide as half of the page.
    pub fn half() -> Size {
        Size { width: 460.0, height: 280.0 }
    }
}

/// What is free above and below the points, as a part of what they cover.
const PADDING: f64 = 0.05;
/// A bar of few is no wider.
const WIDEST_BAR: f64 = 72.0;
/// The entries of a legend that are drawn, and how long each may be.
const ENTRIES: usize = 8;
const ENTRY_CHARACTERS: usize = 44;
const GREY: &str = "#6b7680";

pub(crate) const COLOURS: [&str; 8] =
    ["#3b82d6", "#e0762f", "#3fa45b", "#b65fcf", "#c94f4f", "#9a7d1f", "#2f9c9c", "#7d858d"];

/// What a picture needs where no page has it.
const STYLE: &str = "<style>.ink{fill:#59636e}.paper{fill:#fff}@media(prefers-color-scheme:dark){.ink{fill:#a3adb8}\
    .paper{fill:#0d1117}}</style>\n";

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bars {
    pub across: String,
    pub up: String,
    pub bars: Vec<Bar>,
    /// A place between bars that is pointed out, counted in bars from the left.
    pub limit: Option<Mark>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bar {
    pub label: String,
    /// What stands below its left edge, or its middle where each has such a text; empty for nothing.
    pub tick: String,
    pub count: u64,
}

pub fn picture(curve: &Curve, title: &str) -> String {
    let alone = "xmlns=\"http://www.w3.org/2000/svg\" width=\"840\" height=\"440\" ";
    let mut svg = Svg::begin(title, FILE, TITLE, alone);
    svg.put(format_args!("<title>{}</title>", escaped(title)));
    svg.text.push_str(STYLE);
    svg.label((LEFT, 22.0), "start", title);
    svg.curve(curve, false);
    svg.end()
}

/// Draws `curve` for a page, which says what it is; with the values of its points, which the page's script shows.
pub fn figure(curve: &Curve, title: &str, size: Size) -> String {
    let [across, up] = [&curve.across.name, &curve.up].map(|name| escaped(name));
    let (right, bottom) = (size.width - SIDE, size.height - FOOT);
    let reach = format!(
        "tabindex=\"0\" data-box=\"{LEFT} {HEAD} {right} {bottom}\" data-across=\"{across}\" data-up=\"{up}\" "
    );
    let mut svg = Svg::begin(title, size, 0.0, &reach);
    svg.curve(curve, true);
    svg.end()
}

pub fn bars(bars: &Bars, title: &str, size: Size) -> String {
    let mut svg = Svg::begin(title, size, 0.0, "");
    svg.bars(bars);
    svg.end()
}

/// A row of means with their intervals: what is measured, and low, mean and high of each set.
pub struct Measured<'m> {
    pub name: &'m str,
    /// From 0 to 1, a set each.
    pub sets: Vec<[f64; 3]>,
}

pub fn intervals(rows: &[Measured<'_>], names: &[String], title: &str) -> String {
    let each = 13.0 * names.len() as f64 + 13.0;
    let size = Size::whole(HEAD + FOOT + each * rows.len() as f64);
    let mut svg = Svg::begin(title, size, 0.0, "");
    let (left, top, bottom) = (LEFT * 2.4, svg.top, svg.bottom);
    let x = |part: f64| left + part.clamp(0.0, 1.0) * (size.width - SIDE - left);
    for tick in (Range { low: 0.0, high: 1.0 }).ticks(5) {
        let at = x(tick.value);
        svg.faint(format_args!("M{at:.1} {top}V{bottom}"));
        svg.label((at, bottom + 21.0), "middle", &tick.label);
    }
    for (index, row) in rows.iter().enumerate() {
        let start = top + each * index as f64;
        svg.label((left - 14.0, start + each / 2.0 + 4.5), "end", row.name);
        for (set, [low, mean, high]) in row.sets.iter().enumerate() {
            let (y, colour) = (start + 13.0 * (set as f64 + 1.0), COLOURS[set % COLOURS.len()]);
            let name = escaped(&format!("{} {}: {mean:.4}, {low:.4} to {high:.4}", row.name, names[set]));
            svg.put(format_args!(
                "<g><title>{name}</title><path d=\"M{:.1} {y:.1}H{:.1}\" stroke=\"{colour}\" stroke-width=\"3\" stroke-opacity=\"0.55\"/>\
                 <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{colour}\"/></g>",
                x(*low),
                x(*high),
                x(*mean)
            ));
        }
    }
    for (set, name) in names.iter().enumerate().filter(|_| names.len() > 1) {
        let at = left + 70.0 * set as f64;
        svg.dot((at, top - 14.0), 4.5, COLOURS[set % COLOURS.len()]);
        svg.label((at + 11.0, top - 9.5), "start", &shortened(name, 6));
    }
    svg.end()
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
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            '\n' | '\t' => escaped.push(character),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

struct Svg {
    text: String,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Svg {
    fn begin(title: &str, Size { width, height }: Size, above: f64, attributes: &str) -> Svg {
        let title = escaped(title);
        let text = format!(
            "<svg {attributes}viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n"
        );
        Svg { text, right: width - SIDE, top: HEAD + above, bottom: height - FOOT }
    }

    fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    fn label(&mut self, (x, y): (f64, f64), anchor: &str, words: &str) {
        let words = escaped(words);
        self.put(format_args!(
            "<text class=\"ink\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
        ));
    }

    /// Words beside a line from top to bottom, where there is more room.
    fn beside(&mut self, x: f64, gap: f64, words: &str) {
        let (anchor, gap) = if x > f64::midpoint(LEFT, self.right) { ("end", -gap) } else { ("start", gap) };
        self.label((x + gap, self.top - 1.0), anchor, words);
    }

    fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: &str) {
        self.put(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>"));
    }

    fn faint(&mut self, path: std::fmt::Arguments<'_>) {
        self.put(format_args!("<path d=\"{path}\" stroke=\"{GREY}\" stroke-opacity=\"0.22\"/>"));
    }

    fn x(&self, range: &Range, value: f64) -> f64 {
        LEFT + range.place(value) * (self.right - LEFT)
    }

    fn y(&self, range: &Range, value: f64) -> f64 {
        self.bottom - range.place(value) * (self.bottom - self.top)
    }

    fn curve(&mut self, curve: &Curve, has_values: bool) {
        let Some((across, up)) = curve.ranges() else {
            let middle = (f64::midpoint(LEFT, self.right), f64::midpoint(self.top, self.bottom));
            return self.label(middle, "middle", &format!("no {} yet", curve.up));
        };
        let up = up.padded(PADDING);
        // Lines may touch the edges; dots need room there.
        let is_apart = !curve.series.iter().any(|series| series.drawn == Drawn::Line);
        let across = if is_apart { across.padded(PADDING) } else { across };
        self.axes(curve, &across, &up);
        for mark in &curve.marks {
            let x = self.x(&across, mark.at);
            self.mark(x, mark);
        }
        for (index, series) in curve.series.iter().enumerate() {
            self.series(series, COLOURS[index % COLOURS.len()], (curve, &across, &up), has_values);
        }
        self.legend(&curve.series);
    }

    fn frame(&mut self, across: &str, up: &str) {
        let (right, top, bottom) = (self.right, self.top, self.bottom);
        self.put(format_args!(
            "<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"{GREY}\"/>"
        ));
        self.label((f64::midpoint(LEFT, right), bottom + 42.0), "middle", across);
        self.label((LEFT, top - 11.0), "start", up);
    }

    fn level(&mut self, y: f64, label: &str) {
        let right = self.right;
        self.faint(format_args!("M{LEFT} {y:.1}H{right}"));
        self.label((LEFT - 9.0, y + 4.5), "end", label);
    }

    fn tick(&mut self, x: f64, label: &str) {
        let bottom = self.bottom;
        self.put(format_args!("<path d=\"M{x:.1} {bottom}v5\" stroke=\"{GREY}\"/>"));
        self.label((x, bottom + 21.0), "middle", label);
    }

    fn axes(&mut self, curve: &Curve, across: &Range, up: &Range) {
        for tick in up.ticks((self.bottom - self.top) as usize / 40) {
            let y = self.y(up, tick.value);
            self.level(y, &tick.label);
        }
        for tick in curve.across.ticks(across, 10) {
            let x = self.x(across, tick.value);
            self.tick(x, &shortened(&tick.label, 20));
        }
        self.frame(&curve.across.name, &curve.up);
    }

    fn mark(&mut self, x: f64, Mark { label, is_best, .. }: &Mark) {
        let (stroke, dashes) = if *is_best { (COLOURS[2], "") } else { (GREY, " stroke-dasharray=\"2 4\"") };
        let (top, bottom) = (self.top, self.bottom);
        self.put(format_args!(
            "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"{stroke}\" stroke-width=\"1.5\"{dashes}/>\
             <path d=\"M{:.1} {:.1}h10l-5 8z\" fill=\"{stroke}\"/>",
            x - 5.0,
            top - 8.0
        ));
        if !label.is_empty() {
            self.beside(x, 8.0, label);
        }
    }

    fn series(
        &mut self,
        series: &Series,
        colour: &str,
        (curve, across, up): (&Curve, &Range, &Range),
        has_values: bool,
    ) {
        let place = |(x, y): &(f64, f64)| (self.x(across, *x), self.y(up, *y));
        let points: Vec<(f64, f64)> = series.points.iter().map(place).collect();
        let name = escaped(&series.name);
        self.text.push_str(&format!("<g data-name=\"{name}\" data-colour=\"{colour}\""));
        if has_values {
            let value = |((x, y), (left, top)): (&(f64, f64), &(f64, f64))| {
                // No name holds what stands between the parts.
                let said = said(&curve.across, *x);
                let said = escaped(&said.split_whitespace().collect::<Vec<_>>().join(" "));
                format!("{said}\t{}\t{left:.1}\t{top:.1}", loss(*y))
            };
            let values: Vec<String> = series.points.iter().zip(&points).map(value).collect();
            self.text.push_str(&format!(" data-points=\"{}\"", values.join("\n")));
        }
        self.put(format_args!(">"));
        let dashes = if series.drawn == Drawn::Line { "" } else { " stroke-dasharray=\"5 4\"" };
        if points.len() > 1 && series.drawn != Drawn::Scatter {
            let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            self.put(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" stroke-linejoin=\"round\"{dashes}/>",
                line.join(" ")
            ));
        }
        let radius = match series.drawn {
            Drawn::Line if points.len() > 1 => 0.0,
            Drawn::Line => 2.5,
            Drawn::Dots | Drawn::Letter(_) => 3.5,
            Drawn::Scatter | Drawn::Ringed => 5.0,
        };
        for (x, y) in points.iter().filter(|_| radius > 0.0) {
            self.dot((*x, *y), radius, colour);
        }
        if let (Drawn::Ringed, Some((x, y))) = (series.drawn, points.first()) {
            self.put(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"9\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
                COLOURS[2]
            ));
        }
        self.put(format_args!("</g>"));
    }

    /// What each line is, where falling curves leave room: within the axes at the upper right.
    fn legend(&mut self, series: &[Series]) {
        let series: Vec<&Series> =
            series.iter().filter(|series| !matches!(series.drawn, Drawn::Scatter | Drawn::Ringed)).collect();
        let mut names: Vec<String> =
            series.iter().take(ENTRIES).map(|series| shortened(&series.name, ENTRY_CHARACTERS)).collect();
        if series.len() > ENTRIES {
            names.push(format!("and {} more", series.len() - ENTRIES));
        }
        // One curve without a name is what the axis says.
        if names.iter().all(String::is_empty) {
            return;
        }
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let (width, height) = (longest as f64 * 7.3 + 50.0, names.len() as f64 * 19.0 + 8.0);
        let left = self.right - width - 10.0;
        self.put(format_args!(
            "<rect class=\"paper\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill-opacity=\"0.8\" rx=\"4\"/>",
            self.top + 2.0
        ));
        for (index, name) in names.iter().enumerate() {
            let y = self.top + 17.0 + 19.0 * index as f64;
            if let Some(Series { drawn, .. }) = series.get(index).filter(|_| index < ENTRIES) {
                let colour = COLOURS[index % COLOURS.len()];
                self.put(format_args!(
                    "<path d=\"M{:.1} {y:.1}h26\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                    left + 8.0
                ));
                if *drawn != Drawn::Line {
                    self.dot((left + 21.0, y), 3.5, colour);
                }
            }
            self.label((left + 42.0, y + 4.5), "start", name);
        }
    }

    fn bars(&mut self, bars: &Bars) {
        let most = bars.bars.iter().map(|bar| bar.count).max().unwrap_or(0).max(1) as f64;
        let up = Range { low: 0.0, high: most * (1.0 + 2.0 * PADDING) };
        let across = Across { name: String::new(), scale: Scale::Whole };
        for tick in across.ticks(&up, (self.bottom - self.top) as usize / 40) {
            let y = self.y(&up, tick.value);
            self.level(y, &tick.label);
        }
        let end = bars.limit.as_ref().map_or(0.0, |limit| limit.at);
        let range = Range { low: 0.0, high: (bars.bars.len() as f64).max(end).max(1.0) };
        let room = self.x(&range, 1.0) - LEFT;
        let width = (room * 0.92).min(WIDEST_BAR);
        let is_each_named = bars.bars.iter().all(|bar| !bar.tick.is_empty());
        for (index, bar) in bars.bars.iter().enumerate() {
            let (left, top) = (self.x(&range, index as f64), self.y(&up, bar.count as f64));
            let label = escaped(&format!("{}: {}", bar.label, bar.count));
            self.put(format_args!(
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{label}</title></rect>",
                left + (room - width) / 2.0,
                width,
                self.bottom - top,
                COLOURS[0]
            ));
            if is_each_named {
                self.tick(left + room / 2.0, &bar.tick);
                self.label((left + room / 2.0, top - 5.0), "middle", &grouped(bar.count));
            } else if !bar.tick.is_empty() {
                self.tick(left, &bar.tick);
            }
        }
        if let Some(limit) = &bars.limit {
            let (x, top, bottom) = (self.x(&range, limit.at), self.top, self.bottom);
            self.put(format_args!(
                "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"{}\" stroke-width=\"2\"/>",
                COLOURS[4]
            ));
            self.beside(x, 6.0, &limit.label);
        }
        self.frame(&bars.across, &bars.up);
    }
}

fn said(across: &Across, at: f64) -> String {
    match &across.scale {
        Scale::Whole => format!("{at:.0}"),
        Scale::Real => format!("{at}"),
        Scale::Log => {
            let value = 10_f64.powf(at);
            if (0.001..1e6).contains(&value) { format!("{value:.4}") } else { format!("{value:.2e}") }
        }
        Scale::Names(names) => names.get(at.round() as usize).cloned().unwrap_or_default(),
    }
}

fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some(_) => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str, part: &str) -> usize {
        text.matches(part).count()
    }

    fn losses(train: &[(u64, f64)], eval: &[(u64, f64)]) -> Curve {
        Curve::losses(train.to_vec(), eval.to_vec())
    }

    #[test]
    fn a_picture_has_axes_lines_marks_and_a_legend() {
        let mut curve =
            losses(&[(1, 3.0), (50, 1.5), (100, f64::NAN), (120, 1.0)], &[(60, 1.75), (120, 1.25)]);
        curve.marks.push(Mark { at: 120.0, label: "best: 1.25".to_owned(), is_best: true });
        let svg = picture(&curve, "ft-1 · a/model");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
        assert_eq!(svg, picture(&curve, "ft-1 · a/model"));
        // Room above and below, none at the sides of a line.
        assert!(svg.contains("points=\"72.0,74.9 381.6,298.5 824.0,373.1\""), "{svg}");
        // The dots of both evaluations, and that of the legend.
        assert_eq!((count(&svg, "<polyline"), count(&svg, "<circle")), (2, 3));
        for words in ["train", "validation", "step", "loss", "20", "100", "1.5", "2.5", "best: 1.25"] {
            assert!(svg.contains(&format!(">{words}</text>")), "{words} in {svg}");
        }
        assert!(!svg.contains("data-points"), "values are for a page that has a script");
    }

    #[test]
    fn a_figure_has_the_values_of_its_points() {
        let svg = figure(&losses(&[(1, 3.0), (120, 1e-5)], &[]), "t", Size::whole(300.0));
        assert!(svg.contains("data-points=\"1\t3.0000\t72.0\t41.8\n120\t1.000e-5\t824.0\t238.2\""), "{svg}");
        let across = Across { name: "lr".to_owned(), scale: Scale::Log };
        let tried = Series::new("", Drawn::Scatter, [(-5.0, 1.0), (-4.0, 2.0)]);
        let svg = figure(&Curve::new(across, "val/loss", vec![tried]), "t", Size::whole(300.0));
        assert!(svg.contains("data-points=\"1.00e-5\t1.0000\t") && svg.contains(">1e-5</text>"), "{svg}");
        assert_eq!((count(&svg, "<circle"), count(&svg, "<polyline"), count(&svg, "<rect")), (2, 0, 0));
    }

    #[test]
    fn a_title_cannot_leave_its_place() {
        let svg = picture(&losses(&[], &[]), "</title><script>\"'&\u{1b}[31m");
        assert_eq!((count(&svg, "<script"), count(&svg, "\u{1b}")), (0, 0));
        assert!(svg.contains("&lt;/title&gt;&lt;script&gt;&quot;&#39;&amp;\u{fffd}[31m"), "{svg}");
        let series = Series::new("a\"><b>", Drawn::Line, [(1.0, 2.0)]);
        let svg = figure(&Curve::new(Across::steps(), "<i>", vec![series]), "t", Size::whole(300.0));
        assert_eq!((count(&svg, "<b>"), count(&svg, "<i>")), (0, 0), "{svg}");
    }

    #[test]
    fn no_points_one_point_and_equal_points_are_drawn() {
        let check = |train: &[(u64, f64)], eval: &[(u64, f64)], circles: usize| {
            let svg = picture(&losses(train, eval), "t");
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

    #[test]
    fn of_many_series_a_legend_names_the_first() {
        let series = |index: usize| Series::new(&format!("run {index}"), Drawn::Dots, [(1.0, index as f64)]);
        let svg = picture(&Curve::new(Across::steps(), "loss", (0..20).map(series).collect()), "t");
        assert!(svg.contains(">run 7</text>") && !svg.contains(">run 8</text>"), "{svg}");
        assert!(svg.contains(">and 12 more</text>"), "{svg}");
    }

    #[test]
    fn bars_have_their_counts_and_the_limit_is_drawn_in() {
        let bar = |tick: &str, count| Bar { label: format!("{tick} agents"), tick: tick.to_owned(), count };
        let limit = Mark { at: 4.0, label: "limit 4".to_owned(), is_best: false };
        let shown = Bars { bars: vec![bar("2", 30), bar("3", 60)], limit: Some(limit), ..Bars::default() };
        let svg = bars(&shown, "t", Size::whole(252.0));
        assert!(svg.contains("height=\"152.7\"") && svg.contains("<title>3 agents: 60</title>"), "{svg}");
        assert!(svg.contains("M824.0 32V200") && svg.contains(">limit 4</text>"), "{svg}");
        assert_eq!(count(&bars(&Bars::default(), "t", Size::whole(252.0)), "<rect"), 0);
    }
}
