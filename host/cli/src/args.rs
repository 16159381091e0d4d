//! The command line: what can be typed, and nothing about what it does.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

/// Options of every command that talks to a host.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Address of the host's control API.
    #[arg(
        long,
        global = true,
        env = "HYTHE_API",
        default_value = "http://127.0.0.1:8090",
        value_name = "URL"
    )]
    #[arg(help_heading = "Global options")]
    pub api: String,

    /// Token of the control API. Without it: $XDG_CONFIG_HOME/hythe/token, then the token that a
    /// host on this machine wrote into its data directory.
    #[arg(long, global = true, env = "HYTHE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(help_heading = "Global options")]
    pub token: Option<String>,

    /// Answer in JSON: one document, or one a line where answers come over time.
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,

    /// Where the host of this machine keeps its data, when `HYTHE_DATA_DIR` does not say it. For the
    /// program to set: the commands look for `admin-token` in it.
    #[arg(skip)]
    pub data_dir: Option<PathBuf>,
}

/// What a user can ask of a host.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Upload a folder and run it as a new deployment of its project.
    Deploy(DeployArgs),
    /// List deployments.
    Ps(PsArgs),
    /// Show how one deployment is.
    Status(TargetArgs),
    /// Print what a deployment has printed.
    Logs(LogsArgs),
    /// Run a command inside a deployment.
    Exec(ExecArgs),
    /// Start a stopped deployment.
    Start(LifecycleArgs),
    /// Stop a deployment. It keeps its files and can be started again.
    Stop(LifecycleArgs),
    /// Stop a deployment and start it anew.
    Restart(LifecycleArgs),
    /// Destroy a deployment and all that it holds.
    Rm(RmArgs),
    /// Make a deployment its project's primary: where the project's own address leads.
    Promote(TargetArgs),
    /// Open a deployment in the browser.
    Open(OpenArgs),
    /// List, create and remove projects.
    Projects {
        #[command(subcommand)]
        command: Option<ProjectsCommand>,
    },
    /// List, add and remove a project's domains.
    Domains {
        #[command(subcommand)]
        command: Option<DomainsCommand>,
    },
    /// List machines, and let new ones join.
    Machines {
        #[command(subcommand)]
        command: Option<MachinesCommand>,
    },
    /// Show what runtimes there are.
    Adapters {
        #[command(subcommand)]
        command: Option<AdaptersCommand>,
    },
    /// Show what happened.
    Events(EventsArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell that shall read it.
        shell: Shell,
    },
}

/// `deploy`
#[derive(Debug, Clone, Args)]
pub struct DeployArgs {
    /// The project's folder.
    #[arg(default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// The project's name, instead of hythe.toml's or the folder's.
    #[arg(long, value_name = "SLUG")]
    pub project: Option<String>,
    /// The runtime, instead of hythe.toml's or the host's default.
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
    /// Return when the deployment is made, before it runs.
    #[arg(long)]
    pub no_wait: bool,
    /// Leave the project's address where it leads; see `hythe promote`.
    #[arg(long)]
    pub no_promote: bool,
    /// How long to wait until it is healthy, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// Write what was guessed into hythe.toml, and deploy nothing.
    #[arg(long)]
    pub init: bool,
    /// Upload node_modules folders too.
    #[arg(long)]
    pub with_node_modules: bool,
}

/// `ps`
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// Only of this project; all projects without it.
    #[arg(value_name = "PROJECT")]
    pub project: Option<String>,
    /// Destroyed ones too.
    #[arg(long, short)]
    pub all: bool,
}

/// A command about one deployment.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// A deployment (dep_…) or a project's name; without it the project of ./hythe.toml.
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
}

/// `logs`
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Go on with new lines as they come, until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines.
    #[arg(long, short = 'n', default_value_t = 100, value_name = "COUNT")]
    pub lines: u32,
    /// Only lines since then: a time (RFC 3339), or how long ago (30s, 10m, 2h, 1d).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Put the time before each line.
    #[arg(long, short)]
    pub timestamps: bool,
}

