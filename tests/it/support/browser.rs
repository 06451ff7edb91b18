//! A real browser: Debian's Chromium, without a screen, driven by its own driver over WebDriver.
//!
//! The tests that need it are ignored by default, because it cannot be had everywhere; `make test-console` runs them.

use super::process::{comes, until};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A browser with one window; ended when it is dropped.
pub struct Browser {
    driver: Child,
    client: Client,
    base: String,
    driver_url: String,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser on SIGTERM.
        super::process::send_signal("TERM", self.driver.id());
        let _ = self.driver.wait();
    }
}

/// Where screenshots go.
pub fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/console");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Browser {
    /// On the console of a server.
    pub async fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is not there; `make test-console` installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines.next().expect("chromedriver ended").unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // What it goes on to say must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let driver_url = format!("http://127.0.0.1:{port}");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--force-device-scale-factor=1",
            "--window-size=1440,1000",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&driver_url)
            .await
            .unwrap();
        Self {
            driver,
            client,
            base: url.to_owned(),
            driver_url,
            _profile: profile,
        }
    }

    /// Goes to a path of the server.
    pub async fn go(&self, path: &str) {
        self.client
            .goto(&format!("{}{path}", self.base))
            .await
            .unwrap();
    }

    /// Signs in as an administrator.
    pub async fn sign_in(&self, user: &str, password: &str) {
        self.go("/console/login").await;
        self.fill("#user", user).await;
        self.fill("#password", password).await;
        self.press("Sign in").await;
        self.sees("Sign out").await;
    }

    /// Ends the session.
    pub async fn sign_out(&self) {
        self.press("Sign out").await;
        self.sees("Sign in").await;
    }

    /// What a selector finds.
    pub async fn find(&self, selector: &str) -> Element {
        self.client
            .find(Locator::Css(selector))
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"))
    }

    /// Whether a selector finds anything.
    pub async fn has(&self, selector: &str) -> bool {
        let found = self.client.find_all(Locator::Css(selector)).await.unwrap();
        !found.is_empty()
    }

    /// Writes into a field what it does not hold yet.
    pub async fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Presses the button or follows the link with this text, as soon as it is there.
    pub async fn press(&self, text: &str) {
        let quoted = text.replace('\'', "");
        let path = format!(
            "//button[normalize-space()='{quoted}'] | //a[normalize-space()='{quoted}'] | //summary[normalize-space()='{quoted}']"
        );
        comes(text, async || {
            let found = self.client.find_all(Locator::XPath(&path)).await.unwrap();
            let Some(first) = found.into_iter().next() else {
                return Err(self.text().await);
            };
            match first.click().await {
                // The page was fetched anew in between; what is there now looks the same.
                Err(error) if error.is_stale_element_reference() => Err(error.to_string()),
                clicked => {
                    clicked.unwrap();
                    Ok(())
                }
            }
        })
        .await;
    }

    /// Whether a button or link has this text.
    pub async fn offers(&self, text: &str) -> bool {
        let path =
            format!("//button[normalize-space()='{text}'] | //a[normalize-space()='{text}']");
        let found = self.client.find_all(Locator::XPath(&path)).await.unwrap();
        !found.is_empty()
    }

    /// All that can be read.
    pub async fn text(&self) -> String {
        let read = self
            .script("return document.body ? document.body.innerText : ''")
            .await;
        read.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until this can be read; without a reload, unless the page does that by itself.
    pub async fn sees(&self, words: &str) {
        comes(words, async || {
            let text = self.text().await;
            text.contains(words).then_some(()).ok_or(text)
        })
        .await;
    }

    /// Fails if this can be read.
    pub async fn sees_not(&self, words: &str) {
        let text = self.text().await;
        assert!(
            !text.contains(words),
            "{words:?} should not be there:\n{text}"
        );
    }

    /// Runs a script in the page.
    pub async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until a script says yes.
    pub async fn holds(&self, what: &str, script: &str) {
        until(what, async || {
            self.script(script).await == Value::Bool(true)
        })
        .await;
    }

    /// Types keys to whatever has the focus.
    pub async fn keys(&self, keys: &str) {
        let active = self.client.active_element().await.unwrap();
        active.send_keys(keys).await.unwrap();
    }

    /// Looks as somebody sees it who prefers this scheme, in a window of this width, at full height; writes the picture down.
    pub async fn picture(&self, name: &str, scheme: &str, width: u32) {
        self.prefer(scheme).await;
        self.client.set_window_size(width, 1000).await.unwrap();
        let height = self
            .script("return document.documentElement.scrollHeight")
            .await;
        let height = height.as_u64().unwrap().clamp(600, 4000) as u32;
        self.client
            .set_window_size(width, height + 140)
            .await
            .unwrap();
        let picture = self.client.screenshot().await.unwrap();
        let file = pictures().join(format!("{name}-{scheme}-{width}.png"));
        std::fs::write(file, picture).unwrap();
        // Nothing may stick out sideways, however narrow the window.
        let out = self
            .script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            .await;
        assert!(
            out.as_i64().unwrap() <= 0,
            "{name} at {width}: {out} pixels stick out"
        );
    }

    /// Prefers a light or dark scheme from now on, by the driver's way to the browser itself.
    async fn prefer(&self, scheme: &str) {
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        )
        .await;
    }

    /// A command of Chromium's own protocol, which WebDriver does not have.
    async fn devtools(&self, command: &str, parameters: Value) {
        let session = self.client.session_id().await.unwrap().unwrap();
        let url = format!("{}/session/{session}/goog/cdp/execute", self.driver_url);
        let body = json!({ "cmd": command, "params": parameters });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.post(url).json(&body).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }

    /// Looks for what hinders people, with axe-core; what is serious fails.
    pub async fn is_accessible(&self, name: &str) {
        let axe = std::fs::read_to_string(axe()).unwrap();
        self.client
            .execute(&format!("{axe};window.axe = axe;"), Vec::new())
            .await
            .unwrap();
        let found = self
            .client
            .execute_async(
                "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'] }).then(found => done(found.violations.map(v =>
                    ({ id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)) }))));",
                Vec::new(),
            )
            .await
            .unwrap();
        let serious: Vec<&Value> = found
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["impact"] == "serious" || one["impact"] == "critical")
            .collect();
        assert!(serious.is_empty(), "{name}: {serious:#?}");
    }
}

/// Where `make test-console` put axe-core.
fn axe() -> PathBuf {
    let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let found = tools.join("axe.min.js");
    assert!(
        found.is_file(),
        "{} is not there; `make test-console` installs it",
        found.display()
    );
    found
}
