# SPDX-License-Identifier: LGPL-2.1-or-later

import re

from vmcoredd_daemon.progress import Progress


def test_progress_says_nothing_that_nobody_knows() -> None:
    progress = Progress()
    progress.start("Writing the vmcore")
    assert progress.text == "Writing the vmcore"
    progress.start("Writing the vmcore", 64 << 30)
    assert progress.text == "Writing the vmcore: 0% of 64.0G"
    progress.advance(16 << 30)
    progress.started -= 1024
    assert progress.text == "Writing the vmcore: 25%, 16.0G of 64.0G, 15.9M/s, 51min 12s left"
    # What had no room is not written again without being counted.
    progress.reach(65 << 30, 64 << 30)
    assert re.fullmatch(r"Writing the vmcore: 100%, 65\.0G of 64\.0G, .*, 0s left", progress.text)
    progress.start("Writing the vmcore")
    progress.advance(1 << 20)
    assert re.fullmatch(r"Writing the vmcore: 1\.0M, [\d.]+\w/s", progress.text)
