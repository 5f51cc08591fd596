"""A whole job on real workers, without a daemon: machines here, each with a worker's process."""

import secrets
import select
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kit.relay import SmallRelay
from kit.workers import PATIENCE_S, Peer, RunningWorker, coordinator
from mu.events import Answered, Entered, Finish, Send
from mu.machine import Machine
from mu.messages import HELLO
from mu.parameters import Params, read_fields
from mu.plugins import Outcome
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state
from mu.testing import event as event_of


class Actor:
    """One actor: its machine, and the worker that it has now."""

    def __init__(self, job: "SmallJob", number: int) -> None:
        self.job, self.number = job, number
        self.attempt = 1
        self.commands: list[str] = []
        self.finish: Finish | None = None
        self.worker: RunningWorker = job.start(number)

    def begin_anew(self) -> None:
        """Kill the worker, and begin on another one."""
        self.worker.process.kill()
        self.worker.process.wait()
        self.peer.sock.close()
        self.attempt += 1
        self.commands.clear()
        self.worker = self.job.start(self.number)
        self.job.welcome()

    def meet(self, peer: Peer) -> None:
        """Welcome the worker, and begin."""
        job, self.peer = self.job, peer
        worker = ScriptWorker(job.facts, self.number, job.inputs[self.number])
        self.machine = Machine(worker, first_state(job.pipeline.begin))
        peer.say(f"welcome:{self.number}:{self.attempt}:0")
        self.happen(Entered(time.time(), numbered=True))
        self.happen(Answered(time.time(), HELLO))

    def happen(self, happened: Any) -> None:
        for effect in self.machine.receive(happened):
            if isinstance(effect, Send):
                self.commands.append(effect.command)
                self.peer.say(effect.command.encode("utf-8", "surrogateescape"))
            elif isinstance(effect, Finish):
                self.finish = effect
                self.peer.say("quit:")

    def hear(self) -> None:
        heard = self.peer.hear()
        kind, _, rest = heard.partition(b":")
        if kind == b"ping":
            self.peer.say(b"pong:" + rest)
        elif kind == b"RE":
            number, _, text = rest.partition(b":")
            self.happen(event_of(text.decode("utf-8", "surrogateescape"), time.time(), int(number)))
        elif not heard and self.finish is None:
            self.finish = Finish("its worker is gone")


class SmallJob:
    """Plays `pipeline` with as many workers as it plans for; `watch` sees each actor as it goes."""

    def __init__(
        self,
        home: Path,
        pipeline: Any,
        params: Mapping[str, Any],
        workers: int,
        event: Mapping[str, Any],
        relay: SmallRelay,
        watch: Callable[[Actor], None] = lambda actor: None,
    ) -> None:
        self.pipeline, self.relay = pipeline, relay
        self.event = {**event, "relay_ext": int(relay.extended)}
        given = Params(read_fields(pipeline.parameters, params), workers=workers)
        self.inputs = pipeline.plan(given)
        where = f"127.0.0.1:{relay.port}"
        self.facts = JobFacts("j1", given, len(self.inputs), where, secrets.token_hex(4))
        with coordinator(home) as self.boss:
            self.actors = [Actor(self, number) for number in range(len(self.inputs))]
            for _ in self.actors:
                self.welcome()
            until = time.monotonic() + 3 * PATIENCE_S
            while unfinished := [actor for actor in self.actors if actor.finish is None]:
                if self._failed:  # then others may wait for ever
                    for actor in unfinished:
                        actor.finish = Finish("another one failed")
                    break
                assert time.monotonic() < until, [
                    (actor.number, actor.machine.label, actor.commands[-3:]) for actor in unfinished
                ]
                for actor in unfinished:
                    watch(actor)
                self._hear(unfinished)
        ends = [actor.finish or Finish("it has no end") for actor in self.actors]
        self.errors = [finish.error for finish in ends]
        outcomes = [
            Outcome(finish.error, finish.result, number, self.inputs[number])
            for number, finish in enumerate(ends)
        ]
        self.result = pipeline.finish(self.facts, outcomes)

    def start(self, number: int) -> RunningWorker:
        """Start a worker for that actor."""
        return self.boss.start({**self.event, "launch": str(number)})

    def welcome(self) -> None:
        """Take the next worker that comes."""
        peer = self.boss.accept()
        self.actors[int(peer.hello().launch)].meet(peer)

    @property
    def _failed(self) -> bool:
        return any(actor.finish.error for actor in self.actors if actor.finish)

    def _hear(self, actors: list[Actor]) -> None:
        ready, _, _ = select.select([actor.peer.sock for actor in actors], [], [], 0.1)
        for actor in actors:
            if actor.peer.sock in ready or actor.peer.waiting:
                actor.hear()
                while actor.peer.waiting and actor.finish is None:
                    actor.hear()
