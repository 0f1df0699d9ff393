//! Each error reply that somebody can act on, and what becomes of it.

use super::*;

#[test]
fn error_replies() {
    let check = |error: &str, kind: &str, says: &str| {
        let failure = of_error(error, "orders");
        let shown = format!("{failure:?}");
        assert!(shown.contains(kind) && shown.contains(says), "{error}: {shown}");
    };
    check("OOM command not allowed when used memory > 'maxmemory'.", "Throttled", "memory");
    check("LOADING Redis is loading the dataset in memory", "Transient", "LOADING");
    check("BUSY Redis is busy running a script.", "Transient", "BUSY");
    check("READONLY You can't write against a read only replica.", "Transient", "READONLY");
    check("MISCONF Redis is configured to save RDB snapshots", "Transient", "MISCONF");
    check("NOREPLICAS Not enough good replicas to write.", "Transient", "NOREPLICAS");
    check("NOAUTH Authentication required.", "Unauthorized", "redisPassword");
    check("WRONGPASS invalid username-password pair or user is disabled.", "Unauthorized", "redisPassword");
    check("NOPERM this user has no permissions to run the 'xadd' command", "Unauthorized", "xadd");
    check("WRONGTYPE Operation against a key holding the wrong kind of value", "Permanent", "orders");
    check("MOVED 3999 127.0.0.1:6381", "Permanent", "Cluster");
    check("ERR unknown command", "Permanent", "unknown command");
    check("", "Permanent", "");
}

#[test]
fn credentials() {
    let check = |error: &str, expected: bool| assert_eq!(of_credentials(error), expected, "{error}");
    check("NOAUTH Authentication required.", true);
    check("WRONGPASS invalid username-password pair", true);
    check("ERR AUTH <password> called without any password configured for the default user.", true);
    check("ERR invalid password", true);
    check("ERR max number of clients reached", false);
    check("LOADING Redis is loading", false);
    check("NOPERM no", false);
}
