"""Backwards in gdb, through a simulated run of ward's (docs/testing.md).

  (gdb) source tools/gdb/ward.py

A run is the same each time. So these commands go back by running the program
again, up to an earlier moment: nothing is recorded.

  ward-back [COUNT]       to the previous decision of the run
  ward-step [COUNT]       to the next one
  ward-to NUMBER          to this one, as WARD_REPLAY numbers them
  ward-back-write PLACE   to the last change of a variable, or of what any
                          expression names that is in memory

Breakpoints of the user's do not stop what runs again. Whatever the program
prints, it prints again.
"""

import re

import gdb

_NONE = 2**64 - 1

# In ward::testing::Debugged (testing/simulator/debugged.h), a word each.
_TURNS, _DECISIONS, _DECISIONS_BEFORE, _STOP_AT_TURN, _STOP_AT_DECISION, _TEXT = range(6)
_STOP = "ward::testing::StopForDebugger"


def _is_inner(pattern, text):
    """Whether nobody looks for it, as the program has it (testing/report/places.h)."""
    return re.search(gdb.parse_and_eval(f"(char*)&'ward::testing::{pattern}'").string(), text) is not None


def _is_users(frame):
    sal = frame.find_sal()
    if sal.symtab is not None:
        return not _is_inner("kInnerFiles", sal.symtab.filename)
    name = frame.name()
    return name is not None and not _is_inner("kInnerFunctions", name) and not gdb.solib_name(frame.pc())


def _word(index):
    return int(gdb.parse_and_eval(f"((unsigned long*)&'ward::testing::debugged')[{index}]"))


def _set_word(index, value):
    gdb.parse_and_eval(f"((unsigned long*)&'ward::testing::debugged')[{index}] = {value}UL")


def _quietly(command):
    return gdb.execute(command, to_string=True)


def _is_alive():
    return gdb.selected_inferior().pid != 0


def _require_run():
    if not _is_alive():
        raise gdb.GdbError("The program does not run. Stop it in a run first: start it with `run`.")
    try:
        if _word(_TURNS) > 0:
            return
    except gdb.error:
        pass
    raise gdb.GdbError("No simulated run has begun in this program.")


class _Stop(gdb.Breakpoint):
    """Where a run has come to what was asked for, or cannot go on."""

    def __init__(self):
        super().__init__(_STOP, internal=True)
        self.silent = True
        # Called at each, if there is one; says whether to stop.
        self.decide = None

    def stop(self):
        return self.decide is None or self.decide()


_stop = None


def _is_at_stop():
    return gdb.newest_frame().name() in (_STOP, _STOP + "()")


class _Position:
    """Where the program is, so that it can be found again."""

    def __init__(self):
        self.turn = _word(_TURNS)
        self.is_at_stop = _is_at_stop()
        frame = gdb.newest_frame()
        self.place = (frame.pc(), int(frame.read_register("sp")), gdb.selected_thread().num)

    def __eq__(self, other):
        return (self.turn, self.place) == (other.turn, other.place)


_SETTINGS = {"confirm": "off", "pagination": "off"}


class _Quiet:
    """While nothing but this script stops the program, and nothing is asked."""

    def __enter__(self):
        self.disabled = [b for b in gdb.breakpoints() or () if b.enabled and b.number > 0]
        for breakpoint in self.disabled:
            breakpoint.enabled = False
        self.settings = {}
        for name, value in _SETTINGS.items():
            self.settings[name] = "on" if gdb.parameter(name) else "off"
            _quietly(f"set {name} {value}")

    def __exit__(self, *_):
        for breakpoint in self.disabled:
            if breakpoint.is_valid():
                breakpoint.enabled = True
        for name, value in self.settings.items():
            _quietly(f"set {name} {value}")


def _run_again(turn=_NONE, decision=_NONE):
    """From the start to the turn or decision, whichever comes first."""
    begin = gdb.Breakpoint("main", internal=True, temporary=True)
    begin.silent = True
    _quietly("run")
    _set_word(_STOP_AT_TURN, turn)
    _set_word(_STOP_AT_DECISION, decision)
    _go_on()


