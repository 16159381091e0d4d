//! `pyproject.toml`, `requirements.txt`, `manage.py`: what to install, and which server knows the app.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Guess, read};
use crate::failure::Failure;

/// Names under which an application's module is usually found, nearest first.
const MODULES: [&str; 8] = ["main", "app", "server", "api", "asgi", "wsgi", "web", "__init__"];

/// An application object in a module: `shop.main:app`.
struct App {
    module: String,
    object: String,
    framework: &'static str,
}

/// Without a command where no server is found: then only what to install is known.
pub(super) fn guess(folder: &Path) -> Result<Option<Guess>, Failure> {
    let project = read(folder, "pyproject.toml")?;
    let requirements = read(folder, "requirements.txt")?;
    let manage = folder.join("manage.py").is_file();
    let from = match (&project, &requirements) {
        (Some(_), _) => "pyproject.toml",
        (None, Some(_)) => "requirements.txt",
        (None, None) if manage => "manage.py",
        (None, None) => return Ok(None),
    };
    let project = match project {
        Some(text) => text.parse::<Table>().map_err(|error| {
            Failure::usage(format!("pyproject.toml can't be read: {}", error.message()))
                .at(folder.join("pyproject.toml").display().to_string())
        })?,
        None => Table::new(),
    };
    let mut guess = Guess::new(from);
    let needs = Needs::of(&project, requirements.as_deref());
    let mut extra: Vec<&str> = Vec::new();
    serve(folder, &project, &needs, manage, &mut guess, &mut extra);
    install(&project, &needs, requirements.is_some(), &extra, &mut guess);
    Ok(Some(guess))
}

/// What the project depends on.
struct Needs {
    /// As written: `fastapi[standard]>=0.110`.
    requirements: Vec<String>,
    /// The same with `requirements.txt`'s, as bare names.
    names: Vec<String>,
}

impl Needs {
    fn of(project: &Table, file: Option<&str>) -> Self {
        let declared = lookup(project, &["project", "dependencies"]).and_then(Value::as_array);
        let requirements: Vec<String> =
            declared.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let mut names: Vec<String> = requirements.iter().map(|text| bare_name(text)).collect();
        names.extend(file.into_iter().flat_map(str::lines).map(bare_name).filter(|name| !name.is_empty()));
        if let Some(poetry) = lookup(project, &["tool", "poetry", "dependencies"]).and_then(Value::as_table) {
            names.extend(poetry.keys().map(|name| bare_name(name)));
        }
        Self { requirements, names }
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|found| found == name)
    }
}

fn lookup<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

