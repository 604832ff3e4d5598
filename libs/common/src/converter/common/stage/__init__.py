"""The stage runner: all that the stages share. A stage itself is data (`StageSpec`) plus a converter.

`policy` decides, `runner` acts on a message, `attempt` does one attempt's work or finds it done in the `cache`, `live`
tells how it goes, and `entry` is what a stage's `__main__` calls.
"""
