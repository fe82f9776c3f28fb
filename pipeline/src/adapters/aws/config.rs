//! Where AWS is, who we are there, and how long we wait for it.
//!
//! Which emulator to start is not decided here: that is `trommel-localstack`'s business.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::config::Credentials;

use super::meter::Meter;
use crate::core::bill::Service;
use crate::ports::TableProfile;

/// Actions in one transaction on AWS ("TransactWriteItems").
const AWS_TRANSACT_WRITES_MAX: usize = 100;

/// Actions in one transaction on the DynamoDB Local of 2020, which LocalStack may carry: 11 were
/// refused when tried. Used for every endpoint we cannot name.
const CAUTIOUS_TRANSACT_WRITES_MAX: usize = 10;

/// The largest row, names and values ("Service, account, and table quotas in Amazon DynamoDB").
const ROW_BYTES_MAX: usize = 400 * 1024;

/// How long outcomes are gathered: a settle costs money here and an answer takes milliseconds.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// Requests have one layer that tries again, never two, since their tries would multiply. The ledger's
/// go once (see `table`): it tries again itself, knowing what it wrote. All others are tried by the SDK,
/// within milliseconds at first. A start, a hint or a receive that fails five times in a row meets an
/// outage, and those who asked go on from there at their own pace.
const TRIES: u32 = 5;

/// Nobody tries a put or a get again but the SDK, and S3 asks for patience: with the waits between them
/// these tries take up to 18 s, about as long as the ledger's, and as a failover may.
const S3_TRIES: u32 = 10;

/// The longest wait after the first refusal as too fast; it doubles with each. The SDK's own is 1 s, which
/// suits an account that is over its limit; ours come from single queues and prefixes that were hot for a
/// moment. After other failures the SDK waits 25 or 50 ms.
const THROTTLED_WAIT: Duration = Duration::from_millis(100);

/// The longest of these waits; the ledger's is the same.
const S3_WAIT_MAX: Duration = Duration::from_secs(4);

/// A connection that takes longer will not come; the SDK's default is the same.
const CONNECT_WITHIN: Duration = Duration::from_millis(3100);

/// One try of a short request. An emulator that starts its database with the first request takes 4 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where emulators pretend to be when nothing says otherwise.
const DEFAULT_REGION: &str = "us-east-1";

/// Who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Credentials and region as the SDK finds them: environment, profile, instance.
    Found,
    /// Fixed ones that every emulator takes and AWS never does; nothing is read from the environment.
    Dummy,
}

/// Where the services are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// One URL for all services; none: what the SDK finds in environment and profile.
    pub url: Option<String>,
    /// Buckets as part of the path, not of the host's name: emulators have no DNS.
    pub path_style: bool,
    /// Keys of a listing percent-encoded, since XML cannot carry every character. AWS only: LocalStack
    /// 4.14 then compares the encoded keys, whose order is another one, and leaves keys out. From an
    /// emulator, therefore, a key with a control character that XML has no form for cannot be listed.
    pub encoded_listings: bool,
    /// What its tables can do.
    pub table: TableProfile,
    /// Who we are there.
    pub identity: Identity,
}

/// The profile of tables with so many writes in one transaction.
fn table_profile(transact_writes_max: usize) -> TableProfile {
    TableProfile {
        transact_writes_max,
        row_bytes_max: ROW_BYTES_MAX,
        settle_within: SETTLE_WITHIN,
    }
}

/// Whether a URL leads to AWS itself.
fn is_aws(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .any(|domain| host.ends_with(domain))
}

impl Endpoint {
    /// What the environment says: AWS, or an emulator named by `AWS_ENDPOINT_URL` (or one of its forms
    /// for a single service), which is then taken to do no more than the least of them.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// [`Endpoint::from_env`], with the environment as a function.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let emulated = |name| {
            var(name)
                .or_else(|| var("AWS_ENDPOINT_URL"))
                .is_some_and(|url| !url.is_empty() && !is_aws(&url))
        };
        let transact_writes_max = if emulated("AWS_ENDPOINT_URL_DYNAMODB") {
            CAUTIOUS_TRANSACT_WRITES_MAX
        } else {
            AWS_TRANSACT_WRITES_MAX
        };
        let s3_emulated = emulated("AWS_ENDPOINT_URL_S3");
        Self {
            url: None,
            path_style: s3_emulated,
            encoded_listings: !s3_emulated,
            table: table_profile(transact_writes_max),
            identity: Identity::Found,
        }
    }

    /// An emulator at this URL, with dummy credentials; the profile of one we cannot name.
    pub fn emulator(url: impl Into<String>) -> Self {
        Self {
            url: Some(url.into()),
            path_style: true,
            encoded_listings: false,
            table: table_profile(CAUTIOUS_TRANSACT_WRITES_MAX),
            identity: Identity::Dummy,
        }
    }

    /// The same place, known to take so many writes in a transaction (at most AWS's 100).
    #[must_use]
    pub fn with_transact_writes_max(mut self, writes: usize) -> Self {
        self.table.transact_writes_max = writes.min(AWS_TRANSACT_WRITES_MAX);
        self
    }
}

