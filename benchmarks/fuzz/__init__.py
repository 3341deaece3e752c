"""Damaged and hostile files through what the commands read, thousands of them.

    python -m benchmarks.fuzz --count 10000 --seed 0          all kinds; the same command goes on where it was stopped
    python -m benchmarks.fuzz --kind weights --count 500      one kind
    python -m benchmarks.fuzz --kind weights --only 17 --keep FOLDER      one input, kept, with all that is said of it

Each input is a small valid file, written by `kinds_*.py`, that `mutations.py` changes by a seed; it goes through the
function that a command calls for it, wrapped as the command wraps it. It passes if it is read and used, or ends in one
line that names the file; it fails by a traceback, a signal, 10 s of processor time, 1 GB of memory, code that runs,
or a file that is written outside its folder (`watch.py`). Inputs run in forked processes, many one after the other
(`batches.py`); whatever fails runs once more alone, and is a fault too if it passes there. What was done at another
commit is done again.

hypothesis draws structures and shrinks them, but keeps no valid files to mutate, and atheris instruments Python code,
which says little where the bytes are read by C: seeds and a few mutations a format find the same in less time.
"""
