use super::*;

#[track_caller]
fn refused(text: &str) -> String {
    Manifest::parse(text, "hythe.toml").unwrap_err().text()
}

#[test]
fn everything_that_can_be_said() {
    let text = r#"
project = "shop"
runtime = "process"
command = ["npm", "start"]
setup = ["npm ci && npm run build", ["node", "migrate.js"]]
cwd = "app"
wake = "on-request"
idle-timeout-seconds = 900
start-timeout-ms = 60_000
limits = { memory-mb = 512, cpus = 0.5, processes = 64 }

[services.web]
port = 3000
[services.api]
port = 0x1000
scheme = "h2c"

[env]
LOG = "debug"
DEPTH = 3
FAST = true

[restart]
max-attempts = 9
backoff-ms = 100

[spec]
image = "shop:1"
volumes = [{ at = "/data", gb = 1.5 }]
"#;
    let manifest = Manifest::parse(text, "hythe.toml").unwrap();
    insta::assert_json_snapshot!(serde_json::json!({
        "project": manifest.project, "runtime": manifest.runtime, "wake": manifest.wake,
        "idleTimeoutSeconds": manifest.idle_timeout_seconds,
        "services": manifest.services, "spec": manifest.deployment_spec(),
    }));
}

#[test]
fn services_keep_the_order_of_the_file() {
    let manifest =
        Manifest::parse("[services.web]\nport = 1\n[services.api]\nport = 2\n", "hythe.toml").unwrap();
    let names: Vec<_> = manifest.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["web", "api"]);
    let array = r#"services = [{ name = "web", port = 1 }, { name = "api", port = 2 }]"#;
    assert_eq!(Manifest::parse(array, "hythe.toml").unwrap(), manifest);
}

#[test]
fn a_string_is_for_a_shell() {
    let manifest = Manifest::parse("command = 'exec serve -p $PORT'\nsetup = 'make'", "hythe.toml").unwrap();
    assert_eq!(manifest.run.command.unwrap(), ["sh", "-c", "exec serve -p $PORT"]);
    assert_eq!(manifest.run.setup, [["sh", "-c", "make"]]);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_right_one() {
    insta::assert_snapshot!(refused("project = \"shop\"\n\ncomand = \"run\"\n"), @r#"
    error: unknown key `comand` in hythe.toml
      where: hythe.toml:3
      hint: did you mean `command`? Known here are `project`, `runtime`, `command`, `setup`, `env`, `cwd`, `services`, `wake`, `idle-timeout-seconds`, `limits`, `restart`, `start-timeout-ms`, `spec`. What only one runtime knows goes under [spec]
    "#);
    insta::assert_snapshot!(refused("[limits]\nmemory_mb = 5\n"), @r#"
    error: unknown key `limits.memory_mb` in hythe.toml
      where: hythe.toml:2
      hint: did you mean `memory-mb`? Known here are `memory-mb`, `cpus`, `processes`
    "#);
    insta::assert_snapshot!(refused("[services.web]\nport = 1\nprotocol = 'http'\n"), @r#"
    error: unknown key `services.web.protocol` in hythe.toml
      where: hythe.toml:3
      hint: known here are `port`, `scheme`
    "#);
}

#[test]
fn wrong_values_are_named_with_their_line() {
    let cases = [
        "project = \"My Shop\"",
        "project = 3",
        "runtime = 'Process'",
        "command = []",
        "command = ''",
        "command = ['a', 2]",
        "setup = 3",
        "env = ['A=1']",
        "env.A = []",
        "wake = 'always'",
        "idle-timeout-seconds = 4",
        "[services.web]",
        "services.web.port = 70000",
        "services.web.port = -1",
        "services = [{ port = 1 }]",
        "services = [{ name = 'a', port = 1 }, { name = 'b', port = 1 }]",
        "services.Web.port = 1",
        "services.web = { port = 1, scheme = 'tcp' }",
        "limits.cpus = -0.5",
        "limits.processes = 1.5",
        "[spec]\ncommand = ['a']",
        "[spec]\nstartTimeoutMs = 4",
        "[spec]\nx = nan",
        "project = \"shop",
        "project = 'a'\nproject = 'b'",
    ];
    let answers: Vec<_> = cases.iter().map(|case| format!("{case}\n{}\n", refused(case))).collect();
    insta::assert_snapshot!(answers.join("\n"));
}

#[test]
fn what_is_written_reads_the_same() {
    let mut manifest = Manifest { project: Some("shop".parse().unwrap()), ..Manifest::default() };
    manifest.services = manifest.services().unwrap();
    manifest.run.command = Some(["sh", "-c", "exec it's \"$PORT\" \\ \t"].map(str::to_owned).to_vec());
    manifest.run.setup = vec![
        vec!["npm".to_owned(), "ci".to_owned()],
        ["sh", "-c", "echo \"$HOME\""].map(str::to_owned).to_vec(),
    ];
    manifest.run.env.insert("A B".to_owned(), "line\nline".to_owned());
    let text = manifest.to_toml();
    assert_eq!(Manifest::parse(&text, "hythe.toml").unwrap(), manifest, "{text}");
}
