//! Looks at a component before anything is compiled: is it one, does it export what an adapter must, and
//! can what it imports be given?

use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::error::LoadCause;
use crate::wasi;

/// The contract's package.
const PACKAGE: &str = "hythe:deployment/";
/// The version track that this host serves.
const TRACK: &str = "0.1.";
/// The same for messages.
pub(crate) const SERVED: &str = "0.1.x";
const REQUIRED: &str = "project-deployment";
const OPTIONAL: [&str; 4] = ["health-check", "control", "logs", "http-routing"];
const IMPORTS: [&str; 2] = ["types", "host"];

/// What a component exports of the contract's optional interfaces, in the contract's order.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) exports: Vec<&'static str>,
}

/// Checks bytes that are to be an adapter.
pub(crate) fn check(bytes: &[u8]) -> Result<World, LoadCause> {
    header(bytes)?;
    let damaged = |error: wasmparser::BinaryReaderError| LoadCause::Damaged {
        offset: error.offset(),
        problem: error.message().to_owned(),
    };
    Validator::new_with_features(WasmFeatures::default()).validate_all(bytes).map_err(damaged)?;
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(damaged)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(damaged)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let exports = check_exports(&exports)?;
    imports.iter().try_for_each(|import| check_import(import))?;
    Ok(World { exports })
}

fn header(bytes: &[u8]) -> Result<(), LoadCause> {
    if !bytes.starts_with(b"\0asm") {
        let begin = &bytes[..bytes.len().min(8)];
        let found = if begin.is_empty() {
            "nothing (it is empty)".to_owned()
        } else {
            format!("`{}`", begin.escape_ascii())
        };
        return Err(LoadCause::NotWasm { found });
    }
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => Ok(()),
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => Err(LoadCause::CoreModule),
        Some(Err(error)) => {
            Err(LoadCause::Damaged { offset: error.offset(), problem: error.message().to_owned() })
        }
        _ => Err(LoadCause::Damaged { offset: 4, problem: "no version".to_owned() }),
    }
}

/// Interface and version of one of the contract's names.
fn contract(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}

fn check_exports(exports: &[String]) -> Result<Vec<&'static str>, LoadCause> {
    let served = |wanted: &str| {
        exports
            .iter()
            .filter_map(|name| contract(name))
            .any(|(interface, version)| interface == wanted && version.starts_with(TRACK))
    };
    if !served(REQUIRED) {
        let other =
            exports.iter().find(|name| contract(name).is_some_and(|(interface, _)| interface == REQUIRED));
        return Err(match other {
            Some(name) => LoadCause::WrongVersion { exported: name.clone(), served: SERVED.to_owned() },
            None => LoadCause::MissingExport {
                missing: format!("{PACKAGE}{REQUIRED}@{SERVED}"),
                found: if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") },
            },
        });
    }
    Ok(OPTIONAL.into_iter().filter(|interface| served(interface)).collect())
}

fn check_import(name: &str) -> Result<(), LoadCause> {
    if let Some((interface, version)) = contract(name) {
        if !version.starts_with(TRACK) {
            return Err(LoadCause::WrongImportVersion {
                imported: name.to_owned(),
                served: SERVED.to_owned(),
            });
        }
        if IMPORTS.contains(&interface) {
            return Ok(());
        }
    }
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    if version.starts_with("0.2.") && wasi::PROVIDED.contains(&interface) {
        return Ok(());
    }
    let instead = if name.starts_with("wasi:sockets/") || name.starts_with("wasi:http/") {
        "an adapter reaches the network with `send` of hythe:deployment/host and a grant"
    } else {
        "there are hythe:deployment/host and WASI 0.2's cli, clocks, filesystem, io and random"
    };
    Err(LoadCause::UnknownImport { name: name.to_owned(), instead })
}
