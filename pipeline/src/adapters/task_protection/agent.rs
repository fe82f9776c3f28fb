//! Asks the agent of the machine to protect the task that asks, over plain HTTP on an address of this machine only.
//!
//! What comes back decides: the agent answers some refusals with 200 ("Amazon ECS task scale-in protection endpoint").

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::state::{Ask, EXPIRES_MINUTES};
use crate::core::class::cut;

/// The path below `$ECS_AGENT_URI` ("Amazon ECS task scale-in protection endpoint").
const STATE: &str = "/task-protection/v1/state";

/// The port of a URI that names none.
const HTTP_PORT: u16 = 80;

/// An answer is a line of JSON; what is longer comes from somebody else.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// So much of an answer is told that says something else.
const TOLD_BYTES_MAX: usize = 300;

/// Why it is not as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotDone {
    /// It is as before; in the agent's words.
    Refused(String),
    /// Nobody knows.
    Lost(String),
}

/// The agent, where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agent {
    address: SocketAddr,
    uri: Uri,
}

impl Agent {
    /// The one that `$ECS_AGENT_URI` names. Talks to nobody yet.
    ///
    /// # Errors
    /// Why that is none: where somebody else listens, nothing of this task is told.
    pub(super) fn at(base: &str) -> Result<Self, String> {
        let whole = format!("{}{STATE}", base.trim_end_matches('/'));
        let uri: Uri = whole
            .parse()
            .map_err(|error| format!("it is no URI: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("an agent is asked by http://".to_owned());
        }
        let authority = uri.authority().ok_or("it names no host")?;
        let host = authority.host().trim_matches(['[', ']']);
        let ip: IpAddr = host
            .parse()
            .map_err(|_| format!("`{host}` is no address of IP: the agent has one, and no name"))?;
        if !is_of_this_machine(ip) {
            return Err(format!(
                "{ip} is no loopback or link-local address, and an agent listens on this machine"
            ));
        }
        let port = authority.port_u16().unwrap_or(HTTP_PORT);
        let address = SocketAddr::new(ip, port);
        Ok(Self { address, uri })
    }

    /// Asks, and reads the answer. Dropped, it may have asked.
    pub(super) async fn ask(&self, ask: Ask) -> Result<(), NotDone> {
        let (wanted, body) = match ask {
            Ask::Protect | Ask::Renew => {
                let body =
                    json!({ "ProtectionEnabled": true, "ExpiresInMinutes": EXPIRES_MINUTES });
                (true, body)
            }
            Ask::Release => (false, json!({ "ProtectionEnabled": false })),
        };
        let request = self.request(&body);
        let lost = |error: &dyn std::error::Error| NotDone::Lost(error.to_string());
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| NotDone::Refused(format!("nobody listens: {error}")))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await;
            read(response.map_err(|error| lost(&error))?, wanted).await
        };
        // The connection moves what the exchange waits for; it may end before the answer is read to its end.
        let mut connection = std::pin::pin!(async { connection.await.ok() });
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            _ = &mut connection => exchange.await,
        }
    }

    fn request(&self, body: &Value) -> Request<Full<Bytes>> {
        let path = self.uri.path_and_query().expect("a path was put there");
        let authority = self.uri.authority().expect("it was looked at");
        Request::builder()
            .method(Method::PUT)
            .uri(path.as_str())
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("plain headers and a path that was parsed")
    }
}

/// Where the agent listens is an address that is never routed: no other machine is told anything.
fn is_of_this_machine(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

async fn read<B>(response: Response<B>, wanted: bool) -> Result<(), NotDone>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await;
    let body = body.map_err(|error| NotDone::Lost(error.to_string()))?;
    judge(status, &body.to_bytes(), wanted)
}

/// What an answer means.
fn judge(status: StatusCode, body: &[u8], wanted: bool) -> Result<(), NotDone> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_so = answer["protection"]["ProtectionEnabled"].as_bool();
    if status.is_success() && is_so == Some(wanted) {
        return Ok(());
    }
    let words = ["failure", "error"].into_iter().flat_map(|kind| {
        let named = ["Reason", "Detail", "Code", "Message"];
        named.map(|name| answer[kind][name].as_str().unwrap_or_default().to_owned())
    });
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    let told = if words.is_empty() {
        cut(&String::from_utf8_lossy(body), TOLD_BYTES_MAX).to_owned()
    } else {
        words.join(": ")
    };
    let told = format!("{status}: {told}");
    if status.is_server_error() {
        return Err(NotDone::Lost(told));
    }
    Err(NotDone::Refused(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_is_an_agent_s() {
        for good in [
            "http://169.254.170.2/api/0b69d5c0-d655-4695-98cd-5d2d526d9d5a",
            "http://127.0.0.1:51678/",
            "http://[::1]:80",
            "http://[fe80::1]/api",
        ] {
            Agent::at(good).expect(good);
        }
        for bad in [
            "https://169.254.170.2/api",
            "http://10.0.0.1/api",
            "http://[fd00:ec2::23]/api",
            "http://agent.internal/api",
            "http://localhost/api",
            "http://127.0.0.1.example.com/api",
            "http://2130706433/api",
            "169.254.170.2/api",
            "nonsense here",
            "",
        ] {
            Agent::at(bad).expect_err(bad);
        }
    }

    #[test]
    fn what_is_asked_is_what_the_document_says() {
        let agent = Agent::at("http://169.254.170.2/api/task-1/").expect("an agent");
        let request = agent.request(&json!({}));
        assert_eq!(request.uri(), "/api/task-1/task-protection/v1/state");
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.headers()[HOST], "169.254.170.2");
    }

    #[test]
    fn an_answer_is_believed_if_it_says_what_was_asked_for() {
        let on = json!({ "protection": { "ProtectionEnabled": true, "TaskArn": "arn" } });
        let blocked =
            json!({ "failure": { "Arn": "arn", "Detail": null, "Reason": "DEPLOYMENT_BLOCKED" } });
        let denied = json!({ "error": { "Code": "AccessDeniedException", "Message": "no leave" } });
        let judge = |status: StatusCode, body: &Value, wanted| {
            judge(status, body.to_string().as_bytes(), wanted)
        };
        let refused = |words: &str| Err(NotDone::Refused(words.to_owned()));
        assert_eq!(judge(StatusCode::OK, &on, true), Ok(()));
        assert!(judge(StatusCode::OK, &on, false).is_err());
        assert_eq!(
            judge(StatusCode::OK, &blocked, true),
            refused("200 OK: DEPLOYMENT_BLOCKED")
        );
        assert_eq!(
            judge(StatusCode::BAD_REQUEST, &denied, true),
            refused("400 Bad Request: AccessDeniedException: no leave")
        );
        let lost = judge(StatusCode::INTERNAL_SERVER_ERROR, &denied, true);
        assert!(matches!(lost, Err(NotDone::Lost(_))), "{lost:?}");
    }
}
