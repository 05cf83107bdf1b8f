"""The flags of `semsynth app` (no torch, nothing of the extra ``app``)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import UserError

MAX_UPLOAD_BYTES = 20 * 1024 * 1024
MAX_SIDE = 4096
# Of masks, images and what was made of them; the oldest are dropped first.
RESULT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class AppConfig:
    """Draw a mask in the browser and see its image: the studio.

    Raises:
        UserError: a value outside its range, or another interface without a token.
    """

    model: tuple[str, ...] = ()
    """Trained generators, the first one is shown first: each the final_model.pth of a run, a
    Diffusers folder, or the name of a model of the package (semsynth models). Without it all models
    of the package."""
    data: Path | None = None
    """Prepared data set or samples to browse, to start from and to take objects from."""
    segmenter: Path | None = None
    """Evaluator, the segmenter that scores images (semsynth segment train): its file or folder."""
    save_to: Path = Path("./studio")
    """Folder of the pairs that are saved; the commands read it like a prepared data set."""
    host: str = "127.0.0.1"
    """Interface to listen on; by default this machine alone can reach it."""
    port: int = 7860
    """Port; if it is in use, the next free one, which is said. 0: any."""
    root_path: str = ""
    """Path below which a proxy shows it, such as /user/me/proxy/7860."""
    allow_host: tuple[str, ...] = ()
    """Names by which a proxy or a forwarded port reaches it, beside those of --host: requests with
    another Host or Origin are refused."""
    token: bool = True
    """Ask for the token in the printed address; without it any user of this machine can come in.
    Another interface than this machine's own always has one."""
    browser: bool = True
    """Open the browser, where there is a display."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}: must be from 0 (any) to 65535")
        if not self.host.strip():
            raise UserError("--host is empty: give an interface such as 127.0.0.1 or 0.0.0.0")
        if not self.token and not self.is_loopback:
            raise UserError(
                f"--no-token is for this machine alone, but --host is {self.host}: omit one of them"
            )
        root = self.root_path
        if root and (not root.startswith("/") or "?" in root or "#" in root or "//" in root):
            raise UserError(f"--root-path is '{root}': must be a path such as /proxy/7860")
        for name in self.allow_host:
            if not name or "/" in name or "*" in name:
                raise UserError(
                    f"--allow-host is '{name}': must be a name such as hub.example.org, without "
                    "scheme, path or *"
                )

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
