//! Machines, and how they join.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api_types::{
    CreateRegistration, FieldError, Machine, MachineFilter, Page, Registration, RegistrationRequest,
    RegistrationResponse, code, schema,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{TimeDelta, Utc};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use store::{NewMachine, NewRegistration};

use super::{Answer, Api, hostnames};
use crate::auth::Caller;
use crate::extract::{JsonBody, Params, Segments, escape, id};
use crate::failure::Failure;
use crate::idempotency::{Made, Once};
use crate::paging::Paging;
use crate::view;

/// What registers without saying otherwise.
const DEFAULT_TYPE: &str = "custom";
/// Seconds.
const DEFAULT_TTL: u64 = 3600;
const MAX_TTL: u64 = 86_400;
/// Bytes of a name, a type, or a label's name or value.
const MAX_TEXT: usize = 100;
const MAX_LABELS: usize = 32;

/// List machines, newest first.
#[utoipa::path(
    get, path = "/v1/machines", operation_id = "listMachines", tag = "machines",
    params(MachineFilter),
    responses((status = 200, description = "A page.", body = Page<Machine>)),
)]
pub(super) async fn list(
    State(api): Api,
    Params(query): Params<MachineFilter>,
) -> Result<Json<Page<Machine>>, Failure> {
    let MachineFilter { r#type, status, include_retired, cursor, limit } = query;
    let paging = Paging::new("machines", cursor.as_deref(), limit)?;
    let include_retired = include_retired.unwrap_or(false);
    let filter = store::MachineFilter { machine_type: r#type, status, include_retired };
    let page = api.store.machine_list(filter, paging.request()?).await?;
    let items = page.items.into_iter().map(view::machine).collect();
    Ok(Json(Page { items, next_cursor: page.next.map(|next| paging.cursor(next)) }))
}

/// Show a machine.
#[utoipa::path(
    get, path = "/v1/machines/{machine}", operation_id = "getMachine", tag = "machines",
    params(("machine" = String, Path, description = "`mach_…`")),
    responses((status = 200, description = "The machine.", body = Machine)),
)]
pub(super) async fn get(
    State(api): Api,
    Segments(machine): Segments<String>,
) -> Result<Json<Machine>, Failure> {
    Ok(Json(view::machine(api.store.machine_get(id(&machine)?).await?)))
}

/// Release a machine that nobody holds. Its row stays, as `retired`; the machine itself is not touched.
#[utoipa::path(
    delete, path = "/v1/machines/{machine}", operation_id = "deleteMachine", tag = "machines",
    params(("machine" = String, Path, description = "`mach_…`")),
    responses((status = 200, description = "Released.", body = Machine)),
)]
pub(super) async fn delete(
    State(api): Api,
    Segments(machine): Segments<String>,
) -> Result<Json<Machine>, Failure> {
    Ok(Json(view::machine(api.store.machine_remove(id(&machine)?).await?)))
}

