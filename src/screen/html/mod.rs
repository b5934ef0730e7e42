//! A report as one page of HTML: it opens from disk, asks nobody for anything, and runs no script but its own.
//!
//! Pure: what was gathered in, text out. Markup is written in the source only (`markup` takes no other); whatever
//! comes from a record, a file or the service is text or an attribute's value, and escaped. Beside that, the page's own
//! policy names the digests of its script and its style, so that a browser runs nothing else.

use sha2::{Digest, Sha256};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::screen::html::markup::Html;
use crate::screen::html::score::ScoreSection;
use ctxtune_pipeline::report::OutReport;

mod data;
mod job;
mod markup;
pub(crate) mod score;
mod sweep;

/// How every report begins: what has another beginning is never written over.
pub const MARK: &str = "<!doctype html>\n<!-- ctxtune report: the next one replaces it -->\n";
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub struct Page<'p> {
    pub title: &'p str,
    pub written: &'p str,
    /// A line that the whole page is under, such as that nothing was trained.
    pub banner: Option<&'p str>,
    pub outs: &'p [OutReport],
    pub score: Option<&'p ScoreSection<'p>>,
}

pub fn page(page: &Page<'_>) -> String {
    let mut contents = Vec::new();
    let mut main = Html::default();
    for out in page.outs {
        // Of several directories each heading says which one it is about.
        let of = if page.outs.len() > 1 { format!(" of {}", out.name) } else { String::new() };
        main.heading(&mut contents, &format!("Data{of}"));
        data::section(&mut main, out);
        job::sections(&mut main, &mut contents, out, &of);
        for sweep in &out.sweeps {
            main.heading(
                &mut contents,
                &format!("Sweep {}{of}", sweep.book.name.as_deref().unwrap_or(&sweep.id)),
            );
            sweep::section(&mut main, sweep);
        }
    }
    if let Some(score) = page.score {
        main.heading(&mut contents, "Scores");
        score::section(&mut main, score);
    }
    let mut html = Html(MARK.to_owned());
    html.raw("<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    let digest = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    html.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; base-uri 'none'; form-action 'none'; ");
    // Nothing in a digest needs to be escaped in an attribute.
    html.0.push_str(&format!("script-src {}; style-src {}\">\n", digest(SCRIPT), digest(STYLE)));
    html.raw("<meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\n");
    html.of("title", page.title).raw("<style>").raw(STYLE).raw("</style></head>\n<body><header>");
    html.of("h1", page.title);
    html.within("p class=\"soft\"", |html| {
        html.text(&format!("ctxtune {}, {}", env!("CARGO_PKG_VERSION"), page.written));
    });
    if let Some(banner) = page.banner {
        html.note(banner);
    }
    html.within("nav aria-label=\"Contents\"", |html| {
        for (id, name) in &contents {
            html.raw("<a href=\"#").text(id).raw("\">").text(name).raw("</a>\n");
        }
    });
    html.raw("</header>\n<main>\n").0.push_str(&main.0);
    html.raw("</main>\n<script>").raw(SCRIPT).raw("</script></body></html>\n");
    html.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</script></title><img onerror=alert(1) src=x>\"'&\u{1b}[2J";

    #[test]
    fn a_page_names_the_digests_of_what_it_runs_and_nothing_else() {
        let page =
            page(&Page { title: HOSTILE, written: "today", banner: Some(HOSTILE), outs: &[], score: None });
        assert!(page.starts_with(MARK) && !page.contains("<img"), "{page}");
        let script = page.split("<script>").nth(1).unwrap().split("</script>").next().unwrap();
        assert_eq!((script, page.matches("<script").count()), (SCRIPT, 1));
        let digest = STANDARD.encode(Sha256::digest(script));
        assert!(page.contains(&format!("default-src 'none'; base-uri 'none'; form-action 'none'; script-src 'sha256-{digest}'; style-src 'sha256-")));
        for reach in ["http:", "https:", "url(", "src=\"", "@import", " style=\""] {
            assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(reach), "{reach} in {page}");
        }
    }
}
