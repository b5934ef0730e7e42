//! A loss curve in characters: braille dots where the terminal knows Unicode, ASCII elsewhere.
//!
//! Pure: points and a size in, lines out, never wider than asked. It asks no terminal and uses no colour: what
//! is no line is marked by its own character.

use crate::screen::curve::{Curve, Drawn, Range, Series, Tick};

/// What a chart is never wider than, whatever the terminal: longer lines read badly in logs and mail.
const WIDEST: usize = 80;
const LEAST: (usize, usize) = (30, 5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    Unicode,
    Ascii,
}

#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Columns; more than 80 are not used.
    pub width: usize,
    pub height: usize,
    pub charset: Charset,
}

struct Glyphs {
    line: &'static str,
    dot: char,
    upright: char,
    tick: char,
    corner: char,
    level: char,
    foot: char,
}

impl Charset {
    fn glyphs(self) -> Glyphs {
        let [upright, tick, corner, level, foot] = match self {
            Charset::Unicode => ['│', '┤', '└', '─', '┬'],
            Charset::Ascii => ['|', '+', '+', '-', '+'],
        };
        let (line, dot) = match self {
            Charset::Unicode => ("⠒⠒", '●'),
            Charset::Ascii => ("..", 'o'),
        };
        Glyphs { line, dot, upright, tick, corner, level, foot }
    }

    /// Dots in a cell, across and down.
    fn dots(self) -> (usize, usize) {
        match self {
            Charset::Unicode => (2, 4),
            Charset::Ascii => (1, 1),
        }
    }
}

/// Draws `curve`; at most `frame.height` lines, none where the frame is too small for any.
pub fn chart(curve: &Curve, frame: &Frame) -> Vec<String> {
    let width = frame.width.min(WIDEST);
    if width < LEAST.0 || frame.height < LEAST.1 {
        return Vec::new();
    }
    let Some((across, up)) = curve.ranges() else {
        return vec![format!("no {} yet", curve.up)];
    };
    let rows = frame.height - 3;
    let levels = up.ticks(rows.div_ceil(2));
    let gutter = levels.iter().map(|tick| tick.label.len()).max().unwrap_or(0);
    let columns = width - gutter - 2;
    let mut canvas = Canvas::new(columns, rows, frame.charset);
    let glyphs = frame.charset.glyphs();
    curve.series.iter().for_each(|series| canvas.draw(series, &across, &up, &glyphs));
    let mut lines = vec![legend(curve, &glyphs, gutter, width)];
    let labels = labels_of_rows(&levels, &up, rows);
    for (cells, label) in canvas.rows().into_iter().zip(labels) {
        let edge = if label.is_some() { glyphs.tick } else { glyphs.upright };
        let line = format!("{:>gutter$} {edge}{cells}", label.unwrap_or_default());
        lines.push(line.trim_end().to_owned());
    }
    lines.extend(foot(curve, &across, columns, gutter, &glyphs));
    lines
}

/// What is measured, and the series: by their letters alone where there is no room for more.
fn legend(curve: &Curve, glyphs: &Glyphs, gutter: usize, width: usize) -> String {
    let up = format!("{:>gutter$}", curve.up);
    let entry = |Series { name, drawn, .. }: &Series| match drawn {
        Drawn::Line => format!("   {} {name}", glyphs.line),
        Drawn::Letter(letter) if name.starts_with(*letter) => format!("   {name}"),
        Drawn::Letter(letter) => format!("   {letter} = {name}"),
        Drawn::Dots | Drawn::Scatter | Drawn::Ringed => format!("   {} {name}", glyphs.dot),
    };
    let whole: String = curve.series.iter().map(entry).collect();
    if up.chars().count() + whole.chars().count() <= width {
        return up + &whole;
    }
    let short = |series: &Series| match series.drawn {
        Drawn::Letter(letter) => {
            let number = series.name.split(' ').next().unwrap_or_default();
            if number == letter.to_string() {
                format!("  {number}")
            } else {
                format!("  {letter} = {number}")
            }
        }
        _ => entry(series),
    };
    let short: String = curve.series.iter().map(short).collect();
    (up + &short).chars().take(width).collect()
}

/// Each row's label: that of the tick nearest its middle, if one lies in it.
fn labels_of_rows(levels: &[Tick], up: &Range, rows: usize) -> Vec<Option<String>> {
    let mut labels = vec![None; rows];
    for tick in levels {
        let row = ((1.0 - up.place(tick.value)) * (rows - 1) as f64).round() as usize;
        labels[row].get_or_insert_with(|| tick.label.clone());
    }
    labels
}

