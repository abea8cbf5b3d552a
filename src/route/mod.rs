//! Floor 1: which route takes a request, and what its path and query become. Pure: bytes in, bytes out.

pub mod path;
pub mod pattern;
pub mod rewrite;
pub mod table;
pub mod template;

pub use pattern::{Captures, Pattern, PatternError};
pub use rewrite::Rewrite;
pub use table::{Found, Overlap, Table};
pub use template::{Template, TemplateError};
