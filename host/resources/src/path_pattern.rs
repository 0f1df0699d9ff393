//! Which paths are counted as one (`spec.metrics.http.pathMatching` of a `Configuration`): patterns as those of Go's `ServeMux`,
//! without a method or a host. Read by `raw::configuration`, asked by the data plane for each request that it counts.

use std::cmp::Ordering;

/// A pattern: `/orders/{id}`, `/orders/` and everything below it, `/files/{path...}`, `/orders/{$}` and nothing below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    /// Whether anything may follow.
    goes_on: bool,
}

/// Less fits less.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    /// One segment, whatever it is; not an empty one.
    Any,
}

impl PathPattern {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn new(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err("must begin with a slash".to_owned()) };
        let mut parts: Vec<&str> = rest.split('/').collect();
        let last = parts.pop().unwrap_or_default();
        let tail = last.strip_prefix('{').and_then(|last| last.strip_suffix("...}"));
        let goes_on = last.is_empty() || tail.is_some_and(is_name);
        match last {
            // Nothing may follow the slash.
            "{$}" => parts.push(""),
            _ if goes_on => {}
            _ => parts.push(last),
        }
        let segments = parts.into_iter().map(segment).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), segments, goes_on })
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it fits a path, which begins with a slash and has no query.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        let fit = self.segments.iter().all(|segment| match (segment, parts.next()) {
            (Segment::Literal(literal), Some(part)) => literal == part,
            (Segment::Any, Some(part)) => !part.is_empty(),
            (_, None) => false,
        });
        // What may go on does so with a slash, though nothing need follow it.
        fit && parts.next().is_some() == self.goes_on
    }

    /// The narrower first: of two that fit one path, that one is meant.
    #[must_use]
    pub fn by_width(&self, other: &Self) -> Ordering {
        let shared = self.segments.iter().zip(&other.segments).map(|(own, other)| own.cmp(other));
        let first = shared.into_iter().find(|order| order.is_ne());
        first.unwrap_or_else(|| other.segments.len().cmp(&self.segments.len()).then(self.goes_on.cmp(&other.goes_on)))
    }
}

fn segment(text: &str) -> Result<Segment, String> {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(name) if is_name(name) => Ok(Segment::Any),
        None if !text.contains(['{', '}']) => Ok(Segment::Literal(text.to_owned())),
        _ => Err(format!(
            "{text:?} is no segment: write {{name}} for any one, {{name...}} for all that follow at the end"
        )),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of these patterns the one that is meant by a path.
    fn check(patterns: &[&str], path: &str, expect: Option<&str>) {
        let mut patterns: Vec<_> = patterns.iter().map(|text| PathPattern::new(text).unwrap()).collect();
        patterns.sort_by(PathPattern::by_width);
        let found = patterns.iter().find(|pattern| pattern.fits(path)).map(PathPattern::text);
        assert_eq!(found, expect, "{path} of {patterns:?}");
    }

    #[test]
    fn paths_fit_as_for_go() {
        check(&["/orders"], "/orders", Some("/orders"));
        check(&["/orders"], "/orders/", None);
        check(&["/orders"], "/orders/1", None);
        check(&["/orders/{id}"], "/orders/1", Some("/orders/{id}"));
        check(&["/orders/{id}"], "/orders/", None);
        check(&["/orders/{id}"], "/orders/1/items", None);
        check(&["/orders/{id}/items/{item}"], "/orders/1/items/2", Some("/orders/{id}/items/{item}"));
        check(&["/orders/"], "/orders/", Some("/orders/"));
        check(&["/orders/"], "/orders/1/2", Some("/orders/"));
        check(&["/orders/"], "/orders", None);
        check(&["/orders/{rest...}"], "/orders/1/2", Some("/orders/{rest...}"));
        check(&["/orders/{$}"], "/orders/", Some("/orders/{$}"));
        check(&["/orders/{$}"], "/orders/1", None);
        check(&["/"], "/anything/at/all", Some("/"));
        check(&["/"], "/", Some("/"));
        check(&[], "/", None);
    }

    #[test]
    fn the_narrowest_is_meant() {
        let all =
            ["/", "/v1/", "/v1/orders/{id}", "/v1/orders/{id}/items/{item}", "/v1/orders/{id}/items/12345", "/v1/{$}"];
        check(&all, "/v1/orders/1/items/12345", Some("/v1/orders/{id}/items/12345"));
        check(&all, "/v1/orders/1/items/1", Some("/v1/orders/{id}/items/{item}"));
        check(&all, "/v1/orders/1", Some("/v1/orders/{id}"));
        check(&all, "/v1/orders/1/other", Some("/v1/"));
        check(&all, "/v1/", Some("/v1/{$}"));
        check(&all, "/v2/orders/1", Some("/"));
        check(&["/a/{x}", "/a/b"], "/a/b", Some("/a/b"));
        check(&["/a/{x}/", "/a/"], "/a/b/c", Some("/a/{x}/"));
        check(&["/a/{x}/", "/a/b/c"], "/a/b/c", Some("/a/b/c"));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let why = |text: &str| PathPattern::new(text).unwrap_err();
        assert_eq!(why("orders"), "must begin with a slash");
        assert_eq!(why("GET /orders"), "must begin with a slash");
        for text in ["/orders/{id", "/a{b}", "/{}", "/{rest...}/a", "/{$}/a", "/{a b}"] {
            assert!(why(text).contains("is no segment"), "{text}");
        }
    }
}
