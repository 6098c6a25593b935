"""Trials on a Ray cluster, for when one machine is too small; a node that is lost costs time, and no trial."""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kintsugi.bench.job import Done, Job, Planned
from kintsugi.bench.made_with import FACT, made_with, packages
from kintsugi.bench.processes import ONE_THREAD, PERFORM, held
from kintsugi.bench.running import Ledger, Limits
from kintsugi.bench.same_trial import refuse_another
from kintsugi.bench.schema_sql import StoreError
from kintsugi.bench.workers import this_process
from kintsugi.core.catalogue import METHODS
from kintsugi.core.errors import ConfigError

LOOK_SECONDS = 0.5  # between two looks at limits and at the cluster; all constants here are proposed here
QUIET_SECONDS = 30.0  # without any trial at work, before that is said
REACH_SECONDS = 5.0  # for a head node to answer; Ray itself tries for two minutes and then ends the process
LOSSES = 3  # times that a trial is run again after its node or worker was lost
LOCAL_BYTES = 512 * 2**20  # shared memory of a local cluster: what a trial brings back is small; more goes to the disk
LEAVE_SECONDS = 60.0  # that a worker over its memory waits to be ended before it ends itself

# Names in ray.exceptions. What else goes wrong is the trial's own: a worker out of memory, too, would be so again.
LOST = ("NodeDiedError", "WorkerCrashedError", "LocalRayletDiedError", "ObjectLostError")

Step = tuple[str, Any]
"""What a task says: ("started", node), then ("done", Done), ("failed", traceback) or ("over", what it is over)."""


