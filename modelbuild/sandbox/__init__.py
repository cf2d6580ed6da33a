"""Where a stage runs, and what this machine can do.

isolation.py               the protocol that every isolation level follows
bubblewrap.py              `full`: namespaces
unconfined.py, view.py     `none`: links in the places of what namespaces would mount
namespaces.py, devices.py  what `full` needs of the system, and what is kept from root's stages
host_system.py, synthetic_files.py
                           what a stage sees of the system
supervise.py, connection.py, terminal.py, processors.py
                           the stage's process: its output, its terminal, its processors
shipped_runtime.py         the bootstraps that start a stage inside
gpus.py, lease.py          the GPUs, and who has which
machine.py, doctor.py      the machine: can it build a recipe, and what could be mended
explain.py, ranks.py       which line of the recipe would have helped a failed stage; which of
                           its processes failed
"""
