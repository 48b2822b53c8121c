# Shows files: several uploaded in a form, one sent as the whole body, and one answered to be downloaded.

import hashlib
from pathlib import Path

import bentoml

CHUNK = 1 << 20  # bytes


@bentoml.service
class Files:
    @bentoml.api
    def join(self, parts: list[Path], context: bentoml.Context) -> Path:
        """Several files in, one out: theirs joined. A call's temporary folder goes when it is answered."""
        joined = Path(context.temp_dir) / "joined.bin"
        with joined.open("wb") as out:
            for part in parts:
                with part.open("rb") as file:
                    while chunk := file.read(CHUNK):
                        out.write(chunk)
        return joined

    @bentoml.api
    def digest(self, file: Path, /) -> dict[str, str | int]:
        """The size and SHA-256 of the request's body."""
        with file.open("rb") as opened:
            return {"size": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
