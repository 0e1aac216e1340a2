# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel's headers say, by a C program."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lib.tools import require


def values(tmp_path: Path, headers: Sequence[str], expressions: Sequence[str]) -> list[int]:
    """Return integers of C."""
    require("gcc")
    lines = [f"#include <{header}>" for header in ["stddef.h", "stdio.h", "sys/ioctl.h", *headers]]
    lines += ["int main(void) {", *(f'printf("%lld\\n", (long long)({text}));' for text in expressions), "}"]
    (tmp_path / "values.c").write_text("\n".join(lines))
    subprocess.run(["gcc", "-o", tmp_path / "values", tmp_path / "values.c"], check=True)
    output = subprocess.run([tmp_path / "values"], check=True, capture_output=True, text=True).stdout
    return [int(line) for line in output.split()]
