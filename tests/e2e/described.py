"""The drivers against an independent peer: Prism, which answers from a provider's own API description and refuses what
the description does not allow. What a description says otherwise than the real server is mended in the function of its
provider, which tells what was recorded; the driver keeps to the recording. Any other difference fails."""

import contextlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request

import harness
from harness import Process, Refused, expect, free_port

FIXTURES = harness.ROOT / "tests/fixtures/providers"


class Subject:
    """One provider: what describes it, what a connection to it needs, and what to expect."""

    def __init__(self, provider, descriptions, credential, path="", repository="1", full_name="octo/repo",
                 examples=None, mend=None, outcomes=None):
        self.provider, self.descriptions, self.credential, self.path = provider, descriptions, credential, path
        self.repository, self.full_name = repository, full_name
        # What members of these names hold in each answer, `None` for those that are left out: what Prism invents for
        # want of an example is no id and no name, and some examples are of a server or a token that is too old.
        self.examples = examples or {}
        # Mends what the description says wrongly, where Prism could not answer like the server otherwise.
        self.mend = mend or (lambda description: None)
        # The outcome of a call that is not OK: examples are no whole server.
        self.outcomes = outcomes or {}


def azure_devops(description):
    """Lists are described as arrays (recorded: an object with `count` and `value`). Repositories are described below a
    project alone, and connectionData not at all (both answer: the provider's own clients ask them). Some calls are
    described for OAuth alone (Basic carries a personal access token, says the description of Basic)."""
    paths, definitions = description["paths"], description["definitions"]
    definitions["GitRef"]["properties"]["name"]["example"] = "refs/heads/main"
    for path in ("", "/{repositoryId}"):
        below = paths["/{organization}/{project}/_apis/git/repositories" + path]["get"]
        above = dict(below, parameters=[row for row in below["parameters"] if row.get("name") != "project"])
        paths["/{organization}/_apis/git/repositories" + path] = {"get": above}
    for operation in [item["get"] for item in paths.values() if "get" in item]:
        operation.pop("security", None)
        answer = operation["responses"]["200"]
        if answer.get("schema", {}).get("type") == "array":
            answer["schema"] = {"type": "object", "required": ["count", "value"], "properties": {
                "count": {"type": "integer", "example": 1}, "value": answer["schema"]}}
    user = {"id": GUID, "providerDisplayName": "Octo", "subjectDescriptor": "aad.octo"}
    paths["/{organization}/_apis/connectionData"] = {"get": {
        "parameters": [{"name": "organization", "in": "path", "required": True, "type": "string"}],
        "produces": ["application/json"],
        "responses": {"200": {"description": "Whose token it is", "schema": {"type": "object", "example": {
            "authenticatedUser": user, "authorizedUser": user, "instanceId": GUID, "deploymentType": "hosted"}}}},
    }}


def bitbucket_cloud(description):
    """The headers that tell the kind and the scopes of a credential are not described (recorded: in each answer). The
    examples of listings have more pages, each of which would be the first one again."""
    for item in description["paths"].values():
        answer = item.get("get", {}).get("responses", {}).get("200", {})
        for example in answer.get("content", {}).get("application/json", {}).get("examples", {}).values():
            example["value"].pop("next", None)
    told = {"X-Credential-Type": "api_token", "X-OAuth-Scopes": "read:repository:bitbucket, read:user:bitbucket"}
    with_headers(description, told)


def bitbucket_data_center(description):
    """The headers that name the caller are not described (recorded: in each answer to an accepted token)."""
    with_headers(description, {"X-AUSERNAME": "octo", "X-AUSERID": "1", "X-AREQUESTID": "@1X1x1x1x0"})


def gitea(description):
    """Listings tell how many rows there are (recorded), or one row says nothing of the size of a page."""
    for name in ("RepositoryList", "SearchResults", "OrganizationList", "BranchList", "TagList", "HookList"):
        description["responses"][name].setdefault("headers", {})["X-Total-Count"] = {"type": "integer", "enum": [1]}


def github(description):
    """Repositories are described by owner and name alone (recorded: links and redirects name them by id), and the
    headers of the version and the scopes not at all (recorded: in each answer to a classic token). The links of the
    examples lead to no listing. Answers are described as application/json alone (documented: the type to ask for is
    GitHub's own)."""
    paths = description["paths"]
    by_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    for path, item in list(paths.items()):
        place = path.removeprefix("/repos/{owner}/{repo}")
        if place != path and "get" in item:
            _owner, _repo, *others = item["get"]["parameters"]
            paths["/repositories/{id}" + place] = {"get": dict(item["get"], parameters=[by_id, *others])}
    for item in paths.values():
        answer = item.get("get", {}).get("responses", {}).get("200", {})
        answer.get("headers", {}).pop("Link", None)
        if "content" in answer:
            answer["content"]["application/vnd.github+json"] = answer["content"]["application/json"]
    told = {"X-GitHub-Enterprise-Version": "3.19.1", "X-OAuth-Scopes": "admin:repo_hook, read:org, repo"}
    with_headers(description, told)


