"""Scripts: coroutines that are driven by the same machine as class states.

    async def convert(worker):
        await worker.set("cmdoutfile", "##TMPDIR##/out.y4m")
        await worker.run()
        await worker.upload(worker.out_key, "##TMPDIR##/out.y4m")

There is no event loop. A script may await only the methods of its worker. It must not use a clock
or random numbers, so that the same events give the same commands.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mu.events import Answered, Elapsed, Event, Informed, Lost
from mu.hosts import join
from mu.messages import HELLO, expected_reply, parse_retval
from mu.states.base import ErrorState, TerminalState
from mu.states.context import Context, SendCommand, State, shortened

Script = Coroutine[Any, Any, object]

_T = TypeVar("_T")


class ActorFailed(Exception):
    """Raise it in a script to fail the actor with this message.

    `final`: no retry can mend it, so that the actor has failed for good.
    """

    def __init__(self, message: str = "", final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class CommandFailed(ActorFailed):
    """The worker replied that a command failed; `reply` is that reply."""

    def __init__(self, command: str, reply: str, final: bool = False) -> None:
        words = f"the worker answered {shortened(reply)} to {shortened(command, 200)}"
        super().__init__(words, final)
        self.command = command
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended: its exit status (negative: the signal that killed it) and its output."""

    status: int
    output: str


# ---------------------------------------------------------------- awaitables


class _Request:
    """Yields itself to the driver of the script, and returns what the driver sends back."""

    __slots__ = ()

    @property
    def wanted(self) -> str:
        """What it waits for: the prefix of a reply, or a description."""
        return ""

    def __await__(self) -> Generator["_Request", Any, Any]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class _Reply(_Request):
    """The next reply to the command with this number."""

    number: int
    prefix: str

    @property
    def wanted(self) -> str:
        return self.prefix


@dataclass(frozen=True, slots=True)
class _Info(_Request):
    key: str

    @property
    def wanted(self) -> str:
        return f"INFO:{self.key}"


@dataclass(frozen=True, slots=True)
class _Sleep(_Request):
    seconds: float

    @property
    def wanted(self) -> str:
        return f"{self.seconds:g} s to pass"


@dataclass(frozen=True, slots=True)
class _Together(_Request):
    """The results of all awaitables, in order. The first one that raises ends the others."""

    awaitables: tuple[Awaitable[object], ...]
    seconds: float | None = None
    """After this time, in seconds, all are ended and TimeoutError is raised."""


@dataclass(frozen=True, slots=True)
class _Start(_Request):
    """A Started of this, at once."""

    awaitable: Awaitable[object]


@dataclass(frozen=True, slots=True)
class _Join(_Request):
    """The result of a task that was started."""

    task: "_Task"


class Started(Generic[_T]):
    """What `ScriptWorker.start` began: await it for what it returns, or raises."""

    __slots__ = ("_task",)

    def __init__(self, task: "_Task") -> None:
        self._task = task

    def __await__(self) -> Generator[_Request, Any, _T]:
        result: _T = yield _Join(self._task)
        return result


