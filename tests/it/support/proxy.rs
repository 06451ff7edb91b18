//! A network between a server and what it depends on that can be made to fail: a TCP proxy on loopback.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the network does to every connection, also to those that are open already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections are closed as soon as they are made or used.
    Down,
    /// The connection is reset in the middle of every body.
    Reset,
    /// Every few kilobytes take a while.
    Slow,
    /// One bit of every body is another one.
    Flip,
    /// Nothing comes through, and nobody says so.
    Silent,
}

/// What is larger is part of a body, not a head.
const HEAD: usize = 2048;

/// A running proxy; ends with the test's runtime.
pub struct Proxy {
    /// Where it listens, as a URL.
    pub url: String,
    fault: Arc<Mutex<Fault>>,
}

impl Proxy {
    /// In front of the server at an `http://` URL.
    pub async fn before(url: &str) -> Self {
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fault = Arc::new(Mutex::new(Fault::None));
        let shared = Arc::clone(&fault);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *shared.lock().unwrap() == Fault::Down {
                    continue;
                }
                let (target, fault) = (target.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let server = TcpStream::connect(target).await.unwrap();
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    // Whichever direction ends first ends both.
                    tokio::select! {
                        () = pass(from_client, to_server, &fault) => {}
                        () = pass(from_server, to_client, &fault) => {}
                    }
                });
            }
        });
        Self { url, fault }
    }

    /// Begins or ends a fault.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

/// Passes bytes on until an end or a fault.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    fault: &Mutex<Fault>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..read];
        let body = read > HEAD;
        let now = *fault.lock().unwrap();
        match now {
            Fault::Down => return,
            Fault::Reset if body => {
                let _ = to.write_all(&bytes[..read / 2]).await;
                return;
            }
            Fault::Flip if body => bytes[read - read / 4] ^= 1,
            Fault::Slow if body => tokio::time::sleep(Duration::from_millis(50)).await,
            Fault::Silent => {
                while *fault.lock().unwrap() == Fault::Silent {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            _ => {}
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
