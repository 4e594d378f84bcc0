"""The hash ring that spreads users over upstream nodes."""

from hashring import HashRing
from xxhash import xxh64_intdigest


class ByteRing(HashRing):  # type: ignore[misc]
    """hashring's ring with xxh64, for keys of raw bytes too, since user ids need not be text."""

    def _hash_digest(self, key: str | bytes) -> bytes:
        raw = key.encode() if isinstance(key, str) else key
        return b"".join(xxh64_intdigest(raw, seed).to_bytes(8, "little") for seed in (0, 1))

    def positions(self) -> list[tuple[int, str]]:
        """Return every position on the ring with its node, in ascending order."""
        return [(position, self.ring[position]) for position in self._sorted_keys]
