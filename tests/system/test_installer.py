"""The installer as owners meet it: what it says, what it keeps, how to go back, how to be rid of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.layers import Layers, temporary
from tests.system.machine import Machine
from tests.system.scenes import (
    BUFFER,
    WORKER_PYTHON,
    begin_service,
    configure,
    drop_in,
    experiences,
    fake_worker,
    install,
    place_secret,
    user_environment,
    write_buffer,
)

RELEASES = "/opt/sage-sleepd/releases"
SITE = "lib/python3.11/site-packages"


def in_use(machine: Machine) -> str:
    """The name of the release that is."""
    return machine.run("readlink", "/opt/sage-sleepd/current").stdout.strip().rpartition("/")[2]


def release(machine: Machine, version: str, *, broken: str = "") -> str:
    """A checkout of another version, with a module that cannot be imported; returns where it lies."""
    place = f"/srv/checkout-{version}"
    machine.run("cp", "-r", "/checkout", place)
    machine.run("sed", "-i", f's/^VERSION = .*/VERSION = "{version}"/', f"{place}/sleepd/version.py")
    if broken:
        machine.write(f"{place}/sleepd/{broken}", 'raise RuntimeError("broken on purpose")\n')
    return place


# --- a first installation ---


def test_says_what_to_type_next(shared: Machine) -> None:
    """A first installation ends with the next command, and what it names is there to be typed."""
    said = shared.read("/srv/install.out")
    assert "nothing was started" in said
    assert said.rstrip().endswith(" setup-buffer /path/to/experiences.json")
    assert shared.run("sh", "-c", "command -v sleepctl").stdout.strip() == "/usr/local/bin/sleepctl"
    assert shared.property("ActiveState") == "inactive"


def test_release_is_used_after_self_test(shared: Machine) -> None:
    """The release slept on a tiny model before `current` was pointed at it."""
    log = shared.read("/var/log/sage-sleepd-install.log")
    self_test = log.index("a cycle on a tiny model: ")
    assert self_test < log.index(" /opt/sage-sleepd/current.new")
    assert in_use(shared) == shared.run("sleepctl", "--version").stdout.split()[-1]


def test_writes_one_file_into_etc(shared: Machine, tree: Path) -> None:
    """Of all of /etc, the installer makes the configuration that was absent, and its user."""
    upper = shared.run("find", "/etc", "-newer", "/opt/sage-sleepd/releases", "-type", "f").stdout.split()
    ours = [path for path in upper if "sage" in path]
    assert ours == ["/etc/sage-sleepd/config.toml"]


def test_no_gpu_no_drop_in(shared: Machine) -> None:
    """Where there is no GPU, none of its devices is allowed."""
    assert list(shared.path("/usr/lib/systemd/system").glob("sage-sleepd*.service.d/*")) == []


def test_manual_pages_and_completions_are_there(shared: Machine) -> None:
    """The pages that the units and the catalog name, and completions, lie where man and the shells look."""
    for place in ("share/man/man1/sleepctl.1", "share/man/man8/sleepd.8", "share/man/man5/sleepd.toml.5"):
        assert shared.path(f"/usr/local/{place}").exists(), place


# --- upgrade and back ---


@pytest.fixture(scope="module")
def upgraded(layers: Layers, installed: Path) -> Path:
    """The layer of an upgrade over a running release with state, drop-ins and an owner's configuration."""

    def make(machine: Machine) -> None:
        begin_service(machine, triggers={"cooldown_seconds": 1.0})
        drop_in(machine, "[Service]\nCPUWeight=20\n")
        config = machine.path("/etc/sage-sleepd/config.toml")
        config.write_text(config.read_text().replace("min_experiences = 5", "min_experiences = 6"))
        configure(machine, worker={"python": fake_worker(machine, "promote")})
        machine.run("systemctl", "restart", "sage-sleepd")
        write_buffer(machine, 16)
        machine.await_event("candidate_promoted")
        configure(machine)
        machine.run("sleepctl", "reload")
        checkout = release(machine, "9.0.0")
        machine.write("/srv/upgrade.out", install(machine, checkout=checkout))
        machine.run("rm", "-rf", checkout)

    return layers.made("upgraded", [installed], make)


@pytest.fixture
def newer(layers: Layers, installed: Path, upgraded: Path, scratch: Path) -> Iterator[Machine]:
    """A machine booted after the upgrade."""
    with layers.machine([upgraded, installed], scratch) as machine:
        machine.await_true(lambda: machine.property("ActiveState") == "active", "the service")
        yield machine


