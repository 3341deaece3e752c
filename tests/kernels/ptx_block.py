"""Runs PTX on the CPU: a block of threads in lockstep, a numpy array for each register, on the tensors of this process.

It is strict. An instruction stands in `ptx_operations.OPERATIONS`, or in `handler`, with all of its modifiers, or
`Program` names it as unknown, whether a thread comes to it or not. `Fault` is raised where a kernel

- reads a register that no thread wrote, or takes an address, a condition or a number to store from one that this
  thread never wrote (what is computed from it and then dropped is no fault: Triton adds up lanes that it masked);
- loads or stores outside of the tensors of the call or of its shared memory, or a vector that is not aligned;
- reads shared memory that nobody wrote, or that another warp wrote since the last barrier; writes what another warp
  read or wrote since then, unless it is the same value (Triton has all warps store what all of them have);
- touches shared memory to which a copy (cp.async) is on its way, or which another thread copied there since the last
  barrier; changes what such a copy reads; returns before its copies arrived. They arrive as late as the manual allows:
  when their thread waits for their group;
- comes to a branch, barrier or exchange of lanes with a part of the threads: they all have to be there.

Approximate instructions get an error within their bound that looks random. Memory is little-endian, as that of x86-64.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ptx_memory import WARP, Buffer, Fault, Memory
from ptx_operands import ADDRESS, OPERAND, constant, names, unsigned
from ptx_operations import NUMPY, OPERATIONS, Array, Operation, UnknownPtx, decoded, encoded, scattered

MAX_STEPS = 1_000_000
"""Instructions until a loop is endless."""
ACCESS = re.compile(r"(ld|st)\.(global|shared)(?:\.v([24]))?\.([bus](?:8|16|32|64)|f32|f64)")
MATRICES = re.compile(r"(ld|st)matrix\.sync\.aligned\.m8n8\.x([124])\.shared\.b16")
HALVES = re.compile(r"setp\.(\w+)\.(f16|bf16)x2")
STATEMENT = re.compile(r"(?:@(!?)(%p\d+)\s+)?([a-z]\w*(?:[.:]+\w+)*)\s*(.*)")


class Instruction(NamedTuple):
    """One line; `run` gets the operands and the threads that take part."""

    line: int
    text: str
    guard: str
    """The predicate without which a thread leaves it out, or an empty text."""
    negated: bool
    opcode: str
    operands: list[str]
    run: Callable[[Block, list[str], Array], None]


class Program:
    """A kernel's PTX, read: one entry with its parameters, its instructions, its registers' types.

    Raises:
        UnknownPtx: for the first line that is not known.
    """

    def __init__(self, text: str) -> None:
        head = re.search(r"\.visible \.entry (\w+)\(([^)]*)\)\s*\.reqntid (\d+)\s*\{\n", text)
        if head is None or text.count(".entry") != 1:
            raise UnknownPtx("a text without exactly one entry that says its number of threads")
        self.name, self.threads = head[1], int(head[3])
        self.parameters = re.findall(r"\w+_param_\d+", head[2])
        self.registers: dict[str, np.dtype[Any]] = {}
        self.labels: dict[str, int] = {}
        self.code: list[Instruction] = []
        first = text.count("\n", 0, head.end()) + 1
        for number, line in enumerate(text[head.end() :].splitlines(), first):
            if line == "}":
                break
            for part in line.split("//")[0].split(";"):
                self._read(number, part.strip())

    def _read(self, number: int, text: str) -> None:
        if text in ("", "{", "}") or text.startswith((".loc", ".pragma")):
            return
        if label := re.fullmatch(r"(\$\w+):", text):
            self.labels[label[1]] = len(self.code)
        elif register := re.fullmatch(r"\.reg \.(\w+)\s+(%\w+)<\d+>", text):
            self.registers[register[2]] = np.dtype(NUMPY[register[1]])
        elif (found := STATEMENT.fullmatch(text)) is None:
            raise UnknownPtx(f"line {number}: {text}")
        else:
            operands = [re.sub(r"\s", "", each) for each in OPERAND.findall(found[4])]
            run = handler(found[3], operands)
            if run is None:
                raise UnknownPtx(f"line {number}: {text}: {found[3]} is unknown")
            self.code.append(Instruction(number, text, found[2] or "", bool(found[1]), found[3], operands, run))


class Block:
    """One block of threads; `run` runs it.

    Args:
        arguments: for each parameter its bits.
        place, grid: the block's number along x, y and z, and how many there are.
    """

    def __init__(
        self, program: Program, arguments: list[int], buffers: list[Buffer], place: tuple[int, ...],
        grid: tuple[int, ...], shared_bytes: int,
    ) -> None:  # fmt: skip
        self.program, self.memory = program, Memory(buffers, shared_bytes, program.threads)
        self.arguments = dict(zip(program.parameters, arguments, strict=True))
        self.thread = np.arange(program.threads)
        self.everyone = self.certain = np.ones(program.threads, bool)
        numbers: dict[str, Any] = {"%tid.x": self.thread}
        for axis, here, all_blocks in zip("xyz", place, grid, strict=True):
            numbers |= {f"%ctaid.{axis}": self.everyone * here, f"%nctaid.{axis}": self.everyone * all_blocks}
        self.values: dict[str, Array] = {name: number.astype(np.uint32) for name, number in numbers.items()}
        self.written = dict.fromkeys(self.values, self.everyone)

    def run(self) -> None:
        """Until its threads return. Raises Fault."""
        self.position, code = 0, self.program.code
        with np.errstate(all="ignore"):  # lanes that are masked divide by zero
            for _ in range(MAX_STEPS):
                if self.position == len(code):
                    if self.memory.copies:
                        raise Fault(f"{self.program.name} returns while copies are on their way")
                    return
                at = code[self.position]
                self.position += 1
                self.certain = on = self.everyone
                try:
                    if at.guard:
                        on = self.read(at.guard, "pred", on) ^ at.negated
                        self.must_be_certain(self.everyone)
                    at.run(self, at.operands, on)
                except (Fault, UnknownPtx) as error:
                    text = " ".join(at.text.split())
                    raise type(error)(f"{self.program.name}, line {at.line}: {text}: {error}") from None
        raise Fault(f"{self.program.name}: no end after {MAX_STEPS} instructions")

    def branch(self, operands: list[str], on: Array) -> None:
        """`bra` to a label, `ret` to the end."""
        if on.any():
            self.all_there(on)
            self.position = self.program.labels[operands[0]] if operands else len(self.program.code)

    def all_there(self, on: Array) -> None:
        if not on.all():
            raise Fault(f"{on.sum()} of {len(on)} threads come here")

    def read(self, operand: str, kind: str, on: Array) -> Array:
        """The numbers of a register or a constant. What is written next is as certain as all that was read."""
        if operand in self.values:
            if self.written[operand] is not self.everyone:
                self.certain = self.certain & self.written[operand]
            return decoded(self.values[operand], kind)
        if operand[0] == "%":
            raise Fault(f"{operand} was never written")
        return np.full(len(on), constant(operand, kind), unsigned(kind)).view(NUMPY[kind])

    def write(self, register: str, numbers: Array, kind: str, on: Array) -> None:
        """Integers are widened by their sign where the register is wider."""
        prefix = register.rstrip("0123456789")
        if prefix not in self.program.registers:
            raise UnknownPtx(f"{register} is no register")
        bits, written = encoded(numbers, kind).astype(self.program.registers[prefix], copy=False), self.certain
        if on is not self.everyone:
            written = np.where(on, written, self.written.get(register, False))
            bits = np.where(on, bits, self.values.get(register, np.zeros_like(bits)))
        self.values[register] = bits
        self.written[register] = self.everyone if written is self.everyone or written.all() else written

    def must_be_certain(self, on: Array) -> None:
        """What was read by this instruction until now."""
        if self.certain is not self.everyone and not self.certain[on].all():
            raise Fault("a thread needs a register that it never wrote")

    def compute(self, operation: Operation, operands: list[str], on: Array) -> None:
        target, *sources = operands
        numbers = [self.read(each, kind, on) for each, kind in zip(sources, operation.sources, strict=True)]
        if operation.error:
            exact = operation.compute(*[each.astype(np.float64) for each in numbers])
            moved = exact * (1 + operation.error * scattered(numbers))
            # What float32 holds exactly stays: 0, 1 and infinity, which the manual demands, are among it.
            result = np.where(exact.astype(np.float32) == exact, exact, moved)
        else:
            result = operation.compute(*numbers)
        self.write(target, result, operation.result, on)

    def compare_halves(self, word: str, kind: str, operands: list[str], on: Array) -> None:
        """setp of two packed numbers, a predicate for each."""
        operation = OPERATIONS[f"setp.{word}.{kind}"]
        a, b = (self.read(each, "b32", on) for each in operands[1:])
        for half, target in enumerate(operands[0].split("|")):
            numbers = [decoded(each >> (16 * half), kind) for each in (a, b)]
            self.write(target, operation.compute(*numbers), "pred", on)

    def pack(self, kind: str, operands: list[str], on: Array) -> None:
        """mov of a wide register to or from several narrow ones."""
        target, source = (names(each) for each in operands)
        bits = int(kind[1:]) // max(len(target), len(source))
        if len(source) > 1:
            parts = [
                self.read(each, f"b{bits}", on).astype(np.uint64) << np.uint64(bits * i)
                for i, each in enumerate(source)
            ]
            self.write(target[0], np.bitwise_or.reduce(parts), kind, on)
            return
        whole = self.read(source[0], kind, on).astype(np.uint64)
        for i, each in enumerate(target):
            if each != "_":
                self.write(each, decoded(whole >> np.uint64(bits * i), f"b{bits}"), f"b{bits}", on)

    def load_argument(self, kind: str, operands: list[str], on: Array) -> None:
        bits = self.arguments[operands[1].strip("[]")] & np.iinfo(unsigned(kind)).max
        self.write(operands[0], np.full(len(on), bits, unsigned(kind)).view(NUMPY[kind]), kind, on)

    def access(self, store: bool, space: str, count: int, kind: str, operands: list[str], on: Array) -> None:
        """Loads and stores of a number or a vector of them for each thread."""
        registers, address = operands[::-1] if store else operands
        threads, size = np.flatnonzero(on), np.dtype(NUMPY[kind]).itemsize
        begin = self.address(address, on)[threads]
        if (begin % (size * count)).any():
            raise Fault(f"not aligned to {size * count} bytes")
        for i, register in enumerate(names(registers)):
            if store:
                bits = self.read(register, f"b{8 * size}", on)[threads]
                self.must_be_certain(on)
                self.memory.store(space, begin + i * size, threads, bits)
            else:
                numbers = np.zeros(len(on), NUMPY[kind])
                numbers[threads] = self.memory.load(space, begin + i * size, threads, size).view(NUMPY[kind])
                self.write(register, numbers, kind, on)

    def matrices(self, store: bool, operands: list[str], on: Array) -> None:
        """8x8 numbers of 16 bits: lane 8 j + i has the address of line i of matrix j, lane 4 i + k its k-th word."""
        registers, address = operands[::-1] if store else operands
        self.all_there(on)
        begin, lane = self.address(address, on), self.thread % WARP
        for j, register in enumerate(names(registers)):
            line = begin[self.thread - lane + 8 * j + lane // 4]
            if (line % 16).any():
                raise Fault("a line is not aligned to 16 bytes")
            if store:
                bits = self.read(register, "b32", on)
                self.must_be_certain(on)
                self.memory.store("shared", line + 4 * (lane % 4), self.thread, bits)
            else:
                self.write(register, self.memory.load("shared", line + 4 * (lane % 4), self.thread, 4), "b32", on)

    def copy(self, width: int, operands: list[str], on: Array) -> None:
        """cp.async of `width` bytes for each thread; if a fourth operand is given, only so many are read."""
        shared, source = (self.address(each, on)[on] for each in operands[:2])
        sizes = self.read(operands[3] if len(operands) > 3 else str(width), "u32", on)[on]
        self.must_be_certain(on)
        if (sizes > width).any():
            raise Fault(f"more than {width} bytes are read to copy {width}")
        if ((shared | source) % width).any():
            raise Fault(f"not aligned to {width} bytes")
        self.memory.copy(shared, source, self.thread[on], sizes, width)

    def commit(self, operands: list[str], on: Array) -> None:
        self.memory.commit(on)

    def wait(self, operands: list[str], on: Array) -> None:
        self.memory.wait(on, int(operands[0]))

    def address(self, operand: str, on: Array) -> Array:
        found = ADDRESS.fullmatch(operand)
        if found is None:
            raise UnknownPtx(f"the address {operand}")
        wide = found[1] in self.values and self.values[found[1]].dtype == np.uint64
        begin = self.read(found[1], "s64" if wide else "u32", on).astype(np.int64) + int(found[2] or 0)
        self.must_be_certain(on)
        return begin

    def barrier(self, operands: list[str], on: Array) -> None:
        self.all_there(on)
        self.memory.barrier()

    def barrier_of_warp(self, operands: list[str], on: Array) -> None:
        self.all_there(on)
        self.memory.barrier_of_warp()

    def exchange(self, way: str, operands: list[str], on: Array) -> None:
        """shfl of whole warps."""
        target, source, lanes, _, _ = operands
        self.all_there(on)
        lane, other = self.thread % WARP, self.read(lanes, "u32", on) % WARP
        other = lane ^ other if way == "bfly" else other
        self.must_be_certain(on)
        there = self.thread - lane + other
        bits = self.read(source, "b32", on)[there]
        self.certain = self.certain[there]
        self.write(target, bits, "b32", on)

    def reduce(self, operands: list[str], on: Array) -> None:
        """redux: the sum of a warp's numbers, in each of its lanes."""
        target, source, members = operands
        self.all_there(on)
        if (self.read(members, "s32", on) != -1).any():
            raise UnknownPtx("redux among a part of a warp")
        sums = self.read(source, "s32", on).reshape(-1, WARP).sum(1, dtype=np.int32)
        self.must_be_certain(on)
        self.write(target, np.repeat(sums, WARP), "s32", on)


