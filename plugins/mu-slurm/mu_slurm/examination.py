"""What `mu doctor --engine slurm` finds. It blocks."""

import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Sequence

from mu.findings import FAIL, OK, UNKNOWN, WARN, Finding
from mu.plugins import EngineSite
from mu_slurm.cluster import Cluster
from mu_slurm.options import sbatch_words

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo")
WAIT_S = 30
"""How long to wait for a node that looks around."""
OLDEST = (3, 11)
LOOK = """
import json, os, socket, sys
mark, host, port = sys.argv[1:]
seen = {"node": socket.gethostname(), "python": sys.version_info[:2], "mark": os.path.exists(mark)}
try:
    import boto3
    seen["boto3"] = True
except ImportError:
    seen["boto3"] = False
seen["reach"] = ""
if int(port):
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError as error:
        seen["reach"] = str(error)
print(json.dumps(seen))
"""


def examine(cluster: Cluster, site: EngineSite, functions: Sequence[str]) -> Iterator[Finding]:
    """Yield the findings; later checks depend on earlier ones."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        said = f"{', '.join(missing)} not found in PATH"
        yield Finding("Slurm", FAIL, said, "run mu where jobs are submitted: on a login node")
        return
    config = cluster.commands.run(("scontrol", "show", "config"))
    if not config.good:
        yield Finding("Slurm", FAIL, f"Slurm does not answer: {_line(config.err)}")
        return
    most = cluster.largest_array()
    if not most:
        said = "the cluster allows no job arrays: its MaxArraySize is 0"
        yield Finding("Slurm", FAIL, said, "ask its administrators to allow them")
        return
    yield Finding("Slurm", OK, f"Slurm answers; an array has up to {most:,} tasks (MaxArraySize)")
    partition = _partition(cluster)
    yield partition
    folder = _folder(cluster)
    yield folder
    if FAIL in (partition.level, folder.level):
        return
    yield from (_function(cluster, name) for name in functions)
    yield from _inside(cluster, site)


def _partition(cluster: Cluster) -> Finding:
    name = cluster.options.partition
    words = [
        "sinfo",
        "--noheader",
        "--format=%R|%a|%D|%t",
        *([f"--partition={name}"] if name else []),
    ]
    told = cluster.commands.run(words).out.split()
    rows = [row.split("|") for row in told]
    named = name or "the default partition"
    if not rows:
        return Finding("partition", FAIL, f"there is no partition {named}", "sinfo lists them")
    up = sum(
        int(row[2]) for row in rows if row[1] == "up" and not row[3].startswith(("down", "drain"))
    )
    if not up:
        return Finding("partition", FAIL, f"no node of {named} is up", "sinfo shows why")
    return Finding("partition", OK, f"{up} {'node' if up == 1 else 'nodes'} up in {named}")


def _folder(cluster: Cluster) -> Finding:
    path = cluster.folder
    if not cluster.options.folder:
        remedy = "set it in [slurm] of mu.conf to a folder that all nodes have at the same path"
        return Finding("folder", FAIL, "folder is not set", remedy)
    try:
        cluster.make_folders()
        if path.stat().st_uid != os.getuid():
            return Finding(
                "folder", FAIL, f"{path} belongs to another user", "choose one of your own"
            )
        (path / f".probe-{secrets.token_hex(4)}").touch()
    except OSError as error:
        return Finding("folder", FAIL, f"cannot write in {path}: {error.strerror}")
    return Finding("folder", OK, f"events and logs are in {path}")


def _function(cluster: Cluster, name: str) -> Finding:
    bundle = cluster.bundle_of(name)
    if bundle is None:
        remedy = f"mu bundle ... -o {cluster.functions}/{name}.zip"
        return Finding(
            "function", FAIL, f"there is no bundle of {name!r} in {cluster.functions}", remedy
        )
    starter = "mu_worker/__main__.py"
    try:
        if bundle.is_dir():
            found = (bundle / starter).exists()
        else:
            with zipfile.ZipFile(bundle) as archive:
                found = starter in archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        return Finding("function", FAIL, f"{bundle} cannot be read: {error}")
    if not found:
        said = f"{bundle} has no {starter}: it is no bundle, or one of an older mu"
        return Finding("function", FAIL, said, "make it again with mu bundle")
    return Finding("function", OK, f"{name} is {bundle}")


def _inside(cluster: Cluster, site: EngineSite) -> Iterator[Finding]:
    """Look around on a node."""
    options, marks = cluster.options, list(cluster.folder.glob(".probe-*"))
    mark = marks[0] if marks else cluster.folder
    asked = [word for word in sbatch_words(options) if not word.startswith("--time=")]
    words = ["srun", f"--immediate={WAIT_S}", "--time=2", "--export=NIL", "--chdir=/", *asked]
    words += [options.python, "-c", LOOK, str(mark), site.host, str(site.port)]
    ran = cluster.commands.run(words)
    for path in marks:
        path.unlink(missing_ok=True)
    try:
        seen = json.loads(ran.out) if ran.good else None
    except ValueError:
        seen = None
    if seen is None:
        busy = "Unable to allocate" in ran.err
        said = f"no node could look around: {_line(ran.err)}"
        remedy = f"check again when a node is free within {WAIT_S} s" if busy else ""
        if f"execve(): {options.python}: " in ran.err:
            remedy = "set python in [slurm] of mu.conf to the path of one that nodes have"
        yield Finding("node", UNKNOWN if busy else FAIL, said, remedy)
        return
    node, version = seen["node"], ".".join(map(str, seen["python"]))
    if tuple(seen["python"]) < OLDEST:
        remedy = "set python in [slurm] of mu.conf to a newer one"
        yield Finding("node", FAIL, f"{node} has Python {version}; workers need 3.11", remedy)
    elif not seen["boto3"]:
        remedy = f"jobs with files in S3 need it: {options.python} -m pip install boto3"
        yield Finding("node", WARN, f"{node} has Python {version}, but no boto3", remedy)
    else:
        yield Finding("node", OK, f"{node} has Python {version} and boto3")
    if seen["mark"]:
        yield Finding("shared folder", OK, f"{node} sees {cluster.folder}")
    else:
        said = f"{node} does not see what was written in {cluster.folder}"
        yield Finding("shared folder", FAIL, said, "set folder to one of the shared file system")
    place = f"{site.host}:{site.port}"
    if not site.port:
        yield Finding("way back", UNKNOWN, "no daemon runs, so there is no port to connect to")
    elif seen["reach"]:
        remedy = "set public_host in [launch] of mu.conf to an address that nodes can reach"
        said = f"{node} cannot connect to {place}: {seen['reach']}"
        yield Finding("way back", FAIL, said, remedy)
    else:
        yield Finding("way back", OK, f"{node} connects to {place}")


def _line(text: str) -> str:
    return " ".join(text.split())[:300] or "it says nothing"
