"""What the end-to-end checks share: counting, processes, typed calls, and raw HTTP/2."""

import contextlib
import importlib
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Host:
    """One provider at the forge: its path, its good token as the forge prints it, and one of the same form that it
    refuses, so that a refusal has something to leak as well."""

    def __init__(self, provider, path, token, refused, email=None, has_mark=True):
        self.provider, self.path, self.token, self.refused, self.email = provider, path, token, refused, email
        # Whether its tokens can be told from other text.
        self.has_mark = has_mark

    def credential(self, token=None):
        """The credential of a connection, of the good token if none is given."""
        token = token or self.token
        if self.email:
            return {"email_api_token": {"email": self.email, "token": token}}
        return {"personal_access_token": {"token": token}}


HOSTS = {host.provider: host for host in (
    Host("azure-devops", "azure/contoso", "forgegoodpat000000000000000000000000000000000000001a",
         "canarywrongpat2345672345672345672345672345672345zq7x"),
    Host("bitbucket-cloud", "bitbucket-cloud", "ATATT3xFfGF0forgeGoodApiToken000000000001aB3dE5fG7hJ9kL=1A2B3C01",
         "ATATT3xFfGF0canaryWrong9Zq7Lk42Xv00000000001aB3dE5fG7hJ9kL=1A2B3C99", email="casey@forge.example"),
    Host("bitbucket-data-center", "bitbucket", "BBDC-MjUyOTczNTE1MDAxOmZvcmdlR29vZEFkbWluVG9rZW4w",
         "BBDC-MjUyOTczNTE1MDk5OmNhbmFyeVdyb25nOVpxN0xrNDJY"),
    # What looks like the id of a commit may stand in any text.
    Host("gitea", "gitea", "0f0e9e0000000000000000000000000000000001", "ca9a27e0bad09e1f27b3c5d7e9fa0b1c2d3e4f50",
         has_mark=False),
    Host("github", "github", "ghp_forgeGoodRepoScope000000000000000001", "ghp_canaryWrong9Zq7Lk42Xv000000000000001"),
    Host("gitlab", "gitlab", "glpat-forgeGoodApi00000001", "glpat-canaryWrong9Zq7Lk42Xv"),
)}
TOKENS = [token for host in HOSTS.values() for token in (host.token, host.refused)]
GITLAB_TOKEN = HOSTS["gitlab"].token

# The message of the log line at the end of the start, whatever the format.
READY = "ready"


