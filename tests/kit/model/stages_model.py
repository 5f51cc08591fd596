"""An exhaustive model of stages: every course of a small job whose actors wait for others.

The rule is the real one, mu.jobs.stages. Around it are a coordinator that records and then applies, a
journal that is synced now and then, workers that end well, badly or not at all, a second attempt
beside the first, and crashes that take the end of the journal. Each state is explored once.

What an actor results in is the number of its attempt, so that another attempt has another result.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from kit.model.session_ends import Breach
from mu.events import Finish
from mu.jobs.stages import Results, Stages

ASSIGNED, ENDED, SKIPPED = "assigned", "ended", "skipped"
Entry = tuple[str, int, int, bool]
"""Its kind, the actor, the attempt, and whether it ended well."""


@dataclass(frozen=True)
class Plan:
    """A job, and what may happen to it."""

    actors: int
    after: list[list[list[int]]]
    tolerate: int = 0
    retries: int = 0
    fails: int = 1
    crashes: int = 1
    kills: int = 0
    seconds: int = 0
    """How many second attempts may begin beside the first."""


@dataclass(frozen=True)
class Rules:
    """The coordinator's rules; a test leaves one out."""

    stages: type[Stages] = Stages
    told_on_disk: bool = True
    """A worker gets its commands once its assignment is on disk."""
    first_end_counts: bool = True
    """The first success of an actor is its end; what ends later changes nothing."""
    retried_first: bool = True
    """A failure is the actor's end only when there is no retry left."""
    restart_skips: bool = True
    """A restart fails the actors that can no longer begin, if the crash came before that."""
    begun_goes_on: bool = True
    """An actor that has begun is not failed because of those before it."""


@dataclass(frozen=True)
class World:
    """One state: the journal, what is on disk, the workers, and what may still go wrong."""

    journal: tuple[Entry, ...] = ()
    synced: int = 0
    told: frozenset[tuple[int, int, tuple[tuple[int, int | None], ...]]] = frozenset()
    """Workers that got their commands: actor, attempt, and what they were told of those before."""
    said: frozenset[tuple[int, int, bool]] = frozenset()
    """How the work of attempts ended, which their workers say until that is on disk."""
    left: tuple[int, int, int, int] = (0, 0, 0, 0)
    """How many fails, crashes, kills and second attempts there may still be."""


