//! `deploy`: a folder becomes a new deployment of its project, and its address leads there when it is
//! healthy.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use api_types::{CreateDeployment, CreateProject, Deployment, Project, WaitState};
use model::{RuntimeType, Slug, WakePolicy};
use serde_json::Value;

use super::{Context, adapters, upload, watch};
use crate::archive::Options;
use crate::args::DeployArgs;
use crate::client::pause;
use crate::failure::{ExitStatus, Failure};
use crate::guess::{Guess, guess};
use crate::manifest::{FILE_NAME, Manifest};
use crate::slug;

/// How often is looked whether a healthy deployment has become the primary one: about 10 s.
const PROMOTION_TRIES: u32 = 10;

pub(super) async fn run(context: &Context, args: DeployArgs) -> Result<(), Failure> {
    let folder = context.folder.join(&args.dir);
    let folder = folder.canonicalize().map_err(|error| {
        Failure::usage(format!("there is no folder {}: {error}", args.dir.display()))
            .hint("name the project's folder: hythe deploy DIR")
    })?;
    let read = Manifest::of_folder(&folder)?;
    let has_file = read.is_some();
    let mut manifest = read.unwrap_or_default();
    let guessed = complete(&mut manifest, &folder)?;
    if let Some(slug) = &args.project {
        manifest.project =
            Some(slug.parse().map_err(|error| Failure::usage(format!("{error}")).at("--project"))?);
    }
    let project = project_name(context, &mut manifest, &folder)?;
    if let Some(name) = &args.runtime {
        manifest.runtime =
            Some(name.parse().map_err(|error| Failure::usage(format!("{error}")).at("--runtime"))?);
    }
    if args.init {
        return init(context, &folder, &manifest, guessed.as_ref(), has_file);
    }
    if let Some(guess) = &guessed {
        tell(context, guess, &manifest);
    }
    let runtime = runtime(context, &manifest).await?;
    let options = Options { with_node_modules: args.with_node_modules };
    let archive = upload::pack(context, &folder, options).await?;
    ensure_project(context, &project).await?;
    upload::upload(context, &archive).await?;
    let request = CreateDeployment {
        runtime_type: runtime,
        spec: Value::Object(manifest.deployment_spec()),
        services: manifest.services()?.into_iter().map(Into::into).collect(),
        source_sha256: Some(archive.sha256.clone()),
        wake_policy: manifest.wake.unwrap_or(WakePolicy::None),
        idle_timeout_seconds: manifest.idle_timeout_seconds,
        promote_when_healthy: !args.no_promote,
        start: true,
    };
    let path = format!("/v1/projects/{project}/deployments");
    let deployment: Deployment = context.client.create(&path, &request).await?;
    context.output.note(&format!("{} of {project}, runtime {}", deployment.id, deployment.runtime_type));
    if args.no_wait {
        return answer(context, &deployment);
    }
    let timeout = Duration::from_secs(args.timeout);
    let healthy = watch::until(context, &deployment, WaitState::Healthy, timeout).await?;
    let settled = if args.no_promote { healthy } else { promoted(context, healthy).await? };
    answer(context, &settled)
}

/// Fills in what the file does not say, where nothing of it says how to run.
fn complete(manifest: &mut Manifest, folder: &Path) -> Result<Option<Guess>, Failure> {
    // A `[spec]` is of a runtime that we know nothing of: it may need no command.
    if manifest.run.command.is_some() || !manifest.spec.is_empty() {
        return Ok(None);
    }
    let guess = guess(folder)?;
    manifest.run.command.clone_from(&guess.run.command);
    if manifest.run.setup.is_empty() {
        manifest.run.setup.clone_from(&guess.run.setup);
    }
    Ok(Some(guess))
}

fn tell(context: &Context, guess: &Guess, manifest: &Manifest) {
    let output = &context.output;
    output.note(&format!("guessed from {} how to run it:", guess.from));
    for reason in &guess.reasons {
        output.note(&format!("  - {reason}"));
    }
    output.note(&format!("to pin it, put this into {FILE_NAME} (`hythe deploy --init` does it):"));
    for line in manifest.to_toml().lines() {
        output.note(format!("  {line}").trim_end());
    }
}

/// Writes what was guessed, without ever touching a file that is there.
fn init(
    context: &Context,
    folder: &Path,
    manifest: &Manifest,
    guess: Option<&Guess>,
    has_file: bool,
) -> Result<(), Failure> {
    let path = folder.join(FILE_NAME);
    let text = manifest_with_services(manifest)?.to_toml();
    if has_file {
        return Err(Failure::usage(format!("there is a {FILE_NAME} already"))
            .at(path.display().to_string())
            .hint(format!("it would say:\n{text}")));
    }
    let from = guess.map_or("what was given", |guess| guess.from.as_str());
    let text = format!("# Made by `hythe deploy --init` from {from}.\n{text}");
    let written = std::fs::File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Failure::other(format!("can't write {FILE_NAME}: {error}")).at(path.display().to_string())
    })?;
    if context.output.is_json() {
        context.output.document(&serde_json::json!({ "written": path }))
    } else {
        context.output.line(&path.display().to_string())
    }
}

