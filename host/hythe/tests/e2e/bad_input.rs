//! Bad input: a clear error (what, where, what to do), and nothing is lost.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use test_kit::host::{HostOptions, TestHost, archive, free_addresses};
use test_kit::process::program;

/// Starts a host that must refuse to, and gives what it said.
fn refuses(config: &str, arguments: &[&str]) -> Result<String> {
    let folder = tempfile::Builder::new().prefix("hythe-test-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::write(folder.path().join("host.toml"), config)?;
    let output = Command::new(program("hythe")?)
        .args(["serve", "--config"])
        .arg(folder.path().join("host.toml"))
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(arguments)
        .env_remove("DATABASE_URL")
        .current_dir(folder.path())
        .output()?;
    said(&output)
}

fn said(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it must not start: {text}");
    Ok(text)
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() -> Result<()> {
    says(
        &refuses("[ingress]\nbase_domain = \"localhost\"\n[deployments]\nleese = \"1s\"\n", &[])?,
        &["host.toml", "line 4", "leese", "did you mean `lease`"],
    );
    Ok(())
}

#[test]
fn components_that_are_none_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let adapter = |name: &str, bytes: &[u8]| -> Result<String> {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes)?;
        let [api, ingress] = free_addresses()?;
        refuses(
            &format!(
                "[ingress]\nlisten = [\"{ingress}\"]\n[api]\nlisten = \"{api}\"\n[adapters.mine]\ncomponent = \"{}\"\n",
                file.display()
            ),
            &[],
        )
    };
    says(&adapter("text.wasm", b"hello")?, &["mine", "not WebAssembly"]);
    says(&adapter("module.wasm", b"\0asm\x01\0\0\0")?, &["mine", "core module", "wasm32-wasip2"]);
    let good = std::fs::read(adapters_dir()?.join("process.wasm"))?;
    says(&adapter("cut.wasm", &good[..good.len() / 2])?, &["mine", "truncated"]);
    says(&adapter("other.wasm", &good)?, &["[adapters.mine]", "`process`"]);
    Ok(())
}

