"""Starting the server, with settings that are safe where nobody named others."""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_ext.base import SettingError
from monai_ext.label.origins import LOOPBACK

# What holds where the environment says nothing. Lists of an archive are always fresh; nothing runs unasked.
_DEFAULTS = {
    "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "0",
    "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
    "MONAI_LABEL_TRACKING_ENABLED": "false",
    "MONAI_LABEL_SESSIONS": "true",
}


def server_environment(
    app: Path, origins: Sequence[str], hosts: Sequence[str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the server.

    Args:
        app: its folder, which keeps sessions and what was fetched.
        origins: web sites that may use the server from a browser.
        hosts: names beside this machine's own under which it is reached.
        environment: of the caller; its own settings of MONAI Label hold, but for CORS.
    """
    own = {
        "MONAI_LABEL_SESSION_PATH": str(app.resolve() / "sessions"),
        "MONAI_LABEL_CORS_ORIGINS": json.dumps(list(origins)),
    }
    own["MONAI_EXT_LABEL_HOSTS"] = " ".join([*LOOPBACK, *(host.lower() for host in hosts)])
    # The server hands it on to its helpers without asking whether it is there.
    path = {"PYTHONPATH": environment.get("PYTHONPATH", "")}
    return {**_DEFAULTS, **path, **environment, **own}


def server_command(app: Path, studies: str, host: str, port: int) -> list[str]:
    """Return the command of the server.

    Raises:
        SettingError: the port cannot be or is in use, or the folder of scans is missing.
    """
    if not 1 <= port <= 65535:
        raise SettingError(f"port: {port} is none; give one from 1 to 65535", code="label.port")
    with socket.socket() as probe:
        if is_loopback(host) and probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SettingError(f"port: {port} is in use; give another one (--port)", code="label.port")
    if not studies.startswith(("http://", "https://")):
        if not studies.strip() or not Path(studies).is_dir():
            raise SettingError(
                f"studies: {Path(studies).name} is no folder; give one of scans, or the address of a DICOMweb archive",
                code="label.studies",
            )
        studies = str(Path(studies).resolve())
    return [
        *(sys.executable, "-m", "monailabel.main", "start_server"),
        *("--app", str(app.resolve()), "--studies", studies),
        *("--host", host, "--port", str(port), "--verbose", "WARNING", "--log_level", "warning"),
        *("--uvicorn_app", "monai_ext.label.server:app"),
    ]


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    return host in (*LOOPBACK, "::1")


def run_server(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Become the server: it gets the signals, and its exit code is ours."""
    sys.stdout.flush()
    os.execve(command[0], list(command), dict(environment))
