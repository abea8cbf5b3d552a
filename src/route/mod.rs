//! Floor 1: which route takes a request, and what its path and query become. Pure: bytes in, bytes out.
//!
//! Matching reads the raw path and forwards the same bytes: nothing here decodes a path on its way from match to upstream, so no upstream can
//! see another path than the one that was matched. Deliberately absent: any word of the request in the choice of the upstream's host.

pub mod extras;
pub mod path;
pub mod pattern;
pub mod payload;
pub mod reverse;
pub mod rewrite;
pub mod select;
pub mod table;
pub mod template;
pub mod upstreams;

#[cfg(test)]
mod properties;

pub use extras::{Extras, Names, Need};
pub use path::PathFault;
pub use pattern::{Captures, Pattern, PatternError};
pub use payload::{FormTemplate, JsonTemplate};
pub use reverse::Reverse;
pub use rewrite::Rewrite;
pub use select::{SelectError, SelectFault, Selector};
pub use table::{Found, Overlap, Table};
pub use template::{Place, Template, TemplateError, TemplateFault};
pub use upstreams::{Claim, Fallen, Site, Upstreams};