/// Clients of the services, sharing connections, credentials and configuration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Where they go.
    pub endpoint: Endpoint,
    /// For tables.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// For queues.
    pub sqs: aws_sdk_sqs::Client,
    /// For objects.
    pub s3: aws_sdk_s3::Client,
    /// For calls of functions: asks once, since each try would run a handler again.
    pub lambda: aws_sdk_lambda::Client,
    /// For tasks: asks again as long as S3's does, since a start carries a token.
    pub ecs: aws_sdk_ecs::Client,
    /// Counts the requests to tables, queues and objects.
    pub meter: Meter,
}

impl Clients {
    /// Makes the clients. Talks to nobody yet: a wrong address or missing credentials show with the
    /// first request.
    pub async fn open(endpoint: Endpoint) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_WITHIN)
            .operation_attempt_timeout(ANSWER_WITHIN)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .retry_config(retries(TRIES))
            .timeout_config(timeouts);
        if let Some(url) = &endpoint.url {
            loader = loader.endpoint_url(url);
        }
        loader = match endpoint.identity {
            Identity::Found => loader,
            Identity::Dummy => loader
                .region(Region::from_static(DEFAULT_REGION))
                .credentials_provider(Credentials::new("test", "test", None, None, "dummy")),
        };
        let shared = loader.load().await;
        let meter = Meter::default();
        let dynamodb = aws_sdk_dynamodb::config::Builder::from(&shared)
            .interceptor(meter.of(Service::DynamoDb))
            .build();
        let sqs = aws_sdk_sqs::config::Builder::from(&shared)
            .interceptor(meter.of(Service::Sqs))
            .build();
        let s3 = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(endpoint.path_style)
            .timeout_config(streaming_timeouts())
            .retry_config(retries(S3_TRIES).with_max_backoff(S3_WAIT_MAX))
            .interceptor(meter.of(Service::S3))
            .build();
        let lambda = aws_sdk_lambda::config::Builder::from(&shared)
            .retry_config(RetryConfig::disabled())
            .build();
        let ecs = aws_sdk_ecs::config::Builder::from(&shared)
            .retry_config(retries(S3_TRIES).with_max_backoff(S3_WAIT_MAX))
            .build();
        Self {
            endpoint,
            ecs: aws_sdk_ecs::Client::from_conf(ecs),
            lambda: aws_sdk_lambda::Client::from_conf(lambda),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
            sqs: aws_sdk_sqs::Client::from_conf(sqs),
            s3: aws_sdk_s3::Client::from_conf(s3),
            meter,
        }
    }
}

fn retries(tries: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(tries)
        .with_initial_backoff(THROTTLED_WAIT)
}

/// For S3, where a try takes as long as its bytes do: only the connection is bounded here, and a
/// stream that stalls is ended by the SDK's own protection against it.
fn streaming_timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_WITHIN)
        .disable_operation_attempt_timeout()
        .build()
}

/// For a receive that may wait `wait_max` before it answers.
pub(super) fn long_poll_timeouts(wait_max: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_WITHIN)
        .operation_attempt_timeout(wait_max + ANSWER_WITHIN)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(vars: &[(&str, &str)]) -> Endpoint {
        Endpoint::from_vars(|name| {
            let found = vars.iter().find(|(var, _)| *var == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_an_endpoint_url_it_is_aws() {
        let aws = endpoint(&[]);
        assert_eq!(aws.table.transact_writes_max, 100);
        assert!(!aws.path_style);
        assert!(aws.encoded_listings);
    }

    #[test]
    fn an_unknown_endpoint_gets_the_cautious_profile() {
        let emulator = endpoint(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")]);
        assert_eq!(emulator.table.transact_writes_max, 10);
        assert!(emulator.path_style);
    }

    #[test]
    fn an_endpoint_of_aws_itself_is_aws() {
        for url in [
            "https://dynamodb.eu-central-1.amazonaws.com",
            "https://dynamodb.cn-north-1.amazonaws.com.cn/",
            "https://dynamodb.eu-central-1.api.aws:443",
        ] {
            let aws = endpoint(&[("AWS_ENDPOINT_URL", url)]);
            assert_eq!(aws.table.transact_writes_max, 100, "{url}");
        }
        assert!(!is_aws("http://amazonaws.com.example:4566"));
    }

    #[test]
    fn the_variable_of_one_service_goes_before_the_general_one() {
        let mixed = endpoint(&[
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
            (
                "AWS_ENDPOINT_URL_DYNAMODB",
                "https://dynamodb.eu-west-1.amazonaws.com",
            ),
        ]);
        assert_eq!(mixed.table.transact_writes_max, 100);
        assert!(mixed.path_style);
    }
}