def handler(opcode: str, operands: list[str]) -> Callable[[Block, list[str], Array], None] | None:
    """What runs an instruction; None: it is unknown."""
    if opcode in ("mov.b32", "mov.b64") and any(each[0] == "{" for each in operands):
        return lambda block, *rest: block.pack(opcode[4:], *rest)
    if operation := OPERATIONS.get(opcode):
        if len(operands) == 1 + len(operation.sources):
            return lambda block, *rest: block.compute(operation, *rest)
    if found := HALVES.fullmatch(opcode):
        word, kind = found.groups()
        return lambda block, *rest: block.compare_halves(word, kind, *rest)
    if found := re.fullmatch(r"ld\.param\.([bus](?:8|16|32|64)|f32|f64)", opcode):
        kind = found[1]
        return lambda block, *rest: block.load_argument(kind, *rest)
    if (found := ACCESS.fullmatch(opcode)) and max(len(names(each)) for each in operands) == int(found[3] or 1):
        store, space, count, kind = found[1] == "st", found[2], int(found[3] or 1), found[4]
        return lambda block, *rest: block.access(store, space, count, kind, *rest)
    if (found := MATRICES.fullmatch(opcode)) and max(len(names(each)) for each in operands) == int(found[2]):
        store = found[1] == "st"
        return lambda block, *rest: block.matrices(store, *rest)
    if (found := re.fullmatch(r"shfl\.sync\.(bfly|idx)\.b32", opcode)) and operands[3:] == ["31", "-1"]:
        way = found[1]
        return lambda block, *rest: block.exchange(way, *rest)
    if (opcode, operands) == ("bar.sync", ["0"]):
        return Block.barrier
    if (opcode, operands) == ("bar.warp.sync", ["-1"]):
        return Block.barrier_of_warp
    if (found := re.fullmatch(r"cp\.async\.c([ag])\.shared\.global", opcode)) and len(operands) in (3, 4):
        width = int(operands[2], 0)
        if width in ((4, 8, 16) if found[1] == "a" else (16,)) and not operands[-1].startswith("%p"):
            return lambda block, *rest: block.copy(width, *rest)
    if (opcode, operands) == ("cp.async.commit_group", []):
        return Block.commit
    if opcode == "cp.async.wait_group" and len(operands) == 1 and operands[0].isdigit():
        return Block.wait
    if opcode == "redux.sync.add.s32":
        return Block.reduce
    return Block.branch if opcode in ("bra", "bra.uni", "ret") else None
