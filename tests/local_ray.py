"""A cluster of this machine's own processes, in the place of Ray's: it runs the real job, whose log is a file."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sleepd.config.worker_config import WorkerConfig
from sleepd.cycles.remote.ray_bridge import RayCluster, RayJobState


class LocalRay(RayCluster):
    """Does what the bridge asks of the Ray Jobs API.

    Args:
        place: where the jobs lie.
        node: the configuration file of the node.
    """

    def __init__(self, place: Path, node: Path) -> None:
        super().__init__(WorkerConfig())
        self._place = place
        self._node = node
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped: set[str] = set()

    async def connect(self) -> None:
        """Nothing to do."""

    async def state(self, job: str) -> RayJobState | None:
        process = self.running.get(job)
        if process is None:
            return None
        code = await asyncio.to_thread(process.poll)
        if code is None:
            return RayJobState("RUNNING", "", has_started=True)
        status = "STOPPED" if job in self._stopped else "FAILED" if code else "SUCCEEDED"
        return RayJobState(status, f"exit status {code}", has_started=True)

    async def submit(self, job: str, directory: Path) -> None:
        there = self._place / job
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(directory, there)
        command = (sys.executable, "-P", "-m", "sleepd.cycles.remote.ray_job")
        environment = os.environ | {"SLEEPD_CONFIG": str(self._node)}
        with (self._place / f"{job}.log").open("wb") as log:
            self.running[job] = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                command, cwd=there, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    async def stop(self, job: str) -> None:
        self._stopped.add(job)
        self.running[job].terminate()

    async def delete(self, job: str) -> None:
        self.running.pop(job).wait()

    async def log(self, job: str) -> AsyncIterator[str]:
        with (self._place / f"{job}.log").open(encoding="utf-8") as log:
            while True:
                is_over = self.running[job].poll() is not None
                if text := log.read(4096):
                    yield text
                elif is_over:
                    return
                else:
                    await asyncio.sleep(0.02)

    def lose(self) -> None:
        """As a head that is killed: the jobs and their processes are gone."""
        for process in self.running.values():
            process.kill()
            process.wait()
        self.running.clear()

    def jobs(self) -> dict[str, Any]:
        return dict(self.running)
