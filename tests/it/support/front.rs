//! A front before a real server that misbehaves on demand: it passes requests on, and cuts, alters, delays or replaces the
//! answers. One connection, one request, so that a test can count them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Path with its query.
    pub(crate) path: String,
    /// The whole head.
    pub(crate) head: String,
    /// How many requests for this path came before, without its query.
    pub(crate) nth: usize,
}

impl Asked {
    /// Whether it is for the head of the index.
    pub(crate) fn is_head(&self) -> bool {
        self.path.starts_with("/v1/sync/head")
    }

    /// Whether it is for a state.
    pub(crate) fn is_state(&self) -> bool {
        self.path.starts_with("/v1/sync/state")
    }

    /// Whether it is for a payload.
    pub(crate) fn is_payload(&self) -> bool {
        self.path.starts_with("/v1/sync/payloads/")
    }
}

/// An answer on its way back.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) status: u16,
    /// Without `Content-Length`, which is made anew unless [`Got::length`] says otherwise.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// A length to announce instead of the real one.
    pub(crate) length: Option<usize>,
}

impl Got {
    /// An answer without headers.
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            length: None,
        }
    }
}

/// What the front does with a request.
#[derive(Clone)]
pub(crate) enum Do {
    /// Passes the answer on.
    Pass,
    /// Passes on this many bytes of the body, then resets the connection.
    Cut(usize),
    /// Passes on what this makes of it.
    Alter(Arc<dyn Fn(&mut Got) + Send + Sync>),
    /// Passes on the head, and then one byte a second.
    Drip,
    /// Passes on the head without a length, the body, and then goes on for ever.
    Endless,
    /// Answers this without asking.
    Instead(Got),
}

impl Do {
    pub(crate) fn alter(change: impl Fn(&mut Got) + Send + Sync + 'static) -> Self {
        Self::Alter(Arc::new(change))
    }
}

type Rule = Arc<dyn Fn(&Asked) -> Do + Send + Sync>;

/// The front. Ends with the test's runtime.
pub(crate) struct Front {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Asked>>,
    client: reqwest::Client,
}

impl Front {
    /// Starts before the server at this URL.
    pub(crate) async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            rule: Mutex::new(Arc::new(|_| Do::Pass)),
            asked: Mutex::default(),
            client,
        });
        let of = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&of);
                tokio::spawn(async move {
                    // A driver that gives up closes the connection; that is no failure of the front.
                    let _ = serve(stream, &shared).await;
                });
            }
        });
        Self { url, shared }
    }

    /// From now on does as this rule says.
    pub(crate) fn set(&self, rule: impl Fn(&Asked) -> Do + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Arc::new(rule);
        self.shared.asked.lock().unwrap().clear();
    }

    /// What was asked since the last rule.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut first = head.split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    // A proxy is asked with the whole URL.
    let target = first.next().unwrap_or_default();
    let path = target
        .split_once("://")
        .map_or(target, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..])
        .to_owned();
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let length: usize = field("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await?;
        body.extend_from_slice(&buffer[..read]);
    }
    let plain = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
    let (asked, rule) = {
        let mut all = shared.asked.lock().unwrap();
        let same = |other: &&Asked| plain(&other.path) == plain(&path);
        let asked = Asked {
            nth: all.iter().filter(same).count(),
            path: path.clone(),
            head: head.clone(),
        };
        all.push(asked.clone());
        (asked, Arc::clone(&shared.rule.lock().unwrap()))
    };
    let action = rule(&asked);
    if let Do::Instead(got) = action {
        return send(&mut stream, &got).await;
    }
    let url = format!("{}{path}", shared.upstream);
    let mut request = shared.client.request(method.parse().unwrap(), url);
    for name in ["authorization", "range", "if-match", "content-type"] {
        if let Some(value) = field(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.body(body).send().await.unwrap();
    let mut got = Got {
        status: answer.status().as_u16(),
        headers: answer
            .headers()
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "content-length" | "transfer-encoding"))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body: answer.bytes().await.unwrap().to_vec(),
        length: None,
    };
    match action {
        Do::Pass => send(&mut stream, &got).await,
        Do::Alter(change) => {
            change(&mut got);
            send(&mut stream, &got).await
        }
        Do::Cut(at) => {
            let at = at.min(got.body.len());
            stream.write_all(got.head(true).as_bytes()).await?;
            stream.write_all(&got.body[..at]).await?;
            stream.flush().await?;
            // What is still on its way may be lost with the reset; the one who asked must cope with that too.
            stream.set_zero_linger()?;
            Ok(())
        }
        Do::Drip => {
            stream.write_all(got.head(true).as_bytes()).await?;
            for byte in got.body {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Do::Endless => {
            stream.write_all(got.head(false).as_bytes()).await?;
            stream.write_all(&got.body).await?;
            loop {
                stream.write_all(&[b'x'; 1024]).await?;
            }
        }
        Do::Instead(_) => Ok(()),
    }
}

impl Got {
    fn head(&self, with_length: bool) -> String {
        let mut head = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if with_length {
            let length = self.length.unwrap_or(self.body.len());
            let _ = write!(head, "content-length: {length}\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

async fn send(stream: &mut TcpStream, got: &Got) -> std::io::Result<()> {
    stream.write_all(got.head(true).as_bytes()).await?;
    stream.write_all(&got.body).await?;
    stream.shutdown().await
}
