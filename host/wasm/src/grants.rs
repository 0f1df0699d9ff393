//! Where a plugin may connect to: what its resource names, and nothing else.

/// The addresses a plugin may connect to. Empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

/// A host pattern and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    /// In lower case. A leading `*.` stands for any subdomain, a lone `*` for any host.
    host: String,
    /// `None`: any.
    port: Option<u16>,
}

impl Grants {
    /// Grants one address.
    pub fn allow(&mut self, host: &str, port: u16) {
        self.0.push(Grant { host: normal(host), port: Some(port) });
    }

    /// Grants a pattern such as `*.kafka.local:9092`, `10.0.0.7:*` or `broker`; without a port, any.
    pub fn allow_pattern(&mut self, pattern: &str) {
        let (host, port) = match pattern.rsplit_once(':') {
            Some((host, "*")) => (host, None),
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (pattern, None),
        };
        self.0.push(Grant { host: normal(host), port });
    }

    /// Whether a connection is granted.
    #[must_use]
    pub fn allows(&self, host: &str, port: u16) -> bool {
        let host = normal(host);
        self.0.iter().any(|grant| grant.port.is_none_or(|granted| granted == port) && matches(&grant.host, &host))
    }
}

fn normal(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, host: &str, port: u16, expected: bool| {
            let mut grants = Grants::default();
            grants.allow_pattern(pattern);
            assert_eq!(grants.allows(host, port), expected, "{pattern} {host}:{port}");
        };
        check("localhost:6379", "localhost", 6379, true);
        check("localhost:6379", "LOCALHOST.", 6379, true);
        check("localhost:6379", "localhost", 6380, false);
        check("localhost:6379", "127.0.0.1", 6379, false);
        check("*.kafka.local:9092", "b1.kafka.local", 9092, true);
        check("*.kafka.local:9092", "kafka.local", 9092, false);
        check("*.kafka.local:9092", "evilkafka.local", 9092, false);
        check("*.kafka.local:9092", "a.b.kafka.local", 9092, true);
        check("*evil", "xevil", 1, false);
        check("broker", "broker", 1, true);
        check("10.0.0.7:*", "10.0.0.7", 99, true);
        check("[::1]:6379", "::1", 6379, true);
        check("*", "anything", 1, true);
    }

    #[test]
    fn nothing_is_granted_by_default() {
        assert!(!Grants::default().allows("localhost", 6379));
    }
}