/// `FastAPI[standard]>=0.1` → `fastapi` (PEP 508 and 503).
fn bare_name(requirement: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = requirement.trim().chars().take_while(|c| is_name(*c)).collect();
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

fn serve(
    folder: &Path,
    project: &Table,
    needs: &Needs,
    manage: bool,
    guess: &mut Guess,
    extra: &mut Vec<&'static str>,
) {
    if manage {
        guess.because("manage.py is Django's: its development server runs it");
        if needs.names.is_empty() {
            extra.push("django");
        }
        return guess.exec(".venv/bin/python manage.py runserver --noreload \"127.0.0.1:$PORT\"");
    }
    if let Some(App { module, object, framework }) = app(folder) {
        let has = |server: &str| needs.has(server);
        if framework == "Flask" && has("gunicorn") {
            guess.because(format!(
                "{module} has the Flask application `{object}`; gunicorn is there to run it"
            ));
            let object = object.replace("create_app", "create_app()");
            return guess.exec(&format!(".venv/bin/gunicorn --bind \"127.0.0.1:$PORT\" '{module}:{object}'"));
        }
        if framework == "Flask" {
            guess.because(format!(
                "{module} has the Flask application `{object}`: flask's own server runs it"
            ));
            let flask =
                format!(".venv/bin/flask --app {module}:{object} run --host 127.0.0.1 --port \"$PORT\"");
            return guess.exec(&flask);
        }
        guess.because(format!("{module} has the {framework} application `{object}`: uvicorn runs it"));
        if !has("uvicorn") {
            extra.push("uvicorn");
            guess.because("uvicorn is not among its dependencies, so it is installed as well");
        }
        let uvicorn = format!(".venv/bin/uvicorn {module}:{object} --host 127.0.0.1 --port \"$PORT\"");
        return guess.exec(&uvicorn);
    }
    let scripts = lookup(project, &["project", "scripts"]).and_then(Value::as_table);
    let name = lookup(project, &["project", "name"]).and_then(Value::as_str).unwrap_or_default();
    let names: Vec<&str> = scripts.into_iter().flat_map(Table::keys).map(String::as_str).collect();
    let usual = ["serve", "start", "web", "server", name];
    let chosen = match names.as_slice() {
        [only] => Some(*only),
        several => several.iter().copied().find(|name| usual.contains(name)),
    };
    let is_word = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    match chosen.filter(is_word) {
        Some(script) => {
            guess.because(format!("its script `{script}` is run; it has to listen on $PORT"));
            guess.run.command = Some(vec![format!(".venv/bin/{script}")]);
        }
        None => guess.because(format!(
            "{} names no script that serves, and no FastAPI, Flask or Django application was found",
            guess.from
        )),
    }
}

fn install(project: &Table, needs: &Needs, has_file: bool, extra: &[&str], guess: &mut Guess) {
    guess.set_up(&["python3", "-m", "venv", ".venv"]);
    const PIP: [&str; 4] = [".venv/bin/pip", "install", "--disable-pip-version-check", "--quiet"];
    let mut pip = |arguments: &[&str]| guess.set_up(&[&PIP, arguments].concat());
    let is_package = project.contains_key("build-system")
        || lookup(project, &["project", "scripts"]).is_some()
        || lookup(project, &["tool", "poetry"]).is_some();
    if has_file {
        pip(&["-r", "requirements.txt"]);
    }
    let mut rest: Vec<&str> = extra.to_vec();
    if is_package {
        rest.insert(0, ".");
    } else if !has_file {
        // Not a package: installing the folder itself would ask setuptools to make it one.
        rest.extend(needs.requirements.iter().map(String::as_str));
    }
    if !rest.is_empty() {
        pip(&rest);
    }
    if guess.run.command.is_some() {
        guess.because("its dependencies are installed into .venv (python3 with venv must be on the machine)");
    }
}

/// The first application object in the usual modules, at the top, in `src` and in the packages there.
fn app(folder: &Path) -> Option<App> {
    let mut roots: Vec<(PathBuf, String)> = vec![(folder.to_owned(), String::new())];
    roots.extend(packages(folder));
    for (root, prefix) in roots {
        for module in MODULES {
            let Ok(text) = std::fs::read_to_string(root.join(format!("{module}.py"))) else { continue };
            if let Some((object, framework)) = text.lines().find_map(application) {
                let module = match (prefix.as_str(), module) {
                    ("", module) => module.to_owned(),
                    (package, "__init__") => package.to_owned(),
                    (package, module) => format!("{package}.{module}"),
                };
                return Some(App { module, object, framework });
            }
        }
    }
    None
}

/// Folders with modules, and the name by which Python imports them. `src` is a layout, not a package;
/// its packages are importable when installed.
fn packages(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for parent in [folder.to_owned(), folder.join("src")] {
        let Ok(entries) = std::fs::read_dir(&parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let importable = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && name.starts_with(|c: char| c.is_ascii_alphabetic());
            if importable && name != "src" && name != "tests" && entry.path().is_dir() {
                found.push((entry.path(), name));
            }
        }
    }
    found.sort();
    found
}

/// `app = FastAPI(` at the beginning of a line, or Flask's `def create_app(`.
fn application(line: &str) -> Option<(String, &'static str)> {
    if line.starts_with("def create_app(") {
        return Some(("create_app".to_owned(), "Flask"));
    }
    let (left, right) = line.split_once('=')?;
    let object = left.split(':').next()?.trim_end();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if object.is_empty() || !object.chars().all(is_name) {
        return None;
    }
    let (called, _) = right.split_once('(')?;
    let class = called.trim().rsplit('.').next()?;
    let frameworks = ["FastAPI", "Starlette", "Litestar", "Quart", "Flask"];
    let framework = frameworks.into_iter().find(|framework| *framework == class)?;
    Some((object.to_owned(), framework))
}
