//! A server that answers as a test says, and remembers what it was asked: for what no emulator does.
//!
//! HTTP/1.1 as far as the SDK speaks it: bodies have a length, connections are used again.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request of the SDK. Names of headers are in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the SDK sends JSON")
    }
}

/// What the server does about it.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// It answers.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// It has done what was asked, and the answer gets lost with its connection.
    Lost,
    /// The server at this address and port answers.
    Of(String),
}

impl Reply {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.to_string(),
        }
    }
}

type Asked = Arc<Mutex<Vec<Request>>>;

/// It ends when this is dropped.
pub(crate) struct Stub {
    pub(crate) url: String,
    asked: Asked,
    server: JoinHandle<()>,
}

impl Stub {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (asked, answer) = (Asked::default(), Arc::new(answer));
        let remembered = asked.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, answer) = (remembered.clone(), answer.clone());
                tokio::spawn(async move { serve(stream, &asked, &*answer).await.ok() });
            }
        });
        Self {
            url: format!("http://{address}"),
            asked,
            server,
        }
    }

    /// All that it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("nobody panics holding it").clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    stream: TcpStream,
    asked: &Asked,
    answer: &(impl Fn(&Request) -> Reply + Sync),
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await? {
        let reply = answer(&request);
        asked
            .lock()
            .expect("nobody panics holding it")
            .push(request.clone());
        let (status, headers, body) = match reply {
            Reply::Answer {
                status,
                headers,
                body,
            } => (status, headers, body),
            Reply::Lost => return Ok(()),
            Reply::Of(server) => {
                let answer = ask(&server, &request).await?;
                stream.get_mut().write_all(&answer).await?;
                return Ok(());
            }
        };
        let mut lines = vec![
            format!("HTTP/1.1 {status} Stub"),
            "content-type: application/json".to_owned(),
            format!("content-length: {}", body.len()),
        ];
        lines.extend(
            headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        let whole = format!("{}\r\n\r\n{body}", lines.join("\r\n"));
        stream.get_mut().write_all(whole.as_bytes()).await?;
    }
    Ok(())
}

/// What another server answers. In HTTP/1.0 it is over when the connection is.
async fn ask(server: &str, request: &Request) -> io::Result<Vec<u8>> {
    let mut lines = vec![format!("POST {} HTTP/1.0", request.path)];
    let passed = request.headers.iter();
    let passed = passed.filter(|(name, _)| name != "connection");
    lines.extend(passed.map(|(name, value)| format!("{name}: {value}")));
    let head = format!("{}\r\n\r\n", lines.join("\r\n"));
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&request.body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// None where the connection ends between two requests.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
    }))
}
