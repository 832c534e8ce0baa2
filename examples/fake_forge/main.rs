//! A forge to try Gitmoor on: fakes of the Git hosts on one port, with tokens of every kind.

#[path = "../../tests/it/support/forge/mod.rs"]
mod forge;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use forge::{
    FAULTS, Fault, Forge, ForgeConfig, SignIn, azure_tokens, bitbucket_cloud_tokens, data_center_tokens,
    gitea_tokens, github_tokens, gitlab_tokens,
};
use tokio::signal::unix::{SignalKind, signal};

/// A fake GitHub (under /github), a fake GitLab (under /gitlab), a fake Azure DevOps (under /azure/contoso, and as a
/// Server under /azure-server/tfs/DefaultCollection), a fake Bitbucket Cloud (under /bitbucket-cloud), a fake Bitbucket
/// Data Center (under /bitbucket) and a fake Gitea or Forgejo (under /gitea). Prints its URLs and tokens, then serves
/// until Ctrl-C or SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "fake_forge", max_term_width = 100)]
struct Arguments {
    /// The address to serve on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,

    /// Repositories that the good token sees, at each of them.
    #[arg(long, value_name = "N", default_value_t = 25)]
    repositories: usize,

    /// Azure DevOps projects over which its repositories are spread; one per 20 repositories if left out.
    #[arg(long, value_name = "N")]
    projects: Option<usize>,

    /// Bitbucket Cloud workspaces over which its repositories are spread.
    #[arg(long, value_name = "N", default_value_t = 3)]
    workspaces: usize,

    /// Waited before each answer.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency_ms: u64,

    /// The version that the fake GitHub Enterprise Server tells.
    #[arg(long, value_name = "VERSION", default_value = "3.14.2")]
    github_version: String,

    /// The version that the fake GitLab tells.
    #[arg(long, value_name = "VERSION", default_value = "18.1.0-ee")]
    gitlab_version: String,

    /// The version that the fake Gitea tells; 11.0.3+gitea-1.22.0 makes it a Forgejo.
    #[arg(long, value_name = "VERSION", default_value = "1.27.0")]
    gitea_version: String,

    /// Serve TLS with a certificate of a CA made now, which is written to this file (PEM).
    #[arg(long, value_name = "FILE")]
    tls_ca_out: Option<PathBuf>,

    /// Let strangers into the Azure DevOps organization, as one with public projects does.
    #[arg(long)]
    azure_public: bool,

    /// Add Azure DevOps projects whose code the tokens may not read.
    #[arg(long)]
    azure_unreadable: bool,

    /// Answer a dead Azure DevOps token with a redirect (302) instead of the sign-in page (203).
    #[arg(long)]
    azure_redirect: bool,

    /// Misbehave; --help lists the names at the end.
    #[arg(long, value_name = "NAME", value_parser = fault)]
    fault: Option<Fault>,

    /// Only requests whose path and query start with this misbehave.
    #[arg(long, value_name = "PREFIX", default_value = "/", requires = "fault")]
    fault_on: String,

    /// Only this many requests misbehave.
    #[arg(long, value_name = "N", requires = "fault")]
    fault_times: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    use clap::{CommandFactory, FromArgMatches};
    let names: Vec<&str> = FAULTS.iter().map(|(name, _)| *name).collect();
    let command = Arguments::command().after_long_help(format!("Faults: {}", names.join(", ")));
    let arguments = match Arguments::from_arg_matches(&command.get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake_forge: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let repositories = arguments.repositories;
    let projects = arguments.projects.unwrap_or(repositories.div_ceil(20)).max(1);
    let mut config = ForgeConfig {
        listen: arguments.listen,
        latency: Duration::from_millis(arguments.latency_ms),
        tls: arguments.tls_ca_out.is_some(),
        ..ForgeConfig::default()
    };
    config.github.repositories = repositories;
    config.github.version = Some(arguments.github_version);
    config.gitlab.repositories = repositories;
    config.gitlab.version = arguments.gitlab_version;
    config.gitea.repositories = repositories;
    config.gitea.version = arguments.gitea_version;
    config.bitbucket_data_center.repositories = repositories;
    config.azure.projects = projects;
    config.azure.repositories_per_project = repositories.div_ceil(projects);
    config.azure.repositories = Some(repositories);
    config.azure.unreadable = arguments.azure_unreadable;
    config.azure.public = arguments.azure_public;
    if arguments.azure_redirect {
        config.azure.sign_in = SignIn::Redirect;
    }
    config.bitbucket_cloud.repositories = repositories;
    config.bitbucket_cloud.workspaces = arguments.workspaces.max(1);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let forge = Forge::start(config).await?;
    if let (Some(path), Some(pem)) = (&arguments.tls_ca_out, forge.ca_pem()) {
        std::fs::write(path, pem)?;
    }
    if let Some(fault) = arguments.fault {
        let times = arguments.fault_times.unwrap_or(usize::MAX);
        forge.fault_on(&arguments.fault_on, fault, times);
    }
    announce(&forge)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Prints what a person needs to connect.
fn announce(forge: &Forge) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "GitHub                {}", forge.github_url())?;
    for (token, what) in github_tokens::ALL {
        writeln!(out, "  {token}  {what}")?;
    }
    writeln!(out, "\nGitLab                {}", forge.gitlab_url())?;
    for (token, what) in gitlab_tokens::ALL {
        writeln!(out, "  {token}  {what}")?;
    }
    writeln!(out, "\nAzure DevOps Services {}", forge.azure_url())?;
    writeln!(out, "Azure DevOps Server   {}", forge.azure_server_url())?;
    for (token, what) in azure_tokens::ALL {
        writeln!(out, "  {token}  {what}")?;
    }
    let address = bitbucket_cloud_tokens::EMAIL;
    writeln!(out, "\nBitbucket Cloud       {} (API tokens go with {address})", forge.bitbucket_cloud_url())?;
    for (token, what) in bitbucket_cloud_tokens::ALL {
        writeln!(out, "  {token}  {what}")?;
    }
    writeln!(out, "\nGitea                 {}", forge.gitea_url())?;
    for (token, what) in gitea_tokens::ALL {
        writeln!(out, "  {token}  {what}")?;
    }
    writeln!(out, "\nBitbucket Data Center {}", forge.bitbucket_data_center_url())?;
    for (token, what) in data_center_tokens::ALL {
        writeln!(out, "  {token}  {what}")?;
    }
    writeln!(out, "\nServing until Ctrl-C.")?;
    out.flush()
}

/// A fault by its name.
fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| "no such fault; --help lists them".to_owned())
}
