"""Measure the batch engine: `python bench/jobs.py [FILES]`; the same as `fam-hires bench jobs`."""

import sys

from fam_ext.jobs import bench

if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else bench.LARGE
    measures = bench.run(large=count, small=min(1000, count), say=lambda line: print(line, flush=True))
    sys.exit(0 if all(measure.met for measure in measures) else 1)
