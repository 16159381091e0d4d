//! Reads `hythe.toml` key by key, so that each error can name its key, its line and what is nearest.

use std::collections::BTreeMap;
use std::ops::Range;

use model::{MAX_IDLE_SECONDS, MIN_IDLE_SECONDS, NameError, Service, WakePolicy};
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Manifest, Run};
use crate::failure::Failure;

type Node<'a> = Spanned<DeValue<'a>>;

const KEYS: [&str; 13] = [
    "project",
    "runtime",
    "command",
    "setup",
    "env",
    "cwd",
    "services",
    "wake",
    "idle-timeout-seconds",
    "limits",
    "restart",
    "start-timeout-ms",
    "spec",
];
const SERVICE_KEYS: [&str; 3] = ["name", "port", "scheme"];
/// In the file and in the spec.
const LIMITS: [(&str, &str); 3] = [("memory-mb", "memoryMb"), ("cpus", "cpus"), ("processes", "processes")];
const RESTART: [(&str, &str); 3] =
    [("max-attempts", "maxAttempts"), ("backoff-ms", "backoffMs"), ("max-backoff-ms", "maxBackoffMs")];
/// Keys of a spec that the file says outside of `[spec]`.
const OWN_SPEC_KEYS: [(&str, &str); 7] = [
    ("command", "command"),
    ("setup", "setup"),
    ("env", "env"),
    ("cwd", "cwd"),
    ("limits", "limits"),
    ("restart", "restart"),
    ("startTimeoutMs", "start-timeout-ms"),
];

/// See [`Manifest::parse`].
pub(super) fn parse(text: &str, file: &str) -> Result<Manifest, Failure> {
    let document = Document { text, file };
    let root = DeTable::parse(text).map_err(|error| {
        let mut what = format!("{}: {}", super::FILE_NAME, error.message());
        // Of a key that stands twice, the parser says where, but not which.
        if let Some(key) = error.span().and_then(|span| text.get(span)).filter(|_| what.ends_with("key")) {
            what.push_str(&format!(" `{}`", key.trim()));
        }
        let failure = Failure::usage(what);
        match error.span() {
            Some(span) => failure.at(document.place(&span)),
            None => failure.at(file),
        }
    })?;
    let mut manifest = Manifest::default();
    for (key, value) in in_order(root.get_ref()) {
        let name = key.get_ref().as_ref();
        match name {
            "project" => manifest.project = Some(document.name(name, value)?),
            "runtime" => manifest.runtime = Some(document.name(name, value)?),
            "wake" => {
                let text = document.text(name, value)?;
                let wake =
                    WakePolicy::from_user(text).map_err(|error| document.wrong(value, format!("{error}")))?;
                manifest.wake = Some(wake);
            }
            "idle-timeout-seconds" => {
                manifest.idle_timeout_seconds = Some(document.idle_timeout(name, value)?)
            }
            "services" => manifest.services = document.services(value)?,
            "spec" => manifest.spec = document.spec(value)?,
            _ => document.run_key(&mut manifest.run, key, value)?,
        }
    }
    Ok(manifest)
}

struct Document<'a> {
    text: &'a str,
    file: &'a str,
}

