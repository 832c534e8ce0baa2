"""The main job with the tools that people use, and the refusals that it must show."""

import json
import re
import subprocess

import harness
from harness import GITLAB_TOKEN, HOSTS, ROOT, expect, free_port, refused

# At each host, in more than two pages of the largest size.
REPOSITORIES = 250


def run(checks, bench):
    checks.run("the README's quick start works as printed", quick_start, bench)
    forge, lost = bench.start_forge("--repositories", str(REPOSITORIES)), bench.start_forge()
    dead, signin = free_port(), bench.start_forge("--fault", "html-signin")
    ca_file = bench.folder / "forge-ca.pem"
    tls = bench.start_forge("--tls-ca-out", ca_file)
    folder = bench.fresh("calls")
    key = bench.keys(folder)
    server = bench.serve(
        folder / "data", key, *allow(forge.url), *allow(lost.url), *allow(signin.url),
        *allow(f"http://127.0.0.1:{dead}"), *allow(f"127.0.0.1:{tls.port}"),
    )
    client = bench.client(server.address)
    checks.run("health, overall and of each service", health, server)
    checks.run("reflection lists and describes", reflection, server, client)
    checks.run("the forge prints the tokens that are used here", printed, forge)
    for host in HOSTS.values():
        checks.run(f"{host.provider}: life of a connection by grpcurl", life, server, forge, host)
        checks.run(f"{host.provider}: the same answers by buf curl", buf_curl, server, forge, host)
        checks.run(f"{host.provider}: pages and stream agree", pages_and_stream, client, forge, host)
        checks.run(f"{host.provider}: branches and tags, paged and searched", refs, bench, client, host)
    checks.run("all connections of a tenant in one listing, one of them lost", across, client, forge, lost)

    def nothing_stored(id):
        refused("NOT_FOUND", "CONNECTION_NOT_FOUND", client.get, id)

    def refusal(code, reason, id, *arguments, **named):
        error = refused(code, reason, client.create, id, *arguments, **named)
        if named.get("display_name") is None:
            nothing_stored(id)
        return error.code

    for host in HOSTS.values():
        checks.run(f"{host.provider}: a wrong token", refusal, "INVALID_ARGUMENT", "CREDENTIAL_REJECTED",
                   f"wrong-{host.provider}", host.provider, f"{forge.url}/{host.path}", host.refused)
    gitlab = f"{forge.url}/gitlab"
    checks.run("a dead port", refusal, "UNAVAILABLE", "PROVIDER_UNREACHABLE", "dead", "gitlab",
               f"http://127.0.0.1:{dead}/gitlab", GITLAB_TOKEN)
    checks.run("an HTML sign-in page", refusal, "INVALID_ARGUMENT", "CREDENTIAL_REJECTED", "signin", "azure-devops",
               f"{signin.url}/azure/contoso", HOSTS["azure-devops"].token)
    checks.run("a self-signed certificate", refusal, "FAILED_PRECONDITION", "PROVIDER_TLS_UNTRUSTED", "tls", "gitlab",
               f"https://127.0.0.1:{tls.port}/gitlab", GITLAB_TOKEN)
    checks.run("the same with its CA", lambda: client.create(
        "tls-ca", "gitlab", f"https://127.0.0.1:{tls.port}/gitlab", GITLAB_TOKEN, ca=ca_file.read_text()) and None)
    checks.run("a private address", refusal, "INVALID_ARGUMENT", "ENDPOINT_NOT_ALLOWED", "private", "gitlab",
               "https://10.1.2.3/gitlab", GITLAB_TOKEN)
    checks.run("plain text to another origin", refusal, "INVALID_ARGUMENT", "URL_SCHEME_FORBIDDEN", "plain", "gitlab",
               f"http://127.0.0.1:{free_port()}/gitlab", GITLAB_TOKEN)

    def taken():
        client.create("taken-1", "gitlab", gitlab, GITLAB_TOKEN, display_name="Instance")
        refusal("ALREADY_EXISTS", "CONNECTION_NAME_TAKEN", "taken-2", "gitlab", gitlab, GITLAB_TOKEN,
                display_name=" instance")
        nothing_stored("taken-2")

    checks.run("a taken name", taken)

    def report(base_url, provider, token, step):
        message = bench.connection_service.VerifyConnectionRequest(
            parent="tenants/default", connection=bench.connection.Connection(
                provider=provider, base_url=base_url, credential=HOSTS[provider].credential(token)))
        checks_ = client.call("VerifyConnection", message).report.checks
        name = bench.connection.CheckResult.Check.Name
        failed = [check for check in checks_ if name(check.check) == step and check.reason]
        expect(failed and failed[0].remedy, f"no failed {step} with a remedy in {checks_}")
        return failed[0].reason

    for host in HOSTS.values():
        checks.run(f"{host.provider}: verify names the step of a wrong token", report, f"{forge.url}/{host.path}",
                   host.provider, host.refused, "CHECK_AUTHENTICATION")
    checks.run("verify names the step: a dead port", report, f"http://127.0.0.1:{dead}/gitlab", "gitlab", GITLAB_TOKEN,
               "CHECK_CONNECT")
    checks.run("verify names the step: a certificate", report, f"https://127.0.0.1:{tls.port}/gitlab", "gitlab",
               GITLAB_TOKEN, "CHECK_TLS")
    client.close()
    expect(server.stop() == 0, "a clean end")


