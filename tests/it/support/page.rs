//! Pages of the console, asked for without a browser.

use super::PASSWORD;
use super::server::TestServer;
use reqwest::header::{COOKIE, HeaderMap, LOCATION, SET_COOKIE};

/// The cookie that holds a session.
pub const SESSION: &str = "livepatch-console";

/// Every page that needs nothing to be there.
pub const PAGES: [&str; 6] = [
    "/console",
    "/console/rollouts",
    "/console/machines",
    "/console/intake",
    "/console/access",
    "/console/audit",
];

/// An answer, read to its end.
pub struct Got {
    pub status: u16,
    /// Where it leads; empty if nowhere.
    pub location: String,
    pub text: String,
    pub headers: HeaderMap,
}

/// Sends a request and reads what comes.
pub async fn got(request: reqwest::RequestBuilder) -> Got {
    let answer = request.send().await.unwrap();
    let headers = answer.headers().clone();
    let location = headers
        .get(LOCATION)
        .map(|value| value.to_str().unwrap().to_owned());
    Got {
        status: answer.status().as_u16(),
        location: location.unwrap_or_default(),
        headers,
        text: answer.text().await.unwrap(),
    }
}

impl Got {
    /// The line that sets the cookie of this name, whatever it is set to.
    pub fn sets(&self, name: &str) -> Option<&str> {
        let lines = self.headers.get_all(SET_COOKIE).iter();
        lines
            .map(|line| line.to_str().unwrap())
            .find(|line| line.split_once('=').is_some_and(|(set, _)| set == name))
    }

    /// The cookie of this name as a browser sends it from now on; `None` if it was not set, or to nothing.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let pair = self.sets(name)?.split(';').next()?;
        (!pair.ends_with('=')).then(|| pair.to_owned())
    }
}

/// Somebody who is signed in.
pub struct Person<'s> {
    server: &'s TestServer,
    /// Their session's cookie.
    pub cookie: String,
}

impl<'s> Person<'s> {
    /// Signs in with the password that all have.
    pub async fn sign_in(server: &'s TestServer, user: &str) -> Self {
        let form = [
            ("user", user),
            ("password", PASSWORD),
            ("next", "/console/machines"),
        ];
        let url = format!("{}/console/login", server.url);
        let answer = got(server.http.post(url).form(&form)).await;
        assert_eq!(
            (answer.status, answer.location.as_str()),
            (303, "/console/machines"),
            "{}",
            answer.text
        );
        let line = answer.sets(SESSION).unwrap();
        for word in ["HttpOnly", "SameSite=Lax", "Path=/console"] {
            assert!(line.contains(word), "{line}");
        }
        let cookie = answer.cookie(SESSION).unwrap();
        Self { server, cookie }
    }

    /// Looks at a page.
    pub async fn get(&self, path: &str) -> Got {
        let url = format!("{}{path}", self.server.url);
        got(self.server.http.get(url).header(COOKIE, &self.cookie)).await
    }

    /// The proof that the forms of a page carry.
    pub async fn proof(&self) -> String {
        let page = self.get("/console/audit").await;
        let (_, rest) = page.text.split_once(r#"name="proof" value=""#).unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    /// Sends a form from a page.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Got {
        let proof = self.proof().await;
        let mut fields = fields.to_vec();
        fields.push(("proof", &proof));
        let url = format!("{}{path}", self.server.url);
        let request = self.server.http.post(url).header(COOKIE, &self.cookie);
        got(request.form(&fields)).await
    }
}