fn foot(curve: &Curve, across: &Range, columns: usize, gutter: usize, glyphs: &Glyphs) -> [String; 2] {
    let mut axis = vec![glyphs.level; columns];
    let mut text = vec![' '; gutter + 2 + columns];
    let mut free = 0;
    for tick in curve.across.ticks(across, columns / 10) {
        let column = (across.place(tick.value) * (columns - 1) as f64).round() as usize;
        axis[column] = glyphs.foot;
        let start = (gutter + 2 + column).saturating_sub(tick.label.len() / 2);
        let start = start.min(text.len().saturating_sub(tick.label.len()));
        if start >= free && start + tick.label.len() <= text.len() {
            text[start..start + tick.label.len()].copy_from_slice(&tick.label.chars().collect::<Vec<_>>());
            free = start + tick.label.len() + 1;
        }
    }
    let name: Vec<char> = curve.across.name.chars().collect();
    if text.get(..=name.len()).is_some_and(|room| room.iter().all(|character| *character == ' ')) {
        text[..name.len()].copy_from_slice(&name);
    }
    let axis: String = axis.into_iter().collect();
    let text: String = text.into_iter().collect();
    [format!("{:gutter$} {}{axis}", "", glyphs.corner), text.trim_end().to_owned()]
}

struct Canvas {
    charset: Charset,
    columns: usize,
    rows: usize,
    /// The braille bits of each cell, row by row.
    cells: Vec<u8>,
    marks: Vec<Option<char>>,
}

impl Canvas {
    fn new(columns: usize, rows: usize, charset: Charset) -> Canvas {
        let count = columns * rows;
        Canvas { charset, columns, rows, cells: vec![0; count], marks: vec![None; count] }
    }

    fn draw(&mut self, series: &Series, across: &Range, up: &Range, glyphs: &Glyphs) {
        let (wide, high) = self.charset.dots();
        let last = ((self.columns * wide - 1) as f64, (self.rows * high - 1) as f64);
        let dot = |(x, y): &(f64, f64)| {
            let (x, y) = (across.place(*x) * last.0, (1.0 - up.place(*y)) * last.1);
            (x.round() as i64, y.round() as i64)
        };
        let dots: Vec<_> = series.points.iter().map(dot).collect();
        let mark = match series.drawn {
            Drawn::Line => {
                dots.iter().for_each(|dot| self.set(*dot));
                dots.windows(2).for_each(|pair| self.line(pair[0], pair[1]));
                return;
            }
            Drawn::Dots | Drawn::Scatter | Drawn::Ringed => glyphs.dot,
            Drawn::Letter(letter) => letter,
        };
        for (x, y) in dots {
            let cell = self.cell(x, y);
            self.marks[cell] = Some(mark);
        }
    }

    fn line(&mut self, from: (i64, i64), to: (i64, i64)) {
        let (width, height) = (to.0 - from.0, to.1 - from.1);
        let count = width.abs().max(height.abs());
        for index in 0..count {
            let part = index as f64 / count as f64;
            let x = from.0 + (width as f64 * part).round() as i64;
            let y = from.1 + (height as f64 * part).round() as i64;
            self.set((x, y));
        }
    }

    fn cell(&self, x: i64, y: i64) -> usize {
        let (across, down) = self.charset.dots();
        y as usize / down * self.columns + x as usize / across
    }

    fn set(&mut self, (x, y): (i64, i64)) {
        // The order of braille's bits: the eighth dot was added to six.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let cell = self.cell(x, y);
        self.cells[cell] |= BITS[x as usize % 2][y as usize % 4];
    }

