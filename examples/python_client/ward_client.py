"""Calls of ward's servers: docs/protocol.md, with Python's standard library alone.

    with ward_client.Client(path, password) as store:
        store.call("put", "colour", "blue")
        colour = store.call("get", "colour", reply=str, timeout=0.5)
        with store.stream("watch", "colour", reply=str) as colours:
            for colour in colours:
                ...

Whoever starts the server owns it, and has a client of it at once:

    with ward_client.start(["bin/demo_server"]) as server:
        greeting = server.client.call("greet", person, reply=Greeting)

A value in a request, or of a reply, is

    str, bytes, int, float, bool    as a handler of C++ takes and returns them
    a protobuf message              any object of its methods; this file needs none
    Descriptor                      in a request: whatever has a fileno(), as of open()
    Descriptors                     descriptors with names
    Bulk                            bytes that are passed as memory

An exception that a call raises is an Error. Its `code` and `reason` are for code, its
text is for people. Misuse may be a TypeError or ValueError.

Misuse:
- To use a stream without `with`: it is cancelled when somebody collects the garbage.
- To write a stream and never read what comes back: both sides wait for ever.
- An int where a handler wants a descriptor: it is the number in decimal. Wrap it in a
  Descriptor, which then owns it, or pass the file.
"""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import enum
import errno
import fcntl
import math
import mmap
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import (
    Any,
    Generic,
    NamedTuple,
    NoReturn,
    Protocol,
    TypeVar,
    Union,
    overload,
)

# What both sides hold to, unless the server's options say otherwise.
MAX_FRAME = 16 << 20
MAX_PARTS = 4096
MAX_DESCRIPTORS = 253  # The kernel's.
MAX_TRACE_ID = 128
MAX_BULK = 1 << 30
# Any request may be the first on its connection, which is held to less.
MAX_REQUEST = 1 << 20
MAX_REQUEST_DESCRIPTORS = 16

_LONGEST_WAIT = 1e6  # Seconds. Python's and the kernel's are of 24 days at most.
_FIELDS_AT_ONCE = 4096  # Are read between two looks at the clock.
_MAX_IDLE = 64  # Connections that are kept.
_BULK_IN_MESSAGE = 32 << 10
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Code(enum.IntEnum):
    """As google.rpc.Code has them."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_E = TypeVar("_E", bound="Error")


class Error(Exception):
    """Why a call has no result. The class itself: the server says so."""

    def __init__(self, code: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = Code(code) if 1 <= code <= 16 else Code.UNKNOWN
        self.reason = reason
        self.text = text

    def copy(self: _E) -> _E:
        """To be raised: what was has the stack, and all that is in it."""
        return type(self)(self.code, self.reason, self.text)

    def __str__(self) -> str:
        return (
            f"{self.code.name}{f' ({self.reason})' if self.reason else ''}: {self.text}"
        )


class Unreachable(Error, ConnectionError):
    """Nobody listens, or lets this process in. Nothing was sent."""


class NotTrusted(Error):
    """Who listens is not whom the password is for. Nothing was sent."""


class NotSent(Error, ValueError):
    """A request that cannot be sent as it is. Nothing was."""


class TimedOut(Error, TimeoutError):
    """This side's deadline is over, or the server says `TimedOut`."""


class Cancelled(Error):
    """This side has cancelled the call."""


class CallCut(Error, ConnectionError):
    """The server died, or left, before the call had ended."""


class BadReply(Error):
    """What came is not the protocol's, or not what was asked for."""


def _malformed(text: str) -> BadReply:
    return BadReply(Code.INVALID_ARGUMENT, "MalformedFrame", text)


def _unexpected(text: str) -> BadReply:
    return BadReply(Code.FAILED_PRECONDITION, "UnexpectedFrame", text)


def _too_large(text: str) -> BadReply:
    return BadReply(Code.RESOURCE_EXHAUSTED, "FrameTooLarge", text)


class _Deadline:
    def __init__(self, timeout: float | None) -> None:
        self._at = (
            None
            if timeout is None or timeout == math.inf
            else time.monotonic() + timeout
        )

    def left(self) -> float | None:
        """Seconds, over 0; None is for ever."""
        if self._at is None:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def next_wait(self) -> float | None:
        """Seconds to wait before left() is asked again."""
        left = self.left()
        return None if left is None else min(left, _LONGEST_WAIT)

    def sooner(self, timeout: float) -> float:
        left = self.left()
        return timeout if left is None else min(timeout, left)


_NEVER = _Deadline(None)


# --- Values ---


class HasFileno(Protocol):
    def fileno(self) -> int:
        ...


class ProtobufMessage(Protocol):
    def SerializeToString(self) -> bytes:
        ...

    def ParseFromString(self, serialized: bytes) -> Any:
        ...


class Descriptor:
    """An open file that is closed with this object."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        if self._number < 0:
            raise ValueError("the descriptor was closed, or detached")
        return self._number

    def detach(self) -> int:
        """The number, the caller's now: for os.fdopen(), socket.socket(fileno=)."""
        number, self._number = self.fileno(), -1
        return number

    def close(self) -> None:
        if self._number >= 0:
            os.close(self.detach())

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Descriptors(dict[str, Any]):
    """Files by name. Those of a reply are Descriptors, and closed with the set."""

    def close(self) -> None:
        for file in self.values():
            file.close()

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bulk:
    """Bytes that travel as memory if they are many, without a copy at the receiver.

    One of a reply may be mapped, and has a descriptor as long as it is: until close(),
    or this object's end, and the end of its views.
    """

    def __init__(self, content: bytes | bytearray | memoryview | mmap.mmap) -> None:
        self._content: bytes | bytearray | memoryview | mmap.mmap | None = content

    @property
    def view(self) -> memoryview:
        if self._content is None:
            raise ValueError("the bulk was closed")
        return memoryview(self._content).cast("B")

    def __len__(self) -> int:
        return len(self.view)

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def close(self) -> None:
        self._content = None  # Who has a view of it goes on.

    def __enter__(self) -> Bulk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclasses.dataclass
