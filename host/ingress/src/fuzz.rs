//! What fuzzing calls: each function takes any bytes and panics where a promise of this crate is broken.
//! `./x fuzz` runs them by the million; the tests here run each on a few thousand random inputs.

use std::collections::HashMap;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use model::{
    DeploymentId, Health, HostName, HostTarget, ProjectId, Scheme, Seen, Service, WakePolicy, Wanted,
};

use crate::answer::X_REQUEST_ID;
use crate::headers::{self, Forwarding};
use crate::host::CanonicalHost;
use crate::request::make_origin_form;
use crate::route::{Alias, AliasTarget, DeploymentRoute, Routes};
use crate::target;

/// A host has one canonical form, however it is written, or none.
pub fn host(data: &[u8]) {
    let Ok(canonical) = CanonicalHost::parse(data) else { return };
    let text = canonical.as_str();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()), "{text:?}");
    assert_eq!(CanonicalHost::parse(text.as_bytes()).as_ref(), Ok(&canonical), "not its own form");
    let shouted = data.to_ascii_uppercase();
    assert_eq!(CanonicalHost::parse(&shouted).as_ref(), Ok(&canonical), "case matters");
    let name = canonical.host();
    assert!(name.starts_with('[') || (name.len() <= 253 && name.split('.').all(|label| label.len() <= 63)));
}

/// A target that is passed on is in origin form, and stays what it is.
pub fn target(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else { return };
    let host = uri.authority().map_or("shop.localhost", |authority| authority.as_str()).to_owned();
    let Ok(host) = CanonicalHost::parse(host.as_bytes()) else { return };
    let mut head = head(if data == b"*" { Method::OPTIONS } else { Method::GET }, uri);
    if make_origin_form(&mut head, &host).is_err() {
        return;
    }
    let form = head.uri.to_string();
    assert!(form.starts_with('/') || form == "*", "{form:?}");
    assert_eq!(target::check(&form), Ok(()), "{form:?}");
    assert!(head.uri.authority().is_none() && !form.contains('#'));
    let again: Uri = form.parse().expect("it was one");
    assert_eq!(again, head.uri);
}

