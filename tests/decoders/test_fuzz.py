# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of the fuzzer of decoders."""

import pytest

from tests.fuzz import decoders as fuzz
from vmcoredd_daemon.decoders.registry import BUILT_IN


@pytest.mark.parametrize("module", fuzz.MODULES)
def test_mutated_dumps(module: str) -> None:
    rounds = 60
    assert 0 < fuzz.run(module, rounds, 23) <= rounds


def test_every_decoder_is_fuzzed() -> None:
    assert set(fuzz.MODULES) >= BUILT_IN.keys() - {"manifest", "firmware_tables"}