def gitlab(description):
    """Lists are described as one row (recorded: an array), and an id in a path as exactly one of text and number, which
    a number is both (recorded: either is taken)."""
    for path, item in description["paths"].items():
        operation = item.get("get", {})
        for parameter in operation.get("parameters", []):
            if "oneOf" in parameter.get("schema", {}):
                parameter["schema"] = {"type": "string"}
        media = operation.get("responses", {}).get("200", {}).get("content", {}).get("application/json")
        if media and re.search(r"/(projects|groups|branches|tags)$", path):
            media["schema"] = {"type": "array", "items": media["schema"]}


# Where the rows of an answer are that must have some.
ROWS = {"ListNamespaces": "namespaces", "ListRepositories": "repositories", "StreamRepositories": "repositories",
        "ListRefs": "refs", "ListRefs: tags": "refs"}

UUID = "{b090a669-ac7b-44cd-9610-02d027cb39f3}"
GUID = "2f3d611a-f012-4b39-b157-8db63f380226"

SUBJECTS = [
    Subject(
        "azure-devops",
        [f"azure-devops/openapi/{area}-services-7.1.trimmed.json" for area in ("core", "git", "hooks", "security")],
        {"personal_access_token": {"token": "describedprism00000000000000000000000000000000000001"}},
        path="/octo", repository=GUID, examples={"id": GUID, "name": "octo", "isDisabled": False}, mend=azure_devops,
        # One example stands for branches and tags.
        outcomes={"ListRefs: tags": "no row"},
    ),
    Subject(
        "bitbucket-cloud", ["bitbucket-cloud/openapi/bitbucket-cloud.trimmed.json"],
        {"email_api_token": {"email": "casey@forge.example", "token": "ATATT3xFfGF0describedPrism00001=0A1B2C3D"}},
        repository=UUID, full_name="bbworkspace1/repo",
        examples={"uuid": UUID, "full_name": "bbworkspace1/repo", "next": None}, mend=bitbucket_cloud,
    ),
    Subject(
        "bitbucket-data-center", ["bitbucket-data-center/openapi/bitbucket-dc-9.4.trimmed.json"],
        {"personal_access_token": {"token": "BBDC-MjUyOTczNTE1MDAxOmRlc2NyaWJlZFByaXNtMDAw"}}, full_name="PRJ/my-repo",
        examples={"id": 1, "version": "9.4.0", "nextPageStart": None}, mend=bitbucket_data_center,
    ),
    Subject(
        "gitea", ["gitea/openapi/gitea-1.27.0.trimmed.json"],
        {"personal_access_token": {"token": "0f0e9e00000000000000000000000000prism001"}},
        examples={"id": 1, "login": "octo", "full_name": "octo/repo", "name": "octo", "version": "1.27.0",
                  "scopes": ["read:user", "write:repository", "read:organization"]},
        mend=gitea,
    ),
    Subject(
        "github", ["github/openapi/ghes-3.19.trimmed.json"],
        {"personal_access_token": {"token": "ghp_describedPrism0000000000000000000001"}}, repository="1296269",
        full_name="octocat/Hello-World", mend=github,
    ),
    Subject(
        "gitlab", ["gitlab/openapi/gitlab.trimmed.json"],
        {"personal_access_token": {"token": "glpat-describedPrism00001"}}, full_name="namespace1/project1",
        examples={"id": 1, "version": "18.1.0", "revoked": False, "expires_at": "2999-12-31"}, mend=gitlab,
    ),
]


def with_headers(description, headers):
    """Adds headers to every good answer."""
    for item in description["paths"].values():
        for operation in item.values():
            answer = operation.get("responses", {}).get("200") if isinstance(operation, dict) else None
            if answer:
                answer.setdefault("headers", {}).update(
                    {name: {"schema": {"type": "string", "enum": [value]}} for name, value in headers.items()})


def with_examples(part, examples):
    """Gives the members of those names their examples, wherever they are and of that type."""
    kinds = {bool: "boolean", int: "integer", list: "array", str: "string"}
    if isinstance(part, list):
        for inner in part:
            with_examples(inner, examples)
    elif isinstance(part, dict):
        members = part.get("properties", {})
        for name, example in examples.items():
            if example is None:
                members.pop(name, None)
            elif name in members and members[name].get("type") == kinds[type(example)]:
                members[name]["example"] = example
        for inner in part.values():
            with_examples(inner, examples)


def one_description(subject):
    """The descriptions of a subject as one, mended, with paths from the root: Prism leaves out what they are below."""
    whole, *others = (json.loads((FIXTURES / name).read_text()) for name in subject.descriptions)
    for other in others:
        for part in ("paths", "definitions"):
            whole[part] = other[part] | whole[part]
    server = next(iter(whole.pop("servers", [])), {}).get("url", "")
    root = whole.pop("basePath", "") or re.sub(r"^[^/]*//[^/]*", "", server)
    with_examples(whole, subject.examples)
    subject.mend(whole)
    whole["paths"] = {root.rstrip("/") + path: item for path, item in whole["paths"].items()}
    return whole