class ScriptWorker(Context):
    """The worker in a script. The actor's input is available as attributes: `worker.out_key`.

    All methods except `together`, `start`, `within`, `wait_info` and `sleep` raise CommandFailed if
    the worker replies FAIL(...).
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["input"][name]
        except KeyError:
            raise AttributeError(f"neither the worker nor its input has {name!r}") from None

    async def ask(self, command: str) -> str:
        """Send a command; return the first reply to it."""
        self.send(command)
        return await self._reply(command, self.sent, expected_reply(command))

    async def set(self, name: str, value: str) -> None:
        await self.ask(f"set:{name}:{value}")

    async def seti(self, name: str, value: int) -> None:
        await self.ask(f"seti:{name}:{value}")

    async def get(self, name: str) -> str:
        return (await self.ask(f"get:{name}")).removeprefix("OK:GET(").removesuffix(")")

    async def run(
        self, command: str = "", check: bool = True, source: str = "", quiet: bool = False
    ) -> Ran:
        """Run a shell command, or the packaged program for "", and wait until it ends.

        `source` names the input that it handles, and a `quiet` command's output is not shown in the
        log. Raises CommandFailed if the exit status is not 0, unless `check` is False.
        """
        words = f"run:{command}"
        reply = await self._to_the_end(words, "OK:RUNNING", "OK:RETVAL", source, quiet)
        status, output = parse_retval(reply)
        if check and status:
            raise CommandFailed(f"run:{command}", reply, not self.may_mend(reply))
        return Ran(status, output)

    async def retrieve(self, key: str = "", file: str = "") -> None:
        """Fetch an object; without arguments, the one that the variables inkey and targfile name."""
        argument = f"{key}\0{file}" if key or file else ""
        await self._to_the_end(f"retrieve:{argument}", "OK:RETRIEVING", "OK:RETRIEVE(")

    async def upload(self, key: str = "", file: str = "") -> None:
        """Store a file; without arguments, the one that the variables outkey and fromfile name."""
        argument = f"{key}\0{file}" if key or file else ""
        await self._to_the_end(f"upload:{argument}", "OK:UPLOADING", "OK:UPLOAD(")

    async def get_blobs(self, *parts: tuple[str, str]) -> None:
        """Fetch parts of blobs from the coordinator: DIGEST:FIRST:BYTES (`-`: to the end), and a file."""
        await self.ask("get_blob:" + "\0".join(word for part in parts for word in part))

    async def put_blob(self, file: str) -> str:
        """Leave a file as a blob with the coordinator; return its SHA-256."""
        reply = await self.ask(f"put_blob:{file}")
        return reply.removeprefix("OK:PUT_BLOB(").partition(":")[0]

    async def connect(self, host: str, port: int, hello: str) -> None:
        """Open the worker's connection to the relay, and send `hello` on it."""
        await self.ask(f"connect:{join(host, port)}:{hello}")

    async def close_connect(self) -> None:
        await self.ask("close_connect:")

    async def quit(self) -> None:
        """End the worker. When a script returns, its worker ends as well."""
        self.send("quit:")

    async def together(self, *awaitables: Awaitable[_T]) -> list[_T]:
        """Await several things at the same time; return their results in order.

        The first one that raises ends the others. Replies are matched by the number of their
        command. A worker of the original mu does not send it (`numbered` is False): with such a
        worker, run only one command of each kind at a time.
        """
        return list(await _Together(awaitables))

    async def start(self, awaitable: Awaitable[_T]) -> Started[_T]:
        """Begin something that runs while the script goes on; await the handle for its result.

        The script, or the part of a `together` that called this, is not done before what it began;
        it fails if that failed and was not awaited. If it raises itself, what it began is ended.
        About the replies of workers of the original mu, see `together`.
        """
        started: Started[_T] = await _Start(awaitable)
        return started

    async def within(self, seconds: float, awaitable: Awaitable[_T]) -> _T:
        """Return the result of the awaitable. Raises TimeoutError if it takes longer."""
        results: list[_T] = await _Together((awaitable,), seconds)
        return results[0]

    async def wait_info(self, key: str) -> str:
        """Return `info[key]`, once the worker has sent it."""
        return str(self.info[key] if key in self.info else await _Info(key))

    async def sleep(self, seconds: float) -> None:
        await _Sleep(seconds)

    async def _reply(self, command: str, number: int, prefix: str) -> str:
        reply: str = await _Reply(number, prefix)
        if reply.startswith("FAIL("):
            raise CommandFailed(command, reply, not self.may_mend(reply))
        return reply

    async def _to_the_end(
        self, command: str, started: str, ended: str, source: str = "", quiet: bool = False
    ) -> str:
        """Send a slow command; return its final reply, whether it runs in the background or not."""
        self.send(command, source, quiet)
        number = self.sent
        reply = await self._reply(command, number, expected_reply(command))
        if reply.startswith(started):
            reply = await self._reply(command, number, ended)
        return reply


# ---------------------------------------------------------------- the driver