    fn rows(&self) -> Vec<String> {
        let show = |(bits, mark): (&u8, &Option<char>)| match (mark, self.charset, bits) {
            (Some(mark), ..) => *mark,
            (_, _, 0) => ' ',
            (_, Charset::Unicode, bits) => char::from_u32(0x2800 + u32::from(*bits)).unwrap_or(' '),
            (_, Charset::Ascii, _) => '.',
        };
        let cells: Vec<char> = self.cells.iter().zip(&self.marks).map(show).collect();
        cells.chunks(self.columns).map(|row| row.iter().collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(width: usize, height: usize, charset: Charset) -> Frame {
        Frame { width, height, charset }
    }

    /// Falls as 3/(1+x/20), with a little noise, in 60 steps; an evaluation every 20.
    fn falling() -> Curve {
        let loss = |step: u64| 3.0 / (1.0 + step as f64 / 20.0) + (step * 37 % 11) as f64 * 0.02;
        let train = (1..=60).map(|step| (step, loss(step)));
        Curve::losses(train, [20, 40, 60].map(|step| (step, loss(step) + 0.2)))
    }

    #[track_caller]
    fn check(curve: &Curve, frame: &Frame, expected: &str) {
        let lines = chart(curve, frame);
        assert_eq!(lines.join("\n"), expected.trim_matches('\n'), "\n{}\n", lines.join("\n"));
        assert!(lines.len() <= frame.height && lines.iter().all(|line| line.chars().count() <= frame.width));
    }

    #[test]
    fn a_curve_falls_in_braille() {
        check(
            &falling(),
            &frame(60, 12, Charset::Unicode),
            "
loss   ⠒⠒ train   ● validation
    │⠑⢢
    │  ⠓⠢⡀
2.5 ┤    ⠱⠤⠤⡀
2.0 ┤       ⠑⠲⡀
    │         ⠉⠉⠱⡠⠤⢄  ●
1.5 ┤              ⠈⠊⠉⠢⠤⡀ ⡀
    │                   ⠑⠉⠘⠔⠊⠱⡠⠔⢆⣀  ⣀    ●
1.0 ┤                           ⠈ ⠑⠉ ⠣⠒⠱⡠⠔⠢⡠⡄ ⡠⡀ ⣀ ⢀⡀      ●
    │                                       ⠘⠉ ⠑⠉ ⠑⠁⠈⠊⠱⡠⠔⢄⠤⠒
    └─────────────────┬──────────────────┬─────────────────┬
step                 20                 40                60
",
        );
    }

    #[test]
    fn a_curve_falls_in_ascii() {
        check(
            &falling(),
            &frame(60, 12, Charset::Ascii),
            "
loss   .. train   o validation
    |..
    |  ...
2.5 +     ..
2.0 +       ..
    |         ...... .o
1.5 +               .... ..
    |                   .  .......  .  . o
1.0 +                             .. .. ....... .. .. . .  o
    |                                          .  .  ... ..
    +-----------------+------------------+-----------------+
step                 20                 40                60
",
        );
    }

    #[test]
    fn the_runs_of_a_sweep_are_letters() {
        let run = |number: u64, letter: char| {
            let points = [(10.0, number as f64), (20.0, number as f64 / 2.0)];
            Series::new(&format!("{number} learning_rate=1e-5"), Drawn::Letter(letter), points)
        };
        let runs = vec![run(1, '1'), run(2, '2'), run(12, 'c')];
        let curve = Curve::new(crate::screen::curve::Across::steps(), "val/loss", runs);
        let lines = chart(&curve, &frame(76, 8, Charset::Ascii));
        assert_eq!(lines[0], "val/loss  1  2  c = 12");
        let wide = chart(&curve, &frame(80, 8, Charset::Ascii));
        assert_eq!(wide[0], lines[0], "no name is cut");
        assert!(lines[1].ends_with("|c"), "{lines:#?}");
        assert!(lines.iter().any(|line| line.ends_with('2')), "{lines:#?}");
    }

    #[test]
    fn one_point_is_a_dot() {
        check(
            &Curve::losses([(7, 1.5)], []),
            &frame(30, 8, Charset::Unicode),
            "
loss   ⠒⠒ train
     │
1.55 ┤
1.50 ┤            ⠄
1.45 ┤
     │
     └────────────┬───────────
step              7
",
        );
    }

    #[test]
    fn a_constant_loss_is_a_level_line() {
        check(
            &Curve::losses([(1, 0.5), (2, f64::NAN), (9, 0.5)], [(9, 0.5)]),
            &frame(30, 8, Charset::Unicode),
            "
loss   ⠒⠒ train   ● validation
0.55 ┤
     │
0.50 ┤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤●
     │
0.45 ┤
     └────────────┬───────────
step              5
",
        );
    }

    #[test]
    fn without_a_number_it_says_so_and_in_no_space_nothing() {
        check(&Curve::losses([], []), &frame(80, 10, Charset::Ascii), "no loss yet");
        check(&Curve::losses([(1, f64::NAN)], []), &frame(80, 10, Charset::Ascii), "no loss yet");
        check(&falling(), &frame(29, 10, Charset::Ascii), "");
        check(&falling(), &frame(80, 4, Charset::Ascii), "");
    }

    #[test]
    fn no_size_and_no_number_breaks_it() {
        let strange: Vec<(u64, f64)> = (0..500)
            .map(|index| (index * index, [1e308, -1e308, 0.0, 1e-300, f64::NAN][index as usize % 5]))
            .collect();
        for curve in [
            falling(),
            Curve::losses(strange.clone(), strange[3..9].to_vec()),
            Curve::losses([], [(u64::MAX, 1.0), (0, 2.0)]),
        ] {
            for width in 0..130 {
                for height in [0, 4, 5, 6, 9, 30] {
                    let lines = chart(&curve, &frame(width, height, Charset::Unicode));
                    assert!(lines.len() <= height);
                    assert!(lines.iter().all(|line| line.chars().count() <= width.min(80)), "{lines:?}");
                }
            }
        }
    }

    #[test]
    fn ascii_is_ascii() {
        assert!(chart(&falling(), &frame(80, 20, Charset::Ascii)).iter().all(|line| line.is_ascii()));
    }
}