/// What an app gets has one meaning, and says of the client what ingress knows.
pub fn request_headers(data: &[u8]) {
    let (trusted, has_body, data) = match data {
        [flags, rest @ ..] => (flags & 1 != 0, flags & 2 != 0, rest),
        [] => return,
    };
    let mut head = head(Method::GET, Uri::from_static("/"));
    head.headers = fields(data);
    head.headers.entry(header::HOST).or_insert(HeaderValue::from_static("shop.localhost"));
    let Ok(found) = headers::inspect(&head, has_body, trusted) else { return };
    let value = HeaderValue::from_static;
    let (host, client) = (value("shop.localhost"), value("192.0.2.1"));
    let forwarded = value("for=192.0.2.1;host=\"shop.localhost\";proto=https");
    let forwarding = || Forwarding {
        host: &host,
        host_is_canonical: false,
        client: &client,
        scheme: "https",
        forwarded: &forwarded,
        request_id: value("id"),
        traceparent: value("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        trusted,
    };
    headers::rewrite_request(&mut head.headers, &found, forwarding());
    let sent = &head.headers;
    let one = |name: &HeaderName| {
        let mut all = sent.get_all(name).iter();
        let first = all.next().map(|value| value.as_bytes().to_vec());
        assert!(all.next().is_none(), "{name} is there twice: {sent:?}");
        first
    };
    assert_eq!(one(&header::HOST).as_deref(), Some(&b"shop.localhost"[..]));
    assert_eq!(one(&X_REQUEST_ID).as_deref(), Some(&b"id"[..]));
    let client = one(&headers::X_FORWARDED_FOR).unwrap_or_default();
    assert!(client.ends_with(b"192.0.2.1") && (trusted || client == b"192.0.2.1"), "{sent:?}");
    assert!(one(&headers::TRACEPARENT).is_some_and(|value| crate::ids::is_traceparent(&value)));
    match one(&header::CONNECTION).as_deref() {
        None | Some(b"upgrade" | b"te") => {}
        other => panic!("Connection says {other:?}"),
    }
    assert!(one(&header::TRANSFER_ENCODING).is_none_or(|coding| coding == b"chunked"));
    assert!(one(&header::UPGRADE).is_none_or(|_| found.upgrade.is_some()));
    assert!(one(&header::TE).is_none_or(|te| te == b"trailers"));
    for name in sent.keys() {
        assert!(!is_hop(name), "{name} went on: {sent:?}");
        let dashed = name.as_str().replace('_', "-");
        assert!(
            dashed == name.as_str() || !headers::is_ours(&HeaderName::try_from(dashed).expect("a name")),
            "a twin went on: {name}"
        );
    }
    // Once more changes nothing: the canonical form is one.
    let found =
        headers::inspect(&head, has_body, false).unwrap_or_else(|_| panic!("not canonical: {sent:?}"));
    let before = sorted(&head.headers);
    if !trusted {
        headers::rewrite_request(&mut head.headers, &found, forwarding());
        assert_eq!(sorted(&head.headers), before);
    }
}

/// What a client gets is framed in one way, and tells nothing of the hop behind.
pub fn response_headers(data: &[u8]) {
    let [status, rest @ ..] = data else { return };
    let mut all = fields(rest);
    let status = StatusCode::from_u16(200 + u16::from(*status)).unwrap_or(StatusCode::OK);
    if headers::rewrite_response(&mut all, status, false, "localhost") {
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE] {
            assert!(!all.contains_key(&name), "{name} went on: {all:?}");
        }
        for cookie in all.get_all(header::SET_COOKIE) {
            let text = String::from_utf8_lossy(cookie.as_bytes()).to_ascii_lowercase();
            let wide = text.split(';').skip(1).any(|attribute| attribute.trim() == "domain=localhost");
            assert!(!wide, "{text}");
        }
    }
    let mut trailers = fields(rest);
    headers::filter_trailers(&mut trailers);
    for name in trailers.keys() {
        assert!(!is_hop(name) && !headers::is_ours(name), "{name} went on as trailer");
    }
}

/// The table leads where the last changes say, as a plain map would.
pub fn routes(data: &[u8]) {
    const SLUGS: [&str; 4] = ["a", "b", "shop", "a-b"];
    const HOSTS: [&str; 4] = ["shop.example.com", "example.com", "a.localhost", "3000__a.localhost"];
    thread_local! {
        static IDS: ([ProjectId; 4], [DeploymentId; 8]) =
            (std::array::from_fn(|_| ProjectId::new()), std::array::from_fn(|_| DeploymentId::new()));
    }
    let (projects, deployments) = IDS.with(|ids| *ids);
    let table = Routes::new("localhost");
    // Deployment → (project, primary); host → deployment.
    let mut known: HashMap<usize, (usize, bool)> = HashMap::new();
    let mut hosts: HashMap<usize, usize> = HashMap::new();
    for step in data.chunks_exact(2).take(64) {
        let (number, project) =
            (usize::from(step[1] & 7), usize::from(step[1] >> 3 & 1) + usize::from(step[1] & 2));
        match step[0] % 5 {
            0 | 1 => {
                let is_primary = step[0] & 0x80 != 0;
                // A deployment's project never changes.
                let project = known.get(&number).map_or(project, |(of, _)| *of);
                if is_primary {
                    for (of, primary) in known.values_mut() {
                        *primary &= *of != project;
                    }
                }
                known.insert(number, (project, is_primary));
                table.upsert(route(deployments[number], projects[project], SLUGS[project], is_primary));
            }
            2 => {
                known.remove(&number);
                table.remove(deployments[number]);
            }
            3 => {
                let host = usize::from(step[0] >> 4 & 3);
                hosts.insert(host, number);
                table.upsert_alias(Alias {
                    host: HOSTS[host].to_owned(),
                    target: AliasTarget::Deployment(deployments[number]),
                    service: None,
                });
            }
            _ => {
                let host = usize::from(step[0] >> 4 & 3);
                hosts.remove(&host);
                table.remove_alias(HOSTS[host]);
            }
        }
    }
    let resolved = |host: &str| table.resolve(host).map(|found| found.deployment.id).ok();
    for (host, name) in HOSTS.iter().enumerate() {
        if let Some(number) = hosts.get(&host) {
            let expected = known.contains_key(number).then_some(deployments[*number]);
            assert_eq!(resolved(name), expected, "{name}");
        }
    }
    for (number, id) in deployments.iter().enumerate() {
        let label = HostName { service: None, target: HostTarget::Deployment(*id) }.label();
        let name = format!("{}.localhost", label.expect("it fits"));
        assert_eq!(resolved(&name), known.contains_key(&number).then_some(*id), "{name}");
    }
    for (project, slug) in SLUGS.iter().enumerate() {
        let name = format!("{slug}.localhost");
        if HOSTS.iter().position(|host| *host == name).is_some_and(|host| hosts.contains_key(&host)) {
            continue;
        }
        let primary = known.iter().find(|(_, (of, primary))| *of == project && *primary);
        assert_eq!(resolved(&name), primary.map(|(number, _)| deployments[*number]), "{name}");
    }
}

