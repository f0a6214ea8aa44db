"""Holds ward_client.py to a real server, to docs/protocol.md, against hostile ones."""

import array
import contextlib
import ctypes
import errno
import fcntl
import gc
import os
import pathlib
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import ward_client
from ward_client import Bulk, Client, Code, Descriptor, Descriptors, Message, Server

DEMO_SERVER = os.path.abspath(os.environ["DEMO_SERVER"])
README = pathlib.Path(__file__).absolute().parent / "README.md"
OWN_USER = os.geteuid()
PAGE = pathlib.Path(__file__).absolute().parents[2] / "docs/protocol.md"


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(DEMO_SERVER)


@pytest.fixture(autouse=True)
def leaks_no_descriptors() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def tmp_path() -> Iterator[pathlib.Path]:
    """Short enough for a socket in it, which pytest's is not, and gone with the test."""
    with tempfile.TemporaryDirectory() as directory:
        yield pathlib.Path(directory)


def memory_file(content: bytes = b"") -> Descriptor:
    file = Descriptor(os.memfd_create("test"))
    os.pwrite(file.fileno(), content, 0)
    return file


def in_thread(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


# --- A real server ---


def test_values_come_back_as_they_went(server: Server) -> None:
    for values in [
        ("", 0, 0.0, False),
        ("größer", -(2**63), 0.1, True),
        ("a\0b", 2**63 - 1, 1e300, True),
        ("x", 7, float("-inf"), True),
        ("x", 7, -1e-7, True),
        ("x", 7, 12345678901234567.0, True),
    ]:
        assert (
            server.client.call("same", *values, reply=(str, int, float, bool)) == values
        )


def test_bytes_need_not_be_text(server: Server) -> None:
    reply = server.client.call(
        "same", b"\xff\x00", 1, 2.5, True, reply=(bytes, int, float, bool)
    )
    assert reply[0] == b"\xff\x00"
    with pytest.raises(ward_client.BadReply, match="no str"):
        server.client.call(
            "same", b"\xff\x00", 1, 2.5, True, reply=(str, int, float, bool)
        )


def test_a_reply_is_there_as_it_came(server: Server) -> None:
    reply = server.client.call("same", "x", 1, 2.5, True, reply=Message)
    assert reply.parts == [b"x", b"1", b"2.5", b"true"]


def types_of(server: Server) -> Callable[[str], Any]:
    """The classes of the server's protobuf messages, by its own description."""
    pool = descriptor_pool.DescriptorPool()
    with server.client.stream(
        "ward.descriptor_set", reply=descriptor_pb2.FileDescriptorSet
    ) as files:
        for files_of_one in files:
            for file in files_of_one.file:
                pool.Add(file)

    def of(name: str) -> Any:
        descriptor = pool.FindMessageTypeByName(name)
        if hasattr(message_factory, "GetMessageClass"):
            return message_factory.GetMessageClass(descriptor)
        return message_factory.MessageFactory(pool).GetPrototype(descriptor)

    return of


def test_protobuf_messages_are_requests_and_replies(server: Server) -> None:
    types = types_of(server)
    Person, Greeting = types("ward.demo.Person"), types("ward.demo.Greeting")
    greeting = server.client.call(
        "greet", Person(name="Joe", born=1969), reply=Greeting
    )
    assert greeting.text == "Hello Joe, born in 1969, how are you?"
    with server.client.stream("greet_all", reply=Greeting) as greetings:
        for name in ["Joe", "Jack"]:
            greetings.write(Person(name=name, born=1969))
            assert greetings.read().text == f"Hello {name}, born in 1969, how are you?"
        greetings.end()
        assert greetings.read() is None


def test_what_is_no_message_of_the_class_is_an_error(server: Server) -> None:
    Greeting = types_of(server)("ward.demo.Greeting")
    with server.client.stream("words", "\x0f", reply=Greeting) as words:
        with pytest.raises(ward_client.BadReply, match="no Greeting"):
            words.read()


def test_a_handlers_error_comes_with_its_code_reason_and_text(server: Server) -> None:
    with pytest.raises(ward_client.Error, match="no eth7") as raised:
        server.client.call("fail", "eth7")
    assert type(raised.value) is ward_client.Error
    assert raised.value.code == Code.NOT_FOUND
    assert raised.value.reason == "NoSuchDevice"


def test_wards_own_errors_have_reasons(server: Server) -> None:
    def reason(call: Callable[[], None]) -> str:
        with pytest.raises(ward_client.Error) as raised:
            call()
        return raised.value.reason

    assert reason(lambda: server.client.call("greeet")) == "UnknownMessage"
    assert reason(lambda: server.client.call("fail")) == "InvalidArguments"
    with memory_file() as file:
        assert reason(lambda: server.client.call("fail", file)) == "InvalidArguments"
    assert (
        reason(lambda: Client(server.path, b"wrong").call("fail", "eth7"))
        == "InvalidPassword"
    )


def test_a_stream_comes_from_the_server(server: Server) -> None:
    with server.client.stream("words", "one two three", reply=str) as words:
        assert list(words) == ["one", "two", "three"]
        assert words.read() is None


def test_an_error_ends_a_stream_behind_what_came(server: Server) -> None:
    with server.client.stream("words", "one eth7 three", reply=str) as words:
        assert words.read() == "one"
        for _ in range(2):  # And stays.
            with pytest.raises(ward_client.Error, match="no eth7"):
                words.read()


def test_a_stream_goes_to_the_server(server: Server) -> None:
    with server.client.stream("sum", reply=int) as numbers:
        for number in range(1000):
            numbers.write(number)
        assert numbers.result() == 499500
    with server.client.stream("sum", reply=int) as numbers:
        assert numbers.result() == 0


def test_who_writes_to_a_handler_that_has_failed_reads_why(server: Server) -> None:
    with server.client.stream("sum", reply=int) as numbers:
        with pytest.raises(ward_client.Error, match=r"read\(\) says why"):
            numbers.write(-1)
            while True:
                numbers.write(1)
        numbers.end()  # Nothing more to say.
        with pytest.raises(ward_client.Error, match="no debts"):
            numbers.read()


def test_nobody_writes_to_a_call_that_is_over(server: Server) -> None:
    with server.client.stream("sum", reply=int) as numbers:
        numbers.end()
        with pytest.raises(ValueError, match="end was said"):
            numbers.write(1)
    with server.client.stream("words", "eth7", reply=str) as words:
        with pytest.raises(ward_client.Error, match="no eth7"):
            words.read()
        with pytest.raises(ward_client.Error, match="no eth7"):
            words.write("x")
    with server.client.stream("words", "one", reply=str) as words:
        assert list(words) == ["one"]
        with pytest.raises(ward_client.Error, match="the call has ended"):
            words.write("x")


def test_a_stream_may_be_written_and_read_at_once(server: Server) -> None:
    types = types_of(server)
    person = types("ward.demo.Person")(name="x" * 1000)
    with server.client.stream(
        "greet_all", reply=types("ward.demo.Greeting")
    ) as greetings:

        def write() -> None:
            for _ in range(1000):  # More than the socket holds.
                greetings.write(person)
            greetings.end()

        writer = in_thread(write)
        assert sum(1 for _ in greetings) == 1000
        writer.join()


def test_descriptors_go_each_way(server: Server) -> None:
    with server.client.call("file", "blue", reply=Descriptor) as file:
        assert not os.get_inheritable(file.fileno())
        with memory_file() as copy:
            assert (
                server.client.call(
                    "copy", Descriptors({"from": file, "to": copy}), reply=int
                )
                == 4
            )
            assert os.pread(copy.fileno(), 100, 0) == b"blue"


def test_a_file_that_python_has_opened_may_be_sent(
    server: Server, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "from").write_text("blue")
    with open(tmp_path / "from") as source, open(tmp_path / "to", "wb") as copy:
        assert (
            server.client.call(
                "copy", Descriptors({"from": source, "to": copy}), reply=int
            )
            == 4
        )
    assert (tmp_path / "to").read_text() == "blue"


def test_descriptors_that_nobody_has_asked_for_are_closed(server: Server) -> None:
    with pytest.raises(ward_client.BadReply, match="1 descriptors more"):
        server.client.call("file", "blue", reply=())


@pytest.mark.parametrize("size", [1, 32 << 10, (32 << 10) + 1, 1 << 20])
def test_bulks_go_each_way(server: Server, size: int) -> None:
    picture = server.client.call("picture", size, reply=Bulk)
    assert bytes(picture) == b"\x01" * size
    assert server.client.call("count", picture, reply=int) == size


@pytest.mark.parametrize("count", [100, 20_000])
def test_a_bulk_is_the_bytes_of_whatever_it_views(server: Server, count: int) -> None:
    numbers = memoryview(array.array("i", [1] * count))
    bulk = Bulk(numbers)
    assert bulk.view == numbers.tobytes() == bytes(bulk)
    assert len(bulk) == 4 * count
    assert server.client.call("count", bulk, reply=int) == count


def test_calls_share_a_connection_also_after_errors(server: Server) -> None:
    with pytest.raises(ward_client.Error):
        server.client.call("fail", "eth7")
    (connection,) = server.client._idle
    server.client.call("cancelled", 0)
    with server.client.stream("words", "one", reply=str) as words:  # Has its own.
        assert list(words) == ["one"]
    assert server.client._idle[0] is connection
    assert len(server.client._idle) == 2


def test_to_cancel_what_is_over_cancels_no_other_call(server: Server) -> None:
    with server.client.stream("words", "one", reply=str) as words:
        assert list(words) == ["one"]
    (connection,) = server.client._idle
    words.cancel()
    server.client.call("cancelled", 0)
    assert server.client._idle == [connection]


def test_threads_call_at_once(server: Server) -> None:
    failed: list[Exception] = []

    def call() -> None:
        try:
            for number in range(50):
                assert (
                    server.client.call(
                        "same", "x", number, 0.5, True, reply=(str, int, float, bool)
                    )[1]
                    == number
                )
        except Exception as error:
            failed.append(error)

    for thread in [in_thread(call) for _ in range(8)]:
        thread.join()
    assert failed == []


def test_a_fork_has_connections_of_its_own(server: Server) -> None:
    server.client.call("cancelled", 0)
    (parents,) = server.client._idle
    child = os.fork()
    if child == 0:
        try:
            server.client.call("cancelled", 0)
            os._exit(7 if parents not in server.client._idle else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    server.client.call("cancelled", 0)


def in_fork(function: Callable[[], Any]) -> None:
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            function()
            os._exit(7)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_fork_that_leaves_cuts_no_call_of_its_parents(server: Server) -> None:
    server.client.call("cancelled", 0)
    idle = list(server.client._idle)
    in_fork(server.client.close)
    cancellation = ward_client.Cancellation()
    with server.client.stream("sum", reply=int, cancellation=cancellation) as numbers:
        for leave in [numbers.close, numbers.cancel, cancellation.cancel]:
            in_fork(leave)
            numbers.write(1)
        assert numbers.result() == 3
    server.client.call("cancelled", 0)
    assert idle[0] in server.client._idle


def test_a_fork_leaves_calls_that_another_thread_is_in(server: Server) -> None:
    with server.client.stream("wait", reply=int) as call:
        failed: list[Exception] = []

        def read() -> None:
            try:
                call.read()
            except ward_client.Error as error:
                failed.append(error)

        reader = in_thread(read)
        server.client.call("waiting", 1)
        while call._connection._receiving.acquire(blocking=False):
            call._connection._receiving.release()
        in_fork(call.close)
        assert failed == []
        call.cancel()
        reader.join()
        assert isinstance(failed[0], ward_client.Cancelled)


def test_a_fork_that_closes_its_parents_server_leaves_it(server: Server) -> None:
    in_fork(lambda: server.close(timeout=0.05))
    assert os.path.exists(server.path)
    server.client.call("cancelled", 0)


def test_a_deadline_and_a_trace_id_reach_the_handler(server: Server) -> None:
    left, trace_id = server.client.call(
        "context", reply=(int, bytes), timeout=600.0, trace_id=b"00-4bf9"
    )
    assert 0 < left <= 600_000_000
    assert trace_id == b"00-4bf9"


@pytest.mark.parametrize("timeout", [1e7, 1e12, 1e300, float("inf")])
def test_a_deadline_may_be_as_far_as_one_likes(server: Server, timeout: float) -> None:
    with Client(server.path, server.password, connect_timeout=timeout) as client:
        client.call("cancelled", 0, timeout=timeout)
        with client.stream("sum", reply=int, timeout=timeout) as numbers:
            numbers.write(7)
            assert numbers.result() == 7
    server.kill()
    assert server.wait(timeout)
    server.close(timeout)


def test_a_wait_goes_on_until_its_deadline(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ward_client, "_LONGEST_WAIT", 0.001)
    asked = threading.Event()

    def late(stream: socket.socket) -> None:
        asked.wait()
        stream.send(OK_AND_KEPT)
        stream.recv(1)

    with Hostile(tmp_path / "socket", late) as server:
        later = threading.Timer(0.1, asked.set)
        later.start()
        assert server.client.call("get", reply=str, timeout=600.0) == "ok"
        later.join()


def test_a_call_ends_at_its_deadline(server: Server) -> None:
    with pytest.raises(ward_client.TimedOut) as raised:
        server.client.call("wait", timeout=0.05)
    assert raised.value.reason == "TimedOut"
    assert isinstance(raised.value, TimeoutError)


def test_cancelling_ends_the_call_here_and_there(server: Server) -> None:
    cancellation = ward_client.Cancellation()

    def cancel() -> None:
        server.client.call("waiting", 1)
        cancellation.cancel()

    canceller = in_thread(cancel)
    with pytest.raises(ward_client.Cancelled):
        server.client.call("wait", cancellation=cancellation)
    canceller.join()
    server.client.call("cancelled", 1)
    with pytest.raises(ward_client.Cancelled):
        server.client.call("cancelled", 1, cancellation=cancellation)  # At once.


def test_a_stream_that_is_cancelled_or_left_is_so_at_the_server(server: Server) -> None:
    with server.client.stream("wait", reply=int) as call:
        server.client.call("waiting", 1)
        canceller = in_thread(call.cancel)
        with pytest.raises(ward_client.Cancelled):
            call.read()
        canceller.join()
    server.client.call("cancelled", 1)
    with server.client.stream("wait", reply=int) as call:
        server.client.call("waiting", 2)
    server.client.call("cancelled", 2)
    with pytest.raises(ward_client.Cancelled):
        call.read()


def test_a_stream_that_nobody_has_any_more_is_cancelled(server: Server) -> None:
    call = server.client.stream("wait", reply=int)
    server.client.call("waiting", 1)
    with pytest.warns(ResourceWarning):
        del call
    server.client.call("cancelled", 1)


def test_an_interrupt_leaves_no_call_at_the_server(server: Server) -> None:
    def interrupt() -> None:
        server.client.call("waiting", 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        server.client.call("wait")
    interrupter.join()
    server.client.call("cancelled", 1)


def test_a_call_knows_that_its_server_has_died(server: Server) -> None:
    with pytest.raises(ward_client.CallCut):
        server.client.call("die")
    assert server.wait()
    with pytest.raises(ward_client.Unreachable):
        server.client.call("die")


def test_who_starts_a_server_owns_it(server: Server) -> None:
    owners = server.client.call("ward.owners", reply=Message).parts
    assert [int(pid) for pid in owners[::2]] == [os.getpid()]


def test_a_server_ends_with_its_owners_close_and_leaves_no_name(server: Server) -> None:
    assert os.path.exists(server.path)
    server.close()
    assert not os.path.exists(os.path.dirname(server.path))
    server.close()  # Again: nothing.


def test_a_server_that_was_killed_leaves_no_name(server: Server) -> None:
    server.kill()
    server.close()
    assert not os.path.exists(os.path.dirname(server.path))


def test_a_server_ends_with_its_owner_however_that_ends(tmp_path: pathlib.Path) -> None:
    program = (
        "import sys, ward_client\n"
        "server = ward_client.start([sys.argv[1]])\n"
        "print(server.path, server.password.decode(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-B", "-c", program, DEMO_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.path.dirname(ward_client.__file__)},
    ) as owner:
        assert owner.stdout is not None
        path, password = owner.stdout.readline().split()
        with Client(path.decode(), password) as client, client.stream(
            "wait", reply=int
        ) as call:
            client.call("waiting", 1)
            owner.kill()
            with pytest.raises(ward_client.Error):
                call.read()


def test_a_server_with_another_owner_is_killed_by_who_cannot_wait(
    server: Server,
) -> None:
    with Descriptor(os.dup(server._owners_end.fileno())):
        server.close(timeout=0.05)
        assert not os.path.exists(server.path)


def test_a_server_that_has_other_owners_goes_on_without_one(server: Server) -> None:
    with Descriptor(os.dup(server._owners_end.fileno())):
        server.leave()
        with Client(server.path, server.password) as client:
            client.call("cancelled", 0)


def start_what_says(data: bytes) -> Server:
    program = f"import os; os.write(0, {data!r})"
    return ward_client.start([sys.executable, "-S", "-c", program])


def test_a_share_without_a_password_is_none() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for last in [memory_file().detach(), ours.detach()]:
            parts = [b"ward.owner", b"/x", b"true"]
            files = [*(memory_file() for _ in range(3)), Descriptor(last)]
            with pytest.raises(ward_client.BadReply, match="password"):
                Server(Message(parts, files))


def test_a_program_that_does_not_run_leaves_no_descriptors() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError) as raised:
        ward_client.start(["/nonexistent"])
    assert os.listdir("/proc/self/fd") == before
    del raised  # Which has the stack until now.


def test_why_a_server_does_not_start_is_told() -> None:
    with pytest.raises(ward_client.Error, match="no eth7"):
        start_what_says(blocks("golden")["error"])
    with pytest.raises(ward_client.BadReply, match="no share"):
        start_what_says(blocks("golden")["hello-reply"])


def test_a_program_that_gives_no_server_is_an_error() -> None:
    with pytest.raises(ward_client.Error, match="ended with status 1"):
        ward_client.start(["/bin/false"])
    with pytest.raises(ward_client.TimedOut):
        ward_client.start(["/bin/sleep", "1000"], timeout=0.05)


def test_a_program_that_neither_speaks_nor_ends_is_killed_in_time() -> None:
    with pytest.raises(ward_client.TimedOut):
        ward_client.start(["/bin/sh", "-c", "exec sleep 20 <&-"], timeout=0.2)


def test_a_deadline_is_of_the_whole_start(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    wait = subprocess.Popen.wait

    def noted(program: Any, timeout: float | None = None) -> int:
        waits.append(timeout)
        return wait(program, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", noted)
    with ward_client.start([DEMO_SERVER], timeout=600.0):
        assert waits[0] is not None and waits[0] < 600.0


def test_a_start_that_is_interrupted_leaves_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait = subprocess.Popen.wait

    def interrupted(program: Any, timeout: float | None = None) -> int:
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(program)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KeyboardInterrupt) as raised:
        ward_client.start([DEMO_SERVER])
    assert os.listdir("/proc/self/fd") == before
    del raised  # Which has the stack until now.


def test_a_server_says_itself_that_it_took_too_long() -> None:
    content = ward_client._field(2, b"TimedOut") + ward_client._field(3, b"no eth7")
    body = ward_client._field(5, content)
    with pytest.raises(ward_client.TimedOut, match="no eth7"):
        start_what_says(bytes([len(body)]) + body)


def test_what_cannot_be_sent_is_told_before_it_is(server: Server) -> None:
    with memory_file() as file:
        for request in [
            ["x" * (1 << 20)],
            ["x"] * 4096,
            [file] * 17,
            [Descriptors({"": file})],
        ]:
            with pytest.raises(ward_client.NotSent):
                server.client.call("same", *request)
    with pytest.raises(ward_client.NotSent):
        server.client.call("same", trace_id=b"x" * 129)
    for bad in ["\ud800", file, Descriptors({"a": file})]:  # It is closed by now.
        with pytest.raises(ward_client.NotSent, match="cannot be sent"):
            server.client.call("same", bad)
    with pytest.raises(TypeError):
        server.client.call("same", object())


def test_descriptors_that_the_kernel_does_not_pass_on_were_not_sent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:  # As of who has more on their way than is allowed.
        raise OSError(errno.ETOOMANYREFS, "Too many references")

    with server.client.stream("sum", reply=int) as numbers, memory_file() as file:
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "sendmsg", refuse)
            for call in [
                lambda: server.client.call("copy", file),
                lambda: numbers.write(file),
            ]:
                with pytest.raises(ward_client.NotSent) as raised:
                    call()
                assert raised.value.reason == "DescriptorsInFlight"
        numbers.write(7)
        assert numbers.result() == 7


def test_a_path_may_be_longer_than_a_sockets_address(
    server: Server, tmp_path: pathlib.Path
) -> None:
    directory = tmp_path / ("x" * 200)
    directory.symlink_to(os.path.dirname(server.path))
    with Client(directory / os.path.basename(server.path), server.password) as client:
        client.call("cancelled", 0)


def test_nobody_listens_at_a_path(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ward_client.Unreachable, match="No such file") as raised:
        Client(tmp_path / "socket", b"x").call("hello")
    assert raised.value.code == Code.UNAVAILABLE
    assert isinstance(raised.value, ConnectionError)


# --- The page ---


def blocks(kind: str) -> dict[str, bytes]:
    found = re.findall(
        rf"^```{kind} (.*)\n((?:.*\n)*?)```", PAGE.read_text(), re.MULTILINE
    )
    assert found
    return {name: bytes.fromhex(re.sub("#.*", "", text)) for name, text in found}


def frames(data: bytes, files: int = 0) -> list[ward_client._Frame]:
    """What the client reads of a server's bytes."""
    ours, theirs = socket.socketpair()
    connection = ward_client._Connection(ours)
    read = []
    with contextlib.closing(connection), theirs, memory_file() as file:
        send_with(theirs, data, [file.fileno()] * files)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ward_client._EndOfStream):
            while True:
                read.append(connection.receive(ward_client._Deadline(None)))
        assert not connection.has_more()
    return read


