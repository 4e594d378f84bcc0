"""The admin port's token, as a file holds it."""

from pathlib import Path

from counterfault.proxy.config.files import read_regular_file

LEAST, MOST = 16, 4096


def read(path: Path) -> bytes:
    """The token without the space around it; OSError, or ValueError where there is no good one."""
    token = read_regular_file(path, MOST + 1).strip()
    if len(token) < LEAST:
        raise ValueError(f"must hold at least {LEAST} bytes; `openssl rand -hex 32` writes a token")
    if len(token) > MOST:
        raise ValueError(f"must hold at most {MOST} bytes")
    if not all(0x21 <= byte <= 0x7E for byte in token):
        raise ValueError("must hold one word of printable ASCII")
    return token
