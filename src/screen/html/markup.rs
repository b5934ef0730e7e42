//! HTML that is written piece by piece, so that nothing from elsewhere is ever markup.

use std::borrow::Cow;

use crate::screen::svg::escaped;
use ctxtune_pipeline::text::{counted, printable};

/// At most so many characters of `text`, and how many more there are: a page stays small.
pub fn clipped(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let more = counted(text[end..].chars().count() as u64, "more character");
            Cow::Owned(format!("{} … ({more})", &text[..end]))
        }
    }
}

#[derive(Debug, Default)]
pub struct Html(pub(super) String);

impl Html {
    /// Markup.
    pub fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere.
    pub fn text(&mut self, text: &str) -> &mut Html {
        self.0.push_str(&escaped(&printable(text)));
        self
    }

    /// A picture, which is escaped itself.
    pub fn picture(&mut self, svg: &str) -> &mut Html {
        self.0.push_str(svg);
        self
    }

    pub fn paragraph(&mut self, text: &str) -> &mut Html {
        self.of("p", text)
    }

    pub fn soft(&mut self, text: &str) -> &mut Html {
        self.of("p class=\"soft\"", text)
    }

    pub fn note(&mut self, text: &str) -> &mut Html {
        self.of("p class=\"note\"", text)
    }

    /// An element that holds text alone; `open` is its name with its attributes.
    pub fn of(&mut self, open: &'static str, text: &str) -> &mut Html {
        self.within(open, |html| {
            html.text(text);
        })
    }

    pub fn within(&mut self, open: &'static str, inside: impl FnOnce(&mut Html)) -> &mut Html {
        let name = open.split(' ').next().unwrap_or(open);
        self.raw("<").raw(open).raw(">");
        inside(self);
        let is_inline = matches!(name, "span" | "del" | "ins");
        self.raw("</").raw(name).raw(if is_inline { ">" } else { ">\n" })
    }

    /// A heading that the page's list of contents leads to.
    pub fn heading(&mut self, contents: &mut Vec<(String, String)>, text: &str) {
        let id = format!("s{}", contents.len() + 1);
        self.raw("<h2 id=\"").text(&id).raw("\">").text(text).raw("</h2>\n");
        contents.push((id, text.to_owned()));
    }

    pub fn tiles(&mut self, tiles: &[(&str, String)]) {
        self.within("dl class=\"tiles\"", |html| {
            for (name, value) in tiles {
                // More does not fit one column in the size of a number.
                let is_long = value.chars().count() > 10;
                html.raw(if is_long { "<div class=\"wide\">" } else { "<div>" });
                html.of("dt", name).of("dd", value).raw("</div>\n");
            }
        });
    }

    /// A table of texts; a column whose heading begins with `#` holds numbers.
    pub fn table(&mut self, caption: &str, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        self.open_table(caption, columns);
        for row in rows {
            self.row(columns, &row);
        }
        self.close_table();
    }

    pub fn open_table(&mut self, caption: &str, columns: &[&str]) {
        self.raw("<div class=\"scroll\"><table>").of("caption", caption).raw("<thead><tr>");
        for column in columns {
            match column.strip_prefix('#') {
                Some(column) => self.of("th scope=\"col\" class=\"num\"", column),
                None => self.of("th scope=\"col\"", column),
            };
        }
        self.raw("</tr></thead>\n<tbody>");
    }

    pub fn row(&mut self, columns: &[&str], cells: &[String]) {
        self.within("tr", |html| {
            for (column, cell) in columns.iter().zip(cells) {
                html.of(if column.starts_with('#') { "td class=\"num\"" } else { "td" }, cell);
            }
        });
    }

    pub fn close_table(&mut self) {
        self.raw("</tbody></table></div>\n");
    }

    pub fn figure(&mut self, svg: &str, caption: &str) {
        self.within("figure", |html| {
            html.picture(svg).of("figcaption", caption);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</script></title><img onerror=alert(1) src=x>\"'&\u{1b}[2J";

    #[test]
    fn what_is_left_out_of_a_long_text_is_counted() {
        assert_eq!(clipped("häß", 3), "häß");
        assert_eq!(clipped("häßlich", 3), "häß … (4 more characters)");
    }

    #[test]
    fn what_comes_from_elsewhere_is_text() {
        let mut html = Html::default();
        html.of("p class=\"soft\"", HOSTILE).raw("<a title=\"").text(HOSTILE).raw("\">");
        html.table(HOSTILE, &["#n"], [vec![HOSTILE.to_owned()]]);
        html.tiles(&[("x", HOSTILE.to_owned())]);
        assert!(
            !html.0.contains("<img") && !html.0.contains("</script") && !html.0.contains('\u{1b}'),
            "{html:?}"
        );
        assert!(
            html.0.contains("<p class=\"soft\">&lt;/script&gt;&lt;/title&gt;&lt;img onerror=alert(1)"),
            "{html:?}"
        );
        assert!(
            html.0.contains("title=\"&lt;/script&gt;") && html.0.contains("&quot;&#39;&amp;\\u{1b}[2J"),
            "{html:?}"
        );
    }
}