def send_with(stream: socket.socket, data: bytes, files: list[int]) -> None:
    control = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
        if files
        else []
    )
    assert stream.sendmsg([data], control) == len(data)


def test_requests_have_the_pages_bytes() -> None:
    golden = blocks("golden")
    hello = ward_client._pack(["hello", "Joe", "Dalton"])
    password = b"open sesame"
    trace_id = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert (
        ward_client._request(hello, password=password)
        == golden["hello-call-to-its-end"]
    )
    assert (
        ward_client._request(hello, password=password, keep=True) == golden["kept-call"]
    )
    assert (
        ward_client._request(hello, keep=True, time_left=1_500_000)
        == golden["later-call"]
    )
    assert (
        ward_client._request(hello, keep=True, trace_id=trace_id)
        == golden["traced-call"]
    )
    with memory_file() as file:
        for name, *values in [
            ("empty-array",),
            ("empty-part", ""),
            ("descriptor", file),
            ("named-descriptors", Descriptors({"out": file, "err": file})),
            ("bulk-in-its-message", Bulk(b"abc")),
            ("bulk-in-memory", Bulk(b"x" * 65537)),
        ]:
            packed = ward_client._pack(values)
            assert ward_client._element(packed) == golden[name], name


def test_replies_are_read_as_the_page_has_them() -> None:
    golden = blocks("golden")
    reply, end = frames(golden["kept-reply"])
    assert (reply.parts, reply.knows_end, end.end, end.kept) == (
        [b"ok"],
        True,
        True,
        True,
    )
    reply, end = frames(golden["reply-and-end"])
    assert (reply.parts, reply.knows_end, end.end, end.kept) == (
        [b"ok"],
        True,
        True,
        False,
    )
    (end,) = frames(golden["end-alone"])
    assert (end.end, end.knows_end) == (True, True)
    (reply,) = frames(golden["hello-reply"])
    assert (reply.parts, reply.knows_end) == (
        [b"Hello Joe Dalton, how are you?", b"1234"],
        False,
    )
    (failed,) = frames(golden["error"])
    assert failed.error is not None
    assert (failed.error.code, failed.error.reason, failed.error.text) == (
        5,
        "NoSuchDevice",
        "no eth7",
    )
    (reply,) = frames(golden["descriptor"], files=1)
    assert (reply.parts, len(reply.files)) == ([], 1)
    (reply,) = frames(golden["named-descriptors"], files=2)
    with ward_client._unpack(Message(reply.parts or [], reply.files), [Descriptors])[
        0
    ] as named:
        assert list(named) == ["out", "err"]
    (reply,) = frames(golden["scalar"])
    assert reply.scalar == b"ward"
    (reply,) = frames(golden["empty-scalar"])
    assert reply.scalar == b""
    (reply,) = frames(golden["empty-part"])
    assert reply.parts == [b""]


