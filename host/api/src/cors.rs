//! Which web pages may call the API from a browser (pubsub-behaviour, section 12.7). Called by `http`, before anything
//! else is looked at. Without `--allowed-origins` there is none of this.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use http_body_util::Full;

/// The methods a page may use.
const METHODS: [Method; 6] = [Method::HEAD, Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// What an answer to a preflight depends on.
const PREFLIGHT_VARY: [HeaderName; 3] =
    [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS];

/// The pages that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Every page.
    All,
    /// These, in lower case; each may hold one `*`.
    Listed(Vec<String>),
}

impl Origins {
    /// What `--allowed-origins` says, separated by commas. `None`: nothing is said, so there is no CORS.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let listed: Vec<String> = named.map(str::to_ascii_lowercase).collect();
        if listed.iter().any(|origin| origin == "*") {
            return Some(Self::All);
        }
        (!listed.is_empty()).then_some(Self::Listed(listed))
    }

    /// What the browser of an allowed page is told.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let Self::Listed(listed) = self else { return Some(HeaderValue::from_static("*")) };
        let given = origin.to_str().ok()?.to_ascii_lowercase();
        let is_match = |listed: &String| match listed.split_once('*') {
            None => *listed == given,
            Some((before, after)) => {
                given.len() >= before.len() + after.len() && given.starts_with(before) && given.ends_with(after)
            }
        };
        listed.iter().any(is_match).then(|| origin.clone())
    }

    /// The headers that an answer to this request gets besides its own.
    pub(crate) fn headers(&self, head: &Parts) -> HeaderMap {
        let mut added = HeaderMap::new();
        added.append(header::VARY, HeaderValue::from(header::ORIGIN));
        if METHODS.contains(&head.method)
            && let Some(allowed) = head.headers.get(header::ORIGIN).and_then(|origin| self.allow(origin))
        {
            added.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        added
    }

    /// The answer to a browser that asks before it sends; it reaches no route and needs no token. A page that may not
    /// call is told nothing, which is how it learns so. `None`: the request is no such question.
    pub(crate) fn preflight(&self, head: &Parts) -> Option<Response<Full<Bytes>>> {
        let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let asked = asked.filter(|_| head.method == Method::OPTIONS)?;
        let mut answer = Response::new(Full::default());
        let headers = answer.headers_mut();
        for name in PREFLIGHT_VARY {
            headers.append(header::VARY, HeaderValue::from(name));
        }
        let allowed = head.headers.get(header::ORIGIN).and_then(|origin| self.allow(origin));
        let method = Method::from_bytes(asked.as_bytes().to_ascii_uppercase().as_slice()).ok();
        if let Some(allowed) = allowed
            && method.is_some_and(|method| METHODS.contains(&method) || method == Method::OPTIONS)
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
            if let Some(names) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests;