def test_upgrade_keeps_what_is_the_owners(newer: Machine) -> None:
    """Over a running release, the new one runs with the same configuration, drop-ins and state; the old one is kept."""
    status = newer.status()
    assert status["version"] == "9.0.0"
    assert status["champion"]["cycle"] == 1
    assert newer.property("CPUWeight") == "20"
    assert newer.path("/etc/systemd/system/sage-sleepd.service.d/50-buffer.conf").exists()
    assert "min_experiences = 6" in newer.read("/etc/sage-sleepd/config.toml")
    assert len(list(newer.path(RELEASES).iterdir())) == 2
    assert "restarting sage-sleepd.service" in newer.read("/srv/upgrade.out")
    assert "--rollback" in newer.read("/srv/upgrade.out")


def test_new_default_lies_beside_configuration(newer: Machine) -> None:
    """The default configuration of the new release is beside the owner's, as .dist."""
    assert "min_experiences = 5" in newer.read("/etc/sage-sleepd/config.toml.dist")


def test_rollback_takes_the_old_release(newer: Machine) -> None:
    """`--rollback`, as the upgrade named it, runs the release before it, on the same state; again, and it is back."""
    (command,) = re.findall(r"To go back: sudo (\S+) --rollback", newer.read("/srv/upgrade.out"))
    newer.run(command, "--rollback", seconds=600)
    assert in_use(newer) != "9.0.0"
    status = newer.status()
    assert status["version"] == in_use(newer)
    assert status["champion"]["cycle"] == 1


def test_release_failing_self_test_is_unused(newer: Machine) -> None:
    """An upgrade whose worker cannot make a model leaves the old one running, and says what failed."""
    pid = newer.property("MainPID")
    broken = release(newer, "9.1.0", broken="worker/programs/tiny_model.py")
    said = install(newer, checkout=broken, check=False)
    assert "broken on purpose" in said
    assert "self-test" in said
    assert in_use(newer) == "9.0.0"
    assert newer.property("MainPID") == pid


def test_release_that_cannot_start_is_reverted(newer: Machine) -> None:
    """An upgrade that passes its self-test and whose daemon does not start ends with the old one running again."""
    broken = release(newer, "9.2.0", broken="daemon/service.py")
    said = install(newer, checkout=broken, check=False)
    assert "9.2.0 did not start; 9.0.0 is" in said
    assert newer.status()["version"] == "9.0.0"


def test_release_that_cannot_switch_is_reverted(newer: Machine) -> None:
    """A rollback whose files cannot be put in place, here for damage to the old release, leaves the new one running."""
    pid = newer.property("MainPID")
    old = newer.run("readlink", "/opt/sage-sleepd/previous").stdout.strip()
    newer.run("sh", "-c", f"echo broken on purpose >> {old}/daemon/{SITE}/sleepd/sleepctl/share.py")
    said = install(newer, "--rollback", check=False)
    assert f"release {Path(old).name} could not " in said
    assert "; 9.0.0 is in use again" in said
    assert in_use(newer) == "9.0.0"
    assert newer.property("MainPID") == pid


# --- to be rid of it ---


@pytest.fixture(scope="module")
def uninstalled(layers: Layers, installed: Path, upgraded: Path) -> Iterator[tuple[Machine, str]]:
    """A machine on which it ran and was uninstalled, and what that said."""
    with temporary() as directory, layers.machine([upgraded, installed], directory) as machine:
        machine.await_true(lambda: machine.property("ActiveState") == "active", "the service")
        yield machine, install(machine, "--uninstall")


def test_uninstall_leaves_what_was_learned(uninstalled: tuple[Machine, str]) -> None:
    """`--uninstall` stops and removes it, keeps adapters and configuration, and says where these are."""
    machine, said = uninstalled
    assert machine.property("LoadState") == "not-found"
    assert not machine.path("/opt/sage-sleepd").exists()
    assert not machine.path("/usr/local/bin/sleepctl").is_symlink()
    for place in ("/var/lib/sage-sleepd/cycle_001", "/etc/sage-sleepd/config.toml"):
        assert machine.path(place).exists()
    assert "/var/lib/sage-sleepd" in said
    assert "/etc/sage-sleepd" in said


def test_purge_leaves_nothing(uninstalled: tuple[Machine, str]) -> None:
    """`--purge`, also after `--uninstall`, leaves no file with its name, and no user; the buffer is the agent's."""
    machine, _ = uninstalled
    install(machine, "--purge")
    named = ["-name", "*sage-sleep*", "-o", "-name", "*sleepctl*", "-o", "-name", "sleepd*"]
    assert machine.run("find", "/", "-xdev", "(", *named, ")").stdout.split() == []
    assert machine.run("getent", "passwd", "sage-sleepd", check=False).returncode == 2
    assert machine.run("getent", "group", "sage-sleepd", check=False).returncode == 2
    assert machine.path(BUFFER).exists()