@dataclass(slots=True, eq=False)
class _Task:
    """One coroutine of a script, and what it is waiting for."""

    coroutine: Script
    parent: "_Task | None" = None
    """The task that waits for it with `together`, or that started it."""
    request: _Request | None = None
    children: "list[_Task]" = field(default_factory=list)
    """Those of the `together` that it is waiting for."""
    started: "list[_Task]" = field(default_factory=list)
    """Those it started, unless they have ended and nothing of them is to be told."""
    timer: str = ""
    returned: bool = False
    done: bool = False
    """Whether it has returned, and so has everything it started; or it has failed or was ended."""
    result: object = None
    error: Exception | None = None
    told: bool = False
    """Whether its result or error was given to a task that awaited it."""

    @property
    def untold(self) -> bool:
        """Whether it failed, and no task was told."""
        return self.error is not None and not self.told


class ScriptState(State):
    """The state of an actor whose pipeline is a script, from the worker's hello to the end."""

    def __init__(self, script: Script, worker: Context) -> None:
        self._worker = worker
        self._name = getattr(script, "__qualname__", "script")
        self._main = _Task(script)
        self._waiting: list[_Task] = []  # oldest first
        self._ready: deque[tuple[_Task, object, BaseException | None]] = deque()
        self._kept: list[Answered] = []
        self._abandoned: set[int] = set()  # commands whose replies nothing can still wait for
        self._timers = 0
        self._begun = False

    @property
    def label(self) -> str:
        return self._name

    def get_expect(self) -> list[str]:
        """Return what its coroutines wait for: prefixes of replies, or descriptions."""
        return [
            task.request.wanted
            for task in self._waiting
            if task.request and not isinstance(task.request, _Together | _Join)
        ]

    def receive(self, event: Event, send: SendCommand) -> State:
        match event:
            case Lost(reason=reason):
                self._end(self._main)
                return ErrorState(self._worker, reason)
            case Answered(text=text) if not self._begun and text.startswith(HELLO):
                self._begun = True
                self._ready.append((self._main, None, None))
            case Answered(command=number):
                if number not in self._abandoned:
                    self._kept.append(event)
            case Informed(key=key, value=value):
                for task in [task for task in self._waiting if task.request == _Info(key)]:
                    self._wake(task, value)
            case Elapsed(timer=timer):
                for task in [task for task in self._waiting if task.timer == timer]:
                    self._elapse(task)
        try:
            self._run()
        except (ActorFailed, TimeoutError) as error:
            words = f"{self._name}: {error or type(error).__name__}"
            return ErrorState(self._worker, words, getattr(error, "final", False))
        if not self._main.done:
            return self
        ending = TerminalState(self._worker)
        ending.result = self._main.result
        return ending

    def _run(self) -> None:
        """Resume all tasks that can continue. Raises whatever the script does not catch."""
        while True:
            while self._ready:
                task, result, error = self._ready.popleft()
                if not task.done:
                    self._worker.step()
                    self._resume(task, result, error)
            if not self._deal():
                break
        most = self._worker.held_limit
        if len(self._kept) > most:
            raise OverflowError(f"over {most} replies that the script does not wait for")

    def _deal(self) -> bool:
        """Give the oldest kept reply that a task waits for to the task that has waited longest."""
        for reply in self._kept:
            for task in self._waiting:
                if isinstance(task.request, _Reply) and _belongs(reply, task.request):
                    self._kept.remove(reply)
                    self._wake(task, reply.text)
                    return True
        return False

    def _resume(self, task: _Task, result: object, error: BaseException | None) -> None:
        try:
            request = task.coroutine.throw(error) if error else task.coroutine.send(result)
        except StopIteration as stop:
            task.returned, task.result = True, stop.value
            self._settle(task)
        except Exception as raised:
            self._conclude(task, raised)
        else:
            self._wait(task, request)

    def _wait(self, task: _Task, request: object) -> None:
        if not isinstance(request, _Request):
            task.coroutine.close()
            raise TypeError(f"a script may await only its worker's methods, not {request!r}")
        task.request = request
        self._waiting.append(task)
        if isinstance(request, _Sleep):
            self._set_timer(task, request.seconds)
        elif isinstance(request, _Together):
            task.children = [_Task(_script(one), task) for one in request.awaitables]
            self._ready.extend((child, None, None) for child in task.children)
            if request.seconds is not None:
                self._set_timer(task, request.seconds)
            if not task.children:
                self._wake(task, [])
        elif isinstance(request, _Start):
            started = _Task(_script(request.awaitable), task)
            task.started = [one for one in task.started if not one.done or one.untold]
            task.started.append(started)
            self._ready.append((started, None, None))
            self._wake(task, Started(started))
        elif isinstance(request, _Join) and request.task.done:
            self._tell(request.task)

    def _settle(self, task: _Task) -> None:
        """End a task that has returned, once all that it started has ended, or one of it failed."""
        error = next((one.error for one in task.started if one.untold), None)
        if error or all(one.done for one in task.started):
            self._conclude(task, error)

    def _conclude(self, task: _Task, error: Exception | None) -> None:
        """End a task that has returned or failed. Raises the error if that ends the script."""
        for started in task.started:
            self._end(started)
        task.done, task.error = True, error
        self._tell(task)
        parent = task.parent
        if parent is None:
            if error:
                raise error
        elif task in parent.started:
            if parent.returned:
                self._settle(parent)
        elif error:
            self._fail(parent, error)
        elif all(child.done for child in parent.children):
            self._wake(parent, [child.result for child in parent.children])

    def _tell(self, task: _Task) -> None:
        """Resume those who wait for a task that is done."""
        for one in [one for one in self._waiting if one.request == _Join(task)]:
            task.told = True
            self._wake(one, task.result, task.error)

    def _fail(self, task: _Task, error: BaseException) -> None:
        """End the children of the task, and raise the error in it."""
        for child in task.children:
            self._end(child)
        self._wake(task, None, error)

    def _elapse(self, task: _Task) -> None:
        task.timer = ""
        if isinstance(task.request, _Together):
            self._fail(task, TimeoutError(f"it took longer than {task.request.seconds:g} s"))
        else:
            self._wake(task, None)

    def _wake(self, task: _Task, result: object, error: BaseException | None = None) -> None:
        self._forget(task)
        self._ready.append((task, result, error))

    def _end(self, task: _Task) -> None:
        """Close a coroutine, its children and what it started."""
        for other in (*task.children, *task.started):
            self._end(other)
        if isinstance(task.request, _Reply):
            self._abandoned.add(task.request.number)
        self._forget(task)
        if not task.done:
            task.done = True
            task.error = ActorFailed("it was ended together with what started it")
            task.coroutine.close()
            self._tell(task)

    def _forget(self, task: _Task) -> None:
        if task in self._waiting:
            self._waiting.remove(task)
        if task.timer:
            self._worker.cancel_timer(task.timer)
        task.request, task.timer, task.children = None, "", []

    def _set_timer(self, task: _Task, seconds: float) -> None:
        self._timers += 1
        task.timer = f"script{self._timers}"
        self._worker.set_timer(task.timer, seconds)


def first_state(begin: Callable[[ScriptWorker], State | Script]) -> Callable[[ScriptWorker], State]:
    """Return a function like `begin` that returns a ScriptState for a script."""

    def state(worker: ScriptWorker) -> State:
        begun = begin(worker)
        return ScriptState(begun, worker) if isinstance(begun, Coroutine) else begun

    return state


def _belongs(reply: Answered, request: _Reply) -> bool:
    """Return whether a reply is the requested one: by its number, or by its prefix if it has none."""
    if reply.command:
        return reply.command == request.number
    return reply.text.startswith((request.prefix, "FAIL("))


def _script(awaitable: Awaitable[object]) -> Script:
    return awaitable if isinstance(awaitable, Coroutine) else _awaiting(awaitable)


async def _awaiting(awaitable: Awaitable[object]) -> object:
    return await awaitable
