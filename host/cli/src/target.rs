//! What a TARGET means: a deployment by its id, or the one that stands for a project.

use std::path::Path;

use api_types::{Deployment, Project};
use model::{DeploymentId, Seen, Slug};

use crate::client::Client;
use crate::failure::{ExitStatus, Failure};
use crate::manifest::{FILE_NAME, Manifest};
use crate::slug;

/// As typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Deployment(DeploymentId),
    Project(Slug),
}

/// Which of a project's deployments is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// The primary one; the newest where there is none.
    Primary,
    /// The newest: what `promote` is about.
    Newest,
}

impl Target {
    /// Reads what was typed, or where nothing was, the folder's `hythe.toml` (its own name where the
    /// file does not name a project, as `hythe deploy` does).
    ///
    /// # Errors
    /// Where it can be neither an id nor a slug.
    pub fn parse(text: Option<&str>, folder: &Path) -> Result<Self, Failure> {
        let Some(text) = text else { return Self::of_folder(folder) };
        if let Some(suffix) = text.strip_prefix("dep-").or_else(|| text.strip_prefix("dep_")) {
            return DeploymentId::from_suffix(suffix).map(Self::Deployment).map_err(|error| {
                Failure::usage(format!("{text:?} is no deployment's id: {error}"))
                    .hint("`hythe ps` lists the deployments")
            });
        }
        text.parse().map(Self::Project).map_err(|error| {
            Failure::usage(format!(
                "{text:?} is neither a deployment's id (dep_…) nor a project's name: {error}"
            ))
            .hint("`hythe ps` lists both")
        })
    }

    fn of_folder(folder: &Path) -> Result<Self, Failure> {
        let named = Manifest::of_folder(folder)?.and_then(|manifest| manifest.project);
        if let Some(project) = named {
            return Ok(Self::Project(project));
        }
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        slug::from_folder_name(&name).map(Self::Project).ok_or_else(|| {
            Failure::usage("which deployment is meant?")
                .at(folder.display().to_string())
                .hint(format!("name a TARGET, or write `project = \"…\"` into {FILE_NAME}"))
        })
    }

    /// Asks the host for the deployment.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn deployment(&self, client: &Client, prefer: Prefer) -> Result<Deployment, Failure> {
        let slug = match self {
            Self::Deployment(id) => return client.get(&format!("/v1/deployments/{id}")).await,
            Self::Project(slug) => slug,
        };
        let project: Project = client.get(&format!("/v1/projects/{slug}")).await.map_err(|failure| {
            if failure.exit == ExitStatus::NotFound {
                failure.hint("`hythe projects` lists the projects, `hythe deploy` makes one")
            } else {
                failure
            }
        })?;
        if prefer == Prefer::Primary
            && let Some(id) = project.primary_deployment_id
        {
            return client.get(&format!("/v1/deployments/{id}")).await;
        }
        let deployments: Vec<Deployment> = client.all(&format!("/v1/projects/{slug}/deployments")).await?;
        newest(deployments).ok_or_else(|| {
            Failure::new(ExitStatus::NotFound, format!("the project {slug} has no deployment"))
                .hint("`hythe deploy` makes one")
        })
    }
}

/// Ids sort by the time they were made at.
fn newest(deployments: Vec<Deployment>) -> Option<Deployment> {
    deployments
        .into_iter()
        .filter(|deployment| deployment.state != Seen::Destroyed)
        .max_by_key(|deployment| deployment.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_id_or_a_name() {
        let here = Path::new(".");
        let id = DeploymentId::new();
        let parse = |text: &str| Target::parse(Some(text), here);
        assert_eq!(parse(&id.to_string()).unwrap(), Target::Deployment(id));
        assert_eq!(parse(&format!("dep-{}", id.suffix())).unwrap(), Target::Deployment(id));
        assert_eq!(parse("shop").unwrap(), Target::Project("shop".parse().unwrap()));
        assert!(parse("dep_1").unwrap_err().text().contains("dep_1"));
        assert!(parse("../x").unwrap_err().text().contains("neither"));
    }

    #[test]
    fn without_one_the_folder_says_it() {
        let folder = tempfile::tempdir().unwrap();
        let shop = folder.path().join("My Shop");
        std::fs::create_dir(&shop).unwrap();
        let target = || Target::parse(None, &shop);
        assert_eq!(target().unwrap(), Target::Project("my-shop".parse().unwrap()));
        std::fs::write(shop.join("hythe.toml"), "project = \"store\"").unwrap();
        assert_eq!(target().unwrap(), Target::Project("store".parse().unwrap()));
        std::fs::write(shop.join("hythe.toml"), "projekt = \"store\"").unwrap();
        assert!(target().unwrap_err().text().contains("did you mean `project`?"));
    }
}
