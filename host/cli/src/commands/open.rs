//! `open`: the deployment's address, in a browser where there is one.

use api_types::{Deployment, HostKind, ServiceUrl};

use super::Context;
use crate::args::OpenArgs;
use crate::failure::{ExitStatus, Failure};
use crate::target::Prefer;

pub(super) async fn run(context: &Context, args: OpenArgs) -> Result<(), Failure> {
    let deployment = context.deployment(&args.target, Prefer::Primary).await?;
    let url = choose(&deployment, &args)?.url.clone();
    if context.output.is_json() {
        return context.output.document(&serde_json::json!({ "deployment": deployment.id, "url": url }));
    }
    context.output.line(&url)?;
    if has_display() && open::that_detached(&url).is_err() {
        context.output.note("no browser could be started: open the address yourself");
    }
    Ok(())
}

fn choose<'d>(deployment: &'d Deployment, args: &OpenArgs) -> Result<&'d ServiceUrl, Failure> {
    let none = |what: String| Failure::new(ExitStatus::NotFound, what);
    let Some(service) = &args.service else {
        let own = || deployment.urls.iter().find(|url| url.is_default && url.kind == HostKind::Deployment);
        let found = if args.deployment { own() } else { deployment.main_url() };
        return found.ok_or_else(|| none(format!("{} has no address: it has no services", deployment.id)));
    };
    let known: Vec<&str> = deployment.services.iter().map(|service| service.name.as_str()).collect();
    let is_primary = deployment.is_primary && !args.deployment;
    let kind = if is_primary { HostKind::Project } else { HostKind::Deployment };
    // The default service may be reachable without its name only.
    let is_default = known.first() == Some(&service.as_str());
    let named = |url: &&ServiceUrl| {
        url.kind == kind
            && (url.service.as_ref().is_some_and(|name| name.as_str() == service)
                || (is_default && url.is_default))
    };
    deployment.urls.iter().find(named).ok_or_else(|| {
        none(format!("{} has no service named {service:?}", deployment.id))
            .hint(format!("it has: {}", known.join(", ")))
    })
}

/// Whether a browser could show up here.
fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("SSH_CONNECTION") && !set("DISPLAY") && !set("WAYLAND_DISPLAY") {
        return false;
    }
    !cfg!(target_os = "linux") || set("DISPLAY") || set("WAYLAND_DISPLAY") || set("WSL_DISTRO_NAME")
}
