"""Reads the file that holds the admin port's token."""

from pathlib import Path

from counterfault.proxy.config.files import read_regular_file

LEAST_BYTES, MOST_BYTES = 16, 4096


def read_token(path: Path) -> bytes:
    """Return the token in a file, without the white space around it.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file does not hold one word of 16 to 4096 bytes of printable ASCII.
    """
    token = read_regular_file(path, MOST_BYTES + 1).strip()
    if len(token) < LEAST_BYTES:
        raise ValueError(
            f"must hold at least {LEAST_BYTES} bytes; `openssl rand -hex 32` writes a token"
        )
    if len(token) > MOST_BYTES:
        raise ValueError(f"must hold at most {MOST_BYTES} bytes")
    if not all(0x21 <= byte <= 0x7E for byte in token):
        raise ValueError("must hold one word of printable ASCII")
    return token
