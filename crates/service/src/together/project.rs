//! The project that endpoints belong to, and lists that come in pages.

use serde_json::Value;

use crate::http::{Body, Method};
use crate::together::base::encode;
use crate::together::files::items;
use crate::together::job::text;
use crate::together::{Error, Identity, Together, Tries};

/// The most pages of a list that are read; nobody has more.
const MOST_PAGES: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: String,
    /// Its short name, which stands in names of models; absent where the service does not say it.
    pub slug: Option<String>,
}

impl Project {
    pub fn of(identity: &Identity) -> Option<Project> {
        let id = identity.project_id.clone()?;
        Some(Project { id, slug: identity.project_slug.clone() })
    }

    pub(in crate::together) fn path(&self) -> String {
        format!("/v2/projects/{}/endpoints", encode(&self.id))
    }
}

pub(in crate::together) fn pages(together: &Together, path: &str, tries: Tries) -> Result<Vec<Value>, Error> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let mark = if path.contains('?') { '&' } else { '?' };
        let page = after.as_ref().map(|cursor| format!("{mark}after={}", encode(cursor))).unwrap_or_default();
        let value = together.ask(Method::Get, &format!("{path}{page}"), Body::Empty, tries)?;
        all.extend(items(together, path, &value)?.iter().cloned());
        let next = text(&value, &["next_cursor", "nextCursor"]);
        if next.is_none() || next == after {
            return Ok(all);
        }
        after = next;
    }
    Ok(all)
}
