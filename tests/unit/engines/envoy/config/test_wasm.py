"""The filters in WebAssembly are built from the source beside them, and nothing else."""

from importlib.resources import files

import pytest
from wasmtime import wat2wasm


@pytest.mark.parametrize("name", ["drop", "dropped"])
def test_what_is_committed_is_what_make_generate_builds(name: str) -> None:
    here = files("counterfault.proxy.engines.envoy.config")
    built = wat2wasm((here / f"{name}.wat").read_text())
    assert (here / f"{name}.wasm").read_bytes() == bytes(built)
