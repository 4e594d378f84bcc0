"""Connections and flows are told apart as mitmproxy tells them apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import connection, flow
from mitmproxy.connection import Client, Connection, Server
from mitmproxy.http import HTTPFlow

from counterfault.addons.mitm import fast_identity

ADDRESSES = st.sampled_from([("::1", 1), ("::1", 2)])
connections = st.lists(
    st.one_of(
        ADDRESSES.map(lambda address: Client(peername=address, sockname=("::1", 3))),
        ADDRESSES.map(lambda address: Server(address=address)),
    ),
    max_size=8,
)


@given(connections)
def test_two_are_equal_and_hash_alike_where_mitmproxys_do(made: list[Connection]) -> None:
    for one in made:
        for other in [*made, "no connection", None]:
            assert (object.__eq__(one, other) is True) == (one == other)
        assert [object.__hash__(one) == object.__hash__(other) for other in made] == [
            hash(one) == hash(other) for other in made
        ]


@given(connections, st.lists(st.integers(0, 7)))
def test_a_set_of_them_holds_the_same(made: list[Connection], picked: list[int]) -> None:
    chosen = [made[i] for i in picked if i < len(made)]
    by_object = {object.__hash__(one): one for one in chosen}
    assert set(by_object.values()) == set(chosen)
    assert len(by_object) == len(set(chosen))


def test_ids_are_texts_that_differ_from_one_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, flow):
        monkeypatch.setattr(module, "uuid", fast_identity.numbered)
    client, server = Client(peername=("::1", 1), sockname=("::1", 2)), Server(address=("::1", 3))
    flows = [HTTPFlow(client, server), HTTPFlow(client, server)]
    ids = [client.id, server.id, *(each.id for each in flows)]
    assert all(isinstance(each, str) for each in ids)
    assert len(set(ids)) == len(ids)
