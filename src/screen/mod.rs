//! How results are shown: tables, progress, curves, words for errors.

pub mod block;
pub mod canvas;
pub mod chart;
pub mod conversion;
pub mod curve;
pub mod explain;
pub mod finding;
pub mod names;
pub mod ndjson;
pub mod overlay;
pub mod plan;
pub mod report;
pub mod scoreboard;
pub mod shell;
pub mod svg;
pub mod sweep_table;
pub mod table;
pub mod using;
pub mod watch;