def _go_on():
    """Until this script's breakpoint stops it."""
    while True:
        _quietly("continue")
        if not _is_alive():
            raise gdb.GdbError("The program has ended before it came there: its course is not the same each time.")
        if _is_at_stop():
            break
    _set_word(_STOP_AT_TURN, _NONE)
    _set_word(_STOP_AT_DECISION, _NONE)


def _select_users_frame():
    """The innermost one in the user's own code; false if there is none."""
    frame = gdb.newest_frame()
    while frame is not None and not _is_users(frame):
        frame = frame.older()
    if frame is not None:
        frame.select()
    return frame is not None


def _show():
    if _select_users_frame():
        gdb.execute("frame")
    else:
        print("(none of the program's own functions is under way)")


def _show_decision():
    number = _word(_DECISIONS) - _word(_DECISIONS_BEFORE) - 1
    text = gdb.parse_and_eval(f"((char**)&'ward::testing::debugged')[{_TEXT}]").string()
    print(f"Decision {number}: {text}")
    _show()


def _to_decision(count):
    """To where so many were made in all runs of the process."""
    with _Quiet():
        _run_again(decision=count)


class _Command(gdb.Command):
    def __init__(self):
        super().__init__(self.NAME, gdb.COMMAND_RUNNING)

    @staticmethod
    def count(argument):
        try:
            return int(argument or "1")
        except ValueError:
            raise gdb.GdbError(f"That is no number: {argument}") from None


class _Back(_Command):
    """ward-back [COUNT]: to the previous decision of the simulated run."""

    NAME = "ward-back"

    def invoke(self, argument, from_tty):
        _require_run()
        made = _word(_DECISIONS)
        # What is between two decisions comes after the first of them.
        wanted = made - self.count(argument) + (0 if _is_at_stop() else 1)
        while True:
            if wanted <= _word(_DECISIONS_BEFORE):
                raise gdb.GdbError("So many decisions of this run were not made before.")
            _to_decision(wanted)
            # Two may be made at once.
            if _word(_DECISIONS) <= wanted:
                break
            wanted -= 1
        _show_decision()


class _Step(_Command):
    """ward-step [COUNT]: to the next decision of the simulated run."""

    NAME = "ward-step"

    def invoke(self, argument, from_tty):
        _require_run()
        _set_word(_STOP_AT_DECISION, _word(_DECISIONS) + self.count(argument))
        # The user's breakpoints count: this is a way forward.
        gdb.execute("continue")
        if _is_alive() and _is_at_stop():
            _set_word(_STOP_AT_DECISION, _NONE)
            _show_decision()


class _To(_Command):
    """ward-to NUMBER: to this decision of the simulated run, as WARD_REPLAY numbers them."""

    NAME = "ward-to"

    def invoke(self, argument, from_tty):
        _require_run()
        if not argument:
            raise gdb.GdbError("ward-to takes the number of a decision, such as 27 for WARD_REPLAY=27=1.")
        _to_decision(_word(_DECISIONS_BEFORE) + self.count(argument) + 1)
        _show_decision()


class _Variable:
    """Bytes in memory. They are at the same place each time."""

    def __init__(self, text):
        if gdb.selected_frame() == gdb.newest_frame():
            _select_users_frame()
        try:
            value = gdb.parse_and_eval(text)
        except gdb.error as error:
            raise gdb.GdbError(str(error)) from None
        if value.address is None:
            raise gdb.GdbError(f"{text} is not in memory.")
        self.text = text
        self.type = value.type.strip_typedefs()
        self.address = int(value.address)
        self.size = value.type.sizeof

    def read(self):
        """None before there is memory there."""
        try:
            return bytes(gdb.selected_inferior().read_memory(self.address, self.size))
        except gdb.MemoryError:
            return None

    def watch(self):
        # A field of so many characters needs no type of the program's.
        return gdb.Breakpoint(
            f"*(char(*)[{self.size}]){self.address}", gdb.BP_WATCHPOINT, gdb.WP_WRITE, internal=True
        )

    def describe(self, content):
        if content is None:
            return "not in memory"
        return gdb.Value(content, self.type).format_string(max_elements=20)