fn route(deployment: DeploymentId, project: ProjectId, slug: &str, is_primary: bool) -> DeploymentRoute {
    DeploymentRoute {
        deployment,
        project,
        slug: slug.parse().expect("a slug"),
        is_primary,
        incarnation: 1,
        seen: Seen::Running,
        wanted: Wanted::Running,
        health: Health::Healthy,
        wake: WakePolicy::None,
        services: vec![Service { name: "web".parse().expect("a name"), port: 3000, scheme: Scheme::Http }],
    }
}

fn head(method: Method, uri: Uri) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = method;
    head.uri = uri;
    head.version = Version::HTTP_11;
    head
}

/// Lines of `name: value`, as hyper would have read them.
fn fields(data: &[u8]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            all.append(name, value);
        }
    }
    all
}

/// Of the hop to us alone.
fn is_hop(name: &HeaderName) -> bool {
    matches!(name.as_str(), "keep-alive" | "http2-settings" | "proxy") || name.as_str().starts_with("proxy-")
}

fn sorted(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINES: [&str; 24] = [
        "host: a.localhost",
        "connection: close, x-a",
        "connection: upgrade",
        "upgrade: websocket",
        "te: trailers",
        "te: gzip",
        "transfer-encoding: chunked",
        "transfer-encoding: identity, chunked",
        "content-length: 05",
        "expect: 100-continue",
        "x-forwarded-for: 1.2.3.4",
        "x_forwarded_for: 1.2.3.4",
        "forwarded: for=x",
        "trailer: x-sum, host",
        "proxy: x",
        "x-a: 1",
        "traceparent: x",
        "set-cookie: a=b; Domain=localhost",
        "keep-alive: 1",
        "x-request-id: y",
        "X_Request_Id: y",
        "http2-settings: x",
        "content-type: application/grpc",
        "proxy_connection: x",
    ];

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let line = proptest::sample::select(&LINES[..]).prop_map(|line| line.as_bytes().to_vec());
        let noise = proptest::collection::vec(any::<u8>(), 0..20);
        (any::<u8>(), proptest::collection::vec(prop_oneof![4 => line, 1 => noise], 0..8)).prop_map(
            |(flags, lines)| {
                let mut data = vec![flags];
                data.extend(lines.join(&b'\n'));
                data
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn promises_hold_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            host(&data);
            target(&data);
            routes(&data);
        }

        #[test]
        fn promises_hold_for_fields(data in lines()) {
            request_headers(&data);
            response_headers(&data);
        }

        #[test]
        fn promises_hold_for_targets(data in "(https?://[a-z.:0-9]{0,12})?[/?#%a-c\\\\.0-2*é ]{0,12}") {
            target(data.as_bytes());
        }
    }
}
