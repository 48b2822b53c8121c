"""The progress of engines as lines, from streams that Podman and Docker have sent."""

from __future__ import annotations

from typing import Any

import pytest

from router.launch.container.progress import Lines

PODMAN = [
    {"stream": "STEP 3/5: RUN ./install\n"},
    {"stream": "hello\npar"},
    {"stream": "tial\n\r1%\r2%\r3%\n"},
    {"stream": "--> Using cache 4947ff0ef404e5af71de018f15746e45f184789f260d80b9684f0f0abc136203\n"},
    {"stream": "--> 4947ff0ef40\n"},
    {"stream": "4947ff0ef404e5af71de018f15746e45f184789f260d80b9684f0f0abc136203\n"},
    {"aux": {"ID": "sha256:21916550a39d"}},
    {"stream": "Successfully tagged it:1\n"},
]
DOCKER = [
    {"stream": "Step 1/2 : RUN pip install it"},
    {"stream": "\n"},
    {"stream": " ---> Running in 0123456789ab\n"},
    {"stream": "\x1b[91mWARNING: as root\n\x1b[0m"},
    {"stream": "   ━━━━━━━━━━━━━━━━ 1.2/1.2 MB 9.9 MB/s eta 0:00:00\n"},
    {"stream": "Removing intermediate container 0123456789ab\n"},
    {"stream": "the last, without an end"},
]
PULL = [
    {"status": "Pulling from library/python", "id": "3.11-slim"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "a1"},
    {"status": "Downloading", "progressDetail": {"current": 1, "total": 9}, "progress": "[>  ]", "id": "a1"},
    {"status": "Pull complete", "progressDetail": {}, "id": "a1"},
    {"status": "Digest: sha256:00"},
]


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (PODMAN, ["STEP 3/5: RUN ./install", "hello", "partial", "3%", "Successfully tagged it:1"]),
        (DOCKER, ["Step 1/2 : RUN pip install it", "WARNING: as root", "the last, without an end"]),
        (
            PULL,
            [
                "3.11-slim: Pulling from library/python",
                "a1: Pulling fs layer",
                "a1: Pull complete",
                "Digest: sha256:00",
            ],
        ),
    ],
)
def test_a_stream_is_told_in_whole_lines_without_bars(stream: list[dict[str, Any]], lines: list[str]) -> None:
    told = Lines()
    assert [line for each in stream for line in told.of(each)] + told.end() == lines
