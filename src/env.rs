//! The name of every environment variable this program reads. Only `cli` reads them.

/// Any value but the empty one turns colour off; see <https://no-color.org>.
pub const NO_COLOR: &str = "NO_COLOR";
