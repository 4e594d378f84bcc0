"""The hash ring of upstream nodes."""

from hashring import HashRing
from xxhash import xxh64_intdigest


class ByteRing(HashRing):  # type: ignore[misc]
    """hashring's ring for raw bytes too, since user ids need not be text, and with our hash."""

    def _hash_digest(self, key: str | bytes) -> bytes:
        raw = key.encode() if isinstance(key, str) else key
        return b"".join(xxh64_intdigest(raw, seed).to_bytes(8, "little") for seed in (0, 1))

    def places(self) -> list[tuple[int, str]]:
        """Every place with its node, in order."""
        return [(place, self.ring[place]) for place in self._sorted_keys]
