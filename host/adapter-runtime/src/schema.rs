//! An adapter's description of itself, and the check of a deployment's `spec` against it.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use model::RuntimeType;
use serde_json::Value;
use wit_bindings::project_deployment as wit;

use crate::convert::extensions;
use crate::error::LoadCause;
use crate::stdio::cut;
use crate::types::Extensions;

/// The longest schema, in bytes.
const MAX_SCHEMA: usize = 256 * 1024;
/// Violations that are reported of one spec.
const MAX_VIOLATIONS: usize = 32;
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What an adapter says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    /// What deployments name in `runtimeType`.
    pub runtime_type: RuntimeType,
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// JSON Schema (2020-12) of a deployment's `spec`.
    pub spec_schema: Value,
    /// Grants it needs to work: name, what for.
    pub grants: Vec<(String, String)>,
    pub extensions: Extensions,
}

/// One thing that is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec{}: {message}", .path.replace('/', "."))]
pub struct SpecViolation {
    /// JSON Pointer (RFC 6901) into the spec; empty for the whole of it.
    pub path: String,
    /// For a person.
    pub message: String,
}

/// Reads a description and compiles its schema.
pub(crate) fn descriptor(raw: wit::Descriptor) -> Result<(Descriptor, Validator), LoadCause> {
    let bad = |field: &'static str, problem: String| LoadCause::Descriptor { field, problem };
    let runtime_type = raw
        .runtime_type
        .parse()
        .map_err(|error: model::NameError| bad("runtime-type", format!("can't be one: {error}")))?;
    if raw.version.is_empty() || raw.version.len() > 64 {
        return Err(bad("version", "must have 1 to 64 bytes".to_owned()));
    }
    if raw.summary.len() > 512 {
        return Err(bad("summary", format!("has {} bytes: at most 512 are allowed", raw.summary.len())));
    }
    if let Some((name, _)) = raw.grants.iter().find(|(name, _)| name.is_empty()) {
        return Err(bad("grants", format!("has the name {name:?}: a grant's name must not be empty")));
    }
    let extensions = extensions(raw.extensions).map_err(|problem| bad("extensions", problem))?;
    let (spec_schema, validator) = schema(&raw.spec_schema).map_err(|problem| bad("spec-schema", problem))?;
    let descriptor = Descriptor {
        runtime_type,
        version: raw.version,
        summary: raw.summary,
        spec_schema,
        grants: raw.grants,
        extensions,
    };
    Ok((descriptor, validator))
}

fn schema(text: &str) -> Result<(Value, Validator), String> {
    if text.len() > MAX_SCHEMA {
        return Err(format!("has {} bytes: at most {MAX_SCHEMA} are allowed", text.len()));
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    if !schema.is_object() {
        return Err(
            "is not a JSON object: give a JSON Schema (2020-12) such as {\"type\": \"object\"}".to_owned()
        );
    }
    if let Some(dialect) = schema.get("$schema").filter(|dialect| *dialect != DIALECT) {
        return Err(format!("is of the dialect {dialect}: only {DIALECT} is understood"));
    }
    let invalid = |error: ValidationError<'_>| {
        let path = error.instance_path().to_string();
        format!("is not a JSON Schema (2020-12): at {:?}: {}", path, cut(&error.to_string(), 300))
    };
    jsonschema::draft202012::meta::validate(&schema).map_err(invalid)?;
    let validator = jsonschema::options()
        .with_draft(Draft::Draft202012)
        // Linear in the text that it is matched against.
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(&schema)
        .map_err(invalid)?;
    Ok((schema, validator))
}

/// All that is wrong with a spec, each where it is.
pub(crate) fn violations(validator: &Validator, spec: &Value) -> Vec<SpecViolation> {
    let mut found = Vec::new();
    for error in validator.iter_errors(spec) {
        let at = error.instance_path().to_string();
        let field = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        let one = |path: String, message: String| SpecViolation { path, message };
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                found.extend(
                    unexpected.iter().map(|name| one(field(name), "is not a known field".to_owned())),
                );
            }
            ValidationErrorKind::Required { property: Value::String(name) } => {
                found.push(one(field(name), "is missing".to_owned()));
            }
            // The value itself may be a secret.
            _ => found.push(one(at.clone(), cut(&error.masked().to_string(), 300).to_owned())),
        }
        if found.len() >= MAX_VIOLATIONS {
            found.truncate(MAX_VIOLATIONS);
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema_text: &str, spec: &str, expected: &[&str]) {
        let (_, validator) = schema(schema_text).unwrap();
        let spec = serde_json::from_str(spec).unwrap();
        let found: Vec<String> = violations(&validator, &spec).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_violation_names_its_field() {
        let text = r#"{
            "type": "object", "additionalProperties": false, "required": ["command"],
            "properties": {
                "command": {"type": "array"},
                "limits": {"type": "object", "properties": {"memoryMb": {"type": "integer", "minimum": 1}}}
            }
        }"#;
        check(text, r#"{"command": []}"#, &[]);
        check(text, r#"{"command": [], "comand": 1}"#, &["spec.comand: is not a known field"]);
        check(text, "{}", &["spec.command: is missing"]);
        check(
            text,
            r#"{"command": [], "limits": {"memoryMb": 0}}"#,
            &["spec.limits.memoryMb: value is less than the minimum of 1"],
        );
    }

    #[track_caller]
    fn refused(text: &str, because: &str) {
        let problem = schema(text).map(|_| ()).unwrap_err();
        assert!(problem.contains(because), "{problem}");
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        refused("{", "is not JSON");
        refused("true", "is not a JSON object");
        refused(r#"{"type": "objekt"}"#, "is not a JSON Schema (2020-12): at \"/type\"");
        refused(r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#, "dialect");
        refused(r#"{"$ref": "https://example.com/other.json"}"#, "is not a JSON Schema");
        refused(r#"{"pattern": "(?=x)"}"#, "is not a JSON Schema");
    }
}
