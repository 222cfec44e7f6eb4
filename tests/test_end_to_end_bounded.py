"""Promise 7: memory depends on block and pool sizes, not on how large the collection is."""

from __future__ import annotations

from pathlib import Path

import pictures
import pytest
import runs

FEW, MANY = 120_000, 240_000  # the tables' row groups are full at the smaller number already
BYTES_AN_IMAGE = 512

# The process's own peak: what getrusage calls so may be that of the process that started it.
TELLING_ITS_PEAK = """
import sys
from pathlib import Path
from pipeline.cli import main
status = main(sys.argv[1:])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak so")
def test_memory_does_not_grow_with_the_collection(tmp_path: Path) -> None:
    """Known images, so that nothing but the pipeline itself takes memory."""
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    contents = runs.faces(50)
    bench.label(pictures.write_tar(tmp_path / "some.tar", contents), "some").done()
    cache = ("--cache", str(tmp_path / "some" / "cache"))
    data, peaks = list(contents.values()), {}
    for count in (FEW, MANY):
        source = pictures.write_tar(
            tmp_path / f"{count}.tar", {f"{n // 1000}/{n:07d}.png": data[n % 50] for n in range(count)}
        )
        process = runs.start(*bench.arguments(source, str(count), *cache), script=TELLING_ITS_PEAK)
        ended = runs.finish(process, tmp_path / str(count)).done()
        assert ended.record["cache"] == {"cached": count, "computed": 0, "damaged": 0}
        peaks[count] = int(ended.err.splitlines()[-1]) * 1024
    assert peaks[MANY] - peaks[FEW] <= BYTES_AN_IMAGE * (MANY - FEW)
