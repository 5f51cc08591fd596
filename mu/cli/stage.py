"""`mu launch --in --out`: a job whose inputs and outputs are folders of this machine."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.cli.files import LocalFile, prefix_for, refuse_names, scan, shown, warn_of
from mu.cli.options import CliError, the_home, where
from mu.cli.store import store_of

if TYPE_CHECKING:
    from mu.client.answers import PipelineJson
    from mu.client.control_port import ControlPort


class Stage:
    """The folders of one order.

    `words` are the order's parameters as NAME=VALUE, with the bucket and the prefixes.
    """

    def __init__(
        self,
        client: ControlPort,
        pipeline: PipelineJson,
        words: tuple[str, ...],
        inputs: Path | None,
        outputs: Path | None,
        engine: str,
    ) -> None:
        """Raises CliError for what cannot work, before anything is copied."""
        self._name, self._inputs = pipeline["name"], inputs
        self._known = {parameter["name"] for parameter in pipeline["parameters"]}
        given = dict(word.split("=", 1) for word in words if "=" in word)
        self._check(given, inputs, outputs)
        told = client.s3(given.get("bucket", ""), engine)
        self._store, self._engine = store_of(told), told["engine"]
        added = {"bucket": self._store.bucket}
        if inputs is not None:
            added["prefix"] = prefix_for(inputs)
        self.alone = outputs is not None and "result" in self._known and is_file(outputs)
        """Whether --out is the file for the job's one result."""
        if outputs is not None:
            added["out_prefix"] = prefix_for(outputs)
            if self.alone:
                added["result"] = outputs.name
        elif inputs is not None and "out_prefix" in self._known:
            added["out_prefix"] = prefix_for(inputs, "-out")
        self._ours = "prefix" not in given
        self._prefix = given.get("prefix", added.get("prefix", ""))
        new = [f"{name}={value}" for name, value in added.items() if name not in given]
        self.words = (*words, *new)

    def _check(self, given: Mapping[str, str], inputs: Path | None, outputs: Path | None) -> None:
        needed = {"--in": inputs and "prefix", "--out": outputs and "out_prefix"}
        for option, name in needed.items():
            if name and not {"bucket", name} <= self._known:
                raise CliError(
                    f"{option} is for pipelines with the parameters bucket and {name}, such as map;"
                    f" {self._name} lacks one"
                )
        if outputs is not None and outputs.is_file() and "result" not in self._known:
            raise CliError(
                f"--out {shown(outputs)} is a file: {self._name} may make several, so name a folder"
            )
        if inputs is not None and "keys" in given:
            raise CliError("--in and -p keys cannot be combined: each of them selects the inputs")
        if inputs is not None and outputs is not None:
            source, target = inputs.resolve(), outputs.resolve()
            if target == source or source in target.parents:
                raise CliError(
                    f"--out {shown(outputs)} must not be in --in {shown(inputs)}: the next job would"
                    " take its outputs as inputs"
                )
            if source.is_dir() and target in source.parents:
                raise CliError(
                    f"--in {shown(inputs)} must not be in --out {shown(outputs)}: outputs could"
                    " replace inputs"
                )

    def upload(self, order: Mapping[str, object]) -> None:
        """Upload what has changed; on the local engine, make sure that there is a function."""
        files = self.files()
        if self._engine == "local":
            _make_function(order)
        if not files:
            return
        copied = self._store.upload(files, self._prefix, self._ours)
        click.echo(copied.sentence("Uploaded", self._store.url(self._prefix)), err=True)

    def files(self) -> list[LocalFile]:
        """Return the files of --in, and name on stderr what is left out. Raises CliError."""
        files, left = scan(self._inputs) if self._inputs is not None else ([], [])
        warn_of(left)
        if not files and self._inputs is not None:
            raise CliError(f"there are no files in --in {shown(self._inputs)}")
        refuse_names([self._prefix + file.name for file in files], "S3", self._prefix)
        return files

    def planned(
        self, params: Mapping[str, object], files: Sequence[LocalFile]
    ) -> dict[str, object]:
        """Return the parameters with the keys that the files will have, for a plan before the upload.

        Raises CliError if the pipeline takes no keys.
        """
        if "keys" not in self._known:
            raise CliError(
                f"--dry-run cannot show the plan of {self._name} with --in: it has no parameter keys,"
                " so its inputs are known only once they are uploaded"
            )
        match = str(params.get("match") or "*")
        keys = [self._prefix + file.name for file in files]
        chosen = [key for key in keys if fnmatch.fnmatchcase(key.rpartition("/")[2], match)]
        if not chosen:
            raise CliError(f"no file in --in {shown(self._inputs)} matches {match}")
        return {name: value for name, value in params.items() if name != "match"} | {"keys": chosen}

    @property
    def url(self) -> str:
        """Where the files of --in go."""
        return self._store.url(self._prefix)


def is_file(place: Path) -> bool:
    """Whether --out names a file: one that exists, or has an ending."""
    return place.is_file() or bool(place.suffix and not place.exists())


def _make_function(order: Mapping[str, object]) -> None:
    """Create the job's function on the local engine with the worker alone, unless there is one."""
    from mu.client.errors import NoAddress, NotRunning

    if "url" in where() or "copies" in order or "function" in order:
        return
    from mu.cli.deploy import deploy_bare

    with contextlib.suppress(NoAddress, NotRunning):  # the order will say what is wrong
        deploy_bare(the_home(), str(order["pipeline"]))
