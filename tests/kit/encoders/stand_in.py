#!/usr/bin/env -S python3 -IS
"""Stands in for the encoder's programs, whichever it is named: vpxenc, xc-enc, xc-dump, ...

A chunk is a Y4M file of tiny frames, its number in a comment of the header. What is encoded and what a state knows is
JSON: which chunk, made of what. So a state of another chunk than the one before, or of another pass
than the recipe says, is refused, and the outputs follow from the inputs alone.
"""

import hashlib
import json
import sys
from pathlib import Path


def chunk_of(path):
    """Return a chunk's number and its frames."""
    header, _, body = Path(path).read_text().partition("\n")
    return int(header.partition("Xchunk=")[2]), body.split("FRAME\n")[1:]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def read(path):
    return json.loads(Path(path).read_text())


def write(path, **what):
    Path(path).write_text(json.dumps(what, sort_keys=True) + "\n")


def insist(true, complaint):
    if not true:
        sys.exit(f"{Path(sys.argv[0]).name}: {complaint}")


def vpxenc(*words):
    *options, in_file = words
    insist("--codec=vp8" in options and "--passes=2" in options, f"which options? {options}")
    quality = next(word for word in options if word.startswith("--cq-level="))
    number, frames = chunk_of(in_file)
    out = options[options.index("-o") + 1]
    write(out, kind="key", chunk=number, last=frames[-1], quality=quality, of=digest(in_file))


def xc_dump(ivf, state):
    known = read(ivf)
    write(state, kind="dump", chunk=known["chunk"], last=known["last"], of=digest(ivf))


def xc_terminate_chunk(prev, out, state):
    known = read(prev)
    insist(known["kind"] == "key", f"a key frame was expected; {known} came")
    write(out, **{**known, "kind": "end", "of": digest(prev)})
    write(state, kind="end", chunk=known["chunk"], last=known["last"], of=digest(out))


def xc_enc(*words):
    *options, in_file = words
    given = {word: options[at + 1 : at + 2] for at, word in enumerate(options)}
    insist(given["-w"] == ["0.75"] and given["-i"] == ["y4m"] and "-r" in given, options)
    sys.stdin.read()
    number, frames = chunk_of(in_file)
    state, prev = read(*given["-I"]), read(*given["-p"])
    insist(state["chunk"] == number - 1, f"chunk {number} after the state of {state}")
    insist(prev["chunk"] == number, f"chunk {number}, and encoded before was {prev}")
    if "-e" in given:
        insist(state["kind"] in ("end", "enc"), f"which pass? {state}")
        insist(state["last"] == frames[0], f"{frames[0]} does not go on after {state}")
    elif "-S" in given:
        source = read(*given["-S"])
        insist(source["chunk"] == number - 1, f"chunk {number} with the source state of {source}")
        insist((source["kind"], state["kind"]) == ("dump", "enc"), f"which pass? {source} {state}")
        insist(prev["kind"] == "enc", f"before this pass another was expected; {prev} came")
    else:
        insist((state["kind"], prev["kind"]) == ("dump", "key"), f"which pass? {state} {prev}")
    used = [digest(*given[word]) for word in ("-I", "-p", "-S") if word in given]
    (out,), (final,) = given["-o"], given["-O"]
    write(out, kind="enc", chunk=number, last=frames[-1], of=digest(in_file), used=used)
    write(final, kind="enc", chunk=number, last=frames[-1], of=digest(out))


def comp_states(one, other):
    same = digest(one) == digest(other)
    print("same" if same else "different")
    sys.exit(not same)


PROGRAMS = {
    "vpxenc": vpxenc,
    "xc-dump": xc_dump,
    "xc-terminate-chunk": xc_terminate_chunk,
    "xc-enc": xc_enc,
    "comp-states": comp_states,
}

if __name__ == "__main__":
    PROGRAMS[Path(sys.argv[0]).name](*sys.argv[1:])
