//! Every adapter against the conformance kit and its real broker, through the program as users run it; and the kit against
//! adapters that lie. The folder of a broker holds what is special about it: which checks it does not support, and why.

mod liars;
mod suite;

/// One module and one test for each adapter that comes with the host: one without does not compile.
macro_rules! judge {
    ($adapter:ident) => {
        mod $adapter;

        #[test]
        fn $adapter() -> anyhow::Result<()> {
            suite::judge($adapter::CASES)
        }
    };
}

whimbrel_artifacts::foreach_broker!(judge);