def run(checks, bench):
    for subject in SUBJECTS:
        checks.run(f"{subject.provider}: every request is one that its description allows", described, bench, subject)


def described(bench, subject):
    port = free_port()
    mended = bench.folder / f"{subject.provider}.json"
    mended.write_text(json.dumps(one_description(subject)))
    prism = Process(
        [bench.prism, "mock", "--host", "127.0.0.1", "--port", port, mended],
        bench.folder / f"prism-{subject.provider}.log",
    )
    bench.processes.append(prism)
    prism.wait_for("Prism is listening", 120)
    origin = f"http://127.0.0.1:{port}"
    folder = bench.fresh(f"described-{subject.provider}")
    server = bench.serve(folder / "data", bench.keys(folder), "--egress-allow", origin)
    client = bench.client(server.address)
    outcomes = calls(bench, client, subject, origin + subject.path)
    client.close()
    server.stop()
    # The last request is one that must be refused, so that silence is known to mean that all was in order.
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(f"{origin}/not-described", timeout=10)
    prism.wait_for("NO_PATH_MATCHED", 10)
    prism.kill()
    expected = {name: subject.outcomes.get(name, "OK") for name in outcomes}
    expect(outcomes == expected, f"{outcomes} is not {expected}")
    *requests, (_, last) = answered(prism.text())
    expect(last, "a refusal is not seen")
    expect(len(requests) >= 5, f"only {len(requests)} requests arrived")
    refused = sorted({(request, problem) for request, problems in requests for problem in problems})
    expect(not refused, f"the description does not allow: {refused}")
    return f"{len(requests)} requests"


def calls(bench, client, subject, base_url):
    """Makes every call that asks the provider; answers what became of each."""
    connection = bench.connection.Connection(
        display_name="described", provider=subject.provider, base_url=base_url, credential=subject.credential,
    )
    made = client.call("CreateConnection", bench.connection_service.CreateConnectionRequest(
        parent="tenants/default", connection=connection))
    service = bench.repository_service
    repository = f"{made.name}/repositories/{urllib.parse.quote(subject.repository, safe='')}"
    requests = [
        ("VerifyConnection", bench.connection_service.VerifyConnectionRequest(name=made.name)),
        ("ListNamespaces", service.ListNamespacesRequest(parent=made.name)),
        ("ListRepositories", service.ListRepositoriesRequest(parent=made.name, include_archived=True)),
        ("ListRepositories: filters", service.ListRepositoriesRequest(parent=made.name, query="a", min_permission=1)),
        ("StreamRepositories", service.StreamRepositoriesRequest(parent=made.name, include_archived=True)),
        ("GetRepository", service.GetRepositoryRequest(name=repository)),
        ("LookupRepository", service.LookupRepositoryRequest(parent=made.name, full_name=subject.full_name)),
        ("ListRefs", service.ListRefsRequest(parent=repository)),
        ("ListRefs: tags", service.ListRefsRequest(parent=repository, type=2)),
        ("ListRefs: filters", service.ListRefsRequest(parent=repository, query="main")),
    ]
    return {name: outcome(bench, client, name, request) for name, request in requests}


def outcome(bench, client, name, request):
    """`OK`, or the reason of the refusal or of the checks that failed, or that there is no row."""
    method = name.split(":")[0]
    try:
        answer = client.call(method, request)
    except Refused as error:
        reasons = re.findall(rb"[A-Z]{3,}(?:_[A-Z]+)+", error.details)
        expect(reasons and error.code != "INTERNAL", f"{method}: {error}")
        return reasons[0].decode()
    if method == "VerifyConnection":
        failed = [check.reason for check in answer.report.checks if check.outcome == bench.connection.OUTCOME_FAIL]
        return ", ".join(failed) or "OK"
    if name not in ROWS:
        return "OK"
    pages = answer if isinstance(answer, list) else [answer]
    return "OK" if any(getattr(page, ROWS[name]) for page in pages) else "no row"


def answered(log):
    """Each request that Prism tells of in its log, with what it had to say against it."""
    requests = []
    for line in log.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if begun := re.search(r"\[HTTP SERVER\] (\w+ \S+) .*Request received", line):
            requests.append((begun[1], []))
        elif requests and (problem := re.search(r"\[VALIDATOR\] .*?error\s+(.*)", line)):
            # What it has against its own examples does not matter.
            if "Violation: response" not in problem[1]:
                requests[-1][1].append(problem[1].strip())
        elif requests and (problem := re.search(r"Request terminated with error: \S*#(.*)", line)):
            requests[-1][1].append(problem[1].strip())
    return requests
