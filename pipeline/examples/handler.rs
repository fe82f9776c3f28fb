//! A handler of your own in 20 lines: `cargo run --release -p trommel --example handler`.

use serde_json::json;
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::core::class::{Class, Failure};
use trommel::runner::Embedded;

const JOB: &str = r#"
name = "squares"
input = { range = "0..1000" }
tolerated_failure_percentage = 10
ledger = "sqlite:.trommel/squares.db"
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let square = handler(|item: HandlerItem| async move {
        let number: i64 = item.json()?;
        if number % 13 == 0 {
            return Err(Failure::new(
                Class::from_name("Unlucky"),
                format!("{number} is unlucky"),
            ));
        }
        Ok(json!({ "number": number, "square": number * number }))
    });
    let report = Embedded::new(JOB, square)?.run().await?;
    println!(
        "{} {} {:?}",
        report.row.id,
        report.row.state.status.as_str(),
        report.counts
    );
    Ok(())
}
