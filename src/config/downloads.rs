//! Contradictions of `server.url-template` and `server.redirect-downloads`, above all redirects that lead back here.

use super::checks::Checker;
use super::error::NoticeLevel;
use super::model::Config;
use std::net::{IpAddr, SocketAddr};

/// Where this server itself answers downloads.
const OWN_PATHS: [&str; 2] = ["/v1/patches/{filename}", "/patches/{filename}"];

pub(super) fn downloads(config: &Config, checker: &mut Checker<'_>) {
    const TEMPLATE: &str = "server.url-template";
    const REDIRECT: &str = "server.redirect-downloads";
    let server = &config.server;
    if server.signed_downloads {
        checker.lasting(
            "server.signed-downloads-validity",
            server.signed_validity,
            "no machine could download anything",
        );
    }
    let presigned = !config.patch_storage.s3.presign.is_zero();
    let template = server.url_template.as_str();
    if template.is_empty() {
        if server.redirect_downloads && !presigned {
            checker.wrong(
                REDIRECT,
                "there is nowhere to redirect to; set server.url-template to where the files are, or patch-storage.s3-presign to redirect to the bucket",
            );
        }
        return;
    }
    let target = match parse_template(template) {
        Ok(target) => target,
        Err(message) => return checker.wrong(TEMPLATE, message),
    };
    if !server.redirect_downloads {
        return;
    }
    if presigned {
        checker.wrong(
            REDIRECT,
            "server.url-template and patch-storage.s3-presign are two targets for the same redirect; unset one",
        );
    }
    if leads_back(&target, server.address) {
        checker.wrong(
            REDIRECT,
            format!(
                "server.url-template leads back to this server ({}), so clients would be redirected forever; point it at another server, or turn the redirect off",
                server.address
            ),
        );
    } else if OWN_PATHS.contains(&target.path.as_str()) {
        checker.notice(
            NoticeLevel::Warning,
            TEMPLATE,
            "this is a path that this server answers itself; if the name leads here, clients are redirected forever",
        );
    }
}

/// The parts of a URL template that matter here.
struct Target {
    host: String,
    port: u16,
    path: String,
}

fn parse_template(template: &str) -> Result<Target, String> {
    const EXAMPLE: &str = "e.g. https://patches.example.com/v1/patches/{filename}";
    if template.matches("{filename}").count() != 1 {
        return Err(format!("must hold {{filename}} once, {EXAMPLE}"));
    }
    let filled = template.replace("{filename}", "FILENAME");
    let url: http::Uri = filled
        .parse()
        .map_err(|_| format!("is not a URL, {EXAMPLE}"))?;
    let (scheme, host) = match (url.scheme_str(), url.host()) {
        (Some(scheme @ ("http" | "https")), Some(host)) if !host.is_empty() => (scheme, host),
        _ => {
            return Err(format!(
                "must begin with http:// or https:// and a host, {EXAMPLE}"
            ));
        }
    };
    let authority = url.authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') {
        return Err(format!(
            "must not hold a user or password: every client gets to see it, {EXAMPLE}"
        ));
    }
    if authority.contains("FILENAME") {
        return Err(format!(
            "{{filename}} belongs into the path or query, {EXAMPLE}"
        ));
    }
    Ok(Target {
        host: host.trim_matches(['[', ']']).to_ascii_lowercase(),
        port: url
            .port_u16()
            .unwrap_or(if scheme == "https" { 443 } else { 80 }),
        path: url.path().replace("FILENAME", "{filename}"),
    })
}

/// Whether a URL's host and port are, as far as can be said without asking anyone, the address this server listens on.
fn leads_back(target: &Target, listens: SocketAddr) -> bool {
    if target.port != listens.port() {
        return false;
    }
    let host: Option<IpAddr> = match target.host.as_str() {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        other => other.parse().ok(),
    };
    host.is_some_and(|host| {
        let host = host.to_canonical();
        host == listens.ip().to_canonical()
            || host.is_unspecified()
            || (host.is_loopback() && (listens.ip().is_loopback() || listens.ip().is_unspecified()))
    })
}