def test_what_the_page_takes_is_taken() -> None:
    for name, data in blocks("accepted").items():
        assert [frame.parts for frame in frames(data)] == [[]], name


def test_what_the_page_refuses_is_refused() -> None:
    for kind in ["MalformedFrame", "FrameTooLarge"]:
        for name, data in blocks(f"refused {kind}").items():
            with pytest.raises(ward_client.BadReply) as raised:
                frames(data)
            assert raised.value.reason == kind, name


def test_a_password_is_no_servers_to_say() -> None:
    with pytest.raises(ward_client.BadReply, match="password"):
        frames(blocks("golden")["hello-call"])


@pytest.mark.parametrize(
    "code",
    ["08 00", "08 11", "08 ff ff ff ff ff ff ff ff ff 01", "08 85 80 80 80 10", ""],
)
def test_a_code_that_there_is_not_is_unknown(code: str) -> None:
    content = bytes.fromhex(code)
    body = ward_client._field(5, content)
    (frame,) = frames(bytes([len(body)]) + body)
    assert frame.error is not None and frame.error.code == Code.UNKNOWN


@pytest.mark.parametrize(
    "field",
    [
        "02 00",  # The number 0.
        *("7b 01 01 01 01", "7c 01 01 01 01"),  # The wire types 3, 4,
        *("7e 01 01 01 01", "7f 01 01 01 01"),  # 6 and 7.
        "7a 05 01",  # Goes on behind the frame.
        "7d 01 01 01",
        "79 01 01 01 01 01 01 01",
        "78",
    ],
)
def test_a_field_that_there_cannot_be_is_malformed(field: str) -> None:
    with pytest.raises(ward_client.BadReply):
        ward_client._parse_frame(bytes.fromhex("1a 00" + field))


