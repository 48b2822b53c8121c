"""The graphics cards of this machine, as NVIDIA's driver tells of them through NVML.

The only importer of pynvml (the extra `gpu`). Nothing is assumed: what a card holds is what NVML says now. A card is
handed out whole, so one in MIG mode is not handed out at all. `python -m router.launch.cards` prints what is there.

Tested against a fake of the library only, in which the driver's answers and errors are played: no machine with a card
was at hand.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import logging
from dataclasses import dataclass
from typing import Any

from router.core.events import Held
from torpor.errors import BadRequest

log = logging.getLogger("torpor.cards")

LIBRARY = "libnvidia-ml.so.1"  # comes with the driver
INSTALL = "pip install 'torpor[gpu]'"


@dataclass(frozen=True, slots=True)
class Card:
    """One card. `uuid` is its name through restarts and changes of the order; `memory`: bytes in all."""

    index: int
    uuid: str
    name: str
    memory: int
    fault: str = ""  # why it cannot be handed out


class Cards:
    """Asks the driver. `library` is pynvml, or what stands in for it; None: what is installed.

    Blocks: the first question wakes sleeping cards, which takes a second or more; later ones take milliseconds.
    """

    def __init__(self, library: Any = None) -> None:
        self._given = library
        self._library: Any = None
        self._handles: dict[str, Any] = {}
        self.there: list[Card] = []  # those that can be handed out, as `look` has found them
        self.why = ""  # there are none

    def look(self) -> list[Card]:
        """Finds those that can be handed out; the others are logged."""
        found = self.found()
        for card in found:
            if card.fault:
                log.warning("GPU %d (%s) is not handed out: %s", card.index, card.name, card.fault)
        self.there = [card for card in found if not card.fault]
        return self.there

    def found(self) -> list[Card]:
        """All cards in the driver's order; none where driver or package are missing, and `why` says which."""
        nvml = self._open()
        if nvml is None:
            return []
        try:
            count = int(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as error:
            return self._without(f"the driver does not count its cards: {error}")
        found = [card for index in range(count) if (card := self._card(nvml, index)) is not None]
        if not found:
            self._without("the driver has no card")
        return found

    def measure(self) -> dict[str, Held]:
        """What each of those that can be handed out holds now, by UUID. One that does not answer is left out."""
        nvml = self._open() if self.there else None
        uuids = [card.uuid for card in self.there]
        held = {uuid: now for uuid in uuids if (now := self._held(nvml, uuid)) is not None} if nvml else {}
        if nvml and not held:
            self.close()  # the driver was loaded anew: its old handles are of no use
        return held

    def check(self, gpu: int) -> None:
        """Raises BadRequest where a replica is to have more cards than can be handed out at all."""
        if gpu > len(self.there):
            have = f"this machine has {len(self.there)} GPU{'s' * (len(self.there) != 1)} to hand out"
            remedy = "deploy with fewer, or see why a card is left out: torpor doctor" if self.there else self.why
            raise BadRequest(f"gpu = {gpu}, but {have}\n{remedy or 'see torpor doctor'}")

    def close(self) -> None:
        if self._library is not None:
            library, self._library = self._library, None
            self._handles.clear()
            try:
                library.nvmlShutdown()
            except library.NVMLError:
                log.debug("NVML was closed already")

    def _open(self) -> Any:
        """The library, initialised; None where there is none."""
        if self._library is not None:
            return self._library
        library = self._given or self._installed()
        if library is None:
            return None
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            self._without(unready(library, error))
            return None
        self._library, self.why = library, ""
        return library

    def _installed(self) -> Any:
        """pynvml takes 5 MB: it is not imported where there is no driver."""
        if not driver():
            self._without(f"NVIDIA's driver is not installed: there is no {LIBRARY}")
            return None
        try:
            import pynvml
        except ImportError:
            self._without(f"the package nvidia-ml-py is not installed: {INSTALL}")
            return None
        return pynvml

    def _without(self, why: str) -> list[Card]:
        self.why = why
        return []

    def _card(self, nvml: Any, index: int) -> Card | None:
        """None for one that does not even say which it is."""
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = text(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError as error:
            log.warning("GPU %d does not answer: %s", index, error)
            return None
        self._handles[uuid] = handle
        try:
            name = text(nvml.nvmlDeviceGetName(handle))
            memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
        except nvml.NVMLError as error:
            return Card(index, uuid, "unknown", 0, f"it does not answer: {error}")
        return Card(index, uuid, name, memory, "it is in MIG mode: nvidia-smi -mig 0" if sliced(nvml, handle) else "")

    def _held(self, nvml: Any, uuid: str) -> Held | None:
        try:
            handle = self._handles.get(uuid)
            if handle is None:
                handle = self._handles[uuid] = nvml.nvmlDeviceGetHandleByUUID(uuid)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            log.debug("GPU %s does not answer: %s", uuid, error)
            self._handles.pop(uuid, None)
            return None
        return Held(int(memory.used), int(memory.total), processes(nvml, handle))


def driver() -> bool:
    """Whether the driver's library is here."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def unready(library: Any, error: Any) -> str:
    """Why NVML cannot be used, in words."""
    known = {
        library.NVML_ERROR_LIBRARY_NOT_FOUND: f"NVIDIA's driver is not installed: there is no {LIBRARY}",
        library.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is not loaded: modprobe nvidia, or see dmesg",
        library.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "NVIDIA's driver was replaced while it ran: restart the machine",
        library.NVML_ERROR_NO_PERMISSION: "this user may not open /dev/nvidiactl",
    }
    return known.get(error.value, f"NVIDIA's driver cannot be asked: {error}")


def sliced(nvml: Any, handle: Any) -> bool:
    """Whether a card is in MIG mode, in which only its parts can be used. Older ones have none."""
    try:
        return int(nvml.nvmlDeviceGetMigMode(handle)[0]) == int(nvml.NVML_DEVICE_MIG_ENABLE)
    except nvml.NVMLError:
        return False


def processes(nvml: Any, handle: Any) -> dict[int, int]:
    """Bytes that processes hold on a card, by their pid on this machine. Where the driver does not know, it has none.

    A process that computes and draws is in both lists, with the same bytes.
    """
    found: dict[int, int] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetGraphicsRunningProcesses_v3):
        try:
            running = ask(handle)
        except nvml.NVMLError:  # of a driver older than 510, or one that fell off the bus in this moment
            continue
        for process in running:
            found[int(process.pid)] = max(found.get(int(process.pid), 0), int(process.usedGpuMemory or 0))
    return found


def text(said: str | bytes) -> str:
    """Bindings before 11.510 say bytes."""
    return said.decode() if isinstance(said, bytes) else said


if __name__ == "__main__":
    cards = Cards()
    listed = [dataclasses.asdict(card) for card in cards.found()]
    print(json.dumps({"cards": listed, "driver": driver(), "why": cards.why}))
