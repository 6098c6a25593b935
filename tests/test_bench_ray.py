"""Trials on a Ray cluster of two nodes: the same table as in process, whatever is lost on the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from kintsugi.bench import Store, Trial
from kintsugi.bench import on_ray as module
from kintsugi.bench.job import Done, Job, Planned, Source, whole
from kintsugi.bench.on_ray import OnRay, _Fleet, _Flight, at_once, home, steps
from kintsugi.bench.running import InProcess, Ledger, Limits, Tally, run
from kintsugi.bench.work import perform
from kintsugi.core.errors import ConfigError
from kintsugi.evaluation.protocols import get_protocol

TESTS = Path(__file__).parent
PLACE = "KINTSUGI_TEST_PLACE"  # a folder that tests and nodes share
MEGABYTE = 2**20


def planned(count: int) -> list[Planned]:
    """Small trials; their versions are made up, since to find out the real ones takes longer than the trials."""
    found = []
    for seed in range(count):
        job = Job(Source("factors"), "mean_fusion", seed=seed, protocol="clean", trainer={"epochs": 1}, resamples=20)
        data = whole(job.source)
        protocol = get_protocol("clean", data)
        found.append(Planned(job, Trial(job.label, {}, data.name, data.fingerprint, job.training, seed, protocol, {})))
    return found


def through(executor: Any, todo: list[Planned], folder: Path, watch: Any = None) -> tuple[Tally, Store]:
    store = Store.open(folder)
    return run(Ledger(store, todo, watch), executor), store


def exported(store: Store) -> bytes:
    return store.export(store.folder / "table.csv").read_bytes()


def wait_for(happened: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# what nodes run -----------------------------------------------------------------------------------------------------
def place() -> Path:
    return Path(os.environ[PLACE])


def note(what: str) -> None:
    (place() / what).touch()


def caught_on_the_doomed(job: Job) -> Done:
    """Never ends on the node that the test is going to remove."""
    import ray

    if ray.get_runtime_context().get_node_id() == (place() / "doomed").read_text():
        note(f"caught {job.seed}")
        time.sleep(600)
    # until then the other node does not take everything
    wait_for(lambda: list(place().glob("caught *")))
    return perform(job)


def quick(job: Job) -> Done:
    """Results of the right shape, in no time."""
    line = {"dataset": "factors", "method": job.label, "seed": job.seed, "training": job.training, "condition": "clean"}
    line |= {"group": "clean", "x": 0.0, "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 4}
    line |= {"higher_is_better": True, "seconds": 0.1, "mask_hash": ""}
    return Done(pd.DataFrame([line]), {}, {})


def of_many_kinds(job: Job) -> Done:
    match job.seed:
        case 1:
            raise LookupError("a method that raises")
        case 2:
            time.sleep(600)
        case 3:
            held = b"x" * (1000 * MEGABYTE)
            time.sleep(600)
            assert held
        case 4:
            with (place() / "crashes").open("a") as file:
                file.write("x")
            os._exit(1)
        case 5:
            import torch

            (place() / "threads").write_text(f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()}")
    return quick(job)


def slow(job: Job) -> Done:
    (place() / f"began {job.seed} in {os.getpid()}").touch()
    time.sleep(0 if job.seed == 0 else 600)
    return quick(job)


# the cluster --------------------------------------------------------------------------------------------------------
class Two:
    """A cluster of two nodes with a CPU each; the driver is on neither of their workers."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.small = folder, {"num_cpus": 1, "object_store_memory": 80 * MEGABYTE}
        self.cluster = Cluster(initialize_head=True, head_node_args={**self.small, "include_dashboard": False})
        self.second = self.cluster.add_node(**self.small)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def remove_second(self) -> None:
        self.cluster.remove_node(self.second)

    def join_again(self) -> None:
        self.second = self.cluster.add_node(**self.small)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra 'ray')")
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PLACE, str(folder))  # nodes have it from here
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        before = signal.getsignal(signal.SIGTERM)
        made = Two(folder)
        yield made
        ray.shutdown()
        made.cluster.shutdown()
        signal.signal(signal.SIGTERM, before)  # Ray leaves a handler of its own


@pytest.fixture
def joined(two: Two) -> Two:
    """The driver stays in the cluster from one test to the next, so that workers stay warm."""
    import ray

    if not ray.is_initialized():
        ray.init(address=two.address, log_to_driver=False, logging_level="ERROR")
    return two


def on(two: Two, function: str = "", **given: Any) -> OnRay:
    return OnRay(two.address, perform=f"{__name__}:{function}", **given) if function else OnRay(two.address, **given)