def test_whatever_comes_is_a_frame_or_malformed() -> None:
    chance = random.Random(1)
    bodies = [ward_client._END[1:], *(data[1:] for data in blocks("golden").values())]
    for _ in range(5000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(body) + 1)
            body[at : at + chance.randrange(2)] = chance.randbytes(chance.randrange(3))
        with contextlib.suppress(ward_client.BadReply):
            ward_client._parse_frame(bytes(body))


# --- Servers that mean no good ---

OK_AND_KEPT = blocks("golden")["kept-reply"]


class Hostile:
    """Listens, and does with each connection what the test says."""

    def __init__(
        self, path: pathlib.Path, *connections: Callable[[socket.socket], None]
    ) -> None:
        self.client = Client(path, b"open sesame")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(path))
        self._listener.listen()
        self._connections = connections
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Hostile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        # Whom a test's client has not come to, because of a deadline, for one.
        for _ in self._connections:
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(self._listener.getsockname())
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        for serve in self._connections:
            stream, _ = self._listener.accept()
            with stream, contextlib.suppress(ConnectionError):
                self.requests.append(stream.recv(1 << 16))
                serve(stream)


def says(data: bytes, files: int = 0) -> Callable[[socket.socket], None]:
    """Sends that and no more, and waits for the client to leave."""

    def serve(stream: socket.socket) -> None:
        with memory_file() as file:
            send_with(stream, data, [file.fileno()] * files)
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(1 << 16):
            pass

    return serve


