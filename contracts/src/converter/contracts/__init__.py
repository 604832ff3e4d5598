"""What the services say to each other, and what subscribers in any language may rely on.

`job` is the record of a job, `facts` are the things that happen to it, `messages` says how an event travels and
`subjects` where it is published, `live` is what is told while a stage runs,
`failures` lists every code a failed job can carry.
"""
