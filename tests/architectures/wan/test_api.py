from __future__ import annotations

import subprocess
import sys


def test_the_pins_are_imported_in_a_moment() -> None:
    program = (
        "import time\n"
        "start = time.process_time()\n"
        "from musubi import Wan, WanCache, WanDataset, WanPipeline, WanTrainer\n"
        "print(time.process_time() - start)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert float(done.stdout) < 0.3
