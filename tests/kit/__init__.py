"""What the tests share.

In memory: `parts` (a job, a clock, an engine, a worker and its TLS line), `states`, `journal`, `relay`,
and `model` with its worlds for random schedules. With real processes: `workers` (a small coordinator
and its workers, forked by `nursery`), `small_job`, `local` (the local engine), `film` (S3 and a job
that joins frames), `faults` and `survival` (fault schedules), `install` (wheels and venvs), `elves` and
`encoders` (programs).
"""