/// Make a one-time token with which a machine joins.
#[utoipa::path(
    post, path = "/v1/machine-registrations", operation_id = "createMachineRegistration", tag = "machines",
    request_body = CreateRegistration,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with it makes nothing twice.")),
    responses((status = 201, description = "Made. The token is shown this once.", body = Registration)),
)]
pub(super) async fn create_registration(
    State(api): Api,
    caller: Caller,
    once: Once,
    body: JsonBody<CreateRegistration>,
) -> Answer {
    let work = {
        let api = api.clone();
        async move {
            let CreateRegistration { name, r#type, labels, ttl_seconds } = body.value;
            let mut errors = Errors::default();
            let machine_type = r#type.unwrap_or_else(|| DEFAULT_TYPE.to_owned());
            if let Some(name) = &name {
                errors.text("/name", name);
            }
            errors.text("/type", &machine_type);
            let is_type = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let starts_well = machine_type.starts_with(|first: char| first.is_ascii_lowercase());
            errors.check("/type", starts_well && machine_type.bytes().all(is_type), || {
                format!("{machine_type:?} is no type: expected a-z, 0-9 and `-`, beginning with a letter")
            });
            errors.check("/labels", labels.len() <= MAX_LABELS, || {
                format!("at most {MAX_LABELS} labels are allowed")
            });
            for (label, value) in &labels {
                let pointer = format!("/labels/{}", escape(label));
                errors.text(&pointer, label);
                errors.check(&pointer, value.len() <= MAX_TEXT, || {
                    format!("the value is longer than {MAX_TEXT} bytes")
                });
            }
            let seconds = ttl_seconds.unwrap_or(DEFAULT_TTL);
            errors.check("/ttlSeconds", (1..=MAX_TTL).contains(&seconds), || {
                format!("{seconds} is not from 1 to {MAX_TTL}")
            });
            errors.none()?;
            let expires_at = Utc::now() + TimeDelta::seconds(seconds.cast_signed());
            let ttl = Duration::from_secs(seconds);
            let new = NewRegistration { name, machine_type, labels, owner: None, ttl };
            let token = api.store.registration_create(new).await?;
            let command = api.urls.join_command.replace("{token}", &token);
            Made::new(StatusCode::CREATED, None, &Registration { token, expires_at, command })
        }
    };
    once.run(&api, &caller, &body.bytes, work).await
}

/// Join, as a machine's daemon does. Needs no API token but the one-time token in the body. The answer holds the
/// machine's key and is given once; an `Idempotency-Key` keeps it for a daemon that did not get it.
#[utoipa::path(
    post, path = "/v1/machines/register", operation_id = "registerMachine", tag = "machines",
    request_body = schema::RegistrationRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with it registers once.")),
    responses((status = 201, description = "Joined.", body = schema::RegistrationResponse)),
    security(()),
)]
pub(super) async fn register(State(api): Api, once: Once, body: JsonBody<RegistrationRequest>) -> Answer {
    let token = body.value.token.clone();
    // The one-time token is the caller: who has it may hear the answer again.
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let name =
        format!("registration:{}", hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let caller = Caller { name: Arc::from(name), token: SecretString::from(token) };
    let work = {
        let api = api.clone();
        async move {
            let RegistrationRequest { token, facts, address, port, certificate_sha256 } = body.value;
            let mut errors = Errors::default();
            errors.text("/facts/name", &facts.name);
            errors.text("/facts/os", &facts.os);
            errors.text("/facts/arch", &facts.arch);
            errors.check("/address", is_reachable(&address), || {
                format!(
                    "{address:?} is no address at which the host could reach the machine's daemon: give an IP address \
                     or a host name (`hythe-agent` takes it as an option)"
                )
            });
            errors.check("/port", port != 0, || {
                "0 is no port: give the one that the daemon listens on".to_owned()
            });
            let is_digest = certificate_sha256.parse::<artifacts::Digest>().is_ok();
            errors.check("/certificateSha256", is_digest, || "expected 64 lower-case hex digits".to_owned());
            errors.none()?;
            let machine = NewMachine {
                name: facts.name,
                os: facts.os,
                arch: facts.arch,
                cpu_count: facts.cpu_count,
                memory_bytes: facts.memory_bytes,
                address,
                port,
                certificate_sha256,
            };
            let (machine, shared_key) = api.store.machine_register(&token, machine).await?;
            let answer = RegistrationResponse {
                machine_id: machine.to_string(),
                shared_key: shared_key.to_hex().to_string(),
                host_certificate_sha256: api.host_certificate_sha256.clone(),
            };
            Made::new(StatusCode::CREATED, None, &answer)
        }
    };
    once.run(&api, &caller, &body.bytes, work).await
}

fn is_reachable(address: &str) -> bool {
    match address.parse::<IpAddr>() {
        Ok(address) => !address.is_unspecified() && !address.is_multicast(),
        Err(_) => hostnames::canonical(address).is_ok(),
    }
}

/// Fields that are wrong.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn check(&mut self, pointer: &str, is_right: bool, message: impl FnOnce() -> String) {
        if !is_right {
            self.0.push(FieldError { pointer: pointer.to_owned(), message: message() });
        }
    }

    fn text(&mut self, pointer: &str, text: &str) {
        let is_right = (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control);
        self.check(pointer, is_right, || {
            format!("{text:?} must have 1 to {MAX_TEXT} bytes, without control characters")
        });
    }

    fn none(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::fields(code::VALIDATION_FAILED, self.0)) }
    }
}