def test_bytes_come_as_they_like(tmp_path: pathlib.Path) -> None:
    def dribble(stream: socket.socket) -> None:
        for byte in OK_AND_KEPT:
            stream.send(bytes([byte]))

    with Hostile(tmp_path / "socket", dribble) as server:
        assert server.client.call("get", reply=str) == "ok"


def test_a_deadline_is_of_the_whole_reply(tmp_path: pathlib.Path) -> None:
    def dribble(stream: socket.socket) -> None:
        stream.send(b"\xff\xff\x7f")
        while True:
            stream.send(b"x")

    with Hostile(tmp_path / "socket", dribble) as server:
        with pytest.raises(ward_client.TimedOut):
            server.client.call("get", reply=str, timeout=0.05)


@pytest.mark.parametrize("where", ["frame", "array", "names", "bulk"])
def test_a_deadline_is_of_what_is_read_in_memory_too(
    tmp_path: pathlib.Path, where: str
) -> None:
    body = b"\x50\x00" * ((8 << 20) - 20)  # Fields that nobody knows.
    if where == "frame":
        body += ward_client._array([])
    elif where == "array":
        body = ward_client._field(3, body)
    else:
        body = ward_client._array([body])
    end = blocks("golden")["end-alone"]
    reply = {"names": Descriptors, "bulk": Bulk}.get(where, Message)

    def serve(stream: socket.socket) -> None:
        stream.sendall(ward_client._varint(len(body)) + body + end)

    with Hostile(tmp_path / "socket", serve) as server:
        before = time.thread_time()
        with pytest.raises(ward_client.TimedOut):
            server.client.call("get", reply=reply, timeout=1.0)
        assert time.thread_time() - before < 4


def test_a_frame_is_refused_by_its_length_alone(tmp_path: pathlib.Path) -> None:
    with Hostile(tmp_path / "socket", says(b"\x81\x80\x80\x08")) as server:
        with pytest.raises(ward_client.BadReply) as raised:
            server.client.call("get", reply=str)
    assert raised.value.reason == "FrameTooLarge"


def test_parts_are_counted_before_they_are_stored(tmp_path: pathlib.Path) -> None:
    body = ward_client._field(3, b"\x0a\x00" * 4097)
    with Hostile(
        tmp_path / "socket", says(ward_client._varint(len(body)) + body)
    ) as server:
        with pytest.raises(ward_client.BadReply, match="4096 parts"):
            server.client.call("get", reply=Message)


@pytest.mark.parametrize(
    ("reply", "files"),
    [
        ("04 08 01 1a 00", 0),  # One is declared, none comes,
        ("04 08 01 1a 00", 2),  # two come;
        ("02 1a 00", 1),  # none is declared.
        ("04 08 01 1a 00 04 08 01 1a 00", 1),  # The second frame has none.
    ],
)
def test_descriptors_are_as_declared_or_closed(
    tmp_path: pathlib.Path, reply: str, files: int
) -> None:
    with Hostile(tmp_path / "socket", says(bytes.fromhex(reply), files)) as server:
        with server.client.stream("get", reply=Message) as call:
            with pytest.raises(ward_client.BadReply, match="descriptors"):
                for message in call:
                    message.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is in a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("reply", [Descriptor, Message, Bulk, (Descriptor,)])
