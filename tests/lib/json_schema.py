# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the program prints with --json, held against docs/vmcoredd.schema.json."""

import json
from collections.abc import Sequence
from functools import cache

import jsonschema

from tests.lib.paths import ROOT

COMMANDS = ("check", "list", "run", "status", "inspect", "show", "verify", "crashes", "diff")
ONE = frozenset({"inspect", "verify"})
"""Print an object for one file, else a list of such objects."""


def check_json(arguments: Sequence[object], printed: str) -> None:
    """Fail if *printed* is not what the schema says that the program prints with these *arguments*."""
    words = [str(argument) for argument in arguments]
    modes = [word for word in words if word == "-j" or word.partition("=")[0] == "--json"]
    if not printed or modes[-1:] in ([], ["--json=off"]):
        return
    names = [word for word in words if word in COMMANDS]
    name = "version" if "--version" in words else "run-list" if "--list" in words else names[0]
    values = (
        [json.loads(line) for line in printed.splitlines()] if modes[-1] == "--json=lines" else json.loads(printed)
    )
    for value in values if name in ONE and isinstance(values, list) else [values]:
        _validator(name).validate(value)


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((ROOT / "docs/vmcoredd.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
