"""The main job with the tools that people use, and the refusals that it must show."""

import json
import re
import subprocess

import harness
from harness import (AZURE_TOKEN, GITLAB_TOKEN, ROOT, WRONG_AZURE_TOKEN, WRONG_GITLAB_TOKEN, expect, free_port, refused)


def run(checks, bench):
    checks.run("the README's quick start works as printed", quick_start, bench)
    forge = bench.start_forge("--repositories", "250")
    dead, signin = free_port(), bench.start_forge("--fault", "html-signin")
    ca_file = bench.folder / "forge-ca.pem"
    tls = bench.start_forge("--tls-ca-out", ca_file)
    folder = bench.fresh("calls")
    key = bench.keys(folder)
    server = bench.serve(
        folder / "data", key, *allow(forge.url), *allow(signin.url), *allow(f"http://127.0.0.1:{dead}"),
        *allow(f"127.0.0.1:{tls.port}"),
    )
    client = bench.client(server.address)
    checks.run("health, overall and of each service", health, server)
    checks.run("reflection lists and describes", reflection, server, client)
    for provider, path, token in (("gitlab", "/gitlab", GITLAB_TOKEN), ("azure-devops", "/azure/contoso", AZURE_TOKEN)):
        checks.run(f"{provider}: life of a connection by grpcurl", life, bench, server, forge, provider, path, token)
        checks.run(f"{provider}: the same answers by buf curl", buf_curl, bench, server, forge, provider, path, token)
        checks.run(f"{provider}: pages and stream agree", pages_and_stream, bench, client, forge, provider, path, token)

    def nothing_stored(id):
        refused("NOT_FOUND", "CONNECTION_NOT_FOUND", client.get, id)

    def refusal(code, reason, id, *arguments, **named):
        error = refused(code, reason, client.create, id, *arguments, **named)
        if named.get("display_name") is None:
            nothing_stored(id)
        return error.code

    gitlab, azure = f"{forge.url}/gitlab", f"{forge.url}/azure/contoso"
    checks.run("a wrong GitLab token", refusal, "INVALID_ARGUMENT", "CREDENTIAL_REJECTED", "wrong-gitlab", "gitlab",
               gitlab, WRONG_GITLAB_TOKEN)
    checks.run("a wrong Azure DevOps token", refusal, "INVALID_ARGUMENT", "CREDENTIAL_REJECTED", "wrong-azure",
               "azure-devops", azure, WRONG_AZURE_TOKEN)
    checks.run("a dead port", refusal, "UNAVAILABLE", "PROVIDER_UNREACHABLE", "dead", "gitlab",
               f"http://127.0.0.1:{dead}/gitlab", GITLAB_TOKEN)
    checks.run("an HTML sign-in page", refusal, "INVALID_ARGUMENT", "CREDENTIAL_REJECTED", "signin", "azure-devops",
               f"{signin.url}/azure/contoso", AZURE_TOKEN)
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
                provider=provider, base_url=base_url, credential={"personal_access_token": {"token": token}}))
        checks_ = client.call("VerifyConnection", message).report.checks
        name = bench.connection.CheckResult.Check.Name
        failed = [check for check in checks_ if name(check.check) == step and check.reason]
        expect(failed and failed[0].remedy, f"no failed {step} with a remedy in {checks_}")
        return f"{failed[0].reason}: {failed[0].remedy}"

    checks.run("verify names the step: a wrong token", report, gitlab, "gitlab", WRONG_GITLAB_TOKEN, "CHECK_AUTHENTICATION")
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


def connection(forge, provider, path, token, **more):
    return {"provider": provider, "base_url": f"{forge.url}{path}",
            "credential": {"personal_access_token": {"token": token}}} | more


