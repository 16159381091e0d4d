//! From an adapter's decision to HTTP. A problem is one sentence.

use adapter_runtime::{Forwarding, Header, Reply};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use ingress::{Decision, Forward};
use model::ServiceSelector;

type Checked<T> = Result<T, String>;

pub(crate) fn decision(raw: adapter_runtime::Decision) -> Checked<Decision> {
    match raw {
        adapter_runtime::Decision::Forward(raw) => forward(raw).map(Box::new).map(Decision::Forward),
        adapter_runtime::Decision::Respond(raw) => reply(raw).map(Box::new).map(Decision::Respond),
    }
}

fn forward(raw: Forwarding) -> Checked<Forward> {
    let Forwarding { deployment_id, service, path_with_query, remove_headers, set_headers } = raw;
    let deployment = deployment_id
        .map(|id| id.parse().map_err(|_| format!("{id:?} can't be a deployment's id")))
        .transpose()?;
    let path = path_with_query
        .map(|path| PathAndQuery::try_from(path).map_err(|error| format!("the path: {error}")))
        .transpose()?;
    Ok(Forward {
        deployment,
        service: service.map(|service| selector(&service)).transpose()?,
        path,
        remove: remove_headers.into_iter().map(|name| header_name(&name)).collect::<Checked<_>>()?,
        set: set_headers.into_iter().map(header).collect::<Checked<_>>()?,
    })
}

/// As `get-fetcher` takes it: a name, or a decimal port.
fn selector(text: &str) -> Checked<ServiceSelector> {
    let wrong = || format!("{text:?} can't be a service");
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(port @ 1..) => Ok(ServiceSelector::Port(port)),
            _ => Err(wrong()),
        };
    }
    text.parse().map(ServiceSelector::Name).map_err(|_| wrong())
}

fn header_name(name: &str) -> Checked<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} can't be a header's name"))
}

fn header(raw: Header) -> Checked<(HeaderName, HeaderValue)> {
    let name = header_name(&raw.name)?;
    let value = HeaderValue::from_maybe_shared(Bytes::from(raw.value))
        .map_err(|_| format!("the value of the header {name} can't be one"))?;
    Ok((name, value))
}

fn reply(raw: Reply) -> Checked<Response<Bytes>> {
    let mut response = Response::new(Bytes::from(raw.body));
    *response.status_mut() =
        StatusCode::from_u16(raw.status).map_err(|_| format!("the status {}", raw.status))?;
    for field in raw.headers {
        let (name, value) = header(field)?;
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_names_or_ports() {
        assert_eq!(selector("3000").unwrap(), ServiceSelector::Port(3000));
        assert_eq!(selector("next").unwrap(), ServiceSelector::Name("next".parse().unwrap()));
        for wrong in ["0", "70000", "Next!", "a b"] {
            assert!(selector(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_can_not_be_http_is_named() {
        let check = |forwarding: Forwarding, expected: &str| {
            assert_eq!(forward(forwarding).unwrap_err(), expected);
        };
        let raw = || Forwarding::default();
        check(
            Forwarding { deployment_id: Some("dep".to_owned()), ..raw() },
            "\"dep\" can't be a deployment's id",
        );
        check(
            Forwarding { remove_headers: vec!["a b".to_owned()], ..raw() },
            "\"a b\" can't be a header's name",
        );
        let bad = Header { name: "x-a".to_owned(), value: b"\x01".to_vec() };
        check(Forwarding { set_headers: vec![bad], ..raw() }, "the value of the header x-a can't be one");
    }

    #[test]
    fn an_answer_keeps_its_headers() {
        let cookie = |value: &str| Header { name: "Set-Cookie".to_owned(), value: value.as_bytes().to_vec() };
        let raw = Reply { status: 418, headers: vec![cookie("a=1"), cookie("b=2")], body: b"tea".to_vec() };
        let response = reply(raw).unwrap();
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(response.body(), "tea");
    }
}
