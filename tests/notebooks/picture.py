"""Draws README's picture anew: `python -m tests.notebooks.picture`, once the demo has made the year's tables.

It is the chart of the cell `hour` of flights.ipynb, in few colours, since a picture that is committed should be small.
"""

import os
from base64 import b64decode
from io import BytesIO

from jupyter_client.manager import AsyncKernelManager
from PIL import Image

from conf import ROOT
from tests.notebooks.execution import NOTEBOOKS, Execution, code_cells, pictures, read

CELLS = ("open", "hour", "stop")
TARGET = ROOT / "docs" / "pictures" / "hour.png"
COLORS = 32
STARTUP_SECONDS = 300  # of a busy machine


def main() -> None:
    """Execute the cells, and write the picture to TARGET."""
    notebook = read(NOTEBOOKS / "flights.ipynb")
    cells = {cell.id: cell for cell in code_cells(notebook)}
    notebook.cells = [cells[name] for name in CELLS]
    kernel = AsyncKernelManager(kernel_name="python3")
    execution = Execution(notebook, kernel, start_in=NOTEBOOKS)
    execution.startup_timeout = STARTUP_SECONDS
    execution.execute(env={**os.environ})
    [picture] = pictures(cells["hour"])
    Image.open(BytesIO(b64decode(picture))).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(
        TARGET, optimize=True
    )
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
