"""What a deploy asks of bentos: what they need, and what they run on, as processes or in containers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from router.bentos import Bentos
from router.config import Config
from router.core.settings import Settings
from router.launch.cards import Cards
from router.launch.container.images import Images
from router.launch.environment import Environments
from router.shell.direct import DirectUploads
from router.shell.request import Environment, Needs


@dataclass(frozen=True, slots=True)
class Packages:
    """Bentos and their environments, as a deploy asks for them."""

    bentos: Bentos
    environments: Environments
    images: Images
    cards: Cards

    @classmethod
    def of(cls, config: Config, pushed: DirectUploads, images: Images, cards: Cards) -> Packages:
        environments = Environments(config.data / "environments", config.data / "run")
        return cls(Bentos(pushed.repositories.copies), environments, images, cards)

    def check(self, settings: Settings) -> None:
        self.cards.check(settings.gpu)

    def needs(self, tag: str) -> Needs:
        return self.bentos.needs(tag)

    async def environment(self, needs: Needs, settings: Settings, tell: Callable[[str], None]) -> Environment:
        if settings.launcher == "container":
            return Environment(Path(sys.executable), await self.images.of(needs, settings.image, tell))
        return Environment(await self.environments.python(needs.listed, tell, needs.python))
