use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::core::id::PageId;
use crate::core::time::{Tick, Timestamp};
use crate::ports::runtime::BoxFuture;

fn call(values: &[&str]) -> Call {
    let item = |(index, json): (usize, &&str)| CallItem {
        id: PageId::new(0, 1).origin(index as u8),
        attempt: 1,
        epoch: Epoch(1),
        generation: Generation(0),
        input: Arc::new(Input::Value((*json).into())),
    };
    Call {
        run: RunId::new("r"),
        items: values.iter().enumerate().map(item).collect(),
        batch: values.len() > 1,
        grace: Duration::from_secs(1),
    }
}

async fn reports(executor: &impl Executor, values: &[&str]) -> Vec<ItemReport> {
    executor.call(call(values), Stop::new()).await.items
}

fn failed(class: Class, cause: &str) -> ItemReport {
    ItemReport::Failed(Failure::new(class, cause))
}

fn json_output(text: &str) -> ItemReport {
    ItemReport::Succeeded(Output::Json(text.into()))
}

#[tokio::test]
async fn a_closure_reads_its_item_and_answers_json() {
    let sum = handler(|item: HandlerItem| async move {
        let numbers: Vec<u32> = item.json()?;
        Ok(json!({"sum": numbers.iter().sum::<u32>(), "key": item.idempotency_key()}))
    });
    let reports = reports(&sum, &["[1,2]", "true"]).await;
    assert_eq!(reports[0], json_output(r#"{"key":"r/0-1-0","sum":3}"#));
    assert!(matches!(
        &reports[1],
        ItemReport::Failed(Failure {
            class: Class::BadInput,
            ..
        })
    ));
}

#[tokio::test]
async fn nothing_is_no_output() {
    let nothing = handler(|_| async { Ok(()) });
    assert_eq!(
        reports(&nothing, &["1"]).await,
        [ItemReport::Succeeded(Output::None)]
    );
}

#[tokio::test]
async fn a_failure_or_panic_is_of_its_item_only() {
    let odd = handler(|item: HandlerItem| {
        assert!(item.id.index != 0, "before any await");
        async move {
            assert!(item.id.index != 1, "at {}", item.id);
            if item.id.index == 2 {
                return Err(Failure::new(Class::from_name("Odd"), "why"));
            }
            Ok("fine")
        }
    });
    assert_eq!(
        reports(&odd, &["0", "1", "2", "3"]).await,
        [
            failed(Class::Crashed, "the handler panicked: before any await"),
            failed(Class::Crashed, "the handler panicked: at 0-1-1"),
            failed(Class::Named("Odd".to_owned()), "why"),
            json_output("\"fine\""),
        ]
    );
}

#[tokio::test]
async fn a_batch_handler_answers_for_each_or_nothing_is_known() {
    let echo = batch_handler(|items: Vec<HandlerItem>| async move {
        items.iter().map(HandlerItem::json::<Value>).collect()
    });
    assert_eq!(
        reports(&echo, &["1", "2"]).await,
        [json_output("1"), json_output("2")]
    );
    let short = batch_handler(|_| async { vec![Ok(())] });
    let cause = "the handler answered 1 results for 2 items";
    let unknown = ItemReport::Undecided(Failure::new(Class::BadOutput, cause));
    assert_eq!(
        reports(&short, &["1", "2"]).await,
        [unknown.clone(), unknown]
    );
}

#[tokio::test]
async fn a_stopped_call_keeps_what_is_done_and_begins_nothing_more() {
    let stop = Stop::new();
    let hangs = handler(|item: HandlerItem| async move {
        if item.id.index == 1 {
            item.stop().cancel();
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let report = hangs.call(call(&["0", "1", "2"]), stop).await;
    let undecided = ItemReport::Undecided(stopped());
    let done = ItemReport::Succeeded(Output::None);
    assert_eq!(report.items, [done, undecided.clone(), undecided]);
}

/// A clock whose only sleep ends when it is told.
#[derive(Default)]
struct ByHand(Arc<Notify>);

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn tick(&self) -> Tick {
        Tick(0)
    }

    fn sleep_until(&self, at: Tick) -> BoxFuture<'static, ()> {
        assert_eq!(
            at,
            Tick(0) + Duration::from_secs(1),
            "the grace of the call"
        );
        let told = Arc::clone(&self.0);
        Box::pin(async move { told.notified().await })
    }
}

#[tokio::test]
async fn with_a_clock_a_stopped_call_may_use_its_grace() {
    let clock = Arc::new(ByHand::default());
    let tidy = handler(|item: HandlerItem| async move {
        item.stop().cancel();
        tokio::task::yield_now().await;
        Ok("finished")
    });
    let tidy = tidy.with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    assert_eq!(reports(&tidy, &["0"]).await, [json_output("\"finished\"")]);

    let over = Arc::clone(&clock.0);
    let hangs = handler(move |item: HandlerItem| {
        let over = Arc::clone(&over);
        async move {
            item.stop().cancel();
            over.notify_one();
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let hangs = hangs.with_clock(clock);
    assert_eq!(
        reports(&hangs, &["0"]).await,
        [ItemReport::Undecided(stopped())]
    );
}
