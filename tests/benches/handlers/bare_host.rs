//! The least host of the Lambda Runtime API that there can be: one thread, one process, one socket, and nothing looked at that
//! need not be. What a function takes under it is what its runtime takes; what more it takes under ours is ours.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};

/// More than a request of the function here takes.
const REQUEST_BYTES_MAX: usize = 8192;

pub(crate) struct BareHost {
    process: Child,
    stream: TcpStream,
    event: String,
}

impl BareHost {
    pub(crate) fn start(program: &str, event: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let process = Command::new(program)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "bare")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "bare")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "bare")
            .spawn()
            .expect("it starts");
        let (stream, _) = listener.accept().expect("it asks for work");
        stream.set_nodelay(true).expect("a socket");
        let length = event.len();
        let event = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nlambda-runtime-deadline-ms: 4102444800000\r\n\
             lambda-runtime-aws-request-id: 00000000-0000-4000-8000-000000000000\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:local:000000000000:function:bare\r\n\
             content-length: {length}\r\n\r\n{event}"
        );
        Self {
            process,
            stream,
            event,
        }
    }

    /// Waits until the function asks for work, gives it some, and waits for the answer.
    pub(crate) fn call(&mut self) {
        let asked = self.read();
        assert!(
            asked.starts_with("GET") && asked.contains("/next"),
            "{asked}"
        );
        self.write(&self.event);
        let answered = self.read();
        assert!(
            answered.starts_with("POST") && answered.contains("/response"),
            "{answered}"
        );
        self.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    }

    fn write(&self, text: &str) {
        (&self.stream).write_all(text.as_bytes()).expect("it lives");
    }

    /// A request, whole.
    fn read(&mut self) -> String {
        let mut bytes = [0; REQUEST_BYTES_MAX];
        let mut held = 0;
        loop {
            let read = self.stream.read(&mut bytes[held..]).expect("it lives");
            assert!(read > 0, "it hung up");
            held += read;
            let text = str::from_utf8(&bytes[..held]).expect("a text");
            if is_whole(text) {
                return text.to_owned();
            }
        }
    }
}

/// Bodies here are JSON objects; requests for work have none.
fn is_whole(request: &str) -> bool {
    match request.split_once("\r\n\r\n") {
        None => false,
        Some((head, body)) => head.starts_with("GET") || body.ends_with('}'),
    }
}

impl Drop for BareHost {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
