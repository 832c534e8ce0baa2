//! Git over HTTP: what the clone URLs of the fakes lead to.
//!
//! `git http-backend` serves a repository of one commit, made when it is first asked for. Who may read it is for the API
//! of the same fake to say, so that a token is refused by git where the API refuses it. How a token travels with git is
//! another matter at each provider, and is checked here. Strangers are always asked to sign in, as if every repository
//! were private: who signs in is what this is for.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::wire::{Reply, Seen, decode, encode};
use super::{COLLECTION, ORGANIZATION, Shared, bitbucket_cloud_tokens};

/// What follows a clone URL in the requests of git.
const SERVICES: [&str; 3] = ["/info/refs", "/git-upload-pack", "/git-receive-pack"];

/// The repositories that were asked for so far.
#[derive(Debug, Default)]
pub(super) struct GitServer(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    folder: TempDir,
    /// The folder and the commit of each, by its clone path.
    repositories: HashMap<String, (String, String)>,
}

impl GitServer {
    /// The folder with all repositories, the folder in it of the one at that clone path, and its commit.
    async fn repository(&self, path: &str) -> io::Result<(String, String, String)> {
        let mut made = self.0.lock().await;
        let made = match &mut *made {
            Some(made) => made,
            none => none.insert(Made { folder: tempfile::tempdir()?, repositories: HashMap::new() }),
        };
        let root = made.folder.path().to_owned();
        if !made.repositories.contains_key(path) {
            let name = format!("{}.git", made.repositories.len());
            let commit = make(&root.join(&name), path).await?;
            made.repositories.insert(path.to_owned(), (name, commit));
        }
        let (name, commit) = made.repositories[path].clone();
        Ok((root.display().to_string(), name, commit))
    }

    /// The commit of the repository at that clone path.
    pub(super) async fn commit(&self, path: &str) -> io::Result<String> {
        Ok(self.repository(&decode(path)).await?.2)
    }
}

/// Makes a bare repository of one commit, whose file names the clone path.
async fn make(folder: &Path, path: &str) -> io::Result<String> {
    git(&["init", "--quiet", "--bare", "--initial-branch=main", &folder.display().to_string()], &[], b"")
        .await?;
    let text = format!("the repository at {path}\n");
    let import = format!(
        "commit refs/heads/main\ncommitter Forge <forge@forge.example> 1760000000 +0000\ndata 6\nfirst\n\n\
         M 100644 inline README.md\ndata {}\n{text}\n",
        text.len()
    );
    let within = format!("--git-dir={}", folder.display());
    git(&[&within, "fast-import", "--quiet"], &[], import.as_bytes()).await?;
    let commit = git(&[&within, "rev-parse", "refs/heads/main"], &[], b"").await?;
    Ok(String::from_utf8_lossy(&commit).trim().to_owned())
}

/// Runs git without anybody's configuration.
async fn git(arguments: &[&str], variables: &[(&str, &str)], input: &[u8]) -> io::Result<Vec<u8>> {
    let missing = |error| io::Error::other(format!("git cannot be run; install it: {error}"));
    let mut child = Command::new("git")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing)?;
    let mut stdin = child.stdin.take();
    let fed = async {
        if let Some(stdin) = &mut stdin {
            // A git that has read enough may go away; its answer tells.
            let _ = stdin.write_all(input).await;
        }
        stdin = None;
    };
    let ((), output) = tokio::join!(fed, child.wait_with_output());
    let output = output?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(format!("git failed: {}", String::from_utf8_lossy(&output.stderr))))
}

/// How somebody signs in.
enum SignIn {
    Basic { user: String, password: String },
    Bearer(String),
}

