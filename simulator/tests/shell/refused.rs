//! Job files that no run begins with: what cannot be meant is refused, and what is meant is read to the digit.

use std::path::Path;

use trommel::core::job::Job;
use trommel::job_file::{Executors, Overrides, ParseOptions, parse};

fn job(lines: &str) -> Result<Job, String> {
    parsed(&format!(
        "{lines}\ninput = {{ objects = \"s3://input/\" }}\n"
    ))
}

fn parsed(text: &str) -> Result<Job, String> {
    let options = ParseOptions {
        executors: Executors::InProcess,
        cores: 4,
        overrides: Overrides::default(),
    };
    let job = parse(
        text,
        "job.toml",
        Path::new("/simulated"),
        &|_| None,
        &options,
    );
    job.map_err(|errors| errors.to_string())
}

#[test]
fn what_no_job_may_say_is_refused() {
    let long = format!("name = \"{}\"", "a".repeat(41));
    for bad in [
        "name = \"\"",
        "name = \"Job\"",
        "name = \"a.b\"",
        "name = \"a_b\"",
        &long,
        "tolerated_failure_percentage = \"\"",
        "tolerated_failure_percentage = \".5\"",
        "tolerated_failure_percentage = \"1,5\"",
        "tolerated_failure_percentage = \"1.x\"",
        "tolerated_failure_percentage = \"x.1\"",
        "tolerated_failure_percentage = \"1.+5\"",
        "tolerated_failure_percentage = 1.0000001",
        "tolerated_failure_percentage = 100.000001",
        "tolerated_failure_percentage = 101",
        "tolerated_failure_percentage = -1",
        "fail_fast = \"10\"",
        "fail_fast = \"10 % of 5\"",
        "fail_fast = \"10 % of last\"",
        "fail_fast = \"10 % of last 0\"",
        "fail_fast = \"101 % of last 5\"",
    ] {
        assert!(job(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_a_job_says_is_read_to_the_digit() {
    let most = format!("name = \"{}\"", "a0-".repeat(13) + "z");
    assert_eq!(job(&most).map(|job| job.name.as_str().len()), Ok(40));
    for (written, shown) in [
        ("0", "0"),
        ("0.5", "0.5"),
        ("12.50", "12.5"),
        ("33.333333", "33.333333"),
        ("0.000001", "0.000001"),
        ("100.000000", "100"),
    ] {
        let job = job(&format!("tolerated_failure_percentage = {written}"));
        let percent = job.expect("it is one").tolerance.percent;
        assert_eq!(
            percent.map(|percent| percent.to_string()).as_deref(),
            Some(shown)
        );
    }
    let job = job("fail_fast = \"2.5 % of last 1_000\"").expect("it is a brake");
    let brake = job.fail_fast.expect("it is said");
    assert_eq!(
        (brake.percent.to_string().as_str(), brake.last),
        ("2.5", 1000)
    );
}

#[test]
fn objects_reach_the_container_lane_by_their_size_and_rows_by_escalation_alone() {
    let of = |input: &str| parsed(&format!("input = {input}\n[container]\n"));
    let objects = of("{ objects = \"s3://input/\" }");
    assert!(objects.is_err_and(|why| why.contains("none ever reaches [container]")));
    for rows in [
        "{ range = \"0..9\" }",
        "{ inline = [1] }",
        "{ jsonl = \"a\" }",
        "{ csv = \"a\" }",
        "{ json = \"a\" }",
    ] {
        let job = of(rows).expect("what a row costs too much time for moves there");
        assert!(job.container.is_some() && !job.input.is_objects());
    }
}