class _BackWrite(_Command):
    """ward-back-write PLACE: to the last change of a variable in the simulated run.

PLACE is an expression for something in memory, such as balance, this->count_ or
*(int*)0x5555. Writing what was there already is no change."""

    NAME = "ward-back-write"

    # Where the last one has led, of which address, and the changes up to there
    # since the turn began.
    found = None

    def invoke(self, argument, from_tty):
        _require_run()
        if not argument:
            raise gdb.GdbError("ward-back-write takes a variable, such as balance or this->count_.")
        variable = _Variable(argument)
        here = _Position()
        now = variable.read()
        with _Quiet():
            turn, changes = self.turn_of_last_change(variable, here, now)
            if turn is None:
                raise gdb.GdbError(
                    f"{argument} has not changed in this run before. It is at the run's first turn again."
                )
            # Once more: it stops after the last of them.
            list(self.changes(variable, turn, most=len(changes)))
        _BackWrite.found = (_Position(), variable.address, changes)
        before, after = changes[-1]
        print(f"{argument} was {variable.describe(before)}, and becomes {variable.describe(after)}:")
        _show()

    def turn_of_last_change(self, variable, here, now):
        """And all changes of that turn, up to `here`."""
        turns, content = self.turns_with_changes(variable, here.turn)
        if not here.is_at_stop:
            if self.has_led_to(variable, here):
                changes = _BackWrite.found[2][:-1]
            elif content == now:
                changes = []
            else:
                changes = self.changes(variable, here.turn, here=here, now=now)
            if changes:
                return here.turn, changes
        if not turns:
            return None, []
        return turns[-1], self.changes(variable, turns[-1])

    @staticmethod
    def has_led_to(variable, here):
        if _BackWrite.found is None:
            return False
        position, address, _ = _BackWrite.found
        return address == variable.address and position == here

    @staticmethod
    def turns_with_changes(variable, last):
        """Those before `last`, and what it is at the beginning of that."""
        changed = []
        content = None

        def decide():
            nonlocal content
            turn = _word(_TURNS)
            found = variable.read()
            if found != content and turn > 1:
                changed.append(turn - 1)
            content = found
            return turn >= last

        _stop.decide = decide
        try:
            _run_again(turn=1)
        finally:
            _stop.decide = None
        return changed, content

    @staticmethod
    def changes(variable, turn, most=None, here=None, now=None):
        """What it was and becomes at each change in a turn; of the first `most`, or until `here`."""
        try:
            changes, is_complete = _BackWrite.watch(variable, turn, most, here, now)
            if is_complete:
                return changes
        except gdb.error:
            pass
        # The hardware for it may be missing, as in virtual machines: an
        # instruction at a time.
        found = gdb.parameter("can-use-hw-watchpoints")
        _quietly("set can-use-hw-watchpoints 0")
        try:
            return _BackWrite.watch(variable, turn, most, here, now)[0]
        finally:
            _quietly(f"set can-use-hw-watchpoints {found}")

    @staticmethod
    def watch(variable, turn, most, here, now):
        _run_again(turn=turn)
        _set_word(_STOP_AT_TURN, turn + 1)
        content = variable.read()
        changes = []
        watch = variable.watch()
        watch.silent = True
        place = None if here is None else gdb.Breakpoint(f"*{here.place[0]}", internal=True)
        try:
            while len(changes) != most:
                _quietly("continue")
                found = variable.read() if _is_alive() else None
                if not _is_alive() or _is_at_stop():
                    return changes, content == found
                if found != content:
                    changes.append((content, found))
                    content = found
                if here is not None and found == now and _Position() == here:
                    break
            return changes, True
        finally:
            for breakpoint in (watch, place):
                if breakpoint is not None and breakpoint.is_valid():
                    breakpoint.delete()


def _begin():
    global _stop
    _quietly("set breakpoint pending on")
    _stop = _Stop()
    _quietly("set breakpoint pending auto")
    # A failed assertion stops the run where it is.
    _quietly("set environment GTEST_BREAK_ON_FAILURE 1")
    for command in (_Back, _Step, _To, _BackWrite):
        command()


_begin()