impl SignIn {
    fn of(seen: &Seen) -> Option<Self> {
        let (scheme, value) = seen.header("authorization")?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(value.trim().to_owned()));
        }
        let clear = STANDARD.decode(value.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let clear = String::from_utf8(clear).ok()?;
        let (user, password) = clear.split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

impl Shared {
    /// Answers a request of git; `None` if it is none.
    pub(super) async fn git_answer(&self, seen: &Seen) -> Option<Reply> {
        let (path, service) =
            SERVICES.iter().find_map(|service| Some((seen.path.strip_suffix(service)?, *service)))?;
        let place = Place::of(path)?;
        Some(match self.refusal(&place, seen) {
            Some(refusal) => refusal,
            None => match self.serve(path, service, seen).await {
                Ok(reply) => reply,
                Err(error) => Reply::new(500, "text/plain", error.to_string()),
            },
        })
    }

    /// Why somebody may not read the repository.
    fn refusal(&self, place: &Place, seen: &Seen) -> Option<Reply> {
        let asked: Vec<Seen> = SignIn::of(seen)
            .map(|sign_in| place.questions(&sign_in))
            .unwrap_or_default()
            .into_iter()
            .map(|authorization| place.question(&authorization))
            .collect();
        let replies: Vec<Reply> = asked.iter().map(|question| self.truth(question)).collect();
        if replies.iter().any(|reply| reply.status == 200) {
            return None;
        }
        match replies.into_iter().next() {
            Some(reply) if !matches!(reply.status, 401 | 203 | 302) => Some(reply),
            _ => Some(
                Reply::new(401, "text/plain", "sign in")
                    .header("www-authenticate", format!("Basic realm=\"{}\"", place.provider)),
            ),
        }
    }

    async fn serve(&self, path: &str, service: &str, seen: &Seen) -> io::Result<Reply> {
        let (root, name, _) = self.git.repository(&decode(path)).await?;
        let info = format!("/{name}{service}");
        let header = |name: &str| seen.header(name).unwrap_or_default().to_owned();
        let variables = [
            ("GIT_PROJECT_ROOT", root.as_str()),
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("PATH_INFO", &info),
            ("REQUEST_METHOD", &seen.method),
            ("QUERY_STRING", &seen.query),
            ("CONTENT_TYPE", &header("content-type")),
            ("HTTP_CONTENT_ENCODING", &header("content-encoding")),
            ("GIT_PROTOCOL", &header("git-protocol")),
        ];
        let output = git(&["http-backend"], &variables, &seen.body).await?;
        let malformed = || io::Error::other("git http-backend gave no answer");
        let end = output.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(malformed)?;
        let mut reply = Reply { status: 200, headers: Vec::new(), body: output[end + 4..].to_vec().into() };
        for line in String::from_utf8_lossy(&output[..end]).lines() {
            let (name, value) = line.split_once(": ").ok_or_else(malformed)?;
            if name.eq_ignore_ascii_case("status") {
                reply.status =
                    value.split(' ').next().and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
            } else {
                reply = reply.header(&name.to_ascii_lowercase(), value);
            }
        }
        Ok(reply)
    }
}

/// A repository by its clone path.
struct Place {
    provider: &'static str,
    /// Where the API of the fake shows the repository.
    api: String,
}

impl Place {
    fn of(path: &str) -> Option<Self> {
        let below = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix('/');
        let bare = |rest: &str| rest.strip_suffix(".git").map(str::to_owned);
        let pair = |rest: &str| rest.split_once('/').map(|(first, last)| (first.to_owned(), last.to_owned()));
        let azure = |prefix: String| {
            let (project, name) = below(&prefix)?.split_once("/_git/")?;
            Some(Self {
                provider: "azure-devops",
                api: format!("{prefix}/{project}/_apis/git/repositories/{name}"),
            })
        };
        if let Some(rest) = below("/gitlab") {
            let api = format!("/gitlab/api/v4/projects/{}", encode(&decode(&bare(rest)?)));
            return Some(Self { provider: "gitlab", api });
        }
        if let Some(rest) = below("/github") {
            return Some(Self { provider: "github", api: format!("/github/api/v3/repos/{}", bare(rest)?) });
        }
        if let Some(rest) = below("/gitea") {
            return Some(Self { provider: "gitea", api: format!("/gitea/api/v1/repos/{}", bare(rest)?) });
        }
        if let Some(rest) = below("/bitbucket-cloud") {
            let api = format!("/bitbucket-cloud/2.0/repositories/{}", bare(rest)?);
            return Some(Self { provider: "bitbucket-cloud", api });
        }
        if let Some(rest) = below("/bitbucket/scm") {
            let (key, slug) = pair(&bare(rest)?)?;
            let key = if key.starts_with('~') { key } else { key.to_uppercase() };
            let api = format!("/bitbucket/rest/api/latest/projects/{key}/repos/{slug}");
            return Some(Self { provider: "bitbucket-data-center", api });
        }
        azure(format!("/azure/{ORGANIZATION}")).or_else(|| azure(format!("/azure-server/{COLLECTION}")))
    }

    /// With which headers the API is asked on behalf of somebody who signs in to git so; none if that is no way to.
    fn questions(&self, sign_in: &SignIn) -> Vec<String> {
        let basic =
            |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        match (self.provider, sign_in) {
            // Any user, but somebody.
            ("gitlab" | "github", SignIn::Basic { user, password })
                if !user.is_empty() && !password.is_empty() =>
            {
                vec![format!("Bearer {password}")]
            }
            ("gitea", SignIn::Basic { user, password }) => {
                vec![format!("token {}", if password.is_empty() { user } else { password })]
            }
            ("bitbucket-cloud", SignIn::Basic { user, password }) if user == "x-token-auth" => {
                vec![format!("Bearer {password}")]
            }
            // The address is for the API alone.
            ("bitbucket-cloud", SignIn::Basic { user, password }) if !user.contains('@') => {
                let users = [bitbucket_cloud_tokens::EMAIL, bitbucket_cloud_tokens::SECOND_EMAIL];
                users.map(|email| basic(email, password)).to_vec()
            }
            ("bitbucket-data-center", SignIn::Basic { user, password }) => vec![basic(user, password)],
            ("bitbucket-data-center" | "azure-devops", SignIn::Bearer(token)) => {
                vec![format!("Bearer {token}")]
            }
            ("azure-devops", SignIn::Basic { password, .. }) => vec![basic("", password)],
            _ => Vec::new(),
        }
    }

    fn question(&self, authorization: &str) -> Seen {
        let headers = [
            ("authorization", authorization),
            ("user-agent", "git"),
            ("accept", "application/json"),
            ("x-tfs-fedauthredirect", "Suppress"),
        ];
        Seen {
            method: "GET".to_owned(),
            path: self.api.clone(),
            query: String::new(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: bytes::Bytes::new(),
        }
    }
}