def test_a_reply_that_is_none_without_its_calls_end_is_closed(
    tmp_path: pathlib.Path, no_collection: None, behind: bool, reply: Any
) -> None:
    golden = blocks("golden")

    def serve(stream: socket.socket) -> None:
        packed = ward_client._pack([Bulk(b"x" * 65537)])
        frame = golden["bulk-in-memory" if reply is Bulk else "descriptor"]
        frame = bytes([frame[0] + 2]) + frame[1:] + b"\x40\x01"  # It knows ends.
        for _ in range(1 + behind):
            send_with(stream, frame, packed.descriptors)
        packed.close()
        stream.shutdown(socket.SHUT_WR)
        stream.recv(1)

    before = os.listdir("/proc/self/fd")
    with Hostile(tmp_path / "socket", serve) as server:
        error = ward_client.BadReply if behind else ward_client.CallCut
        with pytest.raises(error) as raised:
            server.client.call("get", reply=reply)
    assert os.listdir("/proc/self/fd") == before
    del raised  # Which has the stack until now.


def test_a_reply_that_does_not_fit_is_refused_before_its_calls_end(
    tmp_path: pathlib.Path,
) -> None:
    def serve(stream: socket.socket) -> None:
        stream.send(OK_AND_KEPT[:9])
        stream.recv(1)

    with Hostile(tmp_path / "socket", serve) as server:
        with pytest.raises(ward_client.BadReply, match="no int"):
            server.client.call("get", reply=int, timeout=600.0)


def test_an_error_keeps_its_call_no_longer_than_itself(
    tmp_path: pathlib.Path, no_collection: None
) -> None:
    for number, data in enumerate([b"", blocks("golden")["error"], b"\x02\x1a\x01"]):
        with Hostile(tmp_path / str(number), leaves_after(data)) as server:
            with server.client.stream("get", reply=str) as call:
                for _ in range(2):
                    try:
                        call.read()
                    except ward_client.Error:
                        pass
            kept = weakref.ref(call)
            del call
            assert kept() is None, number


def test_a_bulk_that_is_closed_has_no_descriptor(server: Server) -> None:
    before = len(os.listdir("/proc/self/fd"))
    picture = server.client.call("picture", 100_000, reply=Bulk)
    with picture:
        view = picture.view
        assert len(os.listdir("/proc/self/fd")) == before + 2  # Its connection, too.
    with pytest.raises(ValueError, match="closed"):
        bytes(picture)
    assert view[99_999] == 1  # Who has it has the memory.
    view.release()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    picture.close()  # Again: nothing.


def test_a_bulk_is_closed_with_the_reply_that_does_not_fit(
    tmp_path: pathlib.Path,
) -> None:
    size = 65537
    with pytest.raises(ward_client.BadReply) as raised:
        packed = ward_client._pack([Bulk(b"x" * size), "x"])
        files = [Descriptor(os.dup(number)) for number in packed.descriptors]
        packed = ward_client._pack([])
        before = len(os.listdir("/proc/self/fd"))
        part = ward_client._number_field(1, size)
        ward_client._unpack(Message([part, b"x"], files), [Bulk, int])
    assert len(os.listdir("/proc/self/fd")) == before - 1
    del raised


def test_descriptors_within_a_frame_are_not_collected(tmp_path: pathlib.Path) -> None:
    def serve(stream: socket.socket) -> None:
        with memory_file() as file:
            send_with(stream, b"\x7f", [file.fileno()])
            # Few: those on their way count for all of this user's processes (unix(7)).
            for _ in range(2):
                send_with(stream, b"\x00", [file.fileno()] * 100)
            stream.recv(1 << 20)
            stream.recv(1)

    with Hostile(tmp_path / "socket", serve) as server:
        with pytest.raises(ward_client.BadReply, match="within a frame"):
            server.client.call("get")


def test_a_full_descriptor_table_is_an_error_of_its_own(tmp_path: pathlib.Path) -> None:
    accepted, full = threading.Event(), threading.Event()

    def serve(stream: socket.socket) -> None:
        accepted.set()
        full.wait()
        send_with(stream, bytes.fromhex("04 08 02 1a 00"), [0, 0])
        stream.recv(1)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Hostile(tmp_path / "socket", serve) as server:
        with server.client.stream("get", reply=Message) as call:
            accepted.wait()
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
            full.set()
            try:
                with pytest.raises(ward_client.BadReply) as raised:
                    call.read()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.reason == "DescriptorsTruncated"


