"""Runs jobs side by side and hands their results over as they come: local processes or a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from controller.fit_worker import end_with_the_parent
from wire.definitions.extras import needs
from wire.security import InsecureAddress, KeyFileError, is_loopback

J = TypeVar("J")
R = TypeVar("R")

WAIT_S = 60.0
"""Seconds to wait for a cluster's scheduler, and then for its first worker."""


class WorkersLost(RuntimeError):
    """Workers died or their scheduler did, so that results are missing."""


def local(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[tuple[int, R]]:
    """(index of the job, result) in the order in which they end, from ``workers`` new processes.

    One worker is this process itself. What ``function`` raises is raised here; :class:`WorkersLost` where a
    process was killed. ValueError for fewer workers than one.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers")
    if workers == 1 or len(jobs) < 2:
        for i, job in enumerate(jobs):
            yield i, function(job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=end_with_the_parent
    ) as pool:
        futures = {pool.submit(function, job): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise WorkersLost("a worker process died (killed, or out of memory)") from error
        finally:
            for future in futures:
                future.cancel()


def dask(
    function: Callable[[J], R],
    jobs: Sequence[J],
    scheduler: str,
    *,
    keys: Path | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[tuple[int, R]]:
    """As :func:`local`, on the Dask cluster of ``scheduler``, whose workers can import this package.

    A job whose worker dies goes to another one. ``names`` are one for each job, unique. An address beyond
    loopback needs ``tls://`` and ``keys``, the folder of :func:`wire.keys.create`: a scheduler runs any code
    that it is given.

    Raises:
        ImportError: distributed is not installed; names the extra ``sweep``.
        InsecureAddress, KeyFileError: see above.
        ConnectionError: no scheduler answers, or no worker joins it, within :data:`WAIT_S`.
        WorkersLost: the scheduler went away, or several workers died of the same job.
    """
    security = _security(scheduler, keys)
    with needs("sweep", "a Dask cluster"):
        import distributed
    try:
        client = distributed.Client(scheduler, security=security, timeout=WAIT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_S)
        except TimeoutError as error:
            raise ConnectionError(f"no worker has joined the Dask scheduler at {scheduler}") from error
        keyed = names or [f"prbandit-{i}" for i in range(len(jobs))]
        futures: dict[Any, int] = {
            client.submit(function, job, key=name, pure=False): i
            for i, (job, name) in enumerate(zip(jobs, keyed, strict=True))
        }
        try:
            for future in distributed.as_completed(list(futures), loop=client.loop):
                yield futures[future], future.result()
                future.release()
        except (distributed.KilledWorker, distributed.CancelledError, OSError) as error:
            # A job's own OSError (a channel trace that is not there) is its answer, not a lost worker.
            if isinstance(error, OSError) and not isinstance(error, distributed.comm.CommClosedError):
                raise
            raise WorkersLost(f"Dask cluster {scheduler}: {error or type(error).__name__}") from error
        finally:
            with contextlib.suppress(Exception):
                client.cancel(list(futures))


def _security(scheduler: str, keys: Path | None) -> Any:
    scheme, separator, _ = scheduler.partition("://")
    if not separator or scheme not in ("tcp", "tls"):
        raise ValueError(f"scheduler {scheduler!r} is neither tcp://HOST:PORT nor tls://HOST:PORT")
    if scheme == "tcp":
        if not is_loopback(scheduler):
            raise InsecureAddress(
                f"{scheduler} is not a loopback address: a Dask scheduler elsewhere needs tls:// and --keys"
            )
        return None
    if keys is None:
        raise InsecureAddress(f"{scheduler}: tls:// needs --keys, the folder of prbandit keys")
    files = {
        "tls_ca_file": keys / "ca.crt",
        "tls_client_cert": keys / "operator.crt",
        "tls_client_key": keys / "operator.key",
    }
    for path in files.values():
        if not path.is_file():
            raise KeyFileError(f"{path}: there is no such file")
    with needs("sweep", "a Dask cluster"):
        from distributed.security import Security
    return Security(require_encryption=True, **{name: str(path) for name, path in files.items()})
