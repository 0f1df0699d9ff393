//! A CloudEvent as it travels. (Filled in by the data plane's author.)
