"""Commands with placeholders: whatever a value holds, the shell takes it as it is."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu.pipelines.templates import ShellTemplate, fill, parse, quoted

NASTY = [
    "plain",
    "two words",
    "it's",
    'a "quote"',
    "$HOME ${HOME} $(touch pwned) `touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a\nnew line",
    "a\\back\\\\slash\\",
    "* ? [a-z] ~ {a,b} !!",
    "-n --help",
    "##TMPDIR##/x ##INFILE## ###",
    "#",
    "ü 日本 \U0001f600",
    "\udcff\udc80 not UTF-8",
    "",
    "\t\r\x01\x7f",
]
SHELLS = [shell for shell in ("/bin/sh", shutil.which("bash")) if shell]


def template(text):
    return ShellTemplate(text, ("in", "actor"), ("name",))


def words(command, shell, folder):
    """Return what the shell makes of the words of a printf, as bytes."""
    ran = subprocess.run(
        [shell, "-c", command.encode("utf-8", "surrogateescape")],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    assert not list(folder.iterdir())
    return ran.stdout.split(b"\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", NASTY)
def test_a_value_reaches_the_program_as_it_is_in_and_out_of_double_quotes(value, shell, tmp_path):
    places = template(
        """printf '%s\\0' {name} "a {name}b" x{name}y "$(printf %sz {name})" "it's"{name}"""
    )
    command = places.fill({"name": value})
    assert "##" not in command
    raw = value.encode("utf-8", "surrogateescape")
    assert words(command, shell, tmp_path) == [
        raw,
        b"a " + raw + b"b",
        b"x" + raw + b"y",
        raw + b"z",
        b"it's" + raw,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "printf '%s\\0' `printf %s {name}`",
        'printf "%s\\0" \\{name}',
        "printf '%s\\0' \"`printf %s {name}`\"",
        "cat > /dev/null <<END\nit's \"{name}\n{name}\nEND",
        "case x in x) printf '%s\\0' $(printf %s {name});; esac",
        'eval "set -- a"; printf "%s\\0" "${{x:-{name}}}"',
    ],
)
@pytest.mark.parametrize("value", NASTY)
def test_nowhere_does_a_value_become_a_part_of_the_program(text, value, tmp_path):
    try:
        command = template(text).fill({"name": value})
    except ValueError:  # single quotes, as far as it can tell
        return
    subprocess.run(
        ["/bin/sh", "-c", command.encode("utf-8", "surrogateescape")],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "echo '{name}'",
        "sh -c 'x {name}'",
        """awk 'BEGIN {{ print "{name}" }}'""",
        """echo "$(echo '{name}')" """,
        "echo \\\\'{name}'",
    ],
)
def test_in_single_quotes_an_untrusted_value_is_refused(text):
    with pytest.raises(ValueError, match=r"\{name\} must not be inside single quotes.*sh -c"):
        template(text)


@pytest.mark.parametrize(
    "text",
    [
        "echo 'x'{name}",
        "echo \\'{name}",
        """echo "it's {name}" """,
        "echo $# {name}",
        "# it's a comment\necho {name}",
    ],
)
def test_what_only_looks_like_single_quotes_is_not_refused(text):
    assert "$" in template(text).fill({"name": "v"})


def test_trusted_values_are_inserted_as_they_are_anywhere():
    made = template("sh -c 'cat {in}' \"{in}\" {actor}")
    assert made.fill({"in": "##TMPDIR##/in", "actor": "7"}) == (
        "sh -c 'cat ##TMPDIR##/in' \"##TMPDIR##/in\" 7"
    )
    assert made.names == {"in", "actor"}


def test_doubled_braces_are_braces():
    assert template("awk '{{print $1}}' {in}").fill({"in": "f"}) == "awk '{print $1}' f"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "echo {nmae}",
            r"unknown placeholder \{nmae\}; the placeholders are \{in\}, \{actor\}, \{name\} \(for",
        ),
        ("echo {}", r"unknown placeholder \{\}"),
        ("echo {in!r}", r"unknown placeholder \{in\}"),
        ("echo {in:5}", r"unknown placeholder \{in\}"),
        ("echo {in.real}", r"unknown placeholder \{in.real\}"),
        ("echo ${HOME}", r"unknown placeholder \{HOME\}.*\{\{ or \}\}"),
        ("echo {in", r"brace.*\{\{ or \}\}"),
        ("echo }", r"brace|Single '}'"),
    ],
)
def test_an_unknown_placeholder_is_refused_by_name(text, says):
    with pytest.raises(ValueError, match=says):
        template(text)


def test_keys_are_filled_as_they_are():
    assert fill(parse(".small{ext}", ["ext"]), {"ext": ".j pg"}) == ".small.j pg"


def test_a_word_without_strange_characters_is_left_alone():
    assert quoted("photos/a-1.png") == "photos/a-1.png"


# ---------------------------------------------------------------- for any text and any value

VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
SYNTAX = st.text(" \n'\"\\\\`$(){}#;a=", max_size=15)


@given(st.text())
def test_a_text_with_its_braces_doubled_is_itself(text):
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert fill(parse(doubled, []), {}) == text


@given(VALUES)
def test_any_value_is_one_word_of_shell(value):
    command = template("printf '%s\\0' {name}").fill({"name": value})
    ran = subprocess.run(
        ["/bin/sh", "-c", command.encode("utf-8", "surrogateescape")], capture_output=True
    )
    assert ran.stdout == value.encode("utf-8", "surrogateescape") + b"\0"
    assert "##" not in quoted(value)


@given(SYNTAX, SYNTAX)
def test_a_value_is_never_executed_whatever_stands_around_it(before, after):
    try:
        command = template(before + "{name}" + after).fill(
            {"name": "$(echo run >&2)`echo run >&2`"}
        )
    except ValueError:
        return
    ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, stdin=subprocess.DEVNULL)
    assert b"run\n" not in ran.stderr.splitlines(keepends=True)