@pytest.mark.slow
def test_the_table_is_that_of_one_process(joined: Two, tmp_path: Path) -> None:
    todo = planned(6)
    most: list[int] = []
    store = Store.open(tmp_path / "ray")

    def watch(event: str, _: Planned, __: str) -> None:
        most.append(store.counts().get("running", 0))

    tally = run(Ledger(store, todo, watch), on(joined))
    assert (tally.done, tally.failed, tally.elsewhere) == (6, {}, 0)
    assert max(most) == 2  # a CPU each
    _, alone = through(InProcess(), todo, tmp_path / "alone")
    assert exported(store) == exported(alone)
    assert next(store.records()).facts["training"]["epochs"] == 1
    for trial in (p.trial for p in todo):
        assert (store.outcomes(trial)["clean"] == alone.outcomes(trial)["clean"]).all()


@pytest.mark.slow
def test_a_node_lost_in_the_middle_changes_nothing(joined: Two, tmp_path: Path) -> None:
    todo = planned(4)
    (joined.folder / "doomed").write_text(joined.second.node_id)
    events: list[tuple[str, int]] = []
    run_here = partial(through, on(joined, "caught_on_the_doomed"), todo, tmp_path / "ray")
    with ThreadPoolExecutor(1) as pool:  # this thread has to start and end nodes
        running = pool.submit(run_here, lambda event, one, _: events.append((event, one.job.seed)))
        wait_for(lambda: list(joined.folder.glob("caught *")))
        joined.remove_second()
        joined.join_again()
        tally, store = running.result()
    caught = [int(file.name.split()[1]) for file in joined.folder.glob("caught *")]
    assert len(caught) == 1
    assert events.count(("start", caught[0])) == 2
    assert (tally.done, tally.failed) == (4, {})
    _, alone = through(InProcess(), todo, tmp_path / "alone")
    assert exported(store) == exported(alone)


