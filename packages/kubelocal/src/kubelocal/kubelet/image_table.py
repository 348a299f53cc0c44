"""Images are names here: a table says which commands and variables a name stands for. Pure.

Patterns are shell-style and match the whole name, with or without ``docker.io/library/``, never its digest. The longest
that matches counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase

from kubelocal.settings import LocalImage
from kubelocal.types import Manifest

__all__ = ["ImageProblem", "command_line", "find_image", "image_table", "problem_of"]

_DOMAIN = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9.-]*[a-zA-Z0-9])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*(?::[\w][\w.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{{32,}})?"
)


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """Why an image cannot be used: the reason and message of the waiting container, and the event to write.

    ``again``: whether a retry is reported as ``ImagePullBackOff``, as after a failed pull.
    """

    reason: str
    message: str
    event: str
    event_message: str
    again: bool = False


def find_image(name: str, table: Mapping[str, LocalImage]) -> LocalImage | None:
    """Return what a name stands for; None when no pattern matches or the one that does is marked missing."""
    bare = name.split("@")[0]
    short = bare.removeprefix("docker.io/").removeprefix("library/")
    matching = [pattern for pattern in table if fnmatchcase(bare, pattern) or fnmatchcase(short, pattern)]
    if not matching:
        return None
    image = table[max(matching, key=len)]
    return None if image.missing else image


def image_table(builtin: Mapping[str, LocalImage], configured: Mapping[str, LocalImage]) -> dict[str, LocalImage]:
    """Merge both tables; an image ``like`` one of the first gets its values. Unknown images are missing."""
    alike = {
        pattern: _over(find_image(image.like, builtin) or LocalImage(missing=True), image)
        for pattern, image in configured.items()
        if image.like
    }
    return {**builtin, **configured, **alike}


def _over(base: LocalImage, image: LocalImage) -> LocalImage:
    """Return an image with its own parts where it has any; variables and mounts add up."""
    silent = LocalImage()
    settings = {field.name: getattr(image, field.name) for field in fields(image)}
    settings = {name: value for name, value in settings.items() if value != getattr(silent, name)}
    environment, mounts = {**base.environment, **image.environment}, {**base.mounts, **image.mounts}
    return replace(base, **{**settings, "environment": environment, "mounts": mounts})


def problem_of(container: Manifest, table: Mapping[str, LocalImage]) -> ImageProblem | None:
    """Return why a container's image cannot be used, or None."""
    name, policy = container["image"], container.get("imagePullPolicy", "IfNotPresent")
    if not _NAME.fullmatch(name):
        reason = f'couldn\'t parse image name "{name}": invalid reference format'
        failed = f'Failed to apply default image tag "{name}": {reason}'
        return ImageProblem("InvalidImageName", failed, "InspectFailed", failed)
    if find_image(name, table) is not None:
        return None
    if policy == "Never":
        reason = f'Container image "{name}" is not present with pull policy of Never'
        return ImageProblem("ErrImageNeverPull", reason, "ErrImageNeverPull", reason)
    reason = (
        f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {name}: not found: '
        "no entry of the local image table (setting images) matches"
    )
    event = f'Failed to pull image "{name}": {reason}'
    return ImageProblem("ErrImagePull", reason, "Failed", event, again=True)


def command_line(container: Manifest, image: LocalImage) -> list[str]:
    """Return command and arguments; the image's own stand in as for a real one."""
    command, args = container.get("command") or [], container.get("args") or []
    if command:
        return [*command, *args]
    return [*image.entrypoint, *(args or image.command)]