fn adapters_dir() -> Result<std::path::PathBuf> {
    let program = program("hythe")?;
    Ok(program.parent().and_then(std::path::Path::parent).context("no folder")?.join("adapters"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_and_a_taken_port() -> Result<()> {
    let mut host = TestHost::start(HostOptions::default()).await?;
    let pid = host.process().pid().to_string();
    let second = Command::new(program("hythe")?)
        .args(["serve", "--data-dir"])
        .arg(host.data_dir())
        .env_remove("DATABASE_URL")
        .output()?;
    says(&said(&second)?, &[&pid, "--data-dir", "stop it"]);
    let [api] = free_addresses()?;
    let taken = format!("[ingress]\nlisten = [\"127.0.0.1:0\"]\n[api]\nlisten = \"{}\"\n", host.api);
    says(&refuses(&taken, &[])?, &[&host.api.to_string()]);
    let taken = format!("[ingress]\nlisten = [\"{}\"]\n[api]\nlisten = \"{api}\"\n", host.ingress);
    says(&refuses(&taken, &[])?, &[&host.ingress.to_string()]);
    host.stop().await
}

#[test]
fn certificates_that_can_not_be_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = rcgen::KeyPair::generate()?;
    let made = |not_after: std::time::SystemTime, key: &rcgen::KeyPair| -> Result<String> {
        let mut params = rcgen::CertificateParams::new(vec!["a.localhost".to_owned()])?;
        params.not_after = not_after.into();
        Ok(params.self_signed(key)?.pem())
    };
    let day = std::time::Duration::from_secs(86_400);
    let (past, future) = (std::time::SystemTime::now() - day, std::time::SystemTime::now() + day);
    let config = |certificate: &str, key: &str| -> Result<String> {
        let (certificate_file, key_file) = (folder.path().join("a.pem"), folder.path().join("a-key.pem"));
        std::fs::write(&certificate_file, certificate)?;
        std::fs::write(&key_file, key)?;
        let [api, ingress] = free_addresses()?;
        refuses(
            &format!(
                "[ingress]\nlisten = [{{ address = \"{ingress}\", tls = true }}]\n[api]\nlisten = \"{api}\"\n\
                 [[tls.certificates]]\ncertificate = \"{}\"\nkey = \"{}\"\n",
                certificate_file.display(),
                key_file.display()
            ),
            &[],
        )
    };
    let pem = key.serialize_pem();
    says(&config(&made(past, &key)?, &pem)?, &["a.pem", "has expired at", "renew it"]);
    let other = rcgen::KeyPair::generate()?;
    says(
        &config(&made(future, &key)?, &other.serialize_pem())?,
        &["a.pem", "does not fit the key", "a-key.pem"],
    );
    says(&config("nothing", &pem)?, &["a.pem", "has no certificate"]);
    says(&config(&made(future, &key)?, "nothing")?, &["a-key.pem", "has no private key"]);
    let [api, ingress] = free_addresses()?;
    let missing = format!(
        "[ingress]\nlisten = [{{ address = \"{ingress}\", tls = true }}]\n[api]\nlisten = \"{api}\"\n\
         [[tls.certificates]]\ncertificate = \"/nowhere/a.pem\"\nkey = \"/nowhere/b.pem\"\n"
    );
    says(&refuses(&missing, &[])?, &["can't read /nowhere/a.pem", "check that it is there"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_newer_than_the_program() -> Result<()> {
    let database = test_kit::database::TestDatabase::create().await;
    database
        .execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', true, '', 0)")
        .await;
    let [api, ingress] = free_addresses()?;
    let config = format!(
        "[database]\nurl = \"{}\"\n[ingress]\nlisten = [\"{ingress}\"]\n[api]\nlisten = \"{api}\"\n",
        database.url()
    );
    says(&refuses(&config, &[])?, &["9999", "newer"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_specs_and_archives() -> Result<()> {
    let host = TestHost::start(HostOptions::default()).await?;
    let project = |slug: &str| host.refused(Method::POST, "/v1/projects", Some(json!({ "slug": slug })));
    for slug in ["Shop", "a--b", "-a", "org", &"a".repeat(51)] {
        let problem = project(slug).await?;
        ensure!(!problem.detail.is_empty(), "{slug}: {problem:?}");
    }
    let deployment = |body: Value| async { host.deploy("shop", body).await.unwrap_err().to_string() };
    let spec = json!({ "command": [7] });
    says(
        &deployment(json!({ "runtimeType": "process", "spec": spec, "services": [] })).await,
        &["/spec/command/0"],
    );
    let spec = json!({ "command": ["true"] });
    says(&deployment(json!({ "runtimeType": "proces", "spec": spec, "services": [] })).await, &["process"]);
    let service = json!([{ "name": "web_1", "port": 1 }]);
    says(
        &deployment(json!({ "runtimeType": "process", "spec": spec, "services": service })).await,
        &["web_1"],
    );
    let service = json!([{ "name": "web", "port": 3000 }]);
    let missing = "0".repeat(64);
    let body =
        json!({ "runtimeType": "process", "spec": spec, "services": service, "sourceSha256": missing });
    says(&deployment(body).await, &[&missing]);
    let deployments: Value = host.call(Method::GET, "/v1/deployments", None).await?;
    ensure!(deployments["items"].as_array().is_some_and(Vec::is_empty), "nothing was written: {deployments}");

    // An archive that leads out of its folder, and one that is cut.
    let good = archive(&[("app".to_owned(), 0o755, b"x".to_vec())])?;
    let put = |bytes: Vec<u8>| {
        let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        let request = reqwest::Client::new()
            .put(format!("http://{}/v1/sources/{digest}", host.api))
            .bearer_auth(host.token())
            .body(bytes);
        async move { anyhow::Ok((request.send().await?.status(), digest)) }
    };
    ensure!(put(good.clone()).await?.0.is_success(), "a good archive");
    let (status, _) = put(good[..good.len() / 2].to_vec()).await?;
    ensure!(status.is_client_error(), "a cut archive: {status}");
    let (status, _) = put(escaping_archive()?).await?;
    ensure!(status.is_client_error(), "an archive that leads out: {status}");
    host.stop().await
}

/// A link out of the tree.
fn escaping_archive() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 0)?);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    tar.append_link(&mut header, "out", "../../../etc/passwd")?;
    Ok(tar.into_inner()?.finish()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() -> Result<()> {
    let mut host = TestHost::start(HostOptions::default()).await?;
    let good = host.token().to_owned();
    for wrong in ["", "nonsense", "hyt_0000"] {
        host.set_token(wrong);
        let (status, text) = host.send(Method::GET, "/v1/projects", None).await?;
        ensure!(status == reqwest::StatusCode::UNAUTHORIZED, "{wrong:?}: {status} {text}");
    }
    host.set_token(&good);
    let (status, _) = host.send(Method::GET, "/v1/projects", None).await?;
    ensure!(status.is_success(), "the admin token: {status}");
    // A registration token works once.
    let registration: Value =
        host.call(Method::POST, "/v1/machine-registrations", Some(json!({ "name": "one" }))).await?;
    let token = registration["token"].as_str().context("no token")?;
    let join = |token: &str, folder: &std::path::Path| {
        Command::new(program("hythe-agent")?)
            .args(["join", "--data-dir"])
            .arg(folder)
            .args(["--host", &format!("http://{}", host.api), "--token", token, "--address", "127.0.0.1"])
            .output()
            .context("hythe-agent")
    };
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    ensure!(join(token, folders[0].path())?.status.success(), "a good token");
    says(&said(&join(token, folders[1].path())?)?, &["token"]);
    says(&said(&join("amt_zz", folders[2].path())?)?, &["token"]);
    host.stop().await
}
