"""Tidies up what nobody else will: jobs past their time, and what processes that died have left in storage.

`rules` decides from a job's state alone; `sweep` goes through the index and the storage and does it, in one gateway at
a time. Objects of a job go only once its last event says that it is deleted; of a job that has ended, those attempts go
that never counted. A job that is active is not touched.
"""
