"""A campaign: commands are killed at random moments, gone on with, and must end as if nothing had happened.

    python -m benchmarks.campaign                    all that is missing: 1,000 runs, 300 of prepare, 200 of a study
    python -m benchmarks.campaign --kinds runs --count 100 --jobs 2
    python -m benchmarks.campaign --kinds runs --only 137      one case again, with all that it does

Each case is drawn from its kind and number alone: what runs, when it is killed, how often, and what else goes wrong (a
full disk, a folder that is read only, a damaged checkpoint, a power cut). What is done stands in
benchmarks/results/campaign/<kind>.jsonl and is not done again unless it lost something; README.md beside it has the
counts. Exit status 1 where any of the cases lost something the last time that it was done, in whichever call that was.

    cases.py    what a case is            trial.py     a case from its first process to the comparison
    inside.py   what a process tells      life.py      one process from its start to its end or its kill
    trouble.py  full disks, damage        power.py     power cuts
    runs.py, prepare.py, study.py         the three kinds: what is run, how often it is killed, what is compared
"""
