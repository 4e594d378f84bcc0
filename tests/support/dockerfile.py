"""A Dockerfile as instructions, and the shell script that carries them out."""

import fnmatch
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line, continuations joined: `COPY --from=build /a /b`."""

    name: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments, in the exec form or in the shell's."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return shlex.split(self.text)


@dataclass(slots=True)
class Image:
    """What a final stage says of the container that is made of it."""

    said: dict[str, Instruction] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return [*self.said["ENTRYPOINT"].words, *self.said["CMD"].words]

    @property
    def healthcheck(self) -> list[str]:
        command = self.said["HEALTHCHECK"].text.removeprefix("CMD").strip()
        return [str(word) for word in json.loads(command)]


def parse(text: str) -> Iterator[Instruction]:
    """The instructions in their order; comments are left out, among continuations too."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            flags, rest = _flags(rest.strip())
            yield Instruction(name.upper(), flags, rest)


def _flags(text: str) -> tuple[dict[str, str], str]:
    flags = {}
    while found := re.match(r"--([a-z-]+)=(\S+)\s*", text):
        flags[found[1]] = found[2]
        text = text[found.end() :]
    return flags, text


def image(instructions: list[Instruction]) -> Image:
    """The last stage."""
    found = Image()
    for instruction in instructions:
        if instruction.name == "FROM":
            found = Image()
        elif instruction.name == "ENV":
            found.env |= dict(word.split("=", 1) for word in instruction.words)
        else:
            found.said[instruction.name] = instruction
    return found


def script(instructions: list[Instruction], context: Path, arguments: dict[str, str]) -> str:
    """A shell script that builds the image into the root of the machine that runs it.

    Stages share that root: what another stage leaves must be copied to where it is, and the
    working directories of a stage are gone in the next.
    """
    lines = ["set -eu"]
    workdirs: list[str] = []
    for i in instructions:
        match i.name:
            case "FROM":
                lines += [f"cd / && rm -rf {shlex.quote(folder)}" for folder in workdirs]
                workdirs = []
            case "ARG":
                name, _, default = i.text.partition("=")
                lines.append(f"{name}={shlex.quote(arguments.get(name, default))}")
            case "ENV":
                lines += [f'export {k}="{v}"' for k, _, v in (w.partition("=") for w in i.words)]
            case "WORKDIR":
                workdirs.append(i.text)
                lines.append(f"mkdir -p {shlex.quote(i.text)} && cd {shlex.quote(i.text)}")
            case "COPY" if "from" in i.flags:
                source, target = i.words
                assert source == target, "stages share a root here"
            case "COPY":
                *sources, target = i.words
                lines += [_copied(context / source, target) for source in sources]
            case "RUN":
                lines.append(f"( {i.text} )")
    return "\n".join(lines)


def _copied(source: Path, target: str) -> str:
    """Put a folder's contents into the target, links as links, or a file under its name: COPY."""
    if source.is_dir():
        return f"mkdir -p {shlex.quote(target)} && cp -r {source}/. {shlex.quote(target)}"
    return f"cp {source} {shlex.quote(target)}"


def context(tree: Path, target: Path) -> Path:
    """A copy of what `.dockerignore` lets through; it must say `*`, `!NAME` and `**/NAME` only."""
    lines = (tree / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    everywhere = [p.removeprefix("**/") for p in patterns if p.startswith("**/")]
    kept = [p.removeprefix("!") for p in patterns if p.startswith("!")]
    assert sorted(patterns) == sorted(
        ["*", *(f"!{k}" for k in kept), *(f"**/{e}" for e in everywhere)]
    )
    target.mkdir()
    for name in kept:
        if (tree / name).is_dir():
            ignore = shutil.ignore_patterns(*everywhere)
            shutil.copytree(tree / name, target / name, symlinks=True, ignore=ignore)
        elif not any(fnmatch.fnmatch(name, e) for e in everywhere):
            shutil.copy(tree / name, target / name)
    return target
