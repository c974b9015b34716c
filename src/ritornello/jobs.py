"""One function over many jobs: in this process, in others of this machine, or on a Ray cluster.

    for job, result in spread(function, jobs, how=2): ...

Results come as they are finished, and the next job is taken when somebody is free for it, so `jobs` may be made while they are worked
off. What runs elsewhere must be a function of some module, and its jobs and results plain values. When the generator is closed, those at
work are asked to stop (SIGTERM): a run saves itself between two steps.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, TypeVar

from ritornello.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")
How = int | Literal["ray"]  # so many at a time; 1: in this process


def spread(function: Callable[[Job], Result], jobs: Iterable[Job], how: How = 1, threads: int = 1) -> Generator[tuple[Job, Result]]:
    """(job, function(job)) of every job, as they are finished. `threads`: the processors that one job keeps busy, which Ray asks for.

    An InputError of a job ends everything and is raised here; so is one where a process was killed, or Ray is not installed.
    """
    if how == "ray":
        return _ray(function, jobs, threads)
    count = at_a_time(how)
    return ((job, function(job)) for job in jobs) if count == 1 else _processes(function, jobs, count)


def at_a_time(how: How) -> int:
    """How many jobs share this machine: one, where a cluster has them. InputError for less."""
    if how != "ray" and how < 1:
        raise InputError(f"--jobs: {how} is less than 1")
    return 1 if how == "ray" else how


def _processes(function: Callable[[Job], Result], jobs: Iterable[Job], count: int) -> Generator[tuple[Job, Result]]:
    context, left = multiprocessing.get_context("spawn"), iter(jobs)
    workers: list[Any] = []
    busy: dict[Any, tuple[Any, Job]] = {}
    try:
        for _, job in zip(range(count), left, strict=False):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(function, theirs), daemon=True)
            worker.start()
            workers.append(worker)
            theirs.close()
            ours.send(job)
            busy[ours] = worker, job
        while busy:
            ready: list[Any] = wait(list(busy))
            for pipe in ready:
                worker, job = busy.pop(pipe)
                result = _answer(pipe, worker)
                for following in left:
                    pipe.send(following)
                    busy[pipe] = worker, following
                    break
                else:
                    pipe.close()  # which ends the worker
                yield job, result
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _answer(pipe: Connection, worker: Any) -> Any:
    """What the worker's job gave; raises what ended it."""
    try:
        refused, result = pipe.recv()
    except EOFError:
        worker.join()
        if worker.exitcode in (0, -signal.SIGTERM):  # somebody asked it to stop
            raise KeyboardInterrupt from None
        how = f"was killed by signal {-worker.exitcode}, perhaps for want of memory: fewer --jobs need less"
        raise InputError(f"a process {how if worker.exitcode < 0 else 'failed; its message is above'}") from None
    if refused:
        raise InputError(refused)
    return result


def _work(function: Callable[[Any], Any], pipe: Connection) -> None:
    """Do what comes through the pipe until it is closed. Ctrl-C is for the process that started this one; when that dies, this one ends."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, function(job)))
        except InputError as error:
            pipe.send((str(error), None))
        except KeyboardInterrupt:
            return


def _end_with(parent: Any) -> None:
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _ray(function: Callable[[Job], Result], jobs: Iterable[Job], threads: int) -> Generator[tuple[Job, Result]]:
    """As many at a time as the cluster has processors for. All its machines must see the folders that the jobs name."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--jobs ray: Ray is not installed; pip install 'ritornello[ray]'") from error
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    remote = ray.remote(num_cpus=threads, max_retries=0)(_call)
    room = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    left, busy = iter(jobs), dict[Any, Job]()
    try:
        while True:
            for _, job in zip(range(room - len(busy)), left, strict=False):
                busy[remote.remote(function, job)] = job
            if not busy:
                return
            done, _ = ray.wait(list(busy))
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except ray.exceptions.RayError as error:
                raise InputError(f"--jobs ray: {str(error).splitlines()[0]}") from error
            yield busy.pop(done[0]), result
    finally:
        for reference in busy:
            ray.cancel(reference)


def _call(function: Callable[[Any], Any], job: Any) -> Any:
    return function(job)  # Ray runs nothing but functions written in Python
