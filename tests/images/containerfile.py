"""Reads a Containerfile and does what it says in folders, as far as that is possible without a container engine."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as `RUN` with `["python", ...]`."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The exec form of RUN, CMD and ENTRYPOINT. Raises ValueError for the shell form."""
        words = json.loads(self.text)
        if not isinstance(words, list):
            raise ValueError(f"{self.name} {self.text}: expected the exec form")
        return [str(word) for word in words]


@dataclass
class Stage:
    """What one `FROM` begins."""

    base: str
    name: str = ""
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions of one kind."""
        return [each for each in self.instructions if each.name == name]

    def last(self, name: str) -> Instruction:
        """Return the one that counts where the last wins."""
        return self.all(name)[-1]

    @property
    def env(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', " ".join(each.text for each in self.all("ENV"))))


@dataclass
class Containerfile:
    """Arguments before the first stage, and the stages."""

    arguments: dict[str, str]
    stages: list[Stage]


def parse(text: str) -> Containerfile:
    """Read a Containerfile: comments, continued lines, `ARG NAME=value`, `FROM ${NAME} AS stage`."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            stages.append(Stage(re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], base), stage))
        elif stages:
            stages[-1].instructions.append(Instruction(name, rest.strip()))
        else:
            assert name == "ARG", line
            key, _, value = rest.partition("=")
            arguments[key] = value
    return Containerfile(arguments, stages)


def build(file: Containerfile, context: Path, target: Path) -> Path:
    """Follow COPY, RUN and WORKDIR of every stage, each in a folder of `target`; return the last one's.

    Base images are empty folders, and `python` is the Python of the tests: that of the base image is not here.
    """
    roots: dict[str, Path] = {}
    for number, stage in enumerate(file.stages):
        root = roots[stage.name or str(number)] = target / (stage.name or "image")
        root.mkdir(parents=True)
        cwd, env = root, dict(os.environ)
        for each in stage.instructions:
            if each.name == "WORKDIR":
                cwd = inside(root, each.text)
                cwd.mkdir(parents=True, exist_ok=True)
            elif each.name == "ENV":
                env |= {key: _arg(root, value) for key, value in Stage("", "", [each]).env.items()}
            elif each.name == "COPY":
                _copy(each.text.split(), context, roots, root)
            elif each.name == "RUN":
                command = [_arg(root, word) for word in each.words]
                assert command[0] == "python", each
                done = subprocess.run([sys.executable, *command[1:]], cwd=cwd, env=env, capture_output=True, text=True)
                assert done.returncode == 0, f"{each.text}\n{done.stdout}\n{done.stderr}"
    return root


def inside(root: Path, path: str) -> Path:
    """Return where an absolute path of the image is."""
    return root / path.lstrip("/")


def included(context: Path) -> list[Path]:
    """Return the files that `.dockerignore` lets through; the last pattern that matches a file decides."""
    rules = [line for line in (context / ".dockerignore").read_text().split() if line]
    found = []
    for path in sorted(
        p for name in ("services", "constraints.txt") for p in [context / name, *context.glob(f"{name}/**/*")]
    ):
        kept = True
        for rule in rules:
            if _matches(str(path.relative_to(context)), rule.removeprefix("!")):
                kept = rule.startswith("!")
        if kept and path.is_file():
            found.append(path)
    return found


def _matches(path: str, rule: str) -> bool:
    parts = path.split("/")
    above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    if rule.startswith("**/"):
        return rule[3:] in parts
    return any(fnmatch.fnmatch(each, rule) for each in above)


def _copy(words: Sequence[str], context: Path, roots: Mapping[str, Path], root: Path) -> None:
    origin = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), "")
    source, destination = [word for word in words if not word.startswith("--")]
    to = inside(root, destination)
    if origin:
        shutil.copytree(inside(roots[origin], source), to, symlinks=True, dirs_exist_ok=True)
        return
    for path in included(context):
        relative = path.relative_to(context)
        if str(relative) == source or relative.parts[0] == source:
            at = to if str(relative) == source else to / relative.relative_to(source)
            at.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, at)


def _arg(root: Path, word: str) -> str:
    """Turn an absolute path, alone or behind `--flag=`, into the one below `root`."""
    flag, equals, value = word.partition("=")
    if equals and value.startswith("/"):
        return f"{flag}={inside(root, value)}"
    return str(inside(root, word)) if word.startswith("/") else word