# --- the owner's interpreter ---


def test_own_cuda_torch_is_used(layers: Layers, installed: Path, scratch: Path) -> None:
    """Where /usr/bin/python3 has a torch with CUDA, the worker gets it; nothing in it changes, and none is fetched."""
    (torch,) = (installed / "opt/sage-sleepd/torch").iterdir()
    packages = f"/srv/owners/{SITE}"
    # Shown read-only: whoever would write there fails.
    with layers.machine([installed], scratch, owners=torch) as machine:
        machine.run("rm", "-rf", "/opt/sage-sleepd")
        machine.write(
            "/usr/local/lib/python3.11/dist-packages/owners.pth", f"import site; site.addsitedir('{packages}')\n"
        )
        # A build for CUDA, as far as can be told without a GPU.
        text = machine.read(f"{packages}/torch/version.py")
        machine.write("/srv/version.py", f"{text}\ncuda = '12.6'\n")
        machine.run("mount", "--bind", "/srv/version.py", f"{packages}/torch/version.py")
        assert "taken from /usr/bin/python3" in install(machine)
        assert not machine.path("/opt/sage-sleepd/torch").exists()
        ask = "import torch; print(torch.__file__, torch.version.cuda)"
        found = machine.run(WORKER_PYTHON, "-c", ask).stdout.split()
        assert found == [f"{packages}/torch/__init__.py", "12.6"]


# --- for one user, and for several agents ---


def test_user_installation_needs_no_root(machine: Machine) -> None:
    """`--user` installs below the home without root, and `systemctl --user` runs it to a cycle with a verdict."""
    machine.run("loginctl", "enable-linger", "user")
    environment = user_environment(machine, "user")
    machine.await_true(
        lambda: machine.path(f"{environment['XDG_RUNTIME_DIR']}/systemd/private").exists(), "its manager"
    )
    said = install(machine, "--user", "--worker-python", WORKER_PYTHON, user="user")
    assert "sleepctl setup-buffer" in said
    assert "sudo" not in said.partition("Next")[2]

    def as_agent(*command: str) -> str:
        return machine.run(*command, user="user", **environment).stdout

    sleepctl = "/home/user/.local/bin/sleepctl"
    as_agent("mkdir", "-p", "/home/user/.local/state")
    place_secret(machine, "/home/user/.local/state/sage-sleepd", "user")
    write_buffer(machine, 16)
    as_agent(sleepctl, "setup-buffer", BUFFER)
    configure(machine, "/home/user/.config/sage-sleepd", worker={"python": fake_worker(machine, "promote")})
    as_agent("systemctl", "--user", "enable", "--now", "sage-sleepd")
    machine.await_true(lambda: '"total_cycles": 1' in as_agent(sleepctl, "status", "--json"), "a cycle")
    assert machine.property("ActiveState") == "inactive"
    assert machine.path("/home/user/.local/state/sage-sleepd/current").is_symlink()


def test_instances_never_train_at_once(machine: Machine) -> None:
    """Two instances have their own buffer, configuration and state, and while one trains the other waits for it."""
    for name in ("blue", "green"):
        path = f"/srv/{name}/experiences.json"
        machine.run("install", "-d", "-o", "user", f"/srv/{name}")
        machine.run("sleepctl", "setup-buffer", path, "--instance", name)
        configure(
            machine,
            f"/etc/sage-sleepd/{name}",
            worker={"python": fake_worker(machine, "wait")},
            triggers={"check_interval_seconds": 1.0},
        )
        machine.run("systemctl", "enable", "--now", f"sage-sleepd@{name}")
        write_buffer(machine, len(experiences(16)), path=path)

    def status(name: str) -> dict[str, Any]:
        return machine.status("--config", f"/etc/sage-sleepd/{name}/config.toml")

    def running() -> list[str]:
        return [name for name in ("blue", "green") if status(name)["running_cycle"]]

    machine.await_true(lambda: len(running()) == 1, "one of them to train")
    (first,) = running()
    (second,) = {"blue", "green"} - {first}
    waits = "another sage-sleepd trains on this machine"
    machine.await_true(lambda: waits in status(second)["decision"]["reason"], "the other one to wait")
    assert running() == [first]
    machine.run("touch", f"/var/lib/sage-sleepd-{first}/staging/cycle_001/work/go")
    machine.await_true(lambda: status(first)["total_cycles"] == 1, "the first to end")
    machine.await_true(lambda: running() == [second], "the second to begin")
    machine.run("touch", f"/var/lib/sage-sleepd-{second}/staging/cycle_001/work/go")
    machine.await_true(lambda: status(second)["total_cycles"] == 1, "the second to end")