class Message:
    """What came, as it came."""

    parts: list[bytes]
    descriptors: list[Descriptor]

    def close(self) -> None:
        _close_all(self.descriptors)


def _close_all(values: Iterable[object]) -> None:
    """Those that can be."""
    for value in values:
        if isinstance(value, (Descriptor, Descriptors, Bulk, Message)):
            value.close()


Value = Union[
    str,
    bytes,
    bytearray,
    memoryview,
    int,
    float,
    HasFileno,
    Descriptors,
    Bulk,
    ProtobufMessage,
]
T = TypeVar("T")

# Of any length, as the page has them: what takes long to convert is none.
_INTEGER = re.compile(rb"-?[0-9]{1,1000}")
_FLOAT = re.compile(rb"-?([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(rb"-?(?:inf|infinity|nan)", re.IGNORECASE)


@dataclasses.dataclass
class _Packed:
    """A request's parts, and the descriptors that go with them."""

    parts: list[bytes]
    descriptors: list[int]
    # What has to stay open until they are sent.
    own: list[Descriptor]

    def close(self) -> None:
        _close_all(self.own)


def _pack(values: Sequence[Value]) -> _Packed:
    packed = _Packed([], [], [])
    try:
        for value in values:
            _pack_value(value, packed)
    except BaseException as error:
        packed.close()
        if isinstance(error, ValueError) and not isinstance(error, Error):
            raise NotSent(
                Code.INVALID_ARGUMENT,
                "InvalidArguments",
                f"a value cannot be sent: {error}",
            ) from error
        raise
    return packed


def _pack_value(value: Value, packed: _Packed) -> None:
    if isinstance(value, str):
        packed.parts.append(value.encode(errors="surrogateescape"))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        packed.parts.append(bytes(value))
    elif isinstance(value, bool):  # Which is an int.
        packed.parts.append(b"true" if value else b"false")
    elif isinstance(value, int):
        packed.parts.append(b"%d" % value)
    elif isinstance(value, float):
        packed.parts.append(float.__repr__(value).removesuffix(".0").encode())
    elif isinstance(value, Descriptors):
        names = [name.encode(errors="surrogateescape") for name in value]
        if not all(1 <= len(name) <= 255 for name in names):
            raise NotSent(
                Code.INVALID_ARGUMENT,
                "InvalidArguments",
                "a descriptor's name has 1 to 255 bytes",
            )
        packed.parts.append(b"".join(_field(1, name) for name in names))
        packed.descriptors += [file.fileno() for file in value.values()]
    elif isinstance(value, Bulk):
        _pack_bulk(value, packed)
    elif hasattr(value, "SerializeToString"):
        packed.parts.append(value.SerializeToString())
    elif hasattr(value, "fileno"):
        packed.descriptors.append(value.fileno())
    else:
        raise TypeError(f"a request has no values of {type(value)}")


def _pack_bulk(bulk: Bulk, packed: _Packed) -> None:
    size = len(bulk)
    if size <= _BULK_IN_MESSAGE:
        packed.parts.append(_field(2, bytes(bulk)))
        return
    if size > MAX_BULK:
        raise NotSent(
            Code.RESOURCE_EXHAUSTED,
            "FrameTooLarge",
            f"a bulk of {size} bytes is over {MAX_BULK}",
        )
    try:
        memory = Descriptor(
            os.memfd_create("bulk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        )
        packed.own.append(memory)
        os.posix_fallocate(memory.fileno(), 0, size)
        written = 0
        while written < size:
            written += os.pwrite(memory.fileno(), bulk.view[written:], written)
        fcntl.fcntl(memory.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        raise NotSent(
            Code.RESOURCE_EXHAUSTED, "", f"make a bulk of {size} bytes: {error}"
        ) from error
    packed.parts.append(_number_field(1, size))
    packed.descriptors.append(memory.fileno())


def _unpack(
    message: Message, types: Sequence[Any], deadline: _Deadline = _NEVER
) -> list[Any]:
    """The message's values: all of them, or its descriptors are closed."""
    parts = collections.deque(message.parts)
    files = collections.deque(message.descriptors)
    values: list[Any] = []
    try:
        for kind in types:
            if kind is Descriptor:
                values.append(_take(files, "descriptor"))
            elif kind is Descriptors:
                part = _take(parts, "part")
                values.append(_unpack_descriptors(part, files, deadline))
            elif kind is Bulk:
                values.append(_unpack_bulk(_take(parts, "part"), files, deadline))
            else:
                values.append(_unpack_part(_take(parts, "part"), kind))
        if parts or files:
            raise _unexpected(
                f"{len(parts)} parts and {len(files)} descriptors more than asked for"
            )
    except BaseException:
        _close_all([message, *values])
        raise
    return values


def _take(things: collections.deque[T], what: str) -> T:
    if not things:
        raise _unexpected(f"a {what} less than was asked for")
    return things.popleft()


def _unpack_part(part: bytes, kind: Any) -> Any:
    if kind is bytes:
        return part
    if kind is bool:
        if part not in (b"true", b"false"):
            raise _unexpected("what came is no bool")
        return part == b"true"
    try:
        if kind is str:
            return part.decode()
        if kind is int and _INTEGER.fullmatch(part):
            return int(part)
        if kind is float and _SPECIAL_FLOAT.fullmatch(part):
            return float(part)
        if kind is float and len(part) <= 1000 and (match := _FLOAT.fullmatch(part)):
            number = float(part)
            is_zero = not match[1].strip(b"0.")
            if math.isfinite(number) and (number == 0) == is_zero:
                return number
        if hasattr(kind, "ParseFromString"):
            value = kind()
            value.ParseFromString(part)
            return value
    except Exception as error:  # Whatever protobuf's is, which this file does not know.
        raise _unexpected(f"what came is no {kind.__name__}: {error}") from error
    if kind not in (int, float):
        raise TypeError(f"a reply has no values of {kind}")
    raise _unexpected(f"what came is no {kind.__name__}")


def _unpack_descriptors(
    part: bytes, files: collections.deque[Descriptor], deadline: _Deadline
) -> Descriptors:
    named = Descriptors()
    for number, wire, value in _fields(part, deadline):
        if number != 1:
            continue
        name = _bytes_of(part, wire, value)
        text = name.decode(errors="surrogateescape")
        if not 1 <= len(name) <= 255 or text in named:
            raise _unexpected("a descriptor's name is empty, too long, or there twice")
        named[text] = _take(files, "descriptor")
    return named


def _unpack_bulk(
    part: bytes, files: collections.deque[Descriptor], deadline: _Deadline
) -> Bulk:
    inline: bytes | None = None
    size = 0
    for number, wire, value in _fields(part, deadline):
        if number == 1:
            size = _number_of(wire, value)
        elif number == 2:
            inline = _bytes_of(part, wire, value)
    if (inline is None) == (size == 0):
        raise _unexpected("a bulk is bytes, or memory")
    if inline is not None:
        return Bulk(inline)
    if size > MAX_BULK:
        raise _too_large(f"a bulk of {size} bytes is over {MAX_BULK}")
    with _take(files, "descriptor") as memory:
        return Bulk(_map(memory.fileno(), size))


def _map(memory: int, size: int) -> mmap.mmap:
    try:
        # First: whatever is no memfd, such as a file that never answers, fails here.
        seals = fcntl.fcntl(memory, fcntl.F_GET_SEALS)
    except OSError as error:
        raise _unexpected("a bulk's descriptor is no memory") from error
    if seals & _SEALS != _SEALS:
        raise _unexpected("a bulk's memory could still be changed")
    # What has seals is of tmpfs, or of huge pages, whose blocks are their size.
    if os.fstatvfs(memory).f_bsize != mmap.PAGESIZE:
        raise _unexpected("a bulk's memory is of huge pages")
    if os.fstat(memory).st_size != size:
        raise _unexpected("a bulk's memory has another size than was said")
    try:
        os.ftruncate(memory, size)  # Its pages behind the end go.
    except OSError as error:
        raise _unexpected("a bulk's memory was opened to be read only") from error
    pages = -(-size // mmap.PAGESIZE)
    if os.fstat(memory).st_blocks * 512 < pages * mmap.PAGESIZE:
        raise _unexpected("pages of a bulk's memory are missing")
    try:
        return mmap.mmap(memory, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    except OSError as error:
        raise BadReply(
            Code.RESOURCE_EXHAUSTED, "", f"map a bulk of {size} bytes: {error}"
        ) from error


# --- Frames ---


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _read_varint(
    data: bytes | bytearray, at: int, end: int, bits: int
) -> tuple[int, int] | None:
    """A number of at most so many bits, and where it ends; None if it does not yet."""
    value = 0
    for shift in range(0, bits, 7):
        if at == end:
            return None
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> bits:
                break
            return value, at
    raise _malformed(f"a number has over {bits} bits")


# A field's value: a number, or where its bytes begin and end.
_FieldValue = Union[int, tuple[int, int]]


def _fields(
    data: bytes, deadline: _Deadline, at: int = 0, end: int = -1
) -> Iterator[tuple[int, int, _FieldValue]]:
    """Number, wire type and value of each field of a protobuf message.

    A frame may have millions, which take seconds: TimeoutError.
    """
    if end < 0:
        end = len(data)
    count = 0

    def number(bits: int) -> int:
        nonlocal at
        found = _read_varint(data, at, end, bits)
        if found is None:
            raise _malformed("a field's number breaks off")
        at = found[1]
        return found[0]

    while at < end:
        count += 1
        if count % _FIELDS_AT_ONCE == 0:
            deadline.left()
        tag = number(32)
        if tag >> 3 == 0:
            raise _malformed("a field has the number 0")
        wire = tag & 7
        if wire == 0:
            yield tag >> 3, wire, number(64)
            continue
        if wire not in (1, 2, 5):
            raise _malformed(f"a field has the wire type {wire}")
        size = number(32) if wire == 2 else 8 if wire == 1 else 4
        if size > end - at:
            raise _malformed("a field goes on behind its message")
        start, at = at, at + size
        yield tag >> 3, wire, (start, at)


def _number_of(wire: int, value: _FieldValue) -> int:
    if wire != 0:
        raise _malformed("a number's field has another wire type")
    assert isinstance(value, int)
    return value


def _range_of(wire: int, value: _FieldValue) -> tuple[int, int]:
    if wire != 2:
        raise _malformed("a field of bytes has another wire type")
    assert isinstance(value, tuple)
    return value


def _bytes_of(data: bytes, wire: int, value: _FieldValue) -> bytes:
    start, end = _range_of(wire, value)
    return data[start:end]


class _Seen:
    """Fields that come once."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()

    def add(self, number: int) -> None:
        if number in self._numbers:
            raise _malformed(f"the field {number} comes twice")
        self._numbers.add(number)


@dataclasses.dataclass
class _Frame:
    # One of these: an array's parts, a scalar, an error, an end.
    parts: list[bytes] | None = None
    scalar: bytes | None = None
    error: Error | None = None
    end: bool = False
    descriptors: int = 0
    kept: bool = False
    knows_end: bool = False
    files: list[Descriptor] = dataclasses.field(default_factory=list)


_CONTENTS = (3, 4, 5, 7)


def _parse_frame(body: bytes, deadline: _Deadline = _NEVER) -> _Frame:
    """A frame of a server's, which has no password."""
    frame = _Frame()
    seen = _Seen()
    contents = 0
    for number, wire, value in _fields(body, deadline):
        if number > 9 or number == 6:
            continue
        seen.add(number)
        contents += number in _CONTENTS
        if number == 1:
            frame.descriptors = _number_of(wire, value)
            if frame.descriptors > MAX_DESCRIPTORS:
                raise _malformed(f"a frame has over {MAX_DESCRIPTORS} descriptors")
        elif number == 2:
            raise _malformed("a server says a password")
        elif number == 3:
            frame.parts = _parse_array(body, deadline, *_range_of(wire, value))
        elif number == 4:
            frame.scalar = _bytes_of(body, wire, value)
        elif number == 5:
            frame.error = _parse_error(body, deadline, *_range_of(wire, value))
        elif number == 7:
            frame.end = True
            frame.kept = _parse_end(body, deadline, *_range_of(wire, value))
        elif number == 8:
            frame.knows_end = _number_of(wire, value) != 0
        else:
            _check_call(body, deadline, *_range_of(wire, value))
    if contents != 1:
        raise _malformed(f"a frame has {contents} contents")
    return frame


def _parse_array(body: bytes, deadline: _Deadline, start: int, end: int) -> list[bytes]:
    parts: list[bytes] = []
    for number, wire, value in _fields(body, deadline, start, end):
        if number != 1:
            continue
        if len(parts) == MAX_PARTS:
            raise _too_large(f"a frame has over {MAX_PARTS} parts")
        parts.append(_bytes_of(body, wire, value))
    return parts


def _parse_error(body: bytes, deadline: _Deadline, start: int, end: int) -> Error:
    seen = _Seen()
    code = 0
    words = {2: "", 3: ""}
    for number, wire, value in _fields(body, deadline, start, end):
        if number > 3:
            continue
        seen.add(number)
        if number == 1:
            code = _number_of(wire, value)
        else:
            words[number] = _bytes_of(body, wire, value).decode(errors="replace")
    kind = TimedOut if words[2] == "TimedOut" else Error
    return kind(code, words[2], words[3])


def _parse_end(body: bytes, deadline: _Deadline, start: int, end: int) -> bool:
    seen = _Seen()
    kept = False
    for number, wire, value in _fields(body, deadline, start, end):
        if number == 1:
            seen.add(number)
            kept = _number_of(wire, value) != 0
    return kept


def _check_call(body: bytes, deadline: _Deadline, start: int, end: int) -> None:
    seen = _Seen()
    for number, wire, value in _fields(body, deadline, start, end):
        if number > 3:
            continue
        seen.add(number)
        if number < 3:
            _number_of(wire, value)
        elif len(_bytes_of(body, wire, value)) > MAX_TRACE_ID:
            raise _malformed(f"a trace id has over {MAX_TRACE_ID} bytes")


def _array(parts: Sequence[bytes]) -> bytes:
    return _field(3, b"".join(_field(1, part) for part in parts))


def _request(
    packed: _Packed,
    *,
    password: bytes | None = None,
    keep: bool = False,
    time_left: int = 0,
    trace_id: bytes = b"",
) -> bytes:
    """The first frame of a call; with a password, that of a connection."""
    body = _number_field(1, len(packed.descriptors))
    if password is not None:
        body += _field(2, password)
    body += _array(packed.parts)
    if password is not None:
        body += _number_field(8, 1)
    call = _number_field(1, keep) + _number_field(2, time_left)
    if trace_id:
        call += _field(3, trace_id)
    if call:
        body += _field(9, call)
    return _checked(packed, body, MAX_REQUEST, MAX_REQUEST_DESCRIPTORS)


def _element(packed: _Packed) -> bytes:
    body = _number_field(1, len(packed.descriptors)) + _array(packed.parts)
    return _checked(packed, body, MAX_FRAME, MAX_DESCRIPTORS)


_END = b"\x02" + _field(7, b"")


def _checked(packed: _Packed, body: bytes, most: int, most_descriptors: int) -> bytes:
    if len(body) > most:
        raise NotSent(
            Code.RESOURCE_EXHAUSTED,
            "FrameTooLarge",
            f"a message of {len(body)} bytes is over {most}",
        )
    if len(packed.parts) > MAX_PARTS:
        raise NotSent(
            Code.RESOURCE_EXHAUSTED,
            "FrameTooLarge",
            f"a message of {len(packed.parts)} values is over {MAX_PARTS}",
        )
    if len(packed.descriptors) > most_descriptors:
        raise NotSent(
            Code.RESOURCE_EXHAUSTED,
            "TooManyDescriptors",
            f"{len(packed.descriptors)} descriptors are more than {most_descriptors}",
        )
    return _varint(len(body)) + body


# --- Connections ---


class PeerCredentials(NamedTuple):
    """Who listens, as the kernel has it; the owner, where the server is its fork."""

    pid: int
    uid: int
    gid: int


class _EndOfStream(Exception):
    """The other side has left; between two frames, or within one."""


class _Unit(NamedTuple):
    """The descriptors that one recvmsg() has brought."""

    files: list[Descriptor]
    truncated: bool


class _Connection:
    """Frames over a connected socket. One thread sends, and one receives, at a time."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._process = os.getpid()
        # Who uses the socket must not meet another one of its number.
        self._open = threading.RLock()
        self.sending = threading.RLock()
        self._receiving = threading.RLock()
        self._received = bytearray()
        self._units: collections.deque[_Unit] = collections.deque()
        self.heard = False  # Of the server.
        self.knows_end = False

    def send(
        self, frame: bytes, descriptors: Sequence[int], deadline: _Deadline
    ) -> None:
        """OSError, and what of it is for whom: docs/protocol.md."""
        rest = memoryview(frame)
        control = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            if descriptors
            else []
        )
        with self.sending:
            while rest:
                self._socket.settimeout(deadline.next_wait())
                try:
                    sent = self._socket.sendmsg([rest], control, socket.MSG_NOSIGNAL)
                except TimeoutError:
                    continue
                except OSError as error:
                    if error.errno != errno.ETOOMANYREFS:
                        raise
                    raise NotSent(
                        Code.RESOURCE_EXHAUSTED,
                        "DescriptorsInFlight",
                        "this user has too many descriptors on their way",
                    ) from error
                rest = rest[sent:]
                control = []  # Once.

    def receive(self, deadline: _Deadline) -> _Frame:
        with self._receiving:
            return self._receive(deadline)

    def _receive(self, deadline: _Deadline) -> _Frame:
        while (body := self._whole_frame()) is None:
            if len(self._units) > 1:
                raise _malformed("descriptors came within a frame")
            self._receive_some(deadline)
        frame = _parse_frame(body, deadline)
        if frame.descriptors:
            frame.files = self._take_unit(frame.descriptors)
        if self._units and not self._received:
            _close_all(frame.files)
            raise _malformed("descriptors came that no frame has declared")
        if not self.heard:
            self.heard = True
            self.knows_end = frame.knows_end
        if frame.parts is None:
            _close_all(frame.files)
        return frame

    def receive_what_came(self, deadline: _Deadline) -> _Frame | None:
        """A frame that came together with the last one."""
        return self.receive(deadline) if self._is_whole() else None

    def has_more(self) -> bool:
        return bool(self._received or self._units)

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody waits for, nor an end."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def shut_down(self) -> None:
        """Ends what goes over it, from any thread; in a fork it is the parent's."""
        if self._process != os.getpid():
            return
        with self._open, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._process != os.getpid():
            # Threads that have the locks for ever are the parent's.
            self._socket.close()
        else:
            self.shut_down()  # Who is in send() or receive() comes out.
            with self.sending, self._receiving, self._open:
                self._socket.close()
        while self._units:
            _close_all(self._units.popleft().files)

    def _bounds(self) -> tuple[int, int] | None:
        """Where the first frame's body begins and ends, once that is known."""
        found = _read_varint(self._received, 0, len(self._received), 64)
        if found is None:
            return None
        length, start = found
        if length > MAX_FRAME:
            raise _too_large(f"a frame of {length} bytes is over {MAX_FRAME}")
        return start, start + length

    def _is_whole(self) -> bool:
        bounds = self._bounds()
        return bounds is not None and bounds[1] <= len(self._received)

    def _whole_frame(self) -> bytes | None:
        bounds = self._bounds()
        if bounds is None or bounds[1] > len(self._received):
            return None
        body = bytes(self._received[bounds[0] : bounds[1]])
        del self._received[: bounds[1]]
        return body

    def _receive_some(self, deadline: _Deadline) -> None:
        self._socket.settimeout(deadline.next_wait())
        try:
            # Always room for as many descriptors as may come: the kernel closes the
            # others.
            data, control, flags, _ = self._socket.recvmsg(
                1 << 16, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError:
            return
        truncated = flags & socket.MSG_CTRUNC != 0
        numbers = array.array("i")
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(
                    content[: len(content) - len(content) % numbers.itemsize]
                )
        if numbers or truncated:
            self._units.append(
                _Unit([Descriptor(number) for number in numbers], truncated)
            )
        if not data:
            raise _EndOfStream
        self._received += data

    def _take_unit(self, declared: int) -> list[Descriptor]:
        if not self._units:
            raise _malformed("a frame's descriptors did not come with it")
        files, truncated = self._units.popleft()
        if len(files) == declared:
            return files
        _close_all(files)
        if truncated:
            raise BadReply(
                Code.RESOURCE_EXHAUSTED,
                "DescriptorsTruncated",
                "this process has no free descriptors for those sent",
            )
        raise _malformed("a frame has other descriptors than it declares")


def _connect(
    path: str, deadline: _Deadline, cancellation: Cancellation
) -> socket.socket:
    name = os.fsencode(path)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as undo:
        undo.callback(stream.close)
        with contextlib.ExitStack() as directory:
            if len(name) > 107:
                number = os.open(
                    os.path.dirname(name) or b".",
                    os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
                )
                directory.callback(os.close, number)
                name = b"/proc/self/fd/%d/%s" % (number, os.path.basename(name))
            stream.settimeout(0)
            pause = 0.01
            while (failure := stream.connect_ex(name)) != 0:
                if failure != errno.EAGAIN:
                    raise OSError(failure, os.strerror(failure))
                # Its queue is full, and nothing tells when it is not.
                time.sleep(deadline.sooner(pause))
                cancellation.check()
                pause = min(2 * pause, 0.1)
        undo.pop_all()
    return stream


class Cancellation:
    """Ends the calls that were given it, from any thread, or a signal's handler."""

    def __init__(self) -> None:
        self._cancelled = False
        self._lock = threading.RLock()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()

    def cancel(self) -> None:
        self._cancelled = True
        with self._lock:
            for connection in self._connections:
                connection.shut_down()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled(Code.CANCELLED, "CallCancelled", "the call was cancelled")

    def add(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.add(connection)
        self.check()

    def remove(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


# --- Calls ---

_Reply = TypeVar("_Reply")


class Call(Generic[_Reply]):
    """A call under way: the request's stream is written, the reply's is read.

    It ends with its `with`; in the middle, that cancels it. One thread may write while
    another reads, and any may cancel(). In a fork it is the parent's: there it can be
    left, and goes on.
    """

    def __init__(
        self,
        client: Client,
        connection: _Connection,
        reply: Any,
        deadline: _Deadline,
        cancellation: Cancellation,
    ) -> None:
        self._client = client
        self._connection = connection
        self._reply = reply
        self._deadline = deadline
        self._cancellation = cancellation
        self._cancelled = False
        self._said_end = False
        self._lock = threading.RLock()
        self._over = False
        self._outcome: Error | None = None

    def write(self, *values: Value) -> None:
        """One element. It leaves at once, and waits while the server is behind.

        The handler may end the call before it has read all. Whoever writes then is
        told that nobody reads it; the reply, or why there is none, is read() as ever.
        """
        if self._said_end:
            raise ValueError("the request's end was said")
        packed = _pack(values)
        try:
            is_read = self._send(_element(packed), packed.descriptors)
        finally:
            packed.close()
        if not is_read:
            if not self._over and self._was_cancelled():
                self._fail(_cancelled())
            if self._outcome is not None:
                raise self._outcome.copy()
            raise Error(
                Code.FAILED_PRECONDITION,
                "",
                "the call has ended: nobody reads what is written, read() says why",
            )

    def end(self) -> None:
        """Says that this was the request's last element, to whoever still listens."""
        if not self._said_end:
            self._said_end = True
            self._send(_END, [])

    def read(self) -> _Reply | None:
        """The reply's next element; None at its end."""
        message = self._next()
        if message is None or self._reply is Message:
            return message  # type: ignore[return-value]
        try:
            if isinstance(self._reply, tuple):
                values = _unpack(message, self._reply, self._deadline)
                return tuple(values)  # type: ignore[return-value]
            values = _unpack(message, [self._reply], self._deadline)
            return values[0]  # type: ignore[no-any-return]
        except Error as error:
            self._fail(error)
        except TimeoutError:
            self._fail(_timed_out())

    def result(self) -> _Reply:
        """end(), and the one reply; raises what the handler has failed with."""
        self.end()
        return self.only_reply()

    def __iter__(self) -> Iterator[_Reply]:
        while (element := self.read()) is not None:
            yield element

    def cancel(self) -> None:
        """From any thread. Who waits in this call is told Cancelled."""
        with self._lock:
            if not self._over:  # Its connection would be another call's.
                self._cancelled = True
                self._connection.shut_down()

    def close(self) -> None:
        with self._lock:
            if not self._over and self._outcome is None:
                self._outcome = _cancelled()
        self._leave(kept=False)

    def __enter__(self) -> Call[_Reply]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def only_reply(self) -> _Reply:
        """The one reply, and then the call's end."""
        reply = None if self._reply is None else self.read()
        if reply is None and self._reply is not None:
            self._fail(_unexpected("the call has ended without its reply"))
        try:
            if (more := self._next()) is not None:
                more.close()
                self._fail(_unexpected("a reply came where none was due"))
        except BaseException:  # Then there is no reply, and nobody closes what it has.
            _close_all(reply if isinstance(reply, tuple) else [reply])
            raise
        return reply  # type: ignore[return-value]

    def _send(self, frame: bytes, descriptors: Sequence[int]) -> bool:
        """Whether somebody may read it."""
        try:
            with self._connection.sending:
                if self._over:
                    return False
                self._connection.send(frame, descriptors, self._deadline)
                return True
        except TimeoutError:
            self._fail(_timed_out())
        except ConnectionError:
            # The server has left. What it has said before is the reader's, who may be
            # another thread.
            return False
        except NotSent:
            raise
        except BaseException:
            self.close()
            raise

    def _next(self) -> Message | None:
        if self._outcome is not None:
            raise self._outcome.copy()
        if self._over:
            return None
        try:
            frame = self._connection.receive(self._deadline)
            if frame.scalar is not None:
                raise _unexpected("a scalar came where a reply was due")
        except Error as error:
            self._fail(error)
        except TimeoutError:
            self._fail(_timed_out())
        except (_EndOfStream, OSError) as error:
            if self._is_old_servers_end(error):
                self._leave(kept=False)
                return None
            self._fail(
                CallCut(
                    Code.UNAVAILABLE,
                    "CallCut",
                    "the server left before the call had ended",
                )
            )
        except BaseException:
            self.close()
            raise
        if frame.parts is not None:
            return Message(frame.parts, frame.files)
        if frame.error is None:
            self._leave(frame.kept)
            return None
        # An end of it comes in one piece with it, or nobody waits for that.
        end = None
        with contextlib.suppress(Error, TimeoutError):
            end = self._connection.receive_what_came(self._deadline)
        self._fail(frame.error, kept=end is not None and end.kept)

    def _is_old_servers_end(self, error: Exception) -> bool:
        return (
            isinstance(error, _EndOfStream)
            and not self._was_cancelled()
            and self._connection.heard
            and not self._connection.knows_end
            and not self._connection.has_more()
        )

    def _was_cancelled(self) -> bool:
        return self._cancelled or self._cancellation.cancelled

    def _fail(self, error: Error, kept: bool = False) -> NoReturn:
        with self._lock:
            if self._outcome is None:
                self._outcome = (
                    _cancelled()
                    if isinstance(error, CallCut) and self._was_cancelled()
                    else error.copy()
                )
        self._leave(kept)
        # Not itself: it would have the stack, which has this call, which has it.
        raise self._outcome.copy() from error.__cause__

    def _leave(self, kept: bool) -> None:
        with self._lock:
            if self._over:
                return
            # Somebody may be in the middle of a frame of this call.
            quiet = self._connection.sending.acquire(blocking=False)
            self._over = True
            if quiet:
                self._connection.sending.release()
        self._cancellation.remove(self._connection)
        if (
            kept
            and quiet
            and not self._was_cancelled()
            and not self._connection.has_more()
        ):
            self._client._keep(self._connection)
        else:
            self._connection.close()


def _cancelled() -> Cancelled:
    return Cancelled(Code.CANCELLED, "CallCancelled", "the call was cancelled")


def _timed_out() -> TimedOut:
    return TimedOut(
        Code.DEADLINE_EXCEEDED,
        "TimedOut",
        "the call took too long; its handler may still run",
    )


def is_own_users_or_roots(server: PeerCredentials) -> bool:
    return server.uid == 0 or (server.uid == os.geteuid() and _is_one_user(server.uid))


def _is_one_user(uid: int) -> bool:
    """Not what this user namespace calls all whom it does not know, maybe us, too."""
    try:
        with open("/proc/sys/kernel/overflowuid") as number:
            unknown = int(number.read())
    except OSError:
        unknown = 65534
    if uid != unknown:
        return True
    try:
        with open("/proc/self/uid_map") as users:
            ranges = [[int(word) for word in line.split()] for line in users]
    except FileNotFoundError:
        # A jail without /proc, which is seen more often than a process without a user.
        return True
    except OSError:
        return False
    return any(first <= uid < first + count for first, _, count in ranges)


class Client:
    """Calls of one server, from as many threads as you like.

    Connections are kept for the next calls: so a thread's calls connect once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        password: bytes,
        *,
        trust: Callable[[PeerCredentials], bool] = is_own_users_or_roots,
        connect_timeout: float = 10.0,
    ) -> None:
        """`trust` decides whether the process that listens may be told the password."""
        self._path = os.fspath(path)
        self._password = password
        self._trust = trust
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._process = os.getpid()
        self._closed = False

    @overload
    def call(
        self, method: str, *arguments: Value, reply: None = None, **options: Any
    ) -> None:
        ...

    @overload
    def call(self, method: str, *arguments: Value, reply: type[T], **options: Any) -> T:
        ...

    @overload
    def call(
        self, method: str, *arguments: Value, reply: tuple[Any, ...], **options: Any
    ) -> tuple[Any, ...]:
        ...

    def call(
        self, method: str, *arguments: Value, reply: Any = None, **options: Any
    ) -> Any:
        """Calls a method, and returns its reply.

        That is a value of the class `reply`, a tuple of them, nothing (None), or the
        Message as it came. Options: `timeout`, in seconds, for all of it, and a
        `cancellation`, which the handler is told of; `trace_id`, bytes for the server's
        logs, which it passes on.
        """
        with self._begin(False, method, arguments, reply, **options) as call:
            return call.only_reply()

    @overload
    def stream(
        self, method: str, *arguments: Value, reply: type[T], **options: Any
    ) -> Call[T]:
        ...

    @overload
    def stream(
        self,
        method: str,
        *arguments: Value,
        reply: tuple[Any, ...] | None = None,
        **options: Any,
    ) -> Call[Any]:
        ...

    def stream(
        self, method: str, *arguments: Value, reply: Any = None, **options: Any
    ) -> Call[Any]:
        """Begins a call of a method whose request, reply, or both are streams.

        `reply` is of each element, or of the one reply. Options are those of call().
        """
        return self._begin(True, method, arguments, reply, **options)

    def close(self) -> None:
        """Calls under way go on; their connections are not kept."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(
        self,
        stream: bool,
        method: str,
        arguments: Sequence[Value],
        reply: Any,
        *,
        timeout: float | None = None,
        cancellation: Cancellation = Cancellation(),  # Nobody's.
        trace_id: bytes = b"",
    ) -> Call[Any]:
        if len(trace_id) > MAX_TRACE_ID:
            raise NotSent(
                Code.INVALID_ARGUMENT,
                "InvalidArguments",
                f"a trace id has {MAX_TRACE_ID} bytes at most",
            )
        packed = _pack([method, *arguments])
        deadline = _Deadline(timeout)

        def send(connection: _Connection, password: bytes | None) -> None:
            left = deadline.left()
            time_left = 0 if left is None else max(1, int(min(left * 1e6, 2.0**62)))
            frame = _request(
                packed,
                password=password,
                keep=True,
                time_left=time_left,
                trace_id=trace_id,
            )
            cancellation.add(connection)
            connection.send(frame, packed.descriptors, deadline)

        connection = None
        try:
            # The server may close an idle connection at any time. It has not read a
            # call that did not go out whole. A stream it may have read in part.
            while not stream and (connection := self._take_idle()) is not None:
                try:
                    send(connection, None)
                    return Call(self, connection, reply, deadline, cancellation)
                except ConnectionError:
                    cancellation.remove(connection)
                    connection.close()
            connection = self._connect(deadline, cancellation)
            # If the server has left, it may have said why: the call reads that.
            with contextlib.suppress(ConnectionError):
                send(connection, self._password)
            return Call(self, connection, reply, deadline, cancellation)
        except BaseException as error:
            if connection is not None:
                cancellation.remove(connection)
                connection.close()
            if isinstance(error, TimeoutError) and not isinstance(error, Error):
                raise TimedOut(
                    Code.DEADLINE_EXCEEDED,
                    "TimedOut",
                    f"the call did not leave in time for {self._path}",
                ) from None
            raise
        finally:
            packed.close()

    def _connect(self, deadline: _Deadline, cancellation: Cancellation) -> _Connection:
        try:
            stream = _connect(
                self._path,
                _Deadline(deadline.sooner(self._connect_timeout)),
                cancellation,
            )
        except TimeoutError:
            raise
        except OSError as error:
            code = (
                Code.PERMISSION_DENIED
                if isinstance(error, PermissionError)
                else Code.UNAVAILABLE
            )
            raise Unreachable(
                code, "ServerUnreachable", f"connect to {self._path}: {error}"
            ) from error
        try:
            credentials = PeerCredentials(
                *struct.unpack(
                    "=iII", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                )
            )
            if not self._trust(credentials):
                raise NotTrusted(
                    Code.PERMISSION_DENIED,
                    "ServerNotTrusted",
                    f"{credentials} listens at {self._path}: not told the password"
                    + (
                        ""
                        if _is_one_user(credentials.uid)
                        else "; its uid is anybody's in this user namespace"
                    ),
                )
        except BaseException:
            stream.close()
            raise
        return _Connection(stream)

    def _take_idle(self) -> _Connection | None:
        while True:
            with self._lock:
                self._forget_parents()
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.close()

    def _keep(self, connection: _Connection) -> None:
        with self._lock:
            self._forget_parents()
            if not self._closed and len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _forget_parents(self) -> None:
        """After a fork: two processes would mix their calls on one connection."""
        if self._process != os.getpid():
            self._process = os.getpid()
            while self._idle:
                self._idle.pop().close()


# --- Servers ---


class Server:
    """A server that this process owns, as start() has started it; close() ends it.

    In a fork it is the parent's: close() is leave() there.
    """

    def __init__(self, message: Message) -> None:
        """Of a `ward.owner`, as it came."""
        if (
            len(message.parts) != 3
            or message.parts[0] != b"ward.owner"
            or len(message.descriptors) != 4
        ):
            message.close()
            raise _unexpected("what came is no share in a server's ownership")
        self.path = os.fsdecode(message.parts[1])
        self._own_directory = message.parts[2] == b"true"
        self._owners_end, self._process, self._name, password = message.descriptors
        try:
            with socket.socket(fileno=password.fileno()) as packets:
                password.detach()
                packets.setblocking(False)
                self.password = packets.recv(1 << 16)
        except OSError as error:
            message.close()
            raise _unexpected("the share's password is not there") from error
        self.client = Client(self.path, self.password)
        self._owner = os.getpid()
        self._left = False

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the server has ended; whether it has."""
        poll = select.poll()
        poll.register(self._process.fileno(), select.POLLIN)
        deadline = _Deadline(timeout)
        try:
            while True:
                wait = deadline.next_wait()
                if poll.poll(None if wait is None else wait * 1000):
                    return True
        except TimeoutError:
            return bool(poll.poll(0))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process.fileno(), signal.SIGKILL)

    def close(self, timeout: float = 10.0) -> None:
        """Gives up the ownership, and waits for the server's end.

        One that has other owners, too, does not end: it is killed after the timeout.
        Then use leave().
        """
        if self._left:
            return
        if self._owner != os.getpid():
            self.leave()
            return
        self.client.close()
        self._owners_end.close()
        if not self.wait(timeout):
            self.kill()
            self.wait()
        self._remove_name()
        self.leave()

    def leave(self) -> None:
        """Gives up the ownership without waiting."""
        self._left = True
        self.client.close()
        for descriptor in (self._owners_end, self._process, self._name):
            descriptor.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remove_name(self) -> None:
        """As a server does that was not killed."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self.path), os.fstat(self._name.fileno())):
                os.unlink(self.path)
        if self._own_directory:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self.path))


def start(
    command: Sequence[str | os.PathLike[str]], *, timeout: float = 30.0, **popen: Any
) -> Server:
    """Runs a program that gives its server away on its standard input, as main.cc does.

    `timeout` is in seconds; `popen` goes to subprocess.Popen. The error is the server's
    own, where it does not start. A program that goes on although it has given its
    server away is killed then: the server is not.
    """
    deadline = _Deadline(timeout)
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        program = subprocess.Popen(
            [os.fspath(word) for word in command], stdin=theirs, **popen
        )  # type: ignore[call-overload]
        undo.pop_all()
    connection = _Connection(ours)
    try:
        try:
            frame = connection.receive(deadline)
        except _EndOfStream:
            status = program.wait(deadline.left())
            raise Error(
                Code.UNAVAILABLE,
                "ServerDied",
                f"{command[0]} ended with status {status}",
            ) from None
        if frame.error is not None:
            raise frame.error.copy()
        server = Server(Message(frame.parts or [], frame.files))
        with contextlib.ExitStack() as undo:
            undo.callback(server.leave)
            with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
                program.wait(deadline.left())
            undo.pop_all()
        return server
    except Error:  # The server's own may be a TimeoutError, too.
        raise
    except (TimeoutError, subprocess.TimeoutExpired):
        raise TimedOut(
            Code.DEADLINE_EXCEEDED,
            "TimedOut",
            f"{command[0]} did not start in {timeout} s",
        ) from None
    finally:
        connection.close()
        program.kill()  # Unless it has ended.
        program.wait()