@pytest.mark.parametrize(
    "what",
    [
        "no memfd",
        "not sealed",
        "other size",
        "missing pages",
        "huge size",
        "read only",
    ],
)
def test_memory_is_mapped_only_when_nobody_can_change_it(
    tmp_path: pathlib.Path, what: str
) -> None:
    size = 65537
    said = 1 << 62 if what == "huge size" else size
    sealed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

    def serve(stream: socket.socket) -> None:
        file = Descriptor(os.memfd_create("bulk", os.MFD_ALLOW_SEALING))
        if what == "no memfd":
            file = Descriptor(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
        os.truncate(file.fileno(), size + (what == "other size"))
        if what not in ("missing pages", "no memfd"):
            os.posix_fallocate(file.fileno(), 0, size)
        if what != "no memfd":
            fcntl.fcntl(
                file.fileno(),
                fcntl.F_ADD_SEALS,
                sealed & ~(what == "not sealed" and fcntl.F_SEAL_WRITE),
            )
        part = ward_client._number_field(1, said)
        body = b"\x08\x01" + ward_client._array([part])
        with file:
            if what == "read only":
                name = f"/proc/self/fd/{file.fileno()}"
                file = Descriptor(os.open(name, os.O_RDONLY))
            with file:
                send_with(stream, bytes([len(body)]) + body, [file.fileno()])

    with Hostile(tmp_path / "socket", serve) as server:
        with pytest.raises(ward_client.BadReply, match="bulk") as raised:
            server.client.call("get", reply=Bulk)
    assert (raised.value.reason == "FrameTooLarge") == (what == "huge size")


def test_memory_that_this_process_has_no_room_for_is_an_error_of_its_own() -> None:
    packed = ward_client._pack([Bulk(b"x" * 65537)])
    (file,) = packed.own
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(ward_client.NotSent, match="Too many open files") as unsent:
            ward_client._pack([Bulk(b"x" * 65537)])
        with pytest.raises(ward_client.BadReply, match="map a bulk") as raised:
            ward_client._unpack(Message(packed.parts, [file]), [Bulk])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.code == unsent.value.code == Code.RESOURCE_EXHAUSTED


def test_numbers_and_flags_are_read_strictly() -> None:
    bad: dict[type, list[bytes]] = {
        int: [
            b"",
            b" 1",
            b"+1",
            b"1_0",
            b"0x1",
            b"1.0",
            b"1\n",
            "\u0661".encode(),
            b"9" * 100000,
        ],
        float: [
            b"",
            b" 1",
            b"+1",
            b"1_0",
            b"0x1",
            b"1e",
            b".",
            b"1\n",
            b"1e400",
            b"-1e400",
            b"1e-400",
            b"in",
            b"1" * 100000,
        ],
        bool: [b"", b"True", b"1", b"true\n"],
        str: [b"\xff"],
    }
    for kind, parts in bad.items():
        for part in parts:
            with pytest.raises(ward_client.BadReply):
                ward_client._unpack(Message([part], []), [kind])
    for part in [
        b"1e20",
        b"1E+20",
        b"-INF",
        b"Infinity",
        b"1.",
        b".5",
        b"5e-324",
        b"007",
        b"0e9",
        b"-0.0",
    ]:
        assert ward_client._unpack(Message([part], []), [float]) == [float(part)]
    assert ward_client._unpack(Message([b"-007"], []), [int]) == [-7]


@pytest.mark.parametrize("bulk", ["", "08 00", "08 81 80 04 12 01 61", "08 81 80 04"])
def test_a_bulk_is_bytes_or_memory(bulk: str) -> None:
    with pytest.raises(ward_client.BadReply):
        ward_client._unpack(Message([bytes.fromhex(bulk)], []), [Bulk])


def test_a_descriptor_is_closed_once() -> None:
    file = memory_file()
    number = file.detach()
    file.close()
    os.close(number)
    with pytest.raises(ValueError):
        file.fileno()


@pytest.mark.parametrize(
    ("names", "files"),
    [("0a 00", 1), ("0a 01 61 0a 01 61", 2), ("0a 01 61 0a 01 62", 1), ("0a 01 61", 2)],
)
def test_descriptors_names_are_checked(names: str, files: int) -> None:
    message = Message([bytes.fromhex(names)], [memory_file() for _ in range(files)])
    with pytest.raises(ward_client.BadReply):
        ward_client._unpack(message, [Descriptors])


def test_a_server_that_is_not_trusted_is_not_told_the_password(
    tmp_path: pathlib.Path,
) -> None:
    seen: list[ward_client.PeerCredentials] = []
    with Hostile(tmp_path / "socket", lambda stream: None) as server:
        distrustful = Client(
            tmp_path / "socket",
            b"open sesame",
            trust=lambda peer: bool(seen.append(peer)),
        )
        with pytest.raises(ward_client.NotTrusted):
            distrustful.call("get")
        assert seen == [(os.getpid(), os.getuid(), os.getgid())]
    assert server.requests == [b""]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_number_that_is_anybodys_is_trusted_only_where_it_is_ones(
    tmp_path: pathlib.Path, mapped: bool
) -> None:
    NEW_USER, CANNOT_ENTER, NOT_TRUSTED, TRUSTED = 0x10000000, 77, 7, 8
    with Hostile(tmp_path / "socket", says(OK_AND_KEPT)) as server:
        child = os.fork()
        if child == 0:
            try:
                if ctypes.CDLL(None).unshare(NEW_USER) != 0:
                    os._exit(CANNOT_ENTER)
                if mapped:
                    user = pathlib.Path("/proc/sys/kernel/overflowuid").read_text()
                    map_ = pathlib.Path("/proc/self/uid_map")
                    map_.write_text(f"{user.strip()} {OWN_USER} 1")
                server.client.call("get", reply=str)
                os._exit(TRUSTED)
            except ward_client.NotTrusted:
                os._exit(NOT_TRUSTED)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == CANNOT_ENTER:
        pytest.skip("this machine gives no user namespaces to this user")
    assert status == (TRUSTED if mapped else NOT_TRUSTED)
    assert any(b"open sesame" in request for request in server.requests) == mapped


@pytest.mark.parametrize("reads_no_more", [True, False])
def test_an_idle_connection_that_was_closed_is_replaced(
    tmp_path: pathlib.Path, reads_no_more: bool
) -> None:
    closed = threading.Event()
    kept = []

    def once(stream: socket.socket) -> None:
        stream.send(OK_AND_KEPT)
        if reads_no_more:  # As a server that wants its place back does, and then:
            stream.shutdown(socket.SHUT_RD)
            kept.append(stream.dup())
        stream.close()
        closed.set()

    with Hostile(tmp_path / "socket", once, says(OK_AND_KEPT)) as server:
        assert server.client.call("get", reply=str) == "ok"
        closed.wait()
        assert server.client.call("get", reply=str) == "ok"
    assert len(server.requests) == 2
    assert all(b"open sesame" in request for request in server.requests)
    for stream in kept:
        stream.close()


def test_a_call_that_may_have_been_read_is_not_made_again(
    tmp_path: pathlib.Path,
) -> None:
    def once(stream: socket.socket) -> None:
        stream.send(OK_AND_KEPT)
        stream.recv(1 << 16)

    with Hostile(tmp_path / "socket", once) as server:
        assert server.client.call("get", reply=str) == "ok"
        with pytest.raises(ward_client.CallCut):
            server.client.call("get", reply=str)


def test_what_comes_behind_a_calls_end_is_no_reply(tmp_path: pathlib.Path) -> None:
    def twice(stream: socket.socket) -> None:
        stream.send(OK_AND_KEPT + OK_AND_KEPT)
        stream.recv(1)

    other = OK_AND_KEPT.replace(b"ok", b"OK")
    with Hostile(tmp_path / "socket", twice, says(other)) as server:
        assert server.client.call("get", reply=str) == "ok"
        assert server.client.call("get", reply=str) == "OK"


def test_descriptors_go_once_however_the_request_leaves(
    tmp_path: pathlib.Path,
) -> None:
    size = 900_000
    came: list[int] = []

    def serve(stream: socket.socket) -> None:
        left = size - (1 << 16)  # Of which some was received, without the descriptor.
        while left > 0:
            data, files, _, _ = socket.recv_fds(stream, left, 253)
            came.extend(files)
            left -= len(data)
        stream.send(OK_AND_KEPT)

    with Hostile(tmp_path / "socket", serve) as server, memory_file() as file:
        reply = server.client.call("put", file, "x" * size, reply=str, timeout=600.0)
        assert reply == "ok"
    assert came == []


def test_what_nobody_has_asked_for_is_no_reply(tmp_path: pathlib.Path) -> None:
    more = threading.Event()

    def more_than_asked(stream: socket.socket) -> None:
        stream.send(OK_AND_KEPT)
        more.wait()
        stream.send(OK_AND_KEPT)
        stream.recv(1)

    with Hostile(
        tmp_path / "socket", more_than_asked, says(OK_AND_KEPT.replace(b"ok", b"OK"))
    ) as server:
        assert server.client.call("get", reply=str) == "ok"
        (connection,) = server.client._idle
        more.set()
        connection._socket.settimeout(None)
        connection._socket.recv(1, socket.MSG_PEEK)  # It has come.
        assert server.client.call("get", reply=str) == "OK"


def test_a_deadline_is_of_what_is_written_too(tmp_path: pathlib.Path) -> None:
    over = threading.Event()
    with Hostile(tmp_path / "socket", lambda stream: bool(over.wait())) as server:
        with pytest.raises(ward_client.TimedOut):
            with server.client.stream("put", timeout=0.2) as call:
                while True:
                    call.write("x" * 100_000)
        over.set()


def test_who_writes_to_a_call_that_has_ended_is_told(tmp_path: pathlib.Path) -> None:
    end = blocks("golden")["end-alone"]
    with Hostile(tmp_path / "socket", lambda stream: stream.sendall(end)) as server:
        with server.client.stream("put") as call:
            with pytest.raises(ward_client.Error, match="the call has ended"):
                while True:
                    call.write("x" * 100_000)


def leaves_after(data: bytes) -> Callable[[socket.socket], None]:
    """A handler that has read enough, at a server that keeps no connections."""
    return lambda stream: stream.sendall(data)


def test_the_reply_of_a_handler_that_has_not_read_all_is_the_result(
    tmp_path: pathlib.Path,
) -> None:
    data = blocks("golden")["reply-and-end"]
    with Hostile(tmp_path / "socket", leaves_after(data)) as server:
        with server.client.stream("sum", reply=str) as call:
            with pytest.raises(ward_client.Error, match=r"read\(\) says why"):
                while True:
                    call.write("x")
            assert call.result() == "ok"


def test_the_reader_gets_all_whoever_writes_meanwhile(tmp_path: pathlib.Path) -> None:
    golden = blocks("golden")
    first, rest = golden["reply-and-end"][:9], golden["hello-reply"] * 9
    data = first + rest + ward_client._END
    with Hostile(tmp_path / "socket", leaves_after(data)) as server:
        with server.client.stream("both", reply=Message) as call:
            failed: list[Exception] = []

            def write() -> None:
                try:
                    while True:
                        call.write("x")
                except ward_client.Error as error:
                    failed.append(error)

            assert call.read().parts == [b"ok"]
            writer = in_thread(write)
            writer.join()
            assert len(list(call)) == 9
    assert re.search(r"read\(\) says why", str(failed[0]))


def test_who_writes_to_what_was_cancelled_is_told_that(server: Server) -> None:
    with server.client.stream("sum", reply=int) as numbers:
        numbers.cancel()
        for tell in [lambda: numbers.write(1), numbers.result]:
            with pytest.raises(ward_client.Cancelled):
                tell()


def test_a_reply_and_its_end_are_what_was_asked_for(tmp_path: pathlib.Path) -> None:
    golden = blocks("golden")
    for reply, data in [
        (None, golden["reply-and-end"]),
        (str, golden["end-alone"]),
        (str, golden["hello-reply"]),
        (str, golden["scalar"]),
        (str, golden["kept-reply"][:9] + golden["kept-reply"]),
    ]:
        path = tmp_path / str(len(os.listdir(tmp_path)))
        with Hostile(path, says(data)) as server:
            with pytest.raises(ward_client.BadReply):
                server.client.call("get", reply=reply)


def test_a_call_is_cut_where_its_end_is_missing(tmp_path: pathlib.Path) -> None:
    golden = blocks("golden")
    for number, data in enumerate(
        [b"", golden["reply-and-end"][:-3], golden["hello-reply"][:5]]
    ):
        with Hostile(
            tmp_path / str(number), lambda stream: stream.sendall(data)
        ) as server:
            with pytest.raises(ward_client.CallCut):
                server.client.call("get", reply=str)


def test_a_server_older_than_ends_ends_calls_with_the_stream(
    tmp_path: pathlib.Path,
) -> None:
    with Hostile(
        tmp_path / "socket",
        lambda stream: stream.sendall(blocks("golden")["hello-reply"]),
    ) as server:
        assert server.client.call("get", reply=(str, int)) == (
            "Hello Joe Dalton, how are you?",
            1234,
        )


def test_why_a_request_was_not_read_is_told(tmp_path: pathlib.Path) -> None:
    def refuse(stream: socket.socket) -> None:
        stream.send(blocks("golden")["error"])  # And leave the rest unread.

    with Hostile(tmp_path / "socket", refuse) as server:
        with pytest.raises(ward_client.Error, match="no eth7"):
            server.client.call("get", "x" * 1_000_000)


def test_a_client_waits_for_room_in_a_queue_that_is_full(
    tmp_path: pathlib.Path,
) -> None:
    path = os.fspath(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(path)
        listener.listen(0)
        failed = 0
        while failed == 0:
            other = waiting.enter_context(socket.socket(socket.AF_UNIX))
            other.setblocking(False)
            failed = other.connect_ex(path)
        with pytest.raises(ward_client.TimedOut):
            Client(path, b"x", connect_timeout=0.05).call("get")
        cancellation = ward_client.Cancellation()
        canceller = in_thread(cancellation.cancel)
        with pytest.raises(ward_client.Cancelled):
            Client(path, b"x").call("get", cancellation=cancellation)
        canceller.join()


# --- README.md ---


def test_what_the_readme_shows_runs(start_server: Callable[..., Server]) -> None:
    server = start_server(DEMO_SERVER)
    call, test = re.findall(
        r"^```python\n((?:.*\n)*?)```", README.read_text(), re.MULTILINE
    )
    names: dict[str, Any] = {"path": server.path, "password": server.password}
    exec(call, names)
    exec(test, names)
    names["test_adds"](lambda _: start_server(DEMO_SERVER))
