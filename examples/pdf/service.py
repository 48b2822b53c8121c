# Shows a program of the system: a service that needs more than Python packages runs in a container.
#     torpor deploy examples/pdf --set launcher=container

import subprocess
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.exceptions import InvalidArgument
from bentoml.validators import ContentType

IMAGE = bentoml.images.Image(python_version="3.11", lock_python_packages=False).system_packages("poppler-utils")
WITHIN = 20.0  # seconds that a document may take


@bentoml.service(name="pdf", image=IMAGE)
class Pdf:
    @bentoml.api
    def text(self, document: Annotated[Path, ContentType("application/pdf")]) -> str:
        """The document's text, page after page, by poppler's pdftotext."""
        read = subprocess.run(["pdftotext", str(document), "-"], capture_output=True, text=True, timeout=WITHIN)
        if read.returncode != 0:
            raise InvalidArgument(f"this is no PDF that pdftotext reads: {read.stderr.strip()}")
        return read.stdout
