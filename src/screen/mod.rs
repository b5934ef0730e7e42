//! How results are shown: tables, progress, curves, words for errors.

pub(crate) mod block;
pub(crate) mod canvas;
pub(crate) mod chart;
pub(crate) mod checked;
pub(crate) mod curve;
pub(crate) mod finding;
pub(crate) mod fold;
pub(crate) mod html;
pub(crate) mod names;
pub(crate) mod ndjson;
pub(crate) mod plan;
pub(crate) mod prepared;
pub(crate) mod preview;
pub(crate) mod report;
pub(crate) mod scoreboard;
pub(crate) mod svg;
pub(crate) mod table;
pub(crate) mod ui;
pub(crate) mod watch;