@dataclass
class Memory:
    """What the coordinator knows: all of it from the journal."""

    plan: Plan
    rules: Rules
    journal: tuple[Entry, ...]
    stages: Stages = field(init=False)
    running: dict[int, set[int]] = field(default_factory=dict)
    tried: dict[int, int] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)
    ends: dict[int, Finish | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stages = self.rules.stages(self.plan.after, (), self.plan.tolerate)
        for entry in self.journal:
            self._apply(entry)

    def record(self, entry: Entry) -> None:
        self.journal += (entry,)
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        kind, actor, attempt, good = entry
        if kind == ASSIGNED:
            self.running.setdefault(actor, set()).add(attempt)
            self.tried[actor] = attempt
            return
        if kind == ENDED:
            self.running[actor].discard(attempt)
            if actor in self.ends:
                if good and not self.rules.first_end_counts:
                    self.ends[actor] = Finish(result=attempt)
                return
            if not good:
                self.spent[actor] = self.spent.get(actor, 0) + 1
                if self.running[actor] or (
                    self.rules.retried_first and self.spent[actor] <= self.plan.retries
                ):
                    return
        self.ends[actor] = Finish(result=attempt) if good else Finish("failed")
        self.stages.end(actor, not good)

    def skip_doomed(self) -> None:
        for actor, _ in self.stages.doomed():
            begun = self.tried.get(actor, 0) and self.rules.begun_goes_on
            if actor not in self.ends and not begun:
                self.record((SKIPPED, actor, 0, False))

    def before(self, actor: int) -> tuple[tuple[int, int | None], ...]:
        gate = self.stages.gate(actor)
        return () if gate is None else tuple(Results(gate, self.ends.get).items())


class Exploration:
    """All states that a plan can get into under some rules. Raises Breach for the first bad one."""

    def __init__(self, plan: Plan, rules: Rules | None = None) -> None:
        self.plan, self.rules = plan, rules or Rules()
        self._before = {actor: before for before, behind in plan.after for actor in behind}
        first = World(left=(plan.fails, plan.crashes, plan.kills, plan.seconds))
        self.seen = {first}
        self.courses: set[tuple[str, ...]] = set()
        """The ways in which the actors ended."""
        waiting = [first]
        for world in waiting:  # it grows
            steps = list(self._steps(world))
            if not any(calm for calm, _ in steps):
                self._end(world)
            for _, found in steps:
                self._look(found)
                if found not in self.seen:
                    self.seen.add(found)
                    waiting.append(found)

    def _memory(self, world: World) -> Memory:
        return Memory(self.plan, self.rules, world.journal)

    # ------------------------------------------------ what may happen

    def _steps(self, world: World) -> Iterator[tuple[bool, World]]:
        """Yield each next state, and whether it needs no fault."""
        memory = self._memory(world)
        fails, crashes, kills, seconds = world.left
        if world.synced < len(world.journal):
            yield True, replace(world, synced=len(world.journal))
        for actor in range(self.plan.actors):
            if actor in memory.ends:
                continue
            running = memory.running.get(actor)
            entry = (ASSIGNED, actor, memory.tried.get(actor, 0) + 1, True)
            if not running and memory.stages.closed(actor) is None:
                yield True, self._with(world, lambda memory, entry=entry: memory.record(entry))
            if running and len(running) == 1 and seconds:
                after = self._with(world, lambda memory, entry=entry: memory.record(entry))
                yield False, replace(after, left=(fails, crashes, kills, seconds - 1))
        for actor, attempts in memory.running.items():
            for attempt in attempts:
                yield from self._steps_of(world, memory, actor, attempt)
        if crashes:
            for kept in range(world.synced, len(world.journal) + 1):
                yield False, self._restarted(world, kept)

    def _steps_of(
        self, world: World, memory: Memory, actor: int, attempt: int
    ) -> Iterator[tuple[bool, World]]:
        """Yield what the worker of an attempt that runs may do next."""
        fails, crashes, kills, seconds = world.left
        place = world.journal.index((ASSIGNED, actor, attempt, True))
        was_told = any(told[:2] == (actor, attempt) for told in world.told)
        said = {good for one, number, good in world.said if (one, number) == (actor, attempt)}
        if not was_told:
            if place < world.synced or not self.rules.told_on_disk:
                told = world.told | {(actor, attempt, memory.before(actor))}
                yield True, replace(world, told=told)
        elif not said:
            yield True, replace(world, said=world.said | {(actor, attempt, True)})
            if fails:
                left = (fails - 1, crashes, kills, seconds)
                yield False, replace(world, said=world.said | {(actor, attempt, False)}, left=left)
        for good in said:
            yield True, self._ended(world, actor, attempt, good)
        if kills:
            killed = replace(world, said=world.said - {(actor, attempt, True)})
            left = (fails, crashes, kills - 1, seconds)
            yield False, replace(self._ended(killed, actor, attempt, False), left=left)

    def _ended(self, world: World, actor: int, attempt: int, good: bool) -> World:
        """Return the state in which the end of an attempt, and what follows, is recorded."""

        def end(memory: Memory) -> None:
            memory.record((ENDED, actor, attempt, good))
            if actor in memory.ends:
                for other in sorted(memory.running[actor]):
                    if self.rules.first_end_counts:  # it is fenced off
                        memory.record((ENDED, actor, other, False))
                memory.skip_doomed()

        return self._with(world, end)

    def _with(self, world: World, change: Callable[[Memory], None]) -> World:
        memory = self._memory(world)
        change(memory)
        return replace(world, journal=memory.journal)

    def _restarted(self, world: World, kept: int) -> World:
        """Return the state after a crash that leaves so many records, and a restart."""
        fails, crashes, kills, seconds = world.left
        memory = Memory(self.plan, self.rules, world.journal[:kept])
        if self.rules.restart_skips:
            memory.skip_doomed()
        runs = {(actor, attempt) for actor, some in memory.running.items() for attempt in some}
        ended = {entry[1:3] for entry in memory.journal if entry[0] == ENDED}
        return World(
            memory.journal,
            kept,
            world.told,
            frozenset(one for one in world.said if one[:2] in runs | ended),
            (fails, crashes - 1, kills, seconds),
        )

    # ------------------------------------------------ what must hold

    def _look(self, world: World) -> None:
        """Check the journal against the rules in words, without the code of stages."""
        ends: dict[int, int | None] = {}
        spent: dict[int, int] = {}
        running: dict[int, set[int]] = {}
        for place, (kind, actor, attempt, good) in enumerate(world.journal):
            where = f"record {place} of {world}"
            failed = [one for one in self._before.get(actor, ()) if ends.get(one, 0) is None]
            excess = sum(end is None for end in ends.values()) > self.plan.tolerate
            if kind == ASSIGNED:
                if not all(one in ends for one in self._before.get(actor, ())):
                    raise Breach(f"P1 actor {actor} begins before others have ended: {where}")
                if failed and excess and attempt == 1:
                    raise Breach(f"P3 actor {actor} begins though {failed} failed: {where}")
                running.setdefault(actor, set()).add(attempt)
            elif kind == ENDED:
                running[actor].discard(attempt)
                if actor in ends:
                    continue
                spent[actor] = spent.get(actor, 0) + (not good)
                if good:
                    ends[actor] = attempt
                elif not running[actor] and spent[actor] > self.plan.retries:
                    ends[actor] = None
            else:
                if actor in ends or running.get(actor) or actor in spent:
                    raise Breach(f"P4 actor {actor} had begun, and is failed: {where}")
                if not (failed and excess):
                    raise Breach(f"P3 actor {actor} fails without a reason: {where}")
                ends[actor] = None
        for actor, attempt, before in world.told:
            for one, result in before:
                if one in ends and ends[one] != result:
                    raise Breach(
                        f"P2 attempt {attempt} at actor {actor} was told that actor {one} came to"
                        f" {result}, and it came to {ends[one]}: {world}"
                    )

    def _end(self, world: World) -> None:
        """Check a state in which nothing more happens unless something goes wrong."""
        memory = self._memory(world)
        missing = [actor for actor in range(self.plan.actors) if actor not in memory.ends]
        if missing:
            raise Breach(f"P5 actors {missing} wait for ever: {world}")
        skipped = {entry[1] for entry in world.journal if entry[0] == SKIPPED}
        ends = [memory.ends[actor] for actor in range(self.plan.actors)]
        self.courses.add(
            tuple(
                "skipped" if actor in skipped else "failed" if end and end.error else "done"
                for actor, end in enumerate(ends)
            )
        )
