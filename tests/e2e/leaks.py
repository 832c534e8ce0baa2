"""S13, AC-65, K16, S15, S19: a whole run at trace, and then a look at everything that it left."""

import base64
import os
import signal
import subprocess

import scan
from harness import HOSTS, ROOT, TOKENS, Refused, expect

# As root, the server runs as another user, so that the kernel's rules for it can be seen.
OTHER_USER = 65534


def run(checks, bench):
    checks.run("the scanner finds each form of each token", planted, bench)
    checks.run("S13 AC-65 K16 nothing holds a token after a run at trace", everything, bench)
    checks.run("S15 no memory for another process, no core file", guarded, bench)


def planted(bench):
    folder = bench.fresh("planted")
    count = 0
    for token in TOKENS:
        for name, form in scan.forms(token).items():
            expect(len(form) >= len(token), f"{name} form is {form}")
            file = folder / "planted"
            file.write_bytes(b"{\"before\": \"" + form + b"\"}")
            found, _ = scan.scan_folder(folder, [token])
            expect(found, f"{name} form of {token} was not found")
            count += 1
    for before in ("", ":", "ab"):
        whole = base64.b64encode(f"{before}{TOKENS[0]}tail".encode())
        expect(scan.scan(whole, TOKENS, "memory"), f"{whole} was not seen through")
    return f"{count} forms"


def everything(bench):
    forge = bench.start_forge("--repositories", "60")
    faulty = bench.start_forge("--fault", "server-error-500", "--fault-times", "2")
    folder = bench.fresh("leaks")
    data, key = folder / "data", bench.keys(folder)
    first = len(bench.processes)
    bench.answers.clear()
    allow = ("--egress-allow", forge.url, "--egress-allow", faulty.url, "--egress-allow", "127.0.0.1:1")
    cwd = folder / "cwd"
    cwd.mkdir()
    for log_format in ("json", "text"):
        server = bench.serve(data, key, *allow, "--log-format", log_format, log_level="trace")
        exercise(bench, server, forge, faulty, log_format)
        for name in ("cmdline", "environ", "status"):
            found = scan.scan(server.proc(name).read_bytes(), TOKENS, f"/proc/{name}")
            expect(not found, found)
        # Killed the first time, so that the files are those of a crash; ended the second time.
        if log_format == "json":
            server.kill()
        else:
            expect(server.stop() == 0, "a clean end")
    for command in (("config", "print"), ("version",), ("--help",), ("serve", "--help")):
        done = bench.command(*command)
        bench.answers += (done.stdout + done.stderr).encode()
    found, stored = scan.scan_folder(data, TOKENS)
    logged = 0
    for process in bench.processes[first:]:
        text = process.output.read_bytes()
        logged += len(text)
        found += scan.scan(text, TOKENS, str(process.output))
    found += scan.scan(bytes(bench.answers), TOKENS, "answers")
    expect(not found, "\n".join(found))
    expect(stored > 10_000 and logged > 20_000 and len(bench.answers) > 10_000,
           f"too little was looked at: {stored} stored, {logged} logged, {len(bench.answers)} answered")
    return f"{stored} bytes stored, {logged} logged, {len(bench.answers)} answered"


