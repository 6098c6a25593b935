"""Memory: predicting from a table of 20,000 image files, growth of the process after import.

python benchmarks/memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS, SIDE = 20_000, 64

CHILD = """
import sys, resource
import numpy as np, pandas as pd, torch
import kintsugi as kg
from kintsugi.estimator import Classifier
from PIL import Image
torch.set_num_threads(1)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

folder = sys.argv[1]
frame = pd.read_parquet(folder + "/rows.parquet")
readers = {"scan": kg.image("scan", size=64, channels=1), "age": kg.tabular(["age"])}
small = kg.Table.from_pandas(frame.head(64), modalities=readers, target="y", task="classification", root=folder)
model = kg.Classifier("mean_fusion", epochs=1, progress=False).fit(small, small)
before = resident()
table = kg.Table.from_reading(folder + "/rows.parquet", model.reading_)
answers = model.predict_proba(table)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{len(answers)} rows of image files: {before:.0f} MB before, peak {peak:.0f} MB, growth {peak - before:.0f} MB; "
      f"all decoded they would take {len(answers) * 64 * 64 * 4 / 2**20:.0f} MB")
"""


def main() -> None:
    import numpy as np
    import pandas as pd
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for i in range(ROWS):
            Image.fromarray(rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8)).save(
                Path(folder) / f"{i}.png", compress_level=1
            )
        rows = pd.DataFrame({"scan": [f"{i}.png" for i in range(ROWS)], "age": rng.normal(size=ROWS)})
        rows["y"] = ["a", "b"] * (ROWS // 2)
        rows.to_parquet(Path(folder) / "rows.parquet")
        subprocess.run([sys.executable, "-c", CHILD, folder], check=True)
    print(f"(the parent that wrote the files: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB)")


if __name__ == "__main__":
    main()
