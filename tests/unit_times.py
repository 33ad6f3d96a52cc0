"""Print the CPU seconds of each unit test file on its own, slowest first: `make unit-times`, or with files' names.

A unit file may take five. Other work on the machine takes no CPU time of a file, but makes it dearer (caches, shared
cores): so `import torch` is timed before each, and the second column says how many of those a file takes.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("webui", "gpu")
NO_TESTS = 5


def cpu_seconds(*command: str) -> tuple[float, int]:
    """Return the user and system time of a Python command and of all it started, and its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)


def main(names: list[str]) -> int:
    """Measure, print, and return how many files failed."""
    found = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
    rows, failed = [], 0
    for file in names or [str(path) for path in found if path.parts[1] not in LEFT_OUT]:
        torch, _ = cpu_seconds("-c", "import torch")
        words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not webui", file)
        seconds, code = cpu_seconds(*words)
        failed += code not in (0, NO_TESTS)
        rows.append((seconds, seconds / torch, file, {0: "", NO_TESTS: "all slow"}.get(code, "FAILED")))
    print("CPU s  torches")
    for seconds, torches, file, state in sorted(rows, reverse=True):
        print(f"{seconds:5.1f} {torches:8.1f}  {file}  {state}")
    print(f"{sum(row[0] for row in rows):.0f} CPU s, each file alone; together they import once a worker")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
