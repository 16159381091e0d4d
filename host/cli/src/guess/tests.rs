use super::*;
use crate::manifest::Manifest;

/// What is said of a folder with these files.
#[track_caller]
fn said(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    match guess(folder.path()) {
        Ok(guess) => {
            let manifest = Manifest { run: guess.run, ..Manifest::default() };
            let text = manifest.to_toml();
            assert_eq!(Manifest::parse(&text, "hythe.toml").unwrap(), manifest, "{text}");
            format!("{}\n- {}\n\n{text}", guess.from, guess.reasons.join("\n- "))
        }
        Err(failure) => failure.text().replace(&folder.path().display().to_string(), "DIR"),
    }
}

const VITE: &str = r#"{
  "name": "shop", "private": true, "version": "0.0.0", "type": "module",
  "scripts": { "dev": "vite", "build": "vite build", "lint": "eslint .", "preview": "vite preview" },
  "dependencies": { "react": "^19.1.0" },
  "devDependencies": { "vite": "^7.0.0", "@vitejs/plugin-react": "^4.6.0" }
}"#;

#[test]
fn vites_react_template() {
    insta::assert_snapshot!("vite", said(&[("package.json", VITE), ("index.html", "<div id=root>")]));
    insta::assert_snapshot!(
        "vite_with_lock",
        said(&[("package.json", VITE), ("package-lock.json", "{}"), ("index.html", "")])
    );
}

#[test]
fn node_projects() {
    let express =
        r#"{"scripts": {"start": "node server.js", "dev": "nodemon"}, "dependencies": {"express": "5"}}"#;
    insta::assert_snapshot!("node_start", said(&[("package.json", express), ("pnpm-lock.yaml", "")]));
    let next = r#"{"scripts": {"dev": "next dev", "build": "next build", "start": "next start"}, "dependencies": {"next": "15"}}"#;
    insta::assert_snapshot!("node_next", said(&[("package.json", next), ("yarn.lock", "")]));
    let bare = r#"{"main": "lib/run.js"}"#;
    insta::assert_snapshot!("node_main", said(&[("package.json", bare), ("lib/run.js", "")]));
    let own_server = r#"{"scripts": {"dev": "node server"}, "devDependencies": {"vite": "7"}}"#;
    insta::assert_snapshot!("node_own_server_with_vite", said(&[("package.json", own_server)]));
}

#[test]
fn a_procfile_counts_first() {
    insta::assert_snapshot!(
        "procfile",
        said(&[("Procfile", "worker: node w.js\nweb: node web.js --port $PORT\n"), ("package.json", VITE)])
    );
    insta::assert_snapshot!("procfile_without_web", said(&[("Procfile", "worker: node w.js\n")]));
}

#[test]
fn python_projects() {
    let fastapi = "[project]\nname = 'shop'\ndependencies = ['fastapi>=0.110']\n";
    let main = "from fastapi import FastAPI\n\napp: FastAPI = FastAPI(title='Shop')\n";
    insta::assert_snapshot!("python_fastapi", said(&[("pyproject.toml", fastapi), ("main.py", main)]));
    insta::assert_snapshot!(
        "python_flask",
        said(&[
            ("requirements.txt", "Flask==3.1 # web\n"),
            ("shop/__init__.py", "def create_app(test=None):\n")
        ])
    );
    insta::assert_snapshot!("python_django", said(&[("manage.py", ""), ("requirements.txt", "Django\n")]));
    let script = "[project]\nname = 'shop'\nscripts = { shop = 'shop:main', migrate = 'shop:migrate' }\n";
    insta::assert_snapshot!("python_script", said(&[("pyproject.toml", script)]));
    insta::assert_snapshot!(
        "python_nothing_serves",
        said(&[("pyproject.toml", "[project]\nname = 'lib'\n")])
    );
}

#[test]
fn plain_files() {
    insta::assert_snapshot!("static", said(&[("index.html", "<h1>")]));
    insta::assert_snapshot!("nothing", said(&[("README.md", "")]));
    insta::assert_snapshot!("broken_package", said(&[("package.json", "{\n  \"scripts\": [\n}")]));
}
