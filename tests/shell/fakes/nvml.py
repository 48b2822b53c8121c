"""NVML without a card: pynvml's functions, as `router/launch/cards.py` calls them, over cards that a test describes.

`tests/shell/test_cards.py` holds it against the real module: the same names, numbers and kinds of errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

GIB = 1 << 30


@dataclass(slots=True)
class FakeCard:
    """Bytes; `running` by pid, None for what the driver does not know; `fault`: every question fails with it."""

    uuid: str
    name: str = "NVIDIA L4"
    total: int = 24 * GIB
    used: int = 0
    running: dict[int, int | None] = field(default_factory=dict)
    drawing: dict[int, int | None] = field(default_factory=dict)
    mig: int | None = None  # 0 off, 1 on, None: the card has none
    fault: int = 0


class FakeNvml:
    """Stands in for the module pynvml."""

    NVML_ERROR_UNINITIALIZED = 1
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
    NVML_ERROR_UNKNOWN = 999
    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        """`value` is the driver's number."""

        words: ClassVar[dict[int, str]] = {
            1: "Uninitialized",
            3: "Not Supported",
            4: "Insufficient Permissions",
            6: "Not Found",
            9: "Driver Not Loaded",
            12: "NVML Shared Library Not Found",
            15: "GPU is lost",
            18: "RM has detected an NVML/RM version mismatch.",
            999: "Unknown Error",
        }

        def __init__(self, value: int) -> None:
            super().__init__(value)
            self.value = value

        def __str__(self) -> str:
            return self.words[self.value]

    def __init__(self, *cards: FakeCard, fault: int = 0) -> None:
        self.cards = list(cards)
        self.fault = fault  # nvmlInit fails with it
        self.open = 0
        self.generation = 0  # of handles: the driver was loaded anew

    def nvmlInit(self) -> None:
        if self.fault:
            raise self.NVMLError(self.fault)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self._check()
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        self._check()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        self._check()
        return (self.generation, self.cards[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        self._check()
        for card in self.cards:
            if card.uuid == uuid:
                return (self.generation, card)
        raise self.NVMLError(self.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return self._card(handle, gone=False).uuid

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return self._card(handle).name

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        card = self._card(handle)
        return SimpleNamespace(total=card.total, used=card.used, free=card.total - card.used)

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        card = self._card(handle)
        if card.mig is None:
            raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return [card.mig, card.mig]

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any) -> list[Any]:
        return self._processes(self._card(handle).running)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Any) -> list[Any]:
        return self._processes(self._card(handle).drawing)

    def _processes(self, running: dict[int, int | None]) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in running.items()]

    def _card(self, handle: Any, gone: bool = True) -> FakeCard:
        self._check()
        generation, card = handle
        if generation != self.generation:
            raise self.NVMLError(self.NVML_ERROR_UNINITIALIZED)
        if card.fault and gone:
            raise self.NVMLError(card.fault)
        assert isinstance(card, FakeCard)
        return card

    def _check(self) -> None:
        if not self.open:
            raise self.NVMLError(self.NVML_ERROR_UNINITIALIZED)