class Checks:
    """Runs checks one after the other and counts them; one that fails does not stop the others."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, function, *arguments):
        since = time.monotonic()
        try:
            figure = function(*arguments)
        except Exception:
            self.failed += 1
            print(f"FAILED {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
        else:
            self.passed += 1
            told = f": {figure}" if figure else ""
            print(f"ok     {name}{told} ({time.monotonic() - since:.1f} s)", flush=True)


def expect(condition, text):
    """`assert` that no flag of the interpreter turns off."""
    if not condition:
        raise AssertionError(text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < end, f"{what} within {seconds} s")
        time.sleep(0.01)


class Process:
    """A child whose output goes to a file; killed at the end whatever happens."""

    def __init__(self, arguments, output, environment=None, user=None, cwd=None):
        self.output = pathlib.Path(output)
        clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | (environment or {})
        identity = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
        with open(self.output, "ab") as sink:
            self.child = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=clean, cwd=cwd, **identity,
            )
        self.started = time.monotonic()

    @property
    def pid(self):
        return self.child.pid

    def wait_for(self, word, seconds=30):
        """Answers the seconds from the start until `word` is in the output."""
        end = time.monotonic() + seconds
        while word not in self.text():
            expect(self.child.poll() is None, f"ended with {self.child.returncode}:\n{self.text()[-2000:]}")
            expect(time.monotonic() < end, f"no {word!r} within {seconds} s:\n{self.text()[-2000:]}")
            time.sleep(0.002)
        return time.monotonic() - self.started

    def text(self):
        return self.output.read_text(errors="replace")

    def stop(self, with_signal=signal.SIGTERM, seconds=40):
        if self.child.poll() is None:
            self.child.send_signal(with_signal)
        return self.child.wait(seconds)

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(10)

    def proc(self, name):
        return pathlib.Path(f"/proc/{self.pid}/{name}")

    def rss(self):
        """Resident memory in MiB."""
        for line in self.proc("status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def cpu(self):
        """Seconds of processor time so far."""
        fields = self.proc("stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    """A folder with everything of one run: binaries, stubs, data, logs."""

    def __init__(self, folder, server, forge):
        self.folder = pathlib.Path(folder)
        # A user other than root must be able to run it.
        self.folder.chmod(0o755)
        self.server = self.folder / "gitmoor"
        shutil.copy(server, self.server)
        self.forge = forge
        self.processes = []
        self.answers = bytearray()
        self.count = 0
        self._stubs()

    def _stubs(self):
        target = self.folder / "stubs"
        target.mkdir()
        files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), f"--python_out={target}",
             f"--grpc_python_out={target}", *files], check=True,
        )
        # The `google` package of the protobuf library has to find the two vendored files as well.
        import google
        google.__path__.append(str(target / "google"))
        sys.path.insert(0, str(target))
        for name in ("connection", "connection_service", "repository", "repository_service"):
            setattr(self, name, importlib.import_module(f"gitmoor.v1.{name}_pb2"))
            if name.endswith("service"):
                setattr(self, f"{name}_grpc", importlib.import_module(f"gitmoor.v1.{name}_pb2_grpc"))

    def fresh(self, name):
        self.count += 1
        path = self.folder / f"{self.count:03}-{name}"
        path.mkdir()
        return path

    def start_forge(self, *arguments, ready="Serving until"):
        port = free_port()
        log = self.folder / f"forge-{port}.log"
        process = Process([self.forge, "--listen", f"127.0.0.1:{port}", *arguments], log)
        self.processes.append(process)
        process.wait_for(ready)
        process.port, process.url = port, f"http://127.0.0.1:{port}"
        return process

    def command(self, *arguments, environment=None, cwd=None):
        clean = {"PATH": os.environ["PATH"]} | (environment or {})
        return subprocess.run(
            [str(self.server), *map(str, arguments)], env=clean, cwd=cwd or self.folder, capture_output=True, text=True,
            timeout=60,
        )

    def keys(self, folder):
        path = folder / "keys"
        done = self.command("keys", "init", "--key-file", path)
        expect(done.returncode == 0, done.stderr)
        return path

    def serve(self, data, key, *arguments, log_level="info", user=None, wait=True, port=None, environment=None):
        port = port or free_port()
        self.count += 1
        log = self.folder / f"server-{self.count:03}.log"
        process = Process(
            [self.server, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", data, "--key-file", key, *arguments],
            log, {"RUST_LOG": log_level} | (environment or {}), user, self.folder,
        )
        self.processes.append(process)
        process.port, process.address = port, f"127.0.0.1:{port}"
        if wait:
            process.ready_after = process.wait_for(READY)
        return process

    def client(self, address):
        return Client(self, address)

    def close(self):
        for process in self.processes:
            with contextlib.suppress(Exception):
                process.kill()


class Refused(Exception):
    """An answer other than OK."""

    def __init__(self, error):
        self.code = error.code().name
        self.message = error.details()
        self.details = b"".join(
            value for name, value in error.trailing_metadata() or () if name == "grpc-status-details-bin"
        )
        super().__init__(f"{self.code}: {self.message}")


class Client:
    """Typed calls; every answer is kept for the scan."""

    def __init__(self, bench, address):
        import grpc
        self.grpc, self.bench = grpc, bench
        self.channel = grpc.insecure_channel(address, [
            ("grpc.use_local_subchannel_pool", 1),
            # Without it the library sends a socket's path, percent-encoded, as :authority, which is no host.
            ("grpc.default_authority", "localhost"),
        ])
        self.connections = bench.connection_service_grpc.ConnectionServiceStub(self.channel)
        self.repositories = bench.repository_service_grpc.RepositoryServiceStub(self.channel)

    def call(self, method, request, timeout=60):
        service = self.repositories if hasattr(self.repositories, method) else self.connections
        try:
            answer = getattr(service, method)(request, timeout=timeout, wait_for_ready=False)
            if hasattr(answer, "code") and hasattr(answer, "cancel"):
                answer = list(answer)
                self.bench.answers += b"".join(message.SerializeToString() for message in answer)
            else:
                self.bench.answers += answer.SerializeToString()
            return answer
        except self.grpc.RpcError as error:
            refused = Refused(error)
            self.bench.answers += repr(error.trailing_metadata()).encode() + refused.details + str(refused).encode()
            raise refused from None

    def create(self, id, provider, base_url, token, display_name=None, tenant="default", ca=None, disabled=False):
        connection = self.bench.connection.Connection(
            display_name=display_name or id, provider=provider, base_url=base_url, disabled=disabled,
            credential=HOSTS[provider].credential(token),
        )
        if ca:
            connection.tls.ca_certificates_pem = ca
        return self.call("CreateConnection", self.bench.connection_service.CreateConnectionRequest(
            parent=f"tenants/{tenant}", connection_id=id, connection=connection))

    def get(self, id, tenant="default"):
        name = f"tenants/{tenant}/connections/{id}"
        return self.call("GetConnection", self.bench.connection_service.GetConnectionRequest(name=name))

    def page(self, id, size=100, token="", tenant="default"):
        return self.call("ListRepositories", self.bench.repository_service.ListRepositoriesRequest(
            parent=f"tenants/{tenant}/connections/{id}", page_size=size, page_token=token,
            include_archived=True))

    def stream(self, id, tenant="default"):
        return self.call("StreamRepositories", self.bench.repository_service.StreamRepositoriesRequest(
            parent=f"tenants/{tenant}/connections/{id}", include_archived=True), timeout=300)

    def all_connections(self, tenant="default"):
        names, token = set(), ""
        while True:
            page = self.call("ListConnections", self.bench.connection_service.ListConnectionsRequest(
                parent=f"tenants/{tenant}", page_size=500, page_token=token))
            names |= {connection.name.rsplit("/", 1)[1] for connection in page.connections}
            token = page.next_page_token
            if not token:
                return names

    def close(self):
        self.channel.close()


def refused(code, reason, function, *arguments, **named):
    """Expects that a call is refused so; answers the refusal."""
    try:
        function(*arguments, **named)
    except Refused as error:
        expect(error.code == code, f"{error} is not {code}")
        expect(reason.encode() in error.details, f"{error}: no {reason} in {error.details!r}")
        return error
    raise AssertionError(f"accepted, and not refused with {reason}")


# ---------------------------------------------------------------- HTTP/2 by hand, for what no library sends

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 9


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header_block(path, *more):
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
              ("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields
    )


class Wire:
    """One raw connection; reads in the background and notes whether the peer ended it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.received = bytearray()
        self.closed = threading.Event()
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while data := self.socket.recv(65536):
                # Enough to look at; a flood answers without end.
                if len(self.received) < 1 << 20:
                    self.received += data
                if b"\0\0" in data and self.goaway():
                    self.closed.set()
        except OSError:
            pass
        self.closed.set()

    def goaway(self):
        data, at = bytes(self.received), 0
        while at + 9 <= len(data):
            if data[at + 3] == GOAWAY:
                return True
            at += 9 + int.from_bytes(data[at:at + 3], "big")
        return False

    def send(self, data):
        """Answers whether the peer still takes something."""
        try:
            self.socket.sendall(data)
            return not self.closed.is_set()
        except OSError:
            self.closed.set()
            return False

    def close(self):
        self.socket.close()
