"""Looks for tokens in every form that software likes to write them in."""

import base64
import pathlib
import urllib.parse


def forms(token):
    """Each form under which `token` could lie somewhere, by its name."""
    raw = token.encode()
    found = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "percent": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "percent lower": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "url": urllib.parse.quote(token, safe="").encode(),
        "utf-16": token.encode("utf-16-le"),
        # How some `Debug` writes bytes.
        "list": ", ".join(str(byte) for byte in raw).encode(),
    }
    for offset, skip in ((0, 0), (1, 2), (2, 3)):
        shifted = b"\0" * offset + raw
        # Characters at both ends depend on the neighbours too, so they are left out.
        whole = slice(skip, len(shifted) * 8 // 6)
        found[f"base64 at {offset}"] = base64.b64encode(shifted)[whole]
        found[f"base64url at {offset}"] = base64.urlsafe_b64encode(shifted)[whole]
    return found


def scan(data, tokens, where):
    """Answers where which form of which token is."""
    return [
        f"{where}: {name} form of {token[:14]}..., after {data[max(0, at - 60):at]!r}"
        for token in tokens
        for name, form in forms(token).items()
        if (at := data.find(form)) >= 0
    ]


def scan_folder(folder, tokens):
    """Scans every file below `folder`, and its names; answers findings and the bytes that were read."""
    findings, size = [], 0
    for path in sorted(pathlib.Path(folder).rglob("*")):
        findings += scan(str(path).encode(), tokens, f"name of {path}")
        if path.is_file():
            data = path.read_bytes()
            size += len(data)
            findings += scan(data, tokens, str(path))
    return findings, size