def allow(rule):
    return "--egress-allow", rule


def tool(*arguments, ok=True):
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, timeout=60)
    expect((done.returncode == 0) == ok, f"{arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout if ok else done.stdout + done.stderr


def grpcurl(server, method, request, ok=True):
    answer = tool("grpcurl", "-plaintext", "-d", json.dumps(request), server.address, f"gitmoor.v1.{method}", ok=ok)
    return json.loads(answer) if ok and method.split("/")[1] != "StreamRepositories" else answer


def quick_start(bench):
    """Every grpcurl and buf line of the section that needs no account, against `serve --dev` in an empty folder."""
    section = re.search(r"^## Try it without an account$(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
    expect(section, "the README has its section")
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```$", section[1], re.M | re.S))
    commands = [command.strip() for command in re.split(r"\n(?=grpcurl |buf |cargo )", "\n" + lines) if command.strip()]
    served = [command for command in commands if command.startswith("cargo run")]
    asked = [command for command in commands if not command.startswith("cargo run")]
    expect(len(served) == 2 and len(asked) >= 5, f"two processes and some calls: {commands}")
    folder = bench.fresh("quick-start")
    forge_arguments = served[0].split(" -- ", 1)[1].split()
    server_arguments = served[1].split(" -- ", 1)[1].split()
    forge = harness.Process([bench.forge, *forge_arguments], folder / "forge.log")
    bench.processes.append(forge)
    forge.wait_for("Serving until")
    server = harness.Process([bench.server, *server_arguments], folder / "server.log", cwd=folder)
    bench.processes.append(server)
    server.wait_for(harness.READY)
    try:
        for command in asked:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
            expect(done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}")
            expect(done.stdout.strip(), f"{command} answers something")
        return f"{len(asked)} commands"
    finally:
        expect(server.stop() == 0, "a clean end")
        forge.kill()


def health(server):
    for service in ("", "gitmoor.v1.ConnectionService", "gitmoor.v1.RepositoryService"):
        answer = tool("grpcurl", "-plaintext", "-d", json.dumps({"service": service}), server.address,
                      "grpc.health.v1.Health/Check")
        expect(json.loads(answer) == {"status": "SERVING"}, answer)


def reflection(server, client):
    services = tool("grpcurl", "-plaintext", server.address, "list").split()
    expect({"gitmoor.v1.ConnectionService", "gitmoor.v1.RepositoryService", "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"} <= set(services), services)
    # What older tools speak; the same question by hand: a request with an empty `list_services`.
    listing = client.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    answers = list(listing(iter([b"\x3a\0"]), timeout=30))
    expect(answers and b"gitmoor.v1.ConnectionService" in answers[0], answers)
    expect("CreateConnection" in tool("grpcurl", "-plaintext", server.address, "describe",
                                      "gitmoor.v1.ConnectionService"), "the service is described")
    expect("personal_access_token" in tool("grpcurl", "-plaintext", server.address, "describe",
                                           "gitmoor.v1.Credential"), "a message is described")


def printed(forge):
    for host in HOSTS.values():
        expect(re.search(rf"{re.escape(forge.url)}/{host.path}\s", forge.text()), f"no {host.path}")
        expect(f"  {host.token}  " in forge.text(), f"no good token of {host.provider}")
        expect(host.refused not in forge.text(), f"{host.provider} knows the wrong token")


def connection(forge, host, **more):
    return {"provider": host.provider, "base_url": f"{forge.url}/{host.path}", "credential": host.credential()} | more


def life(server, forge, host):
    """What people do with a connection; nothing but provider, URL and credential differs from one host to another."""
    id = f"life-{host.provider}"
    name = f"tenants/default/connections/{id}"
    created = grpcurl(server, "ConnectionService/CreateConnection", {
        "parent": "tenants/default", "connection_id": id, "connection": connection(forge, host, display_name=id)})
    expect(created["name"] == name and "credential" not in created, created)
    expect(created["state"] in ("STATE_ACTIVE", "STATE_DEGRADED"), created)
    expect(host.token not in json.dumps(created), "no token in an answer")
    got = grpcurl(server, "ConnectionService/GetConnection", {"name": name})
    expect(got["etag"] == created["etag"], got)
    listed = grpcurl(server, "ConnectionService/ListConnections", {"parent": "tenants/default"})
    expect(name in [one["name"] for one in listed["connections"]], listed)
    verified = grpcurl(server, "ConnectionService/VerifyConnection", {"name": name})["report"]["checks"]
    expect(len(verified) > 8 and not [check for check in verified if check["outcome"] == "OUTCOME_FAIL"], verified)
    page = grpcurl(server, "RepositoryService/ListRepositories", {"parent": name, "page_size": 3})
    expect(page["repositories"] and page["nextPageToken"], page)
    first = page["repositories"][0]
    expect(grpcurl(server, "RepositoryService/GetRepository", {"name": first["name"]})["providerId"]
           == first["providerId"], first)
    for question in ({"full_name": first["fullName"]}, {"clone_url": first["cloneHttpsUrl"]}):
        found = grpcurl(server, "RepositoryService/LookupRepository", {"parent": name} | question)
        expect(found["providerId"] == first["providerId"], f"{question}: {found}")
    expect(grpcurl(server, "RepositoryService/ListNamespaces", {"parent": name})["namespaces"], "namespaces")
    expect(grpcurl(server, "RepositoryService/ListRefs", {"parent": first["name"], "page_size": 2})["refs"], "branches")
    replaced = grpcurl(server, "ConnectionService/ReplaceCredential", {"name": name, "credential": host.credential()})
    expect(replaced["connection"]["etag"] != created["etag"], replaced)
    updated = grpcurl(server, "ConnectionService/UpdateConnection", {
        "connection": {"name": name, "display_name": f"Renamed {id}"}, "update_mask": {"paths": ["display_name"]}})
    expect(updated["displayName"] == f"Renamed {id}", updated)
    grpcurl(server, "ConnectionService/DeleteConnection", {"name": name})
    gone = grpcurl(server, "ConnectionService/GetConnection", {"name": name}, ok=False)
    expect("CONNECTION_NOT_FOUND" in gone or "NotFound" in gone, gone)


def buf_curl(server, forge, host):
    def buf(method, request):
        return tool("buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", json.dumps(request),
                    f"http://{server.address}/gitmoor.v1.{method}")

    id = f"buf-{host.provider}"
    name = f"tenants/default/connections/{id}"
    buf("ConnectionService/CreateConnection", {
        "parent": "tenants/default", "connection_id": id, "connection": connection(forge, host, display_name=id)})
    by_buf = json.loads(buf("RepositoryService/ListRepositories", {"parent": name, "page_size": 2}))
    by_grpcurl = grpcurl(server, "RepositoryService/ListRepositories", {"parent": name, "page_size": 2})
    expect(by_buf["repositories"] == by_grpcurl["repositories"], "the same page")
    streamed = buf("RepositoryService/StreamRepositories", {"parent": name, "include_archived": True})
    expect(streamed.count('"providerId"') >= REPOSITORIES, "the stream")
    buf("ConnectionService/DeleteConnection", {"name": name})


def pages_and_stream(client, forge, host):
    id = f"pages-{host.provider}"
    client.create(id, host.provider, f"{forge.url}/{host.path}", host.token)
    paged = [row.provider_id for page in pages(lambda token: client.page(id, token=token)) for row in page.repositories]
    streamed = [row.provider_id for batch in client.stream(id) for row in batch.repositories]
    expect(len(set(paged)) == len(paged) >= REPOSITORIES, f"{len(paged)} rows, {len(set(paged))} different")
    expect(sorted(paged) == sorted(streamed), f"{len(paged)} paged, {len(streamed)} streamed")
    return f"{len(paged)} repositories"


def pages(page_of):
    """Each page of a listing, asked for by the token of the page before."""
    token = ""
    while True:
        page = page_of(token)
        yield page
        token = page.next_page_token
        if not token:
            return


def refs(bench, client, host):
    """Of the connection that `pages_and_stream` has left."""
    repository = client.page(f"pages-{host.provider}", 1).repositories[0]
    request = bench.repository_service.ListRefsRequest

    def names(size, **wanted):
        listing = pages(lambda token: client.call("ListRefs", request(
            parent=repository.name, page_size=size, page_token=token, **wanted)))
        return [row for page in listing for row in page.refs]

    found = {}
    for what, kind in (("branches", 1), ("tags", 2)):
        all_ = [row.name for row in names(100, type=kind)]
        expect(len(set(all_)) == len(all_) > 0, f"{what}: {all_}")
        expect(sorted(row.name for row in names(7, type=kind)) == sorted(all_), f"{what}: other rows in small pages")
        part = all_[-1][1:5].upper()
        expected = sorted(name for name in all_ if part.lower() in name.lower())
        expect(sorted(row.name for row in names(7, type=kind, query=part)) == expected, f"{what} with {part}")
        found[what] = len(all_)
    default = [row.name for row in names(100) if row.is_default]
    expect(len(default) == 1, f"default branches: {default}")
    return ", ".join(f"{count} {what}" for what, count in found.items())


def across(client, forge, lost):
    """The connections of a tenant in one listing: one of each host, and one whose host is gone by then."""
    parent = "tenants/across/connections/"
    for host in HOSTS.values():
        client.create(host.provider, host.provider, f"{forge.url}/{host.path}", host.token, tenant="across")
    client.create("lost", "gitlab", f"{lost.url}/gitlab", GITLAB_TOKEN, tenant="across")
    lost.kill()
    paged, streamed = pages(lambda token: client.page("-", token=token, tenant="across")), client.stream("-", "across")
    for how, answers in (("paged", list(paged)), ("streamed", streamed)):
        names = [row.name for answer in answers for row in answer.repositories]
        expect(len(set(names)) == len(names), f"{how}: rows come twice")
        for provider in HOSTS:
            count = sum(name.startswith(f"{parent}{provider}/") for name in names)
            expect(count >= REPOSITORIES, f"{how}: {count} repositories of {provider}")
        unreachable = {name for answer in answers for name in answer.unreachable}
        expect(unreachable == {f"{parent}lost"}, f"{how}: {unreachable}")
        told = {(warning.connection, warning.reason) for answer in answers for warning in answer.warnings}
        expect((f"{parent}lost", "PROVIDER_UNREACHABLE") in told, f"{how}: {told}")
    return f"{len(names)} repositories of {len(HOSTS)} connections"
