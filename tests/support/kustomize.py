"""As much of kustomize as deploy/kubernetes uses: enough to check it where there is no kubectl."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

type Object = dict[str, Any]


def documents(path: Path) -> list[Any]:
    """All that a file says."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization; what it does not know here is a KeyError or an assertion."""
    said = dict(*documents(folder / "kustomization.yaml"))
    objects = [o for name in said.pop("resources", ()) for o in _resources(folder / name)]
    objects += _config_maps(folder, said)
    for name in said.pop("components", ()):
        objects = _component(folder / name, objects)
    for patch in said.pop("patches", ()):
        objects = _patched(folder, patch, objects)
    if namespace := said.pop("namespace", None):
        objects = [merged(o, {"metadata": {"namespace": namespace}}) for o in objects]
    assert set(said) <= {"apiVersion", "kind"}, said
    return objects


def _resources(path: Path) -> list[Object]:
    return render(path) if path.is_dir() else documents(path)


def _component(folder: Path, objects: list[Object]) -> list[Object]:
    said = dict(*documents(folder / "kustomization.yaml"))
    assert said["kind"] == "Component"
    objects = objects + [o for name in said["resources"] for o in _resources(folder / name)]
    for patch in said["patches"]:
        objects = _patched(folder, patch, objects)
    return objects


def _config_maps(folder: Path, said: Object) -> Iterator[Object]:
    generators = said.pop("configMapGenerator", ())
    if generators:
        assert said.pop("generatorOptions") == {"disableNameSuffixHash": True}
    for generator in generators:
        files = [folder / name for name in generator["files"]]
        data = {file.name: file.read_text() for file in files}
        meta = {"name": generator["name"]}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _patched(folder: Path, patch: Object, objects: list[Object]) -> list[Object]:
    """The objects after a patch, which must hit at least one."""
    (change,) = documents(folder / patch["path"])
    hit = [o for o in objects if _selected(o, patch.get("target"), change)]
    assert hit, f"{patch['path']} is for nothing"
    return [_changed(o, change) if o in hit else o for o in objects]


def _selected(o: Object, target: Object | None, change: Any) -> bool:
    if target is None:
        same = o["metadata"]["name"] == change["metadata"]["name"]
        return bool(same and o["kind"] == change["kind"])
    label, _, value = target["labelSelector"].partition("=")
    return bool(o["kind"] == target["kind"] and o["metadata"].get("labels", {}).get(label) == value)


def _changed(o: Object, change: Any) -> Object:
    if isinstance(change, dict):
        found: Object = merged(o, {k: v for k, v in change.items() if k != "metadata"})
        return found
    for step in change:
        assert step["op"] == "replace"
        o = dict(_replaced(o, step["path"].strip("/").split("/"), step["value"]))
    return o


def _replaced(at: Any, path: list[str], value: Any) -> Any:
    first, *rest = path
    key: Any = int(first) if isinstance(at, list) else first
    new = _replaced(at[key], rest, value) if rest else value
    if isinstance(at, list):
        return [*at[:key], new, *at[key + 1 :]]
    assert key in at
    return {**at, key: new}


def merged(old: Any, new: Any) -> Any:
    """Strategic merge: mappings by key, lists of named things by name, all else replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = {k: merged(old[k], new[k]) for k in old.keys() & new.keys()}
        return {**old, **new, **both}
    if isinstance(old, list) and all("name" in item for item in [*old, *new]):
        names = {item["name"]: item for item in new}
        kept = [merged(item, names.pop(item["name"], item)) for item in old]
        return [*names.values(), *kept]
    return new
