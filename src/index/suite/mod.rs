//! What every engine must do, once, for all of them: `index_suite!(harness)` makes a test of each sentence.

pub mod changes;
pub mod counters;
pub mod sample;
pub mod scans;
pub mod values;

use std::{error::Error, sync::Arc};

use super::Index;

/// What a check ends with.
pub type Checked = Result<(), Box<dyn Error + Send + Sync>>;

/// One index that can be opened, dropped and opened again, with what it held.
pub trait Harness {
    /// Opens it; the one opened before has been dropped.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn open(&self) -> Result<Arc<dyn Index>, Box<dyn Error + Send + Sync>>;
}

/// Makes a test of every check of the suite. `$harness` is an expression for a new, empty [`Harness`]; needs `proptest`.
#[macro_export]
macro_rules! index_suite {
    ($harness:expr) => {
        $crate::index_suite!(@each $harness,
            changes: rows_and_leaves_survive_reopening, preconditions_hold_or_nothing_changes,
                preconditions_are_checked_in_order, malformed_changes_are_refused,
                deleting_what_is_missing_is_no_error, one_of_many_wins, an_empty_change_is_a_barrier;
            counters: numbers_have_no_gaps, numbers_have_no_gaps_under_concurrency, numbers_survive_reopening,
                a_failed_change_takes_no_number, shipped_leaves_are_forgotten, long_leaves_come_back;
            values: values_of_every_length_come_back, replaced_values_leave_nothing_behind,
                readers_never_see_two_values_mixed, values_come_in_the_order_asked;
            scans: tenants_do_not_see_each_other, times_before_1970_come_first, limits_are_kept;
        );

        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig::with_cases(6))]
            #[test]
            fn scans_agree_with_the_model(seed in proptest::prelude::any::<u64>()) {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let harness = $harness;
                let check = $crate::index::suite::scans::agree_with_the_model(&harness, seed);
                runtime.and_then(|runtime| runtime.block_on(check).map_err(std::io::Error::other)).unwrap();
            }
        }
    };
    (@each $harness:expr, $($module:ident: $($check:ident),+;)+) => {$($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() -> $crate::index::suite::Checked {
            $crate::index::suite::$module::$check(&$harness).await
        }
    )+)+};
}
