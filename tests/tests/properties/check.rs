//! Runs one property on inputs that proptest makes up and, where it fails, makes small.

use modelseal_tests::counted;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

/// Runs `property` on `cases` inputs, or on more if `PROPTEST_CASES` in the environment says so. `file` is the
/// caller's `file!()`: inputs that failed once are kept beside it, in `NAME.proptest-regressions`, and tried first
/// from then on.
pub(crate) fn check<S: Strategy>(file: &'static str, cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let asked = ProptestConfig::default();
    let regressions = FileFailurePersistence::WithSource("proptest-regressions");
    let more = std::env::var_os("PROPTEST_CASES").map_or(0, |_| asked.cases);
    let config = ProptestConfig {
        cases: cases.max(more),
        failure_persistence: Some(Box::new(regressions)),
        source_file: Some(file),
        ..asked
    };
    let (wanted, ran) = (config.cases, std::cell::Cell::new(0));
    let outcome = TestRunner::new(config).run(&strategy, |input| {
        property(input);
        ran.set(ran.get() + 1);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let name = std::path::Path::new(file).file_stem().and_then(|name| name.to_str()).unwrap_or(file);
    counted(&format!("properties of {name}: {} cases", ran.get()));
    assert!(ran.get() >= wanted, "{} of {wanted} cases ran", ran.get());
}
