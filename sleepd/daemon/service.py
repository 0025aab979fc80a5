"""The daemon's life: startup, run, shutdown.

One event loop. It is woken by a change of the buffer (reported by inotify, read once the file has settled), by the
periodic check (the truth behind inotify), by requests, by signals, and by the end of a cycle. Each time it polls,
decides, and sleeps if it should. Nothing a cycle or a file does may end it: that is the one broad ``except`` here.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from sleepd import log
from sleepd.clock import Clock, SystemClock
from sleepd.config.layers import load, require_buffer
from sleepd.config.schema import NEEDS_RESTART, Config
from sleepd.cycles.composition import Parts
from sleepd.cycles.history import NotedError
from sleepd.cycles.read_model import ReadModel
from sleepd.cycles.repair import disk_error
from sleepd.cycles.running.planning import Order
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import ConfigError, NothingToDo, SleepdError
from sleepd.log import get_logger
from sleepd.policy.timing.triggers import Decision
from sleepd.protocol.control import Announcement, AnyRequest
from sleepd.version import VERSION

from .buffer_trigger import BufferTrigger
from .control_socket import ControlSocket, Peer, unexpected
from .publisher import RETRY_SECONDS, Life, Publisher
from .requests import Requests
from .systemd import Notifier

HALF_WRITTEN_SECONDS = 2.0
"""A half-written buffer is read again after so long."""


class Daemon:
    """One daemon process. It must be built inside the event loop, and takes the state directory at once.

    Args:
        config: the configuration in force at the start.
        config_path: the file it came from, read again on SIGHUP.
        clock: where time comes from.

    Raises:
        SleepdError: the state directory cannot be used, or is another process's.
    """

    def __init__(self, config: Config, *, config_path: Path, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._life = Life(config_path=config_path)
        self._wake = asyncio.Event()
        self._should_exit = asyncio.Event()
        self._check_error: NotedError | None = None
        self._retry: asyncio.Handle | None = None
        self._reloads = asyncio.Lock()
        self._reloading: asyncio.Task[None] | None = None
        self._notifier = Notifier(os.environ)
        self._control = ControlSocket(
            Path(config.control.socket),
            mode=int(config.control.socket_mode, 8),
            group=_group_id(config.control.operator_group),
            respond=self._respond,
        )
        parts = Parts(config, clock=self._clock, listener=self._on_event, socket=config.control.socket)
        self._sleeper, self._reader = Sleeper(parts), ReadModel(parts)
        self._requests = Requests(self._sleeper, self._reader, self._life, reload=self.reload)
        self._publisher = Publisher(self._sleeper, self._reader, self._notifier, self._life)
        self._trigger = BufferTrigger(config.buffer, wake=self._wake.set, warn=self._note_watch)

    def _note_watch(self, text: str) -> None:
        self._sleeper.note_alarm("watch_unavailable", text)

    # --- startup ---

    async def startup(self) -> None:
        """Open the socket, watch the buffer, tell systemd.

        Raises:
            SleepdError: something that the daemon cannot do without is not to be had.
        """
        await self._control.start()
        self._retry = asyncio.get_running_loop().call_soon(self._wake.set)
        self._trigger.start()
        self._handle_signals()
        self._life.stage = ""
        path, socket = self._config.buffer.path_text, self._config.control.socket
        get_logger().info("started", text=f"sage-sleepd {VERSION}", buffer=path, socket=socket)
        self._notifier.ready()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)

    # --- run ---

    async def run(self) -> None:
        """Live until asked to stop."""
        background = (
            self._check_periodically(),
            self._trigger.run(),
            self._publisher.run(),
            self._show_signs_of_life(),
            self._sleeper.keep_served(),
        )
        tasks = [asyncio.create_task(each) for each in background]
        try:
            while not self._should_exit.is_set():
                self._wake.clear()
                await self._consider()
                self._publisher.request()
                await self._wake.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _consider(self) -> None:
        """Read the buffer, decide, and sleep if due."""
        try:
            decision = await self._refresh()
            if decision is None:
                return
            if self._reader.buffer.is_unsettled:
                # Its writer may be in the middle of it, or may have died there: no event will tell which.
                asyncio.get_running_loop().call_later(HALF_WRITTEN_SECONDS, self._wake.set)
            if decision.should_sleep:
                await self._sleeper.begin(Order())
            self._forget_error()
        except NothingToDo as refusal:
            get_logger().info("sleep_put_off", text=refusal.message)
        except SleepdError as error:
            self._note_error(error.message, error.hint)
        except OSError as error:
            self._note_error(disk_error(error).message, disk_error(error).hint)
        except Exception as error:  # noqa: BLE001 (whatever it is, the next check must come)
            self._note_error(f"{type(error).__name__}: {error}", "journalctl -u sage-sleepd has the traceback", error)

    async def _refresh(self) -> Decision | None:
        """The decision on the buffer as it is now; None: the end was asked for, and the reading was given up.

        A file of any size, or a disk that does not answer, may be read for minutes; an end does not wait for it.
        """
        refresh = asyncio.ensure_future(self._sleeper.refresh())
        asked = asyncio.ensure_future(self._should_exit.wait())
        try:
            await asyncio.wait({refresh, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            refresh.cancel()  # without effect on one that is done
        if self._should_exit.is_set():
            await asyncio.gather(refresh, return_exceptions=True)
            return None
        return await refresh

    def _note_error(self, message: str, hint: str, error: Exception | None = None) -> None:
        if self._check_error is None or self._check_error.message != message:
            get_logger().error("check_failed", text=message, hint=hint, exc_info=error)
        self._check_error = self._sleeper.note_error(message, hint)
        self._publisher.request()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._wake.set)

    def _forget_error(self) -> None:
        """The check went well: what an earlier one met is over."""
        if self._check_error is not None:
            self._sleeper.forget_error(self._check_error)
        self._check_error = None

    async def _check_periodically(self) -> None:
        while True:
            seconds = self._config.triggers.check_interval_seconds
            self._life.next_check_at = self._clock.now() + timedelta(seconds=seconds)
            await asyncio.sleep(seconds)
            self._trigger.ensure()
            self._wake.set()

    async def _show_signs_of_life(self) -> None:
        interval = self._notifier.ping_interval_seconds
        while interval is not None:
            self._notifier.alive()
            await asyncio.sleep(interval)

    def _on_event(self, event: str, fields: dict[str, Any]) -> None:
        self._control.announce(Announcement(event=event, at=self._clock.now(), fields=fields))
        self._publisher.request()
        if event in ("cycle_ended", "resumed"):
            self._wake.set()
        if event in ("cycle_ended", "champion_rolled_back"):
            self._sleeper.serve_anew()

    async def _respond(self, request: AnyRequest, peer: Peer) -> Any:
        try:
            return await self._requests.respond(request, peer)
        except SleepdError:
            raise
        except OSError as error:
            raise disk_error(error) from error
        except Exception as error:
            raise unexpected(error) from error

    # --- reload ---

    async def reload(self) -> list[str]:
        """Read the configuration and its drop-ins again; returns the changed keys.

        Raises:
            ConfigError: one of them says something wrong; the old configuration stays in force.
        """
        # One at a time: of two, the one that read last must be the one that stays.
        async with self._reloads:
            return await self._reload()

    async def _reload(self) -> list[str]:
        path = self._life.config_path
        try:
            fresh = (await asyncio.to_thread(load, path, environment=os.environ)).config
            require_buffer(fresh, str(path))
        except ConfigError as error:
            get_logger().error("config_refused", text=f"{error.message}; the old one stays in force", hint=error.hint)
            self._sleeper.note_error(error.message, error.hint)
            raise
        if self._should_exit.is_set():
            return []  # asked to stop while it was read
        changed = _changed_keys(self._config, fresh)
        for key in changed:
            if key.partition(".")[0] in NEEDS_RESTART:
                get_logger().warning("restart_needed", text=f"{key} changes at the next start of sage-sleepd")
        kept = {section: getattr(self._config, section) for section in NEEDS_RESTART}
        self._config = msgspec.structs.replace(fresh, **kept)
        log.configure(self._config.log.level)
        self._sleeper.reconfigure(self._config)
        self._trigger.reconfigure(self._config.buffer)
        get_logger().info("config_reloaded", text=", ".join(changed) or "nothing changed")
        self._wake.set()
        return changed

    def _reload_on_signal(self) -> None:
        async def reload() -> None:
            self._notifier.reloading()
            with contextlib.suppress(ConfigError):  # logged and in the status already
                await self.reload()
            self._notifier.ready()

        self._reloading = asyncio.create_task(reload())

    # --- shutdown ---

    def stop(self) -> None:
        """Ask for the end; asked twice, the worker is not waited for."""
        if self._should_exit.is_set():
            get_logger().warning("shutdown_forced", text="asked twice: the worker is killed")
            self._sleeper.kill_worker()
        self._life.stage = "stopping"
        self._should_exit.set()
        self._wake.set()

    async def shutdown(self) -> None:
        """Tell systemd; take no more requests; stop the worker; leave a last status; let go of the state directory."""
        self._notifier.stopping()
        self._life.stage = "stopping"
        await self._control.close()
        self._trigger.stop()
        await self._sleeper.end_cycle()
        self._life.stage = "stopped"
        await self._publisher.publish()
        self._sleeper.close()
        get_logger().info("stopped")


def _changed_keys(old: Config, new: Config) -> list[str]:
    """What differs, as ``section.key``."""
    return [
        f"{section}.{key}"
        for section in Config.__struct_fields__
        for key in getattr(new, section).__struct_fields__
        if getattr(getattr(new, section), key) != getattr(getattr(old, section), key)
    ]


async def live(config: Config, config_path: Path) -> None:
    """The whole life of a daemon.

    Raises:
        SleepdError: it could not start.
    """
    daemon = Daemon(config, config_path=config_path)
    await daemon.startup()
    try:
        await daemon.run()
    finally:
        await daemon.shutdown()


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