/// `exec`
#[derive(Debug, Clone, Args)]
#[command(override_usage = "hythe exec [OPTIONS] [TARGET] -- <COMMAND>...")]
pub struct ExecArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Folder to run in, relative to the source's.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set a variable of its environment. Can be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Seconds after which it is ended by force.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// The program and its arguments. No shell reads them.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `start`, `stop`, `restart`
#[derive(Debug, Clone, Args)]
pub struct LifecycleArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Return when the wish is recorded, before it has come true.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

/// `rm`
#[derive(Debug, Clone, Args)]
pub struct RmArgs {
    /// A deployment (dep_…) or a project's name (then its primary, or newest, deployment).
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Forget it even if its runtime does not answer. What it left there is not cleaned up.
    #[arg(long)]
    pub force: bool,
    /// Return when the wish is recorded, before it has come true.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

/// `open`
#[derive(Debug, Clone, Args)]
pub struct OpenArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Another service than the default one.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// The deployment's own address, not the project's.
    #[arg(long)]
    pub deployment: bool,
}

/// `projects …`
#[derive(Debug, Clone, Subcommand)]
pub enum ProjectsCommand {
    /// List projects.
    Ls,
    /// Make a project.
    Create {
        /// Its name: lower-case letters, digits and single hyphens.
        slug: String,
    },
    /// Show a project and its deployments.
    Show {
        /// Its name; without it the project of ./hythe.toml.
        slug: Option<String>,
    },
    /// Remove a project that has no deployments left.
    Rm {
        /// Its name.
        slug: String,
        /// Destroy its deployments first.
        #[arg(long)]
        force: bool,
    },
}

/// `domains …`
#[derive(Debug, Clone, Subcommand)]
pub enum DomainsCommand {
    /// List a project's domains.
    Ls(DomainProject),
    /// Let a domain lead to a project. Of one that it has, change where it leads.
    Add {
        /// shop.example.com, or '*.shop.example.com' for every name that is one label longer.
        domain: String,
        #[command(flatten)]
        project: DomainProject,
        /// To this deployment (dep_…) for good, not to whichever is primary.
        #[arg(long, value_name = "ID")]
        deployment: Option<String>,
        /// Another service than the default one: its name or a port.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Take a domain from a project: it leads nowhere.
    Rm {
        /// As `domains ls` shows it.
        domain: String,
        #[command(flatten)]
        project: DomainProject,
    },
}

/// Whose domains.
#[derive(Debug, Clone, Args)]
pub struct DomainProject {
    /// The project's name; without it the project of ./hythe.toml.
    #[arg(long, value_name = "SLUG")]
    pub project: Option<String>,
}

/// `machines …`
#[derive(Debug, Clone, Subcommand)]
pub enum MachinesCommand {
    /// List machines.
    Ls,
    /// Show a machine.
    Show {
        /// Its id (mach_…) or name.
        machine: String,
    },
    /// Remove a machine that nothing holds.
    Rm {
        /// Its id (mach_…) or name.
        machine: String,
    },
    /// Make a one-time token with which a machine can join.
    Token {
        /// Name that the machine shall have, instead of its own.
        #[arg(long)]
        name: Option<String>,
        /// A label of the machine. Can be repeated.
        #[arg(long, value_name = "NAME=VALUE")]
        label: Vec<String>,
    },
}

/// `adapters …`
#[derive(Debug, Clone, Subcommand)]
pub enum AdaptersCommand {
    /// List adapters.
    Ls,
    /// Show an adapter, with the schema of its deployments' spec.
    Show {
        /// Its name: what `runtime` says in hythe.toml.
        name: String,
    },
}

/// `events`
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Only of this deployment (dep_…) or project.
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// Go on with new events as they come, until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the newest to begin with; at most 200.
    #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT", conflicts_with = "after")]
    pub lines: u32,
    /// All events after this number instead.
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
}
