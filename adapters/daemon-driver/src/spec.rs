//! A deployment's `spec` under these runtimes: what the daemon is told to run, without what the host knows
//! (source and services).

use agent_api::WorkloadSpec;
use serde_json::{Value, json};

use crate::types::Error;

/// JSON Schema (2020-12) of the spec, with a runtime's own field where it has one.
pub(crate) fn schema(own: Option<(&'static str, Value)>) -> Value {
    let argv = json!({
        "type": "array", "minItems": 1, "maxItems": 1024,
        "items": {"type": "string", "maxLength": 32768},
    });
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Workload",
        "description": "A program that a machine runs and watches.",
        "type": "object",
        "additionalProperties": false,
        "required": ["command"],
        "properties": {
            "command": {
                "title": "Command",
                "description": "The program and its arguments, without a shell, run in the source's folder. It listens on the port in PORT, or PORT_<SERVICE>.",
            },
            "setup": {
                "title": "Set-up",
                "description": "Commands that run to their end, in order, before the first start of each source. A failing one fails the start.",
                "type": "array", "maxItems": 64, "items": argv,
            },
            "env": {
                "title": "Environment",
                "description": "Variables of the program.",
                "type": "object", "maxProperties": 1024,
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"type": "string", "maxLength": 131072},
            },
            "cwd": {
                "title": "Folder",
                "description": "Folder to run in, relative to the source's own.",
                "type": "string", "minLength": 1, "maxLength": 4096,
            },
            "limits": {
                "title": "Limits",
                "description": "Bounds, kept where the machine's cgroups allow it.",
                "type": "object", "additionalProperties": false,
                "properties": {
                    "memoryMb": {"title": "Memory", "description": "MiB.", "type": "integer", "minimum": 1, "maximum": 1_048_576},
                    "cpus": {"title": "Processors", "description": "Cores: 0.5 is half of one.", "type": "number", "exclusiveMinimum": 0, "maximum": 1024},
                    "processes": {"title": "Processes", "description": "Processes and threads at once.", "type": "integer", "minimum": 1, "maximum": 1_048_576},
                },
            },
            "restart": {
                "title": "Restart",
                "description": "When the program ends by itself.",
                "type": "object", "additionalProperties": false,
                "properties": {
                    "maxAttempts": {"title": "Attempts", "description": "Restarts in a row before the deployment has failed. A run of a minute resets the count.", "type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 5},
                    "backoffMs": {"title": "First pause", "description": "Milliseconds; each following pause is twice as long.", "type": "integer", "minimum": 0, "maximum": 3_600_000, "default": 200},
                    "maxBackoffMs": {"title": "Longest pause", "description": "Milliseconds.", "type": "integer", "minimum": 0, "maximum": 3_600_000, "default": 10_000},
                },
            },
            "startTimeoutMs": {
                "title": "Start time-out",
                "description": "Milliseconds that a start may take, set-up included, until the default service's port accepts connections.",
                "type": "integer", "minimum": 1000, "maximum": 3_600_000, "default": 300_000,
            },
        },
    });
    for (name, value) in argv.as_object().into_iter().flatten() {
        schema["properties"]["command"][name] = value.clone();
    }
    if let Some((name, field)) = own {
        schema["properties"][name] = field;
    }
    schema
}

/// The workload, and the runtime's own field.
pub(crate) fn read(spec: &str, own: Option<&str>) -> Result<(WorkloadSpec, Option<Value>), Error> {
    let invalid = |error: serde_json::Error| Error::Invalid(format!("The spec can't be read: {error}."));
    let mut spec: Value = serde_json::from_str(spec).map_err(invalid)?;
    let own = match (own, spec.as_object_mut()) {
        (Some(name), Some(fields)) => fields.remove(name),
        _ => None,
    };
    Ok((serde_json::from_value(spec).map_err(invalid)?, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spec that uses every field: the schema's properties and the daemon's fields are the same ones.
    #[test]
    fn the_schema_has_the_daemons_fields() {
        let full = r#"{
            "command": ["node", "server.js"], "setup": [["npm", "ci"]], "env": {"A": "b"}, "cwd": "web",
            "limits": {"memoryMb": 256, "cpus": 0.5, "processes": 64},
            "restart": {"maxAttempts": 1, "backoffMs": 2, "maxBackoffMs": 3}, "startTimeoutMs": 4000
        }"#;
        let (workload, _) = read(full, None).unwrap();
        let written = serde_json::to_value(&workload).unwrap();
        let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let schema = schema(None);
        let mut known = fields(&schema["properties"]);
        known.sort();
        let mut used = fields(&written);
        used.sort();
        assert_eq!(used, known);
        for nested in ["limits", "restart"] {
            assert_eq!(
                fields(&written[nested]),
                fields(&schema["properties"][nested]["properties"]),
                "{nested}"
            );
        }
    }

    #[test]
    fn a_runtimes_own_field_is_taken_out() {
        let (workload, own) =
            read(r#"{"command": ["x"], "machine": {"type": "big"}}"#, Some("machine")).unwrap();
        assert_eq!(workload.command, ["x"]);
        assert_eq!(own, Some(json!({"type": "big"})));
        assert!(read(r#"{"command": ["x"], "machine": {}}"#, None).is_err());
    }
}
