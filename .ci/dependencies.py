"""What `.ci/run` asks about the dependencies and the binary, with what cargo itself tells."""

import json
import struct
import subprocess
import sys

# Libraries that bring cryptography of their own, or need more than a C compiler to build.
FORBIDDEN = """
    aead aes aes-gcm aes-gcm-siv aws-lc-fips-sys aws-lc-rs aws-lc-sys bindgen blake2 blake3 boring boring-sys
    chacha20poly1305 cipher cmake crypto-bigint cryptoki curve25519-dalek digest ecdsa ed25519-dalek foreign-types
    graviola hkdf hmac libsodium-sys libsodium-sys-stable mbedtls md-5 md5 native-tls openssl openssl-src openssl-sys
    orion p256 p384 pbkdf2 poly1305 protobuf-src rsa rust-crypto salsa20 scrypt sha-1 sha1 sha1_smol sha2 sha3 sm3
    sodiumoxide tls-openssl vcpkg wolfssl x25519-dalek
""".split()
# chacha20 is the random number generator of rand, which hickory draws its DNS ids from; nothing else may use it.
ONLY_UNDER = {"chacha20": {"rand", "rand_chacha"}}


def metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def tree(*arguments):
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none", *arguments]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {tuple(line.split()[:2]) for line in answer.splitlines() if line.strip()}


def crypto():
    problems = []
    for target in ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin"):
        packages = tree("--target", target)
        names = {name for name, _ in packages}
        print(f"{target}: {len(packages)} packages")
        problems += [f"{target}: {name}" for name in FORBIDDEN if name in names]
        if "ring" not in names:
            problems.append(f"{target}: no ring")
        if "sled" not in names or ("sled", "v0.34.7") not in packages:
            problems.append(f"{target}: sled is not 0.34.7")
        for name, parents in ONLY_UNDER.items():
            if name in names:
                found = {parent for parent, _ in tree("--target", target, "--invert", name, "--depth", "1")}
                problems += [f"{target}: {name} under {parent}" for parent in found - parents - {name}]
    if problems:
        sys.exit("\n".join(problems))
    print("ring is the only crypto library; no cmake, no OpenSSL; sled is 0.34.7")


def own(data):
    return next(package for package in data["packages"] if package["name"] == "gitmoor")


def numbers(version):
    return tuple(int(part) for part in version.split("-")[0].split("."))[:2]


def msrv():
    data = metadata()
    promised = own(data)["rust_version"]
    newer = [
        f"{package['name']} {package['version']} needs Rust {package['rust_version']}"
        for package in data["packages"]
        if package["rust_version"] and numbers(package["rust_version"]) > numbers(promised)
    ]
    if newer:
        sys.exit("\n".join(newer))
    print(f"no dependency asks for more than Rust {promised}")


def stripped(path):
    """Reads the section headers of a 64-bit little-endian ELF file; a symbol table has type 2."""
    data = open(path, "rb").read()
    if data[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"{path} is not a 64-bit ELF file")
    (offset,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    if any(struct.unpack_from("<I", data, offset + size * index + 4)[0] == 2 for index in range(count)):
        sys.exit(f"{path} has a symbol table: it is not stripped")
    print("the binary is stripped")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["crypto"]:
            crypto()
        case ["rust-version"]:
            print(own(metadata())["rust_version"])
        case ["msrv"]:
            msrv()
        case ["stripped", path]:
            stripped(path)
        case other:
            sys.exit(f"no question {other}")
