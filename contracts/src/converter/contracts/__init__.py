"""What the services say to each other, and what subscribers in any language may rely on.

`job` is the record of a job, `facts` are the things that happen to it, `subjects` says where they are published,
`failures` lists every code a failed job can carry.
"""