impl Document<'_> {
    fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        format!("{}:{}", self.file, before.matches('\n').count() + 1)
    }

    fn wrong(&self, value: &Node, what: String) -> Failure {
        Failure::usage(what).at(self.place(&value.span()))
    }

    fn type_error(&self, key: &str, value: &Node, wanted: &str) -> Failure {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.wrong(value, format!("`{key}` must be {wanted}, not {article} {found}"))
    }

    fn unknown(&self, inside: &str, key: &Spanned<std::borrow::Cow<'_, str>>, known: &[&str]) -> Failure {
        let name = key.get_ref().as_ref();
        let nearest = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
            .min()
            .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 2);
        let all = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let mut hint = match nearest {
            Some((_, nearest)) => format!("did you mean `{nearest}`? Known here are {all}"),
            None => format!("known here are {all}"),
        };
        if inside.is_empty() {
            hint.push_str(". What only one runtime knows goes under [spec]");
        }
        let dot = if inside.is_empty() { "" } else { "." };
        Failure::usage(format!("unknown key `{inside}{dot}{name}` in {}", super::FILE_NAME))
            .at(self.place(&key.span()))
            .hint(hint)
    }

    fn run_key(
        &self,
        run: &mut Run,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Node,
    ) -> Result<(), Failure> {
        let name = key.get_ref().as_ref();
        match name {
            "command" => run.command = Some(self.command(name, value)?),
            "setup" => run.setup = self.setup(value)?,
            "env" => run.env = self.env(value)?,
            "cwd" => run.cwd = Some(self.text(name, value)?.to_owned()),
            "limits" => run.limits = self.numbers(name, value, &LIMITS, &["cpus"])?,
            "restart" => run.restart = self.numbers(name, value, &RESTART, &[])?,
            "start-timeout-ms" => run.start_timeout_ms = Some(self.whole(name, value)?),
            _ => return Err(self.unknown("", key, &KEYS)),
        }
        Ok(())
    }

    fn text<'v>(&self, key: &str, value: &'v Node) -> Result<&'v str, Failure> {
        value.get_ref().as_str().ok_or_else(|| self.type_error(key, value, "a string"))
    }

    fn name<T: std::str::FromStr<Err = NameError>>(&self, key: &str, value: &Node) -> Result<T, Failure> {
        let text = self.text(key, value)?;
        text.parse().map_err(|error: NameError| self.wrong(value, format!("`{key}`: {error}")))
    }

    fn whole(&self, key: &str, value: &Node) -> Result<u64, Failure> {
        let integer =
            value.get_ref().as_integer().ok_or_else(|| self.type_error(key, value, "a whole number"))?;
        u64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| self.wrong(value, format!("`{key}` must be 0 or more, not {integer}")))
    }

    fn idle_timeout(&self, key: &str, value: &Node) -> Result<u32, Failure> {
        let seconds = u32::try_from(self.whole(key, value)?).unwrap_or(u32::MAX);
        if (MIN_IDLE_SECONDS..=MAX_IDLE_SECONDS).contains(&seconds) {
            return Ok(seconds);
        }
        let what =
            format!("`{key}` must be {MIN_IDLE_SECONDS} to {MAX_IDLE_SECONDS}; leave it out for never");
        Err(self.wrong(value, what))
    }

    fn table<'v, 'a>(&self, key: &str, value: &'v Node<'a>) -> Result<&'v DeTable<'a>, Failure> {
        value.get_ref().as_table().ok_or_else(|| self.type_error(key, value, "a table"))
    }

    /// A string for a shell, or an array of the program and its arguments.
    fn command(&self, key: &str, value: &Node) -> Result<Vec<String>, Failure> {
        let words = match value.get_ref() {
            DeValue::String(script) if !script.trim().is_empty() => {
                return Ok(["sh", "-c", script.as_ref()].map(str::to_owned).to_vec());
            }
            DeValue::String(_) => return Err(self.wrong(value, format!("`{key}` is empty"))),
            DeValue::Array(words) => words,
            _ => return Err(self.type_error(key, value, "a string for a shell, or an array of words")),
        };
        let words = words
            .iter()
            .map(|word| {
                let text = word.get_ref().as_str();
                text.map(str::to_owned).ok_or_else(|| self.type_error(key, word, "an array of strings"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if words.first().is_none_or(String::is_empty) {
            return Err(self.wrong(value, format!("`{key}` names no program")));
        }
        Ok(words)
    }

    /// One string, or an array of commands, each a string or an array.
    fn setup(&self, value: &Node) -> Result<Vec<Vec<String>>, Failure> {
        match value.get_ref() {
            DeValue::Array(commands) => {
                commands.iter().map(|command| self.command("setup", command)).collect()
            }
            DeValue::String(_) => Ok(vec![self.command("setup", value)?]),
            _ => Err(self.type_error("setup", value, "an array of commands")),
        }
    }

    fn env(&self, value: &Node) -> Result<BTreeMap<String, String>, Failure> {
        let mut env = BTreeMap::new();
        for (key, value) in self.table("env", value)? {
            let name = key.get_ref().as_ref();
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                _ => return Err(self.type_error(&format!("env.{name}"), value, "a string")),
            };
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(self.wrong(value, format!("{name:?} can't name an environment variable")));
            }
            env.insert(name.to_owned(), text);
        }
        Ok(env)
    }

    fn numbers(
        &self,
        inside: &str,
        value: &Node,
        keys: &[(&str, &str)],
        fractions: &[&str],
    ) -> Result<Map<String, Value>, Failure> {
        let mut numbers = Map::new();
        for (key, value) in self.table(inside, value)? {
            let name = key.get_ref().as_ref();
            let Some((_, in_spec)) = keys.iter().find(|(key, _)| *key == name) else {
                let known: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
                return Err(self.unknown(inside, key, &known));
            };
            let path = format!("{inside}.{name}");
            let number = match value.get_ref() {
                DeValue::Float(float) if fractions.contains(&name) => {
                    self.fraction(&path, value, float.as_str())?
                }
                _ => Number::from(self.whole(&path, value)?),
            };
            numbers.insert((*in_spec).to_owned(), Value::Number(number));
        }
        Ok(numbers)
    }

    fn fraction(&self, key: &str, value: &Node, text: &str) -> Result<Number, Failure> {
        text.parse::<f64>()
            .ok()
            .filter(|number| *number >= 0.0)
            .and_then(Number::from_f64)
            .ok_or_else(|| self.wrong(value, format!("`{key}` must be a number of 0 or more, not {text}")))
    }

    /// `[services.web]` tables, or an array of tables with a `name`.
    fn services(&self, value: &Node) -> Result<Vec<Service>, Failure> {
        let mut services: Vec<Service> = Vec::new();
        let mut add = |service: Service, value: &Node| -> Result<(), Failure> {
            for other in &services {
                if other.name == service.name {
                    return Err(self.wrong(value, format!("there are two services named `{}`", other.name)));
                }
                if other.port == service.port {
                    let what = format!(
                        "the services `{}` and `{}` have the same port {}",
                        other.name, service.name, other.port
                    );
                    return Err(self.wrong(value, what));
                }
            }
            services.push(service);
            Ok(())
        };
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in in_order(table) {
                    let name = key.get_ref().as_ref();
                    let path = format!("services.{name}");
                    let name = name.parse().map_err(|error: NameError| {
                        Failure::usage(format!("`services`: {error}")).at(self.place(&key.span()))
                    })?;
                    add(self.service(&path, value, Some(name))?, value)?;
                }
            }
            DeValue::Array(array) => {
                for (index, value) in array.iter().enumerate() {
                    add(self.service(&format!("services[{index}]"), value, None)?, value)?;
                }
            }
            _ => return Err(self.type_error("services", value, "tables such as [services.web]")),
        }
        Ok(services)
    }

    fn service(
        &self,
        path: &str,
        value: &Node,
        mut name: Option<model::ServiceName>,
    ) -> Result<Service, Failure> {
        let named_by_key = name.is_some();
        let (mut port, mut scheme) = (None, model::Scheme::Http);
        for (key, value) in self.table(path, value)? {
            let full = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "name" if !named_by_key => name = Some(self.name(&full, value)?),
                "port" => {
                    let number = self.whole(&full, value)?;
                    let valid = u16::try_from(number).ok().filter(|port| *port > 0);
                    let what = || self.wrong(value, format!("`{full}` must be 1 to 65535, not {number}"));
                    port = Some(valid.ok_or_else(what)?);
                }
                "scheme" => {
                    let text = self.text(&full, value)?;
                    scheme = text.parse().map_err(|error| self.wrong(value, format!("`{full}`: {error}")))?;
                }
                _ => {
                    let known = if named_by_key { &SERVICE_KEYS[1..] } else { &SERVICE_KEYS[..] };
                    return Err(self.unknown(path, key, known));
                }
            }
        }
        let missing = |key: &str| self.wrong(value, format!("`{path}` has no `{key}`"));
        Ok(Service {
            name: name.ok_or_else(|| missing("name"))?,
            port: port.ok_or_else(|| missing("port"))?,
            scheme,
        })
    }

    fn spec(&self, value: &Node) -> Result<Map<String, Value>, Failure> {
        let mut spec = Map::new();
        for (key, value) in self.table("spec", value)? {
            let name = key.get_ref().as_ref();
            if let Some((_, own)) = OWN_SPEC_KEYS.iter().find(|(in_spec, _)| *in_spec == name) {
                let failure =
                    Failure::usage(format!("`spec.{name}` has a key of its own in {}", super::FILE_NAME));
                return Err(failure
                    .at(self.place(&key.span()))
                    .hint(format!("write `{own}` at the top of the file, not under [spec]")));
            }
            spec.insert(name.to_owned(), self.json(&format!("spec.{name}"), value)?);
        }
        Ok(spec)
    }

    fn json(&self, path: &str, value: &Node) -> Result<Value, Failure> {
        Ok(match value.get_ref() {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Boolean(flag) => Value::from(*flag),
            DeValue::Datetime(time) => Value::from(time.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map(Value::from)
                .map_err(|_| self.wrong(value, format!("`{path}` is too large: {integer}")))?,
            DeValue::Float(float) => float
                .as_str()
                .parse()
                .ok()
                .and_then(Number::from_f64)
                .map(Value::Number)
                .ok_or_else(|| self.wrong(value, format!("`{path}`: JSON has no number {float}")))?,
            DeValue::Array(array) => Value::Array(
                array
                    .iter()
                    .enumerate()
                    .map(|(index, value)| self.json(&format!("{path}[{index}]"), value))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => Value::Object(
                table
                    .iter()
                    .map(|(key, value)| {
                        let key = key.get_ref().as_ref();
                        Ok((key.to_owned(), self.json(&format!("{path}.{key}"), value)?))
                    })
                    .collect::<Result<_, Failure>>()?,
            ),
        })
    }
}

/// Entries as the file has them: the parser's map sorts them by name.
fn in_order<'t, 'a>(table: &'t DeTable<'a>) -> Vec<(&'t Spanned<std::borrow::Cow<'a, str>>, &'t Node<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}
