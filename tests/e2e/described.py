"""The drivers against an independent peer: Prism, which answers from a provider's own API description and refuses what
the description does not allow. What the description says otherwise than the real server is listed here, each with the
choice that the driver makes; a difference that is not listed fails, and so does one that is listed and gone."""

import json
import re

import harness
from harness import Process, Refused, expect, free_port

DESCRIPTIONS = harness.ROOT / "tests/fixtures/providers"


class Subject:
    """One provider: where its description is, what a connection to it needs, and what to expect."""

    def __init__(self, provider, description, credential, path="", repository="1", full_name="octo/repo", scope=None,
                 mend=None, outcomes=None, differences=None):
        self.provider, self.description, self.credential, self.path = provider, description, credential, path
        self.repository, self.full_name, self.scope = repository, full_name, scope or {}
        # Mends what the description says wrongly, where Prism could not answer like the server otherwise.
        self.mend = mend or (lambda description: None)
        # The outcome of a call that is not OK: examples are no whole server.
        self.outcomes = outcomes or {}
        # What Prism says against a request, and why the driver sends it all the same.
        self.differences = differences or {}


def gitlab(description):
    """Lists are described as one row (recorded: an array), and an id in a path as exactly one of text and number, which
    a number is both (recorded: either is taken). Groups have no example, and the id that Prism invents is none."""
    description["components"]["schemas"]["APIEntitiesGroup"]["properties"]["id"]["example"] = 1
    for path, item in description["paths"].items():
        operation = item.get("get", {})
        for parameter in operation.get("parameters", []):
            if "oneOf" in parameter.get("schema", {}):
                parameter["schema"] = {"type": "string"}
        media = operation.get("responses", {}).get("200", {}).get("content", {}).get("application/json")
        if media and re.search(r"/(projects|groups|branches|tags)$", path):
            media["schema"] = {"type": "array", "items": media["schema"]}


def bitbucket_cloud(description):
    """The paths lack the one of the API. Names and ids are any text (recorded: a UUID in braces), and a page has a link
    to the next one that leads nowhere: each page is the last one here."""
    description["paths"] = {f"/2.0{path}": item for path, item in description["paths"].items()}
    description["servers"] = []
    uuid = "{b090a669-ac7b-44cd-9610-02d027cb39f3}"
    examples = {"uuid": uuid, "slug": "bbworkspace1", "full_name": "bbworkspace1/website"}
    found = [description]
    while found:
        value = found.pop()
        members = value.get("properties", {}) if isinstance(value, dict) else {}
        for name in members.keys() & examples.keys():
            members[name]["example"] = examples[name]
        for page in (members, value):
            if isinstance(page, dict) and "values" in page:
                page.pop("next", None)
        found.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else [])


def gitea(description):
    """Numbers have no example, and those that Prism invents are no ids; a user needs a login, a full name both its parts,
    and a version a number (recorded). Listings tell how many rows there are (recorded), or one row says nothing of
    the size of a page. Prism leaves the base path out."""
    base = description.pop("basePath")
    description["paths"] = {f"{base}{path}": item for path, item in description["paths"].items()}
    definitions = description["definitions"]
    for name in ("User", "UserMeta", "Organization", "Repository"):
        definitions[name]["properties"]["id"]["example"] = 1
    for name in ("User", "UserMeta"):
        definitions[name]["properties"]["login"]["example"] = "octo"
    definitions["Repository"]["properties"]["full_name"]["example"] = "octo/repo"
    definitions["Organization"]["properties"]["name"]["example"] = "octo"
    definitions["ServerVersion"]["properties"]["version"]["example"] = "1.27.0"
    for name in ("RepositoryList", "SearchResults", "OrganizationList", "BranchList", "TagList", "HookList"):
        description["responses"][name].setdefault("headers", {})["X-Total-Count"] = {"type": "integer", "enum": [1]}