def exercise(bench, server, forge, faulty, round_):
    client = bench.client(server.address)
    requests, repositories = bench.connection_service, bench.repository_service

    def may_fail(function, *arguments, **named):
        try:
            return function(*arguments, **named)
        except Refused:
            return None

    for host in HOSTS.values():
        provider, url, token, wrong = host.provider, f"{forge.url}/{host.path}", host.token, host.refused
        # What a caller may call a thing: a token that can be told from other text is refused there.
        text = wrong if host.has_mark else "no-token"
        id = f"{provider}-{round_}"
        name = f"tenants/default/connections/{id}"
        client.create(id, provider, url, token)
        may_fail(client.create, f"{id}-wrong", provider, url, wrong)
        # A token where none belongs: in each field that takes text, and in the path.
        may_fail(client.create, f"{id}-name", provider, url, token, display_name=text)
        may_fail(client.create, f"{id}-url", provider, f"{url}/{text}", token)
        may_fail(client.create, f"{id}-user", provider, url.replace("://", f"://x:{wrong}@"), token)
        may_fail(client.create, f"{id}-query", provider, f"{url}?private_token={wrong}", token)
        may_fail(client.create, f"{id}-broken", provider, url, f"{wrong}\r\nX: y")
        may_fail(client.create, text.lower(), provider, url, token)
        may_fail(client.create, f"{id}-dead", provider, "http://127.0.0.1:1/gitlab", token)
        may_fail(client.create, f"{id}-faulty", provider, url.replace(forge.url, faulty.url), token)
        missing = f"tenants/default/connections/{text}"
        may_fail(client.call, "GetConnection", requests.GetConnectionRequest(name=missing))
        may_fail(client.call, "ListConnections", requests.ListConnectionsRequest(
            parent="tenants/default", filter=f'display_name = "{wrong}"'))
        for question in ({"full_name": f"group/{text}"}, {"clone_url": f"https://x:{wrong}@host.test/a/b.git"}):
            may_fail(client.call, "LookupRepository", repositories.LookupRepositoryRequest(parent=name, **question))
        may_fail(client.call, "ListRepositories", repositories.ListRepositoriesRequest(parent=name, query=wrong))
        client.get(id)
        client.all_connections()
        page = client.page(id, 20)
        client.page(id, 20, page.next_page_token)
        client.stream(id)
        client.call("ListNamespaces", repositories.ListNamespacesRequest(parent=name))
        client.call("GetRepository", repositories.GetRepositoryRequest(name=page.repositories[0].name))
        for query in ("", wrong):
            client.call("ListRefs", repositories.ListRefsRequest(parent=page.repositories[0].name, query=query))
        client.call("VerifyConnection", requests.VerifyConnectionRequest(name=name))

        def replace_by(new):
            return requests.ReplaceCredentialRequest(name=name, credential=host.credential(new))

        may_fail(client.call, "ReplaceCredential", replace_by(wrong))
        client.call("ReplaceCredential", replace_by(token))
        change = requests.UpdateConnectionRequest(update_mask={"paths": ["labels"]})
        change.connection.name = name
        change.connection.labels["team"] = text
        may_fail(client.call, "UpdateConnection", change)
        client.create(f"{id}-gone", provider, url, token)
        client.call("DeleteConnection", requests.DeleteConnectionRequest(name=f"{name}-gone"))
    client.page("-", 20)
    client.stream("-")
    # S22: a token in a header that nobody asked for.
    try:
        client.connections.GetConnection(
            requests.GetConnectionRequest(name="tenants/default/connections/none"), timeout=10,
            metadata=[("authorization", f"Bearer {wrong}"), ("x-private-token", wrong), ("x-request-id", wrong)])
    except client.grpc.RpcError as error:
        refused = Refused(error)
        # What the caller sent as its request id comes back to it and nowhere else, if it comes back at all.
        bench.answers += refused.details + refused.message.encode()
    client.close()


def guarded(bench):
    folder = bench.fresh("guarded")
    key = bench.keys(folder)
    cwd = folder / "cwd"
    cwd.mkdir()
    user = OTHER_USER if os.getuid() == 0 else None
    if user is not None:
        for path in (folder, key, cwd):
            os.chown(path, user, user)
    server = bench.serve(folder / "data", key, user=user)
    limits = server.proc("limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    expect(core.split()[4:6] == ["0", "0"], core)
    # The files of a process that is not dumpable belong to root, and no other process of its user may look into it.
    for name in ("mem", "environ", "maps"):
        expect(server.proc(name).stat().st_uid == 0, f"{name} belongs to {server.proc(name).stat().st_uid}")
        probe = subprocess.run(
            ["head", "-c", "1", f"/proc/{server.pid}/{name}"], capture_output=True, text=True, cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **({"user": user, "group": user, "extra_groups": []} if user is not None else {}))
        expect("Permission denied" in probe.stderr, f"{name}: {probe.returncode} {probe.stderr}")
    server.child.send_signal(signal.SIGABRT)
    code = server.child.wait(10)
    expect(code == -signal.SIGABRT, f"ended with {code}")
    cores = [path for path in (*bench.folder.glob("core*"), *cwd.glob("core*"), *ROOT.glob("core*"))]
    expect(not cores, cores)
