"""The JSON from which a worker runs its workload, with a token that is minted on each use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.tokens import JWTGenerator
    from airflow.executors.workloads import ExecutorWorkload

__all__ = ["WorkerPayload", "renew_token"]

_TOKEN_MARK = uuid4().hex
"""Stands for the token in the serialized workload, which cannot contain it by chance."""


class WorkerPayload:
    """A workload's JSON. Each call mints a token that is valid for ``lifetime`` seconds from then on.

    ``subject``: whom the token is for, the task instance's or callback's id.
    """

    __slots__ = ("_generator", "_item", "_lifetime", "_parts", "_subject")

    def __init__(self, generator: JWTGenerator, lifetime: float, item: ExecutorWorkload, subject: str) -> None:
        self._generator, self._lifetime, self._subject = generator, lifetime, subject
        self._item: ExecutorWorkload | None = item
        self._parts = b"", b""

    def serialize(self) -> None:
        """Turn the workload into text, two strings instead of hundreds of objects, and drop its object.

        The garbage collector stops all threads while it walks through objects, and thousands of workloads may wait.
        """
        if self._item is not None:
            text = self._item.model_copy(update={"token": _TOKEN_MARK}).model_dump_json().encode()
            before, _, after = text.partition(_TOKEN_MARK.encode())
            self._parts, self._item = (before, after), None

    def __call__(self) -> bytes:
        """Return the JSON with a new token."""
        self.serialize()
        return _mint(self._generator, self._lifetime, self._subject).encode().join(self._parts)


def renew_token(generator: JWTGenerator, lifetime: float, subject: str, payload: bytes) -> bytes:
    """Return a worker's JSON with a new token in place of its old one."""
    return json.dumps(json.loads(payload) | {"token": _mint(generator, lifetime, subject)}).encode()


def _mint(generator: JWTGenerator, lifetime: float, subject: str) -> str:
    return generator.generate(extras={"sub": subject, "scope": "workload"}, valid_for=lifetime)