SUBJECTS = [
    Subject(
        "gitea", "gitea/openapi/gitea-1.27.0.trimmed.json",
        {"personal_access_token": {"token": "0f0e9e00000000000000000000000000prism001"}},
        mend=gitea,
    ),
    Subject(
        "gitlab", "gitlab/openapi/gitlab.trimmed.json",
        {"personal_access_token": {"token": "glpat-describedPrism00001"}},
        full_name="namespace1/project1", mend=gitlab,
    ),
    Subject(
        "bitbucket-cloud", "bitbucket-cloud/openapi/bitbucket-cloud.trimmed.json",
        {"email_api_token": {"email": "casey@forge.example", "token": "ATATT3describedPrism00001"}},
        repository="%7Bb090a669-ac7b-44cd-9610-02d027cb39f3%7D", full_name="bbworkspace1/website",
        mend=bitbucket_cloud,
    ),
]


def run(checks, bench):
    for subject in SUBJECTS:
        checks.run(f"{subject.provider}: every request is one that its description allows", described, bench, subject)


def described(bench, subject):
    port = free_port()
    description = json.loads((DESCRIPTIONS / subject.description).read_text())
    subject.mend(description)
    mended = bench.folder / f"{subject.provider}.json"
    mended.write_text(json.dumps(description))
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
    prism.kill()
    expected = {name: subject.outcomes.get(name, "OK") for name in outcomes}
    expect(outcomes == expected, f"{outcomes} is not {expected}")
    requests = answered(prism.text())
    expect(len(requests) >= 5, f"only {len(requests)} requests arrived")
    unlisted = {
        (request, problem) for request, problems in requests for problem in problems
        if not any(listed in problem for listed in subject.differences)
    }
    expect(not unlisted, f"the description does not allow: {sorted(unlisted)}")
    gone = [listed for listed in subject.differences if not any(listed in " ".join(found) for _, found in requests)]
    expect(not gone, f"listed and not seen: {gone}")
    return f"{len(requests)} requests"


def calls(bench, client, subject, base_url):
    """Makes every call that asks the provider; answers what became of each."""
    connection = bench.connection.Connection(
        display_name="described", provider=subject.provider, base_url=base_url, scope=subject.scope, disabled=True,
        credential=subject.credential,
    )
    # Stored asleep and then woken: examples of a description are no account that could be verified.
    made = client.call("CreateConnection", bench.connection_service.CreateConnectionRequest(
        parent="tenants/default", connection=connection))
    client.call("UpdateConnection", bench.connection_service.UpdateConnectionRequest(
        connection=bench.connection.Connection(name=made.name, disabled=False), update_mask={"paths": ["disabled"]}))
    service, repository = bench.repository_service, f"{made.name}/repositories/{subject.repository}"
    requests = [
        ("VerifyConnection", bench.connection_service.VerifyConnectionRequest(name=made.name)),
        ("ListNamespaces", service.ListNamespacesRequest(parent=made.name)),
        ("ListRepositories", service.ListRepositoriesRequest(parent=made.name, query="a", min_permission=1)),
        ("StreamRepositories", service.StreamRepositoriesRequest(parent=made.name)),
        ("GetRepository", service.GetRepositoryRequest(name=repository)),
        ("LookupRepository", service.LookupRepositoryRequest(parent=made.name, full_name=subject.full_name)),
        ("ListRefs", service.ListRefsRequest(parent=repository)),
        ("ListRefs: tags", service.ListRefsRequest(parent=repository, type=2)),
        ("ListRefs: query", service.ListRefsRequest(parent=repository, query="main")),
    ]
    return {name: outcome(client, name.split(":")[0], request) for name, request in requests}


def outcome(client, method, request):
    """`OK`, or the reason of the refusal."""
    try:
        client.call(method, request)
        return "OK"
    except Refused as error:
        reasons = re.findall(rb"[A-Z]{3,}(?:_[A-Z]+)+", error.details)
        expect(reasons and error.code != "INTERNAL", f"{method}: {error}")
        return reasons[0].decode()


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
        elif requests and "NO_PATH_MATCHED" in line or "NO_METHOD_MATCHED" in line:
            requests[-1][1].append(line.split("#", 1)[1].strip())
    return requests
