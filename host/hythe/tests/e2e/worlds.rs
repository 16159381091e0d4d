//! The three runtimes that the same tests pass: two that drive our daemon, and one that does not.

use anyhow::Result;
use api_types::Deployment;
use reqwest::Method;
use serde_json::{Value, json};
use test_kit::host::{HostOptions, TestHost, TestMachine};
use test_kit::process::program;

/// A file of an archive: name, mode, bytes.
pub type File = (String, u32, Vec<u8>);

/// The sample application, its program called `app`.
pub fn application() -> Result<Vec<File>> {
    let mut files = vec![("app".to_owned(), 0o755, std::fs::read(program("harbour")?)?)];
    let public = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/harbour/public");
    for entry in std::fs::read_dir(public)?.flatten() {
        let name = format!("public/{}", entry.file_name().to_string_lossy());
        files.push((name, 0o644, std::fs::read(entry.path())?));
    }
    Ok(files)
}

use crate::things::Things;

/// What runs under the daemon: notes each start, then is a small web application.
const COMMAND: &str = "echo $$ >> starts; exec ./app";

/// A runtime type, and what it needs around it.
pub struct World {
    pub host: TestHost,
    pub runtime: &'static str,
    pub things: Option<Things>,
    pub machines: Vec<TestMachine>,
    source: Option<String>,
}

impl World {
    /// A host for a runtime.
    pub async fn new(runtime: &'static str, mut options: HostOptions) -> Result<Self> {
        let things = match runtime {
            "steps" => {
                // Every fifth answer is lost.
                let things = Things::start(5).await?;
                options.config.push_str(&format!(
                    "[adapters.steps]\ncomponent = \"steps-adapter.wasm\"\n[adapters.steps.grants.service]\naddress = \"http://{}\"\n",
                    things.address
                ));
                Some(things)
            }
            _ => None,
        };
        let host = TestHost::start(options).await?;
        let mut machines = Vec::new();
        let mut source = None;
        if things.is_none() {
            source = Some(host.upload(&application()?).await?);
        }
        if runtime == "machine" {
            machines.push(host.machine("machine-1").await?);
        }
        Ok(Self { host, runtime, things, machines, source })
    }

    /// What to post for one deployment.
    pub fn deployment(&self) -> Value {
        let spec = match self.runtime {
            "steps" => json!({ "greeting": "hello" }),
            _ => json!({ "command": ["sh", "-c", COMMAND] }),
        };
        let mut deployment = json!({
            "runtimeType": self.runtime, "spec": spec, "services": [{ "name": "web", "port": 3000 }],
        });
        if let Some(source) = &self.source {
            deployment["sourceSha256"] = json!(source);
        }
        deployment
    }

    /// Makes a deployment of the project `app`.
    pub async fn deploy(&self) -> Result<Deployment> {
        self.host.deploy("app", self.deployment()).await
    }

    /// How often each incarnation was begun, by what the workload itself noted.
    pub async fn starts(&self, deployment: &Deployment) -> Result<usize> {
        if let Some(things) = &self.things {
            let prefix = format!("{}-", deployment.id);
            let mut begun: Vec<_> =
                things.activations().into_iter().filter(|id| id.starts_with(&prefix)).collect();
            let all = begun.len();
            begun.dedup();
            assert_eq!(all, begun.len(), "an incarnation was activated twice");
            return Ok(all);
        }
        Ok(self.read(deployment, "starts").await?.lines().count())
    }

    /// A file of the workload's folder.
    pub async fn read(&self, deployment: &Deployment, file: &str) -> Result<String> {
        let result = self.exec(deployment, json!({ "argv": ["cat", file] })).await?;
        Ok(result["stdout"].as_str().unwrap_or_default().to_owned())
    }

    /// A command inside.
    pub async fn exec(&self, deployment: &Deployment, request: Value) -> Result<Value> {
        self.host.call(Method::POST, &format!("/v1/deployments/{}/exec", deployment.id), Some(request)).await
    }

    /// Asks the deployment's own host for its page.
    pub async fn get(&self, deployment: &Deployment, path: &str) -> Result<reqwest::Response> {
        let label = format!("dep-{}.localhost", deployment.id.suffix());
        Ok(self.host.browse(Method::GET, &label, path)?.send().await?)
    }
}
