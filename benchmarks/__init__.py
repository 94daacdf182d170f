"""Speed, each figure beside a floor that was measured in the same run. One thread per library, as in the server."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when faiss, numpy and torch are imported
    os.environ.setdefault(_name, "1")
