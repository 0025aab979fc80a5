"""The daemon's life: startup, run, shutdown.

One event loop. It is woken by a change of the buffer (told by inotify, read once the file has settled), by the periodic
check (the truth behind inotify), by requests, by signals, and by the end of a cycle. Each time it looks, decides, and
sleeps if it should. Nothing a cycle or a file does may end it: that is the one broad ``except`` here.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from sleepd import log
from sleepd.buffer.watch import BufferWatch
from sleepd.clock import Clock, SystemClock
from sleepd.config.layers import load, require_buffer
from sleepd.config.schema import NEEDS_RESTART, Config
from sleepd.cycles.repair import disk_error
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import ConfigError, LedgerUnusable, NothingToDo, SleepdError
from sleepd.log import get_logger
from sleepd.protocol.control import Announcement, AnyRequest, Run
from sleepd.protocol.status import LastError
from sleepd.version import VERSION

from .control_socket import ControlSocket, Peer, unexpected
from .requests import Requests
from .status_view import offline_copies, overview, write_offline_copies
from .systemd import Notifier

HALF_WRITTEN_SECONDS = 2.0
"""A half-written buffer is looked at again after so long."""
RETRY_SECONDS = 30.0
"""A check that failed is made again after so long."""


class Daemon:
    """One daemon process.

    Args:
        config: the configuration in force at the start.
        config_path: the file it came from, read again on SIGHUP.
        clock: where time comes from.
        worker: the command that starts a worker; None: the real one.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_path: Path,
        clock: Clock | None = None,
        worker: tuple[str, ...] | None = None,
    ) -> None:
        self._config = config
        self._config_path = config_path
        self._clock = clock or SystemClock()
        self._worker = worker
        self._notifier = Notifier(os.environ)
        self._life = "starting"
        self._next_check_at: datetime | None = None
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._should_exit = asyncio.Event()
        self._needs_publishing = asyncio.Event()
        self._last_published: object = None
        self._check_error: LastError | None = None
        self._reloads = asyncio.Lock()

    # --- startup ---

    async def startup(self) -> None:
        """Take the state directory, recover, open the socket, watch the buffer, tell systemd.

        Raises:
            SleepdError: something that the daemon cannot do without is not to be had.
        """
        control = self._config.control
        self.sleeper = Sleeper(
            self._config,
            clock=self._clock,
            listener=self._on_event,
            socket=control.socket,
            worker=self._worker,
        )
        self._requests = Requests(
            self.sleeper, reload=self.reload, describe=lambda: (self._next_check_at, str(self._config_path))
        )
        self._control = ControlSocket(
            Path(control.socket),
            mode=int(control.socket_mode, 8),
            group=_group_id(control.operator_group),
            respond=self._respond,
        )
        await self._control.start()
        self._retry = asyncio.get_running_loop().call_soon(self._wake.set)
        self._start_watching()
        self._handle_signals()
        self._life = ""
        get_logger().info(
            "started", text=f"sage-sleepd {VERSION}", buffer=self._config.buffer.path, socket=control.socket
        )
        self._notifier.ready()

    def _start_watching(self) -> None:
        self._watch = BufferWatch(Path(self._config.buffer.path), self._changed.set)
        self._watch.start(asyncio.get_running_loop())
        self._note_watch()

    def _note_watch(self) -> None:
        problem = self._watch.problem
        text = f"{problem}; the buffer is read by the periodic check alone" if problem else ""
        self.sleeper.alarms.note("watch_unavailable", text)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)

    # --- run ---

    async def run(self) -> None:
        """Live until asked to stop."""
        lives = (self._check_periodically(), self._settle_changes(), self._publish(), self._show_signs_of_life())
        tasks = [asyncio.create_task(life) for life in lives]
        try:
            while not self._should_exit.is_set():
                self._wake.clear()
                await self._consider()
                self._needs_publishing.set()
                await self._wake.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _consider(self) -> None:
        """Look, decide, and sleep if due."""
        try:
            decision = await self.sleeper.look()
            if self.sleeper.intake.view.is_settling or self.sleeper.intake.quarantine.is_screening:
                # Its writer may be in the middle of it, or may have died there: no event will tell which.
                asyncio.get_running_loop().call_later(HALF_WRITTEN_SECONDS, self._wake.set)
            if decision.should_sleep:
                await self.sleeper.begin(Run())
            self._forget_error()
        except NothingToDo as refusal:
            get_logger().info("sleep_put_off", text=refusal.message)
        except SleepdError as error:
            self._note_error(error.message, error.hint)
        except OSError as error:
            self._note_error(disk_error(error).message, disk_error(error).hint)
        except Exception as error:  # noqa: BLE001 (whatever it is, the next check must come)
            self._note_error(f"{type(error).__name__}: {error}", "journalctl -u sage-sleepd has the traceback", error)

    def _note_error(self, message: str, hint: str, error: Exception | None = None) -> None:
        if self._check_error is None or self._check_error.message != message:
            get_logger().error("check_failed", text=message, hint=hint, exc_info=error)
        self._check_error = LastError(message=message, hint=hint, at=self._clock.now())
        self.sleeper.last_error = self._check_error
        self._needs_publishing.set()
        self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._wake.set)

    def _forget_error(self) -> None:
        """The check went well: what an earlier one met is over."""
        if self._check_error is not None and self.sleeper.last_error is self._check_error:
            self.sleeper.last_error = self.sleeper.history.newest_failure()
        self._check_error = None

    async def _check_periodically(self) -> None:
        while True:
            seconds = self._config.triggers.check_interval_seconds
            self._next_check_at = self._clock.now() + timedelta(seconds=seconds)
            await asyncio.sleep(seconds)
            self._watch.ensure()
            self._note_watch()
            self._wake.set()

    async def _settle_changes(self) -> None:
        """Wake once the buffer was left alone for the settle time; a writer that never rests is read by the check."""
        while True:
            await self._changed.wait()
            quiet = False
            while not quiet:
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), self._config.buffer.settle_seconds)
                except TimeoutError:
                    quiet = True
            self._wake.set()

    async def _publish(self) -> None:
        """Keep ``status.json`` and systemd's sentence up to date, at most once a second."""
        while True:
            await self._needs_publishing.wait()
            self._needs_publishing.clear()
            await self._publish_once()
            await asyncio.sleep(1.0)

    async def _publish_once(self) -> None:
        try:
            await self._write_status()
        except (OSError, LedgerUnusable) as error:
            self.sleeper.alarms.note("status_not_written", f"status.json is not up to date: {error}")
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._needs_publishing.set)
        else:
            self.sleeper.alarms.note("status_not_written", "")

    async def _write_status(self) -> None:
        status = overview(
            self.sleeper, next_check_at=self._next_check_at, config_path=str(self._config_path), life=self._life
        )
        self._notifier.status(status.sentence)
        # Progress and the hours since the last sleep change all the time; they are not worth a write.
        essence = msgspec.structs.replace(
            status, written_at=status.since, progress=None, decision=status.decision.reason, next_check_at=None
        )
        if essence == self._last_published:
            return
        copies = offline_copies(self.sleeper, status)
        await asyncio.to_thread(write_offline_copies, self.sleeper.directory, copies)
        self._last_published = essence

    async def _show_signs_of_life(self) -> None:
        interval = self._notifier.ping_interval_seconds
        while interval is not None:
            self._notifier.alive()
            await asyncio.sleep(interval)

    def _on_event(self, event: str, fields: dict[str, Any]) -> None:
        self._control.announce(Announcement(event=event, at=self._clock.now(), fields=fields))
        self._needs_publishing.set()
        if event in ("cycle_ended", "resumed"):
            self._wake.set()

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
        try:
            fresh = (await asyncio.to_thread(load, self._config_path, environment=os.environ)).config
            require_buffer(fresh, str(self._config_path))
        except ConfigError as error:
            get_logger().error("config_refused", text=f"{error.message}; the old one stays in force", hint=error.hint)
            self.sleeper.last_error = LastError(message=error.message, hint=error.hint, at=self._clock.now())
            raise
        if self._should_exit.is_set():
            return []  # told to stop while it was read
        changed = [
            f"{section}.{key}"
            for section in Config.__struct_fields__
            for key in getattr(fresh, section).__struct_fields__
            if getattr(getattr(fresh, section), key) != getattr(getattr(self._config, section), key)
        ]
        kept = {section: getattr(self._config, section) for section in NEEDS_RESTART}
        for key in changed:
            if key.partition(".")[0] in NEEDS_RESTART:
                get_logger().warning("restart_needed", text=f"{key} changes at the next start of sage-sleepd")
        buffer_changed = fresh.buffer.path != self._config.buffer.path
        self._config = msgspec.structs.replace(fresh, **kept)
        log.configure(self._config.log.level)
        self.sleeper.reconfigure(self._config)
        if buffer_changed:
            self._watch.stop()
            self._start_watching()
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
            self.sleeper.runner.kill()
        self._life = "stopping"
        self._should_exit.set()
        self._wake.set()

    async def shutdown(self) -> None:
        """Tell systemd; take no more requests; stop the worker; leave a last status; let go of the state directory."""
        self._notifier.stopping()
        self._life = "stopping"
        await self._control.close()
        self._watch.stop()
        await self.sleeper.end_cycle()
        self._life = "stopped"
        await self._publish_once()
        self.sleeper.close()
        get_logger().info("stopped")


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