@pytest.mark.slow
def test_a_trial_that_goes_wrong_costs_itself_alone(
    two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    ray.shutdown()
    capfd.readouterr()
    monkeypatch.setattr(module, "LOSSES", 1)
    todo = planned(6)
    limits = Limits(seconds=10, memory=1000 * MEGABYTE)
    tally, store = through(on(two, "of_many_kinds", limits=limits), todo, tmp_path)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert not ray.is_initialized()
    assert tally.startup > 0
    said = {p.job.seed: store.failures().get(p.trial.hash, "") for p in todo}
    assert "LookupError: a method that raises" in said[1]
    assert "in of_many_kinds" in said[1]
    assert "ray::" not in said[1]
    assert said[2] == "over its limit of 10 s"
    assert said[3].startswith("over its limit of 1.05 GB of memory (held ")
    assert said[4].startswith("its node or worker was lost 2 times, the last time so: ")
    assert (two.folder / "crashes").read_text() == "xx"
    assert (two.folder / "threads").read_text() == "1 1"
    assert (tally.done, store.counts()) == (2, {"done": 2, "failed": 4})


@pytest.mark.slow
def test_an_interruption_ends_everything(joined: Two, tmp_path: Path) -> None:
    import ray

    todo, store = planned(4), Store.open(tmp_path)

    def watch(event: str, _: Planned, __: str) -> None:
        if event == "done":
            wait_for(lambda: list(joined.folder.glob("began [123] in *")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Ledger(store, todo, watch), on(joined, "slow"))
    assert store.counts() == {"done": 1, "pending": 3}
    for file in joined.folder.glob("began [123] in *"):
        wait_for(partial(gone, int(file.name.split()[-1])), 20)
    tally, _ = through(on(joined, "quick"), todo, tmp_path)
    assert (tally.before, tally.done) == (1, 3)
    assert ray.is_initialized()  # it was so before


LOCAL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_bench_ray import OnRay, planned, through
executor = OnRay("local", workers=2, perform="test_bench_ray:quick")
tally, store = through(executor, planned(2), Path(sys.argv[2]))
assert tally.done == 2, store.failures()
import os, ray
assert not ray.is_initialized()
assert not {"RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"} & os.environ.keys()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_local_cluster_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra 'ray')")
    mark = f"KINTSUGI_TEST_MARK={tmp_path}"
    # Ray keeps a token in the home folder
    added = {"KINTSUGI_TEST_MARK": str(tmp_path), "PYTHONPATH": str(TESTS), "HOME": str(tmp_path)}
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED")}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL, str(TESTS), str(tmp_path / "runs")], capture_output=True, text=True, timeout=120,
        env=kept | added,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def left() -> list[str]:
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark.encode() in file.read_bytes():
                    found.append((file.parent / "cmdline").read_text()[:200])
            except OSError:
                continue  # it ended meanwhile, or it is another user's
        return found

    wait_for(lambda: not left(), 10)


# without a cluster --------------------------------------------------------------------------------------------------
def test_a_cluster_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra 'ray')")
    ray.shutdown()
    ledger = Ledger(Store.open(tmp_path), [])

    def none(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    with monkeypatch.context() as patch:
        patch.setattr(ray, "init", none)
        with pytest.raises(ConfigError, match="no Ray cluster runs on this machine; start one with `ray start --head`"):
            OnRay("auto").run(ledger)
    with socket.socket() as free:  # bound, and nobody listens
        free.bind(("127.0.0.1", 0))
        for start in ("", "ray://"):
            address = f"{start}127.0.0.1:{free.getsockname()[1]}"
            with pytest.raises(ConfigError, match=f"the Ray cluster at {address} cannot be joined: .*refused"):
                OnRay(address).run(ledger)
    with pytest.raises(ConfigError, match="'somewhere' is no address of a Ray cluster"):
        OnRay("somewhere").run(ledger)
    assert not ray.is_initialized()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were absent
    with pytest.raises(ImportError, match=r"pip install 'kintsugi-ml\[ray\]'"):
        OnRay().run(Ledger(Store.open(tmp_path), []))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"limits": Limits(seconds=0)}, "the limit seconds is 0"),
        ({"limits": Limits(memory=-1)}, "the limit memory is -1"),
        ({"perform": "somewhere"}, "give it as 'module:function'"),
        ({"address": "ray://head:10001", "limits": Limits(memory=1)}, "cannot be kept through ray://head:10001"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        OnRay(**given)


def test_a_node_with_other_data_or_versions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = planned(1)
    own = one.job.trial()
    other = replace(own, fingerprint="f00d", versions={**own.versions, "training": 2})
    *_, (kind, said) = steps(Planned(one.job, other), f"{__name__}:quick")
    assert kind == "failed"
    assert "fingerprint of the data 'f00d' where it was planned" in said
    assert "version of training 2 where it was planned, 1 here" in said
    kind, done = list(steps(Planned(one.job, own), f"{__name__}:quick"))[-1]
    assert kind == "done"
    assert done.facts["made_with"]["sources"]  # the node says what it runs on
    # a worker of this machine may have read another file of a method than who asks
    assert list(steps(Planned(one.job, own), f"{__name__}:quick", asked_from=home()))[-1][0] == "done"
    *_, (kind, said) = steps(Planned(one.job, other), f"{__name__}:quick", asked_from=home())
    assert kind == "failed"
    assert "version of training 2 where it was planned, 1 here" in said
    # the same trial on a node with another package
    *place, own_packages = json.loads(home())
    there = json.dumps([*place[:-1], "elsewhere", own_packages | {"torch": "1.0"}])
    *_, (kind, said) = steps(Planned(one.job, own), f"{__name__}:quick", asked_from=there)
    assert kind == "failed"
    assert "torch '1.0' where it was planned" in said


def test_the_steps_of_a_trial() -> None:
    (one,) = planned(1)
    told = list(steps(one, f"{__name__}:quick", asked_from=home()))
    assert [kind for kind, _ in told] == ["started", "done"]
    kind, done = at_once(one, f"{__name__}:quick", asked_from=home())
    assert kind == "done"
    assert done.results.equals(told[-1][1].results)
    kind, said = at_once(one, "kintsugi.bench.trial:facts", asked_from=home())
    assert kind == "failed"
    assert "AttributeError" in said
    kind, said = at_once(one, f"{__name__}:note", asked_from=home())
    assert kind == "failed"


class FakeRay:
    """What the fleet asks of Ray before a task is under way."""

    def __init__(self, cpus: int) -> None:
        error = type("RayError", (Exception,), {})
        self.exceptions = SimpleNamespace(RayError=error, **{name: type(name, (error,), {}) for name in module.LOST})
        self.util = SimpleNamespace(client=SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: False)))
        self.cpus, self.sent = cpus, 0

    def remote(self, *given: Any, **options: Any) -> Any:
        if not options:
            self.sent += 1
            return object()
        assert (options["max_retries"], options["num_cpus"], options["num_returns"]) == (0, 1, "streaming")
        assert options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"
        return lambda _: self

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)} if self.cpus else {}


