//! The contracts of the ports as checks: each sentence of the ports' docs, run on every
//! implementation.
//!
//! A check takes an implementation and panics where it breaks the contract. It uses nothing but the
//! ports, so it runs on tokio and in the simulator alike. Where a profile allows less, it checks
//! that this much less is refused. What only one implementation promises is not checked here.
//!
//! [`table_contract!`](crate::table_contract), [`queue_contract!`](crate::queue_contract),
//! [`objects_contract!`](crate::objects_contract) and [`executor_contract!`](crate::executor_contract)
//! make one tokio test of each check.
#![expect(
    clippy::disallowed_methods,
    reason = "the clock of the machine is what the contracts are timed by"
)]

pub mod executor;
pub mod objects;
pub mod queue;
pub mod table;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use trommel::core::time::{Tick, Timestamp};
use trommel::ports::runtime::{BoxFuture, Clock};

/// An implementation to be checked, with whatever must outlive it: a temporary directory, a server.
pub struct Stage<T: ?Sized> {
    /// The implementation. A table has no partitions that begin with `contract-`, a store no keys
    /// that begin with `contract-`, and a queue is empty and of this check alone.
    pub port: Arc<T>,
    _keeps: Box<dyn Any + Send + Sync>,
}

impl<T: ?Sized> Stage<T> {
    /// Sets an implementation up for a check; `keeps` is dropped after it.
    pub fn new(port: Arc<T>, keeps: impl Any + Send + Sync) -> Self {
        Self {
            port,
            _keeps: Box::new(keeps),
        }
    }
}

/// The clocks of this machine, on tokio.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock(Instant);

impl MachineClock {
    /// Its ticks begin now.
    pub fn start() -> Arc<dyn Clock> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp::default().after(since.expect("no clock of ours is set to before 1970"))
    }

    fn tick(&self) -> Tick {
        Tick::default() + self.0.elapsed()
    }

    fn sleep_until(&self, at: Tick) -> BoxFuture<'static, ()> {
        let at = self.0 + Duration::from_nanos(at.0);
        Box::pin(tokio::time::sleep_until(at.into()))
    }
}

/// Makes a tokio test of each named check; `$stage` is an expression that gives a future of a
/// [`Stage`], `$more` what a check takes beside it.
#[macro_export]
macro_rules! contract_checks {
    (@one $module:ident, $stage:expr, [$($more:expr),*], [$($about:meta),*], $check:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$about])*
        async fn $check() {
            let stage: Option<$crate::contract::Stage<_>> = $stage.await.into();
            let Some(stage) = stage else { return };
            $crate::contract::$module::$check(&*stage.port $(, &*$more)*).await;
        }
    };
    (@all $module:ident, $stage:expr, $more:tt, $about:tt, $($check:ident)*) => {
        $($crate::contract_checks!(@one $module, $stage, $more, $about, $check);)*
    };
    ($module:ident, $stage:expr, $more:tt, $($check:ident)*) => {
        $crate::contract_checks!(@all $module, $stage, $more, [], $($check)*);
    };
}

/// Makes a tokio test of each check of [`table`].
#[macro_export]
macro_rules! table_contract {
    ($stage:expr) => {
        $crate::contract_checks! { table, $stage, [],
            a_row_is_got_as_it_was_put
            a_row_that_is_not_there_is_none
            a_put_replaces_the_whole_row
            an_update_changes_what_it_names_and_makes_the_row
            an_update_of_nothing_makes_an_empty_row
            a_delete_may_be_repeated
            conditions_hold_by_the_rule
            conditions_guard_every_change
            a_check_alone_is_refused
            a_row_that_is_too_large_is_refused
            a_transaction_does_all_or_nothing
            a_transaction_of_ten_takes_every_change
            a_transaction_is_bounded_and_names_a_row_once
            a_repeated_transaction_is_not_done_twice
            rows_come_in_the_byte_order_of_sort_keys
            a_range_includes_both_ends_and_no_other_partition
            pages_follow_each_other
            a_long_range_of_large_rows_comes_whole
            an_answered_write_is_seen_by_a_strong_read
            of_fifty_conditional_updates_one_wins
            sums_of_many_writers_add_up
            transactions_are_isolated
        }
    };
}

/// Makes a tokio test of each check of [`queue`].
#[macro_export]
macro_rules! queue_contract {
    ($stage:expr) => {
        $crate::contract_checks! { queue, $stage, [$crate::contract::MachineClock::start()],
            what_is_sent_is_received
            the_largest_body_arrives
            a_received_message_is_hidden_and_comes_again
            a_message_keeps_its_name_and_time
            a_depth_is_told
            a_deleted_message_stays_away
            a_former_handle_may_be_deleted_to_no_effect
            a_delayed_message_comes_late
            a_waiting_receive_hears_of_a_send
            a_waiting_receive_sees_a_message_whose_time_has_come
            an_empty_receive_ends
            visibility_is_ended_and_prolonged
            what_was_not_done_is_answered
            a_batch_is_bounded
            competing_receivers_get_everything
            a_receive_that_is_dropped_loses_nothing
        }
    };
}

/// Makes a tokio test of each check of [`executor`]; more attributes may stand behind the stage, such as `ignore = "why"`.
#[macro_export]
macro_rules! executor_contract {
    ($stage:expr $(, $about:meta)*) => {
        $crate::contract_checks! { @all executor, $stage, [$crate::contract::MachineClock::start()], [$($about),*],
            an_item_is_answered_with_its_output
            a_failure_has_its_name_and_its_cause
            a_death_is_no_success_and_the_next_call_goes_on
            a_batch_has_a_report_for_each_item_in_their_order
            calls_at_one_time_have_their_own_outputs
            a_stopped_call_ends_within_its_grace
        }
    };
}

/// Makes a tokio test of each check of [`objects`].
#[macro_export]
macro_rules! objects_contract {
    ($stage:expr) => {
        $crate::contract_checks! { objects, $stage, [],
            an_object_is_got_as_it_was_put
            what_is_not_there_is_not_found
            head_and_list_tell_what_put_told
            a_put_replaces_and_changes_the_pin
            a_stretch_is_what_it_says
            a_pin_holds_a_reading_to_one_state
            a_put_if_absent_happens_once
            a_delete_may_be_repeated
            a_listing_is_in_byte_order_however_it_is_paged
            a_listing_begins_after_any_key
            a_listing_under_change_has_what_stays
            odd_keys_are_keys_or_refused
            an_upload_appears_whole
            an_aborted_upload_leaves_what_was_there
            an_append_adds_or_is_refused
            a_path_leads_to_the_bytes
        }
    };
}
