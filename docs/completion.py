# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make the completion of bash and zsh from the argument parsers: `python -m docs.completion DIRECTORY`.

DIRECTORY gets `vmcoredd` for bash, under which name bash-completion finds it, `vmcoredd-daemon` the same, and
`_vmcoredd` for zsh. What a value is made of is told by its metavar; completion.bash and completion.zsh know where
such values come from.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from docs import programs

KINDS = {
    "FILE": "files",
    "VMCORE": "files",
    "VMCORE|DIR": "files",
    "DIR": "directories",
    "COLLECTOR": "collectors",
    "NAME": "dumps",
    "NAME|INDEX|GLOB": "dumps_of_vmcore",
    "NAME|INDEX|GLOB[/MEMBER]": "dumps_of_vmcore",
    "[VMCORE] NAME=FILE...": "attachments",
    "MODE": "modes",
}
"""What completes a value, by its metavar; nothing completes others."""

NEW = "add"
"""The command whose NAME is a new one."""

TEMPLATES = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Make the files; return an exit status."""
    if len(arguments) != 1:
        print("usage: python -m docs.completion DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    script = filled("completion.bash", bash())
    (directory / "vmcoredd").write_text(script)
    (directory / "vmcoredd-daemon").write_text(script)
    (directory / "_vmcoredd").write_text(filled("completion.zsh", zsh()))
    return 0


def filled(template: str, tables: Iterator[str]) -> str:
    """Return a template with the tables in the place of its line "# GENERATED"."""
    text = (TEMPLATES / template).read_text()
    head, found, tail = text.partition("# GENERATED\n")
    assert found
    return "".join([head, *(f"{line}\n" for line in tables), tail])


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command line: by the name of the command, of vmcoredd itself as "", of the daemon by its own."""
    yield "", programs.vmcoredd()
    yield "vmcoredd-daemon", programs.daemon()
    yield from programs.commands().items()


def bash() -> Iterator[str]:
    """Yield the tables for bash: options, the kind of a value, the kinds of arguments; ``*``: it may repeat."""
    yield f"_vmcoredd_commands={shlex.quote(' '.join(programs.commands()))}"
    yield "declare -gA _vmcoredd_options _vmcoredd_values _vmcoredd_arguments"
    for name, parser in parsers():
        strings = [option for action in programs.options(parser) for option in action.option_strings]
        yield f"_vmcoredd_options[{shlex.quote(f'{name}:')}]={shlex.quote(' '.join(strings))}"
        kinds = [
            _kind(name, action) + ("*" if action.nargs in {"*", "+"} else "")
            for action in programs.arguments(parser)
        ]
        yield f"_vmcoredd_arguments[{shlex.quote(f'{name}:')}]={shlex.quote(' '.join(kinds))}"
        for action in programs.options(parser):
            # A value that may be left out is joined to its option, as that of an option with "=" in its name: the
            # next word is none.
            if action.nargs != 0:
                for option in action.option_strings:
                    kind = _kind(name, action) + ("?" if action.nargs == "?" or option.endswith("=") else "")
                    place = shlex.quote(f"{name}:{option.rstrip('=')}")
                    yield f"_vmcoredd_values[{place}]={shlex.quote(kind)}"


def zsh() -> Iterator[str]:
    """Yield the functions for zsh, one for each command line."""
    yield "_vmcoredd_commands=("
    for name, parser in programs.commands().items():
        description = (parser.description or name).rstrip(".")
        yield f"    {shlex.quote(f'{name}:{description}')}"
    yield ")"
    for name, parser in parsers():
        if name:
            specifications = [*_zsh_options(name, parser), *_zsh_arguments(name, parser)]
            yield f"_vmcoredd_of_{name.replace('-', '_')}() {{"
            yield f'    _arguments -S {" ".join(specifications) or ":"} "$@"'
            yield "}"


def _zsh_options(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in programs.options(parser):
        text = (action.help or "").translate({ord(sign): f"\\{sign}" for sign in "[]:"})
        excluded = shlex.quote(f"({' '.join(action.option_strings)})")
        for option in action.option_strings:
            value = ""
            if action.nargs != 0:
                optional = ":" if action.nargs == "?" else ""
                value = f":{optional}{programs.value(action)}:_vmcoredd_{_kind(name, action)}"
            join = ""
            if option.startswith("--") and value:
                join = "-" if option.endswith("=") else "=-" if action.nargs == "?" else "="
            yield f"{excluded}{shlex.quote(f'{option}{join}[{text}]{value}')}"


def _zsh_arguments(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in programs.arguments(parser):
        rest = "*" if action.nargs in {"*", "+"} else ""
        metavar = programs.value(action).replace(":", "\\:")
        yield shlex.quote(f"{rest}:{metavar}:_vmcoredd_{_kind(name, action)}")


def _kind(name: str, action: argparse.Action) -> str:
    metavar = programs.value(action)
    return "nothing" if (name, metavar) == (NEW, "NAME") else KINDS.get(metavar, "nothing")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
