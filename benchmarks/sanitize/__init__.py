"""The C++ kernels of the CPU under AddressSanitizer and UndefinedBehaviorSanitizer, called with drawn arguments.

    python -m benchmarks.sanitize                     8,000 cases; a case is its number, the same each time
    python -m benchmarks.sanitize --first 4711 --count 1

Python itself is not instrumented: libasan is loaded first (LD_PRELOAD), so that the memory of every tensor has its
guards, and leaks are not looked for, as Python has many at its end.
"""