fn manifest_with_services(manifest: &Manifest) -> Result<Manifest, Failure> {
    Ok(Manifest { services: manifest.services()?, ..manifest.clone() })
}

fn project_name(context: &Context, manifest: &mut Manifest, folder: &Path) -> Result<Slug, Failure> {
    if let Some(project) = &manifest.project {
        return Ok(project.clone());
    }
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let project = slug::from_folder_name(&name).ok_or_else(|| {
        Failure::usage(format!("no project name can be made of the folder's name {name:?}"))
            .hint(format!("give one by --project, or by `project = \"…\"` in {FILE_NAME}"))
    })?;
    if project.as_str() != name {
        context.output.note(&format!("the project is named {project}: {name:?} can't stand in a host name"));
    }
    manifest.project = Some(project.clone());
    Ok(project)
}

/// The one that is named, else the only or the host's default one, else what the person chooses.
async fn runtime(context: &Context, manifest: &Manifest) -> Result<RuntimeType, Failure> {
    if let Some(runtime) = &manifest.runtime {
        return Ok(runtime.clone());
    }
    let adapters = adapters::all(context).await?;
    let chosen = match adapters.as_slice() {
        [] => {
            return Err(Failure::other("the host has no runtime: no adapter is configured")
                .hint("declare one in the host's configuration"));
        }
        [only] => only,
        several => match several.iter().find(|listed| listed.is_default) {
            Some(default) => default,
            None => ask(context, several)?,
        },
    };
    let name = &chosen.adapter.name;
    name.parse().map_err(|error| Failure::other(format!("the host's runtime has an unusable name: {error}")))
}

fn ask<'a>(context: &Context, adapters: &'a [adapters::Listed]) -> Result<&'a adapters::Listed, Failure> {
    let names: Vec<&str> = adapters.iter().map(|listed| listed.adapter.name.as_str()).collect();
    let unanswered = || {
        Failure::usage("which runtime shall run it?").hint(format!(
            "say --runtime NAME, or `runtime = \"NAME\"` in {FILE_NAME}; there are: {}",
            names.join(", ")
        ))
    };
    if !context.output.can_ask() {
        return Err(unanswered());
    }
    context.output.note("which runtime shall run it?");
    for (index, listed) in adapters.iter().enumerate() {
        context.output.note(&format!("  {}  {}: {}", index + 1, listed.adapter.name, listed.adapter.summary));
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let line = line.trim();
    let by_number = line.parse::<usize>().ok().and_then(|number| adapters.get(number.checked_sub(1)?));
    by_number.or_else(|| adapters.iter().find(|listed| listed.adapter.name == line)).ok_or_else(unanswered)
}

async fn ensure_project(context: &Context, slug: &Slug) -> Result<(), Failure> {
    match context.client.get::<Project>(&format!("/v1/projects/{slug}")).await {
        Ok(_) => return Ok(()),
        Err(failure) if failure.exit == ExitStatus::NotFound => {}
        Err(failure) => return Err(failure),
    }
    let created =
        context.client.create::<Project>("/v1/projects", &CreateProject { slug: slug.clone() }).await;
    match created {
        Ok(_) => {
            context.output.note(&format!("made the project {slug}"));
            Ok(())
        }
        // Somebody else was quicker.
        Err(failure) if failure.code.as_deref() == Some(api_types::code::CONFLICT) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Waits a little until the project's address leads here, so that the printed address is the right one.
async fn promoted(context: &Context, deployment: Deployment) -> Result<Deployment, Failure> {
    let mut deployment = deployment;
    for tries in 1..=PROMOTION_TRIES {
        if deployment.is_primary {
            return Ok(deployment);
        }
        pause(tries).await;
        deployment = context.client.get(&format!("/v1/deployments/{}", deployment.id)).await?;
    }
    if !deployment.is_primary {
        context.output.note(&format!(
            "the project's address does not lead here yet; `hythe status {}` says when",
            deployment.id
        ));
    }
    Ok(deployment)
}

/// On stdout: the addresses, the main one first; as JSON the deployment, with the main one as `url`.
fn answer(context: &Context, deployment: &Deployment) -> Result<(), Failure> {
    let main = deployment.main_url();
    if context.output.is_json() {
        let mut document = serde_json::to_value(deployment)
            .map_err(|error| Failure::other(format!("the deployment can't be shown as JSON: {error}")))?;
        document["url"] = main.map(|url| url.url.clone()).into();
        return context.output.document(&document);
    }
    if let Some(url) = main {
        context.output.line(&url.url)?;
    }
    for url in deployment.urls.iter().filter(|url| Some(*url) != main) {
        context.output.line(&url.url)?;
    }
    Ok(())
}
