"""Follows one pod for a synchronous task: its latest state, and the lines of its log in between.

``PodFollower`` owns a ``BackgroundStream``, whose thread runs ``podrun.follow.follow_pod`` on an event loop of its own.
``close`` cancels that work and joins the thread; the operator calls it in a ``finally``. ``kill`` may come from a
signal handler and ends the caller's wait at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from airflow.providers.cncf.kubernetes.utils.pod_manager import PodLaunchTimeoutException
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import CoreV1Api

from crosswind.errors import CrosswindError, PodTimeout
from crosswind.event_loop import BackgroundStream
from crosswind.podrun.follow import FollowOptions, PodNews, StateChange, follow_pod, memory_of
from crosswind.provider.hook_client import borrow_client

__all__ = ["PodFollower"]


class PodFollower:
    """The states, log lines and events of one pod, received in the caller's thread."""

    def __init__(self) -> None:
        self._feed: BackgroundStream[PodNews] | None = None
        self._news: Iterator[PodNews] = iter(())
        self._has_trigger_state = False
        self.seen: StateChange | None = None
        """The latest state; None before the first."""

    @property
    def is_open(self) -> bool:
        """Whether the pod is being followed."""
        return self._feed is not None

    @property
    def is_over(self) -> bool:
        """Whether the base container has ended, or will never start."""
        return self.seen is not None and self.seen.verdict.over

    @property
    def has_started(self) -> bool:
        """Whether the base container has started."""
        return self.seen is not None and self.seen.verdict.started

    def open(self, api: CoreV1Api, name: str, namespace: str, options: FollowOptions) -> None:
        """Start the thread that follows the pod."""

        async def work(hand: Callable[[PodNews], Awaitable[None]]) -> None:
            async with await borrow_client(api) as client:
                await follow_pod(client, name, namespace, options, hand)

        feed = BackgroundStream(work, memory_of)
        feed.__enter__()
        self._feed, self._news = feed, iter(feed)

    def resume_from(self, seen: StateChange) -> None:
        """Take the state that the trigger saw; it stays the latest if the pod has been deleted in the meantime."""
        self.seen, self._has_trigger_state = seen, True

    def receive_until(self, is_enough: Callable[[], bool]) -> Iterator[PodNews]:
        """Yield the pod's news until ``is_enough`` holds, or base has ended and all its lines are read.

        Raises stock's ``PodLaunchTimeoutException`` when the pod does not start in time, ``AirflowException`` for other
        errors and after ``kill``.
        """
        while not is_enough():
            try:
                news = next(self._news, None)
            except PodTimeout as error:
                raise PodLaunchTimeoutException(str(error)) from error
            except CrosswindError as error:
                raise AirflowException(str(error)) from error
            if news is None:
                return
            if isinstance(news, StateChange):
                if self._has_trigger_state and news.deleted:
                    continue
                self.seen = news
            yield news

    def kill(self) -> None:
        """End the caller's wait with the error that the task was killed."""
        if self._feed is not None:
            self._feed.end(AirflowException("The task was killed"))

    def close(self) -> None:
        """Cancel the work and join its thread."""
        if self._feed is not None:
            self._feed.__exit__()
            self._feed, self._news = None, iter(())