class OnRay:
    """An executor: one Ray task a trial, each with one CPU and one thread.

    This process claims trials, keeps what comes back and alone writes to the store, which may lie on a disk that the nodes
    cannot reach. As many trials are in flight as the cluster has CPUs, those of nodes that join later included. A trial whose
    node or worker is lost runs again, at most three times. One that Ray ends for want of memory has failed.

    Nodes need the same Python, Ray, kintsugi and other packages, the same methods, and the same data: **the files of a data
    set, and plugins, must be readable on every node under the same path**. A node on which a job is another trial than here
    (another version, other rows) fails it and says what differs. Trials see no GPU.

    A cluster that this starts is ended again, and one that it joins stays. It has no dashboard and sends no usage statistics.
    A cluster that ``local`` starts listens on 127.0.0.1 alone, and since Ray 2.60 lets in only who has its token, which Ray makes
    and keeps in ``~/.ray/auth_token``; that file and all that the cluster writes can be read by this user alone. The ports of a
    cluster that is joined can be reached from its network; it asks for the token with which it was started, if any (variables
    RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH, as Ray documents them).

    Args:
        address: ``local`` starts a cluster on this machine; ``auto`` joins the one that runs here, or that of the variable
            RAY_ADDRESS; ``HOST:PORT`` one whose head node is elsewhere, from a machine that belongs to it;
            ``ray://HOST:PORT`` one from outside, through its client port. Where this process has joined a cluster already
            (``ray.init``), that one is used, and kept.
        limits: of one trial. seconds: counted from its start on a node, through ``ray://`` from when it was sent. memory:
            of the worker's process, looked at ten times a second; not through ``ray://``.
        workers: trials at once; default: one a CPU of the cluster.
        perform: ``module:function`` that takes a :class:`~kintsugi.bench.job.Job` and gives a
            :class:`~kintsugi.bench.job.Done`; importable on the nodes.

    Raises:
        ConfigError: fewer than one worker, a limit that is not positive or cannot be kept, or a function not given as
            ``module:function``.
    """

    def __init__(
        self,
        address: str = "auto",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        workers: int | None = None,
        perform: str = PERFORM,
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers is {workers}; give at least 1, or None for one a CPU")
        for name, limit in (("seconds", limits.seconds), ("memory", limits.memory)):
            if limit is not None and limit <= 0:
                raise ConfigError(f"the limit {name} is {limit}; give a positive number, or None for no limit")
        if limits.memory is not None and address.startswith("ray://"):
            raise ConfigError(
                f"the limit on memory cannot be kept through {address}; run on a machine of the cluster with 'auto'"
            )
        if not all(perform.partition(":")[::2]):
            raise ConfigError(f"perform is {perform!r}; give it as 'module:function', such as {PERFORM!r}")
        self.address, self.limits, self.workers, self.perform = address, limits, workers, perform

    def run(self, ledger: Ledger) -> None:
        """Every trial of the ledger is done, failed or elsewhere afterwards.

        Raises:
            ImportError: Ray is not installed.
            ConfigError: no such cluster, one of another version, or it was lost meanwhile.
            StoreError: a result that differs from that of the store, or a full disk.
            KeyboardInterrupt: Ctrl-C; what was running is ended first.
        """
        ray, began = _ray(), time.monotonic()
        with _joined(ray, self.address, self.workers):
            ledger.tally.startup += time.monotonic() - began
            fleet = _Fleet(self, ledger, ray)
            try:
                fleet.work()
            except ConnectionError as error:
                raise ConfigError(
                    f"the Ray cluster at {self.address} was lost: {_first(error)}. What is done is kept: run again"
                ) from error
            finally:
                fleet.end()


@dataclass
class _Flight:
    """A trial in the cluster. started: when its first word came, in seconds of this process's clock; None: not yet."""

    planned: Planned
    started: float | None


class _Fleet:
    """The trials in flight of one run."""

    def __init__(self, how: OnRay, ledger: Ledger, ray: Any) -> None:
        self.how, self.ledger, self.ray = how, ledger, ray
        self.flights: dict[Any, _Flight] = {}  # by what Ray gave for the task
        self.losses: Counter[str] = Counter()
        self.home = home()
        self.lost = tuple(getattr(ray.exceptions, name) for name in LOST)
        # Ray's client knows no tasks that say several things
        self.client = bool(ray.util.client.ray.is_connected())
        self.task = ray.remote(
            num_cpus=1, max_retries=0, runtime_env={"env_vars": ONE_THREAD},
            **({"num_returns": 1} if self.client else {"num_returns": "streaming"}),
        )(at_once if self.client else steps)  # fmt: skip
        self.at_work, self.said = time.monotonic(), False

    def work(self) -> None:
        while self._launch() or self.flights:
            ready, _ = self.ray.wait(list(self.flights), num_returns=1, timeout=LOOK_SECONDS)
            for handle in ready:
                self._hear(handle)
            self._end_overdue()
            self._say_where_nothing_runs()

    def end(self) -> None:
        """Cancel what is in flight; nothing, after a run to the end."""
        for handle in list(self.flights):
            self._cancel(handle)

    def _launch(self) -> bool:
        launched = False
        while len(self.flights) < self._room():
            planned = self.ledger.next(f"ray {self.how.address}")
            if planned is None:
                break
            plugins = tuple(map(str, METHODS.plugins))
            handle = self.task.remote(planned, self.how.perform, self.how.limits.memory, self.home, plugins)
            self.flights[handle] = _Flight(planned, time.monotonic() if self.client else None)
            launched = True
        return launched

    def _room(self) -> int:
        # One at least: a trial that waits in the cluster starts as soon as a node joins.
        cpus = max(1, int(self.ray.cluster_resources().get("CPU", 0)))
        return cpus if self.how.workers is None else min(cpus, self.how.workers)

    def _hear(self, handle: Any) -> None:
        flight = self.flights[handle]
        try:
            steps = self.ray.get(handle if self.client else next(handle))
        except StopIteration:
            self._again(handle, "it ended without a word")
        except self.lost as error:
            self._again(handle, _first(error))
        except self.ray.exceptions.RayError as error:
            self._failed(handle, str(error).strip() or type(error).__name__)
        else:
            kind, what = steps
            if kind == "started":
                flight.started = time.monotonic()
            elif kind == "done":
                self._keep(handle, what)
            else:
                self._failed(handle, what)
                if kind == "over":  # what it does goes on in a thread that nobody can stop
                    self._cancel(handle)

    def _keep(self, handle: Any, done: Done) -> None:
        planned = self.flights[handle].planned
        try:
            self.ledger.done(planned, done)
        except StoreError:
            raise
        except Exception:  # results of another trial
            self.ledger.failed(planned, traceback.format_exc())
        self.flights.pop(handle)

    def _failed(self, handle: Any, said: str) -> None:
        self.ledger.failed(self.flights.pop(handle).planned, said)

    def _again(self, handle: Any, why: str) -> None:
        flight = self.flights[handle]
        self.losses[flight.planned.trial.hash] += 1
        if self.losses[flight.planned.trial.hash] <= LOSSES:
            self.ledger.back(self.flights.pop(handle).planned)
        else:
            self._failed(handle, f"its node or worker was lost {LOSSES + 1} times, the last time so: {why}")

    def _end_overdue(self) -> None:
        limit = self.how.limits.seconds
        for handle, flight in list(self.flights.items()):
            if limit is not None and flight.started is not None and time.monotonic() - flight.started > limit:
                self._cancel(handle)
                self._failed(handle, f"over its limit of {limit:g} s")

    def _cancel(self, handle: Any) -> None:
        with suppress(self.ray.exceptions.RayError, ConnectionError):  # it is gone already
            self.ray.cancel(handle, force=True)

    def _say_where_nothing_runs(self) -> None:
        now = time.monotonic()
        if any(flight.started is not None for flight in self.flights.values()):
            self.at_work, self.said = now, False
        elif self.flights and not self.said and now - self.at_work > QUIET_SECONDS:
            self.said = True
            cpus = int(self.ray.cluster_resources().get("CPU", 0))
            print(
                f"Ray: no trial has been at work for {QUIET_SECONDS:g} s: the cluster at {self.how.address} has "
                f"{f'{cpus} CPUs, all taken by others' if cpus else 'no node with a CPU left'}. Waiting; nodes that join "
                "are used; Ctrl-C ends, and what is done is kept",
                file=sys.stderr,
            )


# joining a cluster ----------------------------------------------------------------------------------------------------
def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError("trials on a cluster need Ray: pip install 'kintsugi-ml[ray]'") from error


@contextmanager
def _joined(ray: Any, address: str, workers: int | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    _reach(address)
    own: dict[str, Any] = {}
    if address == "local":
        own = {"num_cpus": workers, "object_store_memory": LOCAL_BYTES, "include_dashboard": False}
    with _handlers_kept(), _environment_kept(), _quiet():
        try:
            with _to_itself() if address == "local" else nullcontext():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError, ImportError, TimeoutError) as error:
            raise ConfigError(_no_cluster(address, error)) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _to_itself() -> Iterator[None]:
    """A cluster that is started in here listens on the loopback address alone, and no other user can read its files.

    Ray makes the token that lets in whoever has it under the umask, mostly readable for all. It takes the address of a
    network card even where ``_node_ip_address`` is 127.0.0.1; what it does on macOS and Windows is what is wanted here.
    What its nodes write is private too, since they inherit the umask.
    """
    _make_private(token_file())
    constants, switch = importlib.import_module("ray._private.ray_constants"), "ENABLE_RAY_CLUSTER"
    clusters = getattr(constants, switch, None)
    umask = os.umask(0o077)
    try:
        if clusters is not None:  # a version without the switch can be reached, but has its token
            setattr(constants, switch, False)
        yield
    finally:
        os.umask(umask)
        if clusters is not None:
            setattr(constants, switch, clusters)
        _make_private(token_file())


def token_file() -> Path:
    """Where Ray keeps the token of the clusters of this user."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _make_private(path: Path) -> None:
    with suppress(OSError):  # there is none, or it is another user's, who decides about it
        if path.is_file() and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _reach(address: str) -> None:
    """Where an address is given, does anything answer there?"""
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"{address!r} is no address of a Ray cluster; give 'local', 'auto', 'HOST:PORT' or 'ray://HOST:PORT'"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: BaseException) -> str:
    match address:
        case "local":
            return f"Ray could not start a cluster on this machine: {_first(error)}"
        case "auto" if isinstance(error, ConnectionError):
            return (
                "no Ray cluster runs on this machine; start one with `ray start --head` (and `ray start "
                "--address=HOST:PORT` on other nodes), give the address of another, or 'local' for one of this machine alone"
            )
        case _:
            return f"the Ray cluster at {address} cannot be joined: {_first(error)}"


def _first(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


@contextmanager
def _environment_kept() -> Iterator[None]:
    """No statistics; and what Ray says in the environment when it starts a cluster is gone again afterwards."""
    before = {name: os.environ.get(name) for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE")}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray prints what its nodes say of workers that died, even with ``log_to_driver=False``; failures here say it too."""
    printer, switch = importlib.import_module("ray._private.worker"), "_worker_logs_enabled"
    if not hasattr(printer, switch):  # a version that has no such switch is only louder
        yield
        return
    before = getattr(printer, switch)
    setattr(printer, switch, False)
    try:
        yield
    finally:
        setattr(printer, switch, before)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM and leaves it there."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


# on a node ------------------------------------------------------------------------------------------------------------
def home() -> str:
    """JSON of the machine and of the installation that this process runs on; where both are the same, so is what it runs.

    The last entry is :func:`~kintsugi.bench.made_with.packages`.
    """
    import kintsugi

    said = json.loads(this_process())
    return json.dumps([said["host"], said["boot"], said["space"], sys.prefix, kintsugi.__file__, packages()])


def steps(
    planned: Planned, perform: str, memory: int | None = None, asked_from: str = "", plugins: Sequence[str] = ()
) -> Iterator[Step]:
    """One trial on a node, told step by step.

    Args:
        planned: the job, and the trial that it is for who asks.
        perform: ``module:function``.
        memory: bytes that this process may hold; None: no limit.
        asked_from: :func:`home` of who asks; what runs on another notes itself what it was made with.
        plugins: files of methods that who asks was given.
    """
    try:
        for file in plugins:
            METHODS.load_plugin(file)
        module, _, name = perform.partition(":")
        function: Callable[[Job], Done] = getattr(importlib.import_module(module), name)
        import torch

        torch.set_num_threads(1)
        yield "started", platform.node()
        elsewhere = asked_from != home()
        refuse_another(
            planned,
            json.loads(asked_from)[-1] if asked_from else packages(),
            f"on node {platform.node()}",
            "Install the same versions and the same data on every node; where a file was edited meanwhile, run again",
        )
        done = function(planned.job) if memory is None else _within(memory, function, planned.job)
        if not isinstance(done, Done):
            raise TypeError(f"the function of the trials returned {type(done).__name__}, not {Done.__name__}")
        if elsewhere and planned.trial.registered:
            done.facts[FACT] = made_with(planned.trial.registered)
    except _Over as over:
        yield "over", str(over)
        time.sleep(LEAVE_SECONDS)
        os._exit(1)
    except (Exception, SystemExit):  # a method that calls sys.exit() ends its trial, not the worker
        yield "failed", traceback.format_exc()
    else:
        yield "done", done


def at_once(
    planned: Planned, perform: str, memory: None = None, asked_from: str = "", plugins: Sequence[str] = ()
) -> Step:
    """The last step of :func:`steps`; without a limit on memory."""
    return list(steps(planned, perform, memory, asked_from, plugins))[-1]


class _Over(Exception):
    """A trial is over a limit."""


def _within(memory: int, function: Callable[[Job], Done], job: Job) -> Done:
    """What a function gives; its memory is looked at meanwhile."""
    if held(os.getpid()) is None:
        raise ConfigError(f"node {platform.node()} has no /proc/PID/status; leave the limit on memory away")
    box: dict[str, Any] = {}

    def work() -> None:
        import torch

        torch.set_num_threads(1)  # each thread has a number of its own
        try:
            box["done"] = function(job)
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        now = held(os.getpid()) or 0
        if thread.is_alive() and now > memory:
            raise _Over(f"over its limit of {memory / 1e9:.3g} GB of memory (held {now / 1e9:.3g} GB)")
    if "error" in box:
        raise box["error"]
    return box["done"]