def life(bench, server, forge, provider, path, token):
    name = f"tenants/default/connections/life-{provider}"
    created = grpcurl(server, "ConnectionService/CreateConnection", {
        "parent": "tenants/default", "connection_id": f"life-{provider}",
        "connection": connection(forge, provider, path, token, display_name=f"Life {provider}")})
    expect(created["name"] == name and "credential" not in created, created)
    expect(created["state"] in ("STATE_ACTIVE", "STATE_DEGRADED"), created)
    expect(token not in json.dumps(created), "no token in an answer")
    got = grpcurl(server, "ConnectionService/GetConnection", {"name": name})
    expect(got["etag"] == created["etag"], got)
    listed = grpcurl(server, "ConnectionService/ListConnections", {"parent": "tenants/default"})
    expect(name in [one["name"] for one in listed["connections"]], listed)
    page = grpcurl(server, "RepositoryService/ListRepositories", {"parent": name, "page_size": 3})
    expect(len(page["repositories"]) == 3 and page["nextPageToken"], page)
    first = page["repositories"][0]
    expect(grpcurl(server, "RepositoryService/GetRepository", {"name": first["name"]})["providerId"]
           == first["providerId"], first)
    for question in ({"full_name": first["fullName"]}, {"clone_url": first["cloneHttpsUrl"]}):
        found = grpcurl(server, "RepositoryService/LookupRepository", {"parent": name} | question)
        expect(found["providerId"] == first["providerId"], f"{question}: {found}")
    expect(grpcurl(server, "RepositoryService/ListNamespaces", {"parent": name})["namespaces"], "namespaces")
    verified = grpcurl(server, "ConnectionService/VerifyConnection", {"name": name})
    expect(verified["report"]["checks"], verified)
    replaced = grpcurl(server, "ConnectionService/ReplaceCredential", {
        "name": name, "credential": {"personal_access_token": {"token": token}}})
    expect(replaced["connection"]["etag"] != created["etag"], replaced)
    updated = grpcurl(server, "ConnectionService/UpdateConnection", {
        "connection": {"name": name, "display_name": f"Renamed {provider}"}, "update_mask": {"paths": ["display_name"]}})
    expect(updated["displayName"] == f"Renamed {provider}", updated)
    grpcurl(server, "ConnectionService/DeleteConnection", {"name": name})
    gone = grpcurl(server, "ConnectionService/GetConnection", {"name": name}, ok=False)
    expect("CONNECTION_NOT_FOUND" in gone or "NotFound" in gone, gone)


def buf_curl(bench, server, forge, provider, path, token):
    def buf(method, request):
        return tool("buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", json.dumps(request),
                    f"http://{server.address}/gitmoor.v1.{method}")

    name = f"tenants/default/connections/buf-{provider}"
    buf("ConnectionService/CreateConnection", {
        "parent": "tenants/default", "connection_id": f"buf-{provider}",
        "connection": connection(forge, provider, path, token, display_name=f"Buf {provider}")})
    by_buf = json.loads(buf("RepositoryService/ListRepositories", {"parent": name, "page_size": 2}))
    by_grpcurl = grpcurl(server, "RepositoryService/ListRepositories", {"parent": name, "page_size": 2})
    expect(by_buf["repositories"] == by_grpcurl["repositories"], "the same page")
    expect(buf("RepositoryService/StreamRepositories", {"parent": name, "include_archived": True}).count('"providerId"') >= 250, "the stream")
    buf("ConnectionService/DeleteConnection", {"name": name})


def pages_and_stream(bench, client, forge, provider, path, token):
    id = f"pages-{provider}"
    client.create(id, provider, f"{forge.url}{path}", token)
    paged, page_token = [], ""
    while True:
        page = client.page(id, token=page_token)
        paged += [row.provider_id for row in page.repositories]
        page_token = page.next_page_token
        if not page_token:
            break
    streamed = [row.provider_id for batch in client.stream(id) for row in batch.repositories]
    expect(len(set(paged)) == len(paged) >= 250, f"{len(paged)} rows, {len(set(paged))} different")
    expect(sorted(paged) == sorted(streamed), f"{len(paged)} paged, {len(streamed)} streamed")
    return f"{len(paged)} repositories"