def test_as_many_in_flight_as_the_cluster_has_cpus_by_now(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with Ledger(store, planned(8)) as ledger:
        for workers, cpus, flying in ((None, 0, 1), (None, 2, 2), (None, 5, 5), (3, 5, 3)):
            ray: Any = FakeRay(cpus)
            fleet = _Fleet(OnRay(workers=workers), ledger, ray)
            assert fleet._launch()
            assert ray.sent == len(fleet.flights) == flying
            for flight in fleet.flights.values():
                ledger.back(flight.planned)


def test_where_nothing_runs_it_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger(Store.open(tmp_path), planned(1)) as ledger:
        for cpus, why in ((2, "2 CPUs, all taken by others"), (0, "no node with a CPU left")):
            ray: Any = FakeRay(cpus)
            fleet = _Fleet(OnRay("head:6379"), ledger, ray)
            fleet._say_where_nothing_runs()
            (one,) = planned(1)
            fleet.flights["task"] = flight = _Flight(one, None)
            fleet._say_where_nothing_runs()
            assert capsys.readouterr().err == ""
            fleet.at_work -= module.QUIET_SECONDS + 1
            fleet._say_where_nothing_runs()
            fleet._say_where_nothing_runs()
            said = capsys.readouterr().err
            assert said.count("no trial has been at work for 30 s: the cluster at head:6379 has " + why) == 1
            flight.started = 1.0
            fleet._say_where_nothing_runs()
            assert fleet.at_work > time.monotonic() - module.QUIET_SECONDS


# a cluster that is its user's alone ---------------------------------------------------------------------------------
class Starting:
    """What joining asks of Ray; notes how things stand when a cluster is started."""

    def __init__(self, token: Path) -> None:
        self.token, self.seen = token, {}
        self.exceptions = SimpleNamespace()

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        import ray._private.ray_constants as constants

        umask = os.umask(0)
        os.umask(umask)
        if not self.token.exists():  # as Ray writes it
            self.token.parent.mkdir(exist_ok=True)
            self.token.write_text("secret")
        self.seen = {
            "umask": umask, "clusters": constants.ENABLE_RAY_CLUSTER, "mode": self.token.stat().st_mode & 0o777, **options
        }  # fmt: skip

    def shutdown(self) -> None:
        self.seen["shut"] = True


@pytest.fixture
def home_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder of its own, under a umask that lets everybody read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    umask = os.umask(0o022)
    yield tmp_path
    os.umask(umask)


@pytest.mark.parametrize("is_there", [False, True], ids=["made by Ray", "left by a version before"])
def test_the_token_of_a_local_cluster_is_readable_by_its_user_alone(is_there: bool, home_of: Path) -> None:
    constants = pytest.importorskip("ray._private.ray_constants")
    before, token = constants.ENABLE_RAY_CLUSTER, home_of / ".ray" / "auth_token"
    if is_there:
        token.parent.mkdir()
        token.write_text("old")
        token.chmod(0o644)
    ray = Starting(token)
    with module._joined(ray, "local", 1):
        assert os.umask(0o022) == 0o022  # only the cluster is private, not what this process writes
        assert token.stat().st_mode & 0o777 == 0o600
    assert ray.seen["umask"] == 0o077
    assert ray.seen["mode"] == 0o600  # at no moment another
    assert ray.seen["clusters"] is False
    assert ray.seen["shut"]
    assert constants.ENABLE_RAY_CLUSTER is before


def test_a_token_elsewhere_is_made_private_too(home_of: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    token = home_of / "mine"
    token.write_text("old")
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with module._joined(Starting(token), "local", 1):
        assert token.stat().st_mode & 0o777 == 0o600


def test_a_cluster_that_is_joined_is_left_as_it_is(home_of: Path) -> None:
    constants = pytest.importorskip("ray._private.ray_constants")
    token = home_of / ".ray" / "auth_token"
    ray = Starting(token)
    with module._joined(ray, "auto", 1):
        pass
    assert (ray.seen["umask"], ray.seen["clusters"], ray.seen["mode"]) == (0o022, constants.ENABLE_RAY_CLUSTER, 0o644)


LISTENING = """
import json, logging, os, sys
from pathlib import Path
import ray
from kintsugi.bench import on_ray

def listening():
    own = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # raylet, GCS and workers of this cluster name its folder; this process is the driver
            if process.name != str(os.getpid()) and folder.encode() not in (process / "cmdline").read_bytes():
                continue
            for handle in (process / "fd").iterdir():
                link = os.readlink(handle)
                if link.startswith("socket:["):
                    own[link[8:-1]] = process.name
        except OSError:
            continue
    found = []
    for family in ("tcp", "tcp6"):
        for line in Path("/proc/net", family).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in own:
                found.append(fields[1].split(":")[0])
    return found

with on_ray._joined(ray, "local", 1):
    folder = ray._private.worker._global_node.get_session_dir_path()
    print(json.dumps(listening()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not say who listens where")
def test_a_local_cluster_listens_on_the_loopback_address_alone(home_of: Path) -> None:
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=180, check=True, env=dict(os.environ)
    )
    addresses = json.loads(done.stdout.splitlines()[-1])
    assert len(addresses) >= 3
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
