"""The filter that ends an exchange without a response, with the Wasm programs that it runs."""

from base64 import b64encode
from functools import cache
from importlib.resources import files

from counterfault.proxy.engines.envoy.config.names import DROP_FILTER, NAMESPACE, Json, typed


def drop_filter() -> Json:
    """Return the filter. It is disabled by default; a route with faults to perform enables it.

    The Lua program marks requests with metadata: `drop.wasm` ends a marked request, and
    `dropped.wasm` ends a detour whose response says that a worker has dropped it.
    """
    matchers = [_run_where("drop", "drop.wasm"), _run_where("detour", "dropped.wasm")]
    composite = typed("extensions.filters.http.composite.v3.Composite")
    config = typed(
        "extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config={"name": "composite", "typed_config": composite},
        xds_matcher={"matcher_list": {"matchers": matchers}},
    )
    return {"name": DROP_FILTER, "disabled": True, "typed_config": config}


def _run_where(key: str, program: str) -> Json:
    """Return a matcher that runs a Wasm program for the requests with this metadata."""
    code = {"local": {"inline_bytes": _wasm(program)}}
    machine = {"vm_id": program, "runtime": "envoy.wasm.runtime.v8", "code": code}
    wasm = typed(
        "extensions.filters.http.wasm.v3.Wasm",
        config={"name": program, "root_id": program, "vm_config": machine, "fail_open": True},
    )
    act = typed(
        "extensions.filters.http.composite.v3.ExecuteFilterAction",
        typed_config={"name": program, "typed_config": wasm},
    )
    metadata = typed(
        "extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        filter=NAMESPACE,
        path=[{"key": key}],
    )
    there = typed(
        "extensions.matching.input_matchers.metadata.v3.Metadata", value={"present_match": True}
    )
    predicate = {
        "input": {"name": key, "typed_config": metadata},
        "custom_match": {"name": "present", "typed_config": there},
    }
    return {
        "predicate": {"single_predicate": predicate},
        "on_match": {"action": {"name": program, "typed_config": act}},
    }


@cache
def _wasm(program: str) -> str:
    return b64encode(files(__package__).joinpath(program).read_bytes()).decode()
