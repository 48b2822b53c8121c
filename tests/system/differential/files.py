"""Images and files in and out: multipart forms, bodies of one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import bentoml
from PIL.Image import Image


@bentoml.service
class Files:
    @bentoml.api
    def size(self, image: Image, factor: int = 1) -> list[int]:
        return [side * factor for side in image.size]

    @bentoml.api
    def flip(self, image: Image) -> Image:
        return image.transpose(0)  # type: ignore[arg-type]  # FLIP_LEFT_RIGHT

    @bentoml.api
    def root_image(self, image: Image, /) -> str:
        return f"{image.format} {image.size}"

    @bentoml.api
    def length(self, file: Path) -> dict[str, Any]:
        return {"length": len(file.read_bytes()), "suffix": file.suffix}

    @bentoml.api
    def lengths(self, files: list[Path]) -> list[int]:
        return [len(file.read_bytes()) for file in files]

    @bentoml.api
    def audio(self, sound: Annotated[Path, bentoml.validators.ContentType("audio/wav")]) -> int:
        return len(sound.read_bytes())

    @bentoml.api
    def report(self, ctx: bentoml.Context) -> Path:
        path = Path(ctx.temp_dir, "report.csv")
        path.write_text("a,b\n1,2\n")
        return path

    @bentoml.api
    def picture(self, ctx: bentoml.Context) -> Annotated[Path, bentoml.validators.ContentType("image/png")]:
        path = Path(ctx.temp_dir, "picture.png")
        path.write_bytes(b"\x89PNG not really")
        return path
